"""The way of documents from a discovery into a store, for a run or for a part of one.

::

    intake (thread)             workers (processes)                     recorder (thread)
    walk -> hash -> register    extract -> classify                     batches -> store
                     └── chunks ──┘   └── texts ── ask an LLM ── outcomes ──┘

Where an LLM decides, workers only extract, and the requests are sent from here (:mod:`.asking`).
Where it decides only what others cannot, a :class:`Judge` says which that is (:mod:`.cascade_run`).
All queues are bounded, so memory does not grow with the number of documents: a slow store holds
back the workers or the LLM, and busy workers hold back the walk.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from doc_classify.errors import (
    BudgetReachedError,
    StorageError,
    TimeLimitError,
    WorkerCrashError,
)
from doc_classify.pipeline.asking import End, ReadDocument
from doc_classify.pipeline.copies import Copies, in_chunks
from doc_classify.pipeline.equipment import Equipment
from doc_classify.pipeline.intake import INTAKE_BATCH, Entry, Intake
from doc_classify.pipeline.isolation import Death, IsolatedWorker
from doc_classify.pipeline.messages import Reply, Request
from doc_classify.records import (
    Classification,
    Extraction,
    Failure,
    Outcome,
    RunStats,
    Timings,
)
from doc_classify.storage.base import Store, Task

_T = TypeVar("_T")

QUARANTINE_AFTER = 3
"""A document that killed this many workers, over all runs, is not tried again unless asked."""

STOPPED = (asyncio.CancelledError, BudgetReachedError)
"""What ends the work on purpose; everything else is a failure."""

_FLUSH_SECONDS, _FLUSH_SOON = 1.0, 0.1
"""The second where each outcome may be an LLM's answer that nobody wants to ask for again."""


class Judge(Protocol):
    """Decides between what a worker has found and an LLM. Called in the event loop."""

    async def before(
        self, read: ReadDocument, found: Classification | None
    ) -> Sequence[Outcome] | None:
        """What a document that was read comes to; None where the LLM has to be asked.

        ``found`` is what the worker makes of it, None where it only reads. Nothing at all: it
        comes to something later, with another document.
        """
        ...

    async def after(self, outcome: Outcome) -> Sequence[Outcome]:
        """What is to be recorded when there is an outcome of any kind."""
        ...

    async def record(self, outcomes: Sequence[Outcome], seconds: float) -> RunStats:
        """Store outcomes, in place of :meth:`.Store.record`."""
        ...


class Stages:
    """Takes entries through all stages into a store, for one run.

    Args:
        store: where everything is kept.
        equipment: to work with.
        run_id: the run, which the store has already.
        again: an earlier attempt at these entries was broken off: what it has registered and not
            finished is done now.
        taken_in: entries that are asked for at a time; no more are until most of them are done.
        judge: who says which documents the LLM is asked about; None: about all.
        on_progress: called in the event loop with the stats as committed.
    """

    def __init__(
        self,
        store: Store,
        equipment: Equipment,
        run_id: str,
        *,
        again: bool = False,
        taken_in: int = INTAKE_BATCH,
        judge: Judge | None = None,
        on_progress: Callable[[RunStats], None] | None = None,
    ) -> None:
        plan = equipment.plan
        self._store = store
        self._equipment = equipment
        self._plan = plan
        self._judge = judge
        self._on_progress = on_progress or (lambda _stats: None)
        self._stopping = threading.Event()
        self._copies = Copies(self._stopping)
        self._chunks: asyncio.Queue[list[Task] | End] = asyncio.Queue(2 * plan.workers)
        self._texts: asyncio.Queue[ReadDocument | End] = asyncio.Queue(plan.max_concurrent)
        self._outcomes: asyncio.Queue[Outcome | End] = asyncio.Queue(4 * plan.batch_size)
        self._asking = equipment.asking
        self._started = time.monotonic()
        self._numbers = itertools.count()
        self.run_id = run_id
        self.stats = RunStats(run_id=run_id)
        self._intake = Intake(
            store,
            equipment,
            run_id,
            lambda: self.stats,
            copies=self._copies,
            stopping=self._stopping,
            again=again,
            taken_in=taken_in,
        )

    async def work(
        self,
        entries: Iterable[Entry],
        closing: Callable[[BaseException | None], Awaitable[None]] | None = None,
    ) -> None:
        """Process everything. When it ends, however it ends, what was classified is stored.

        Args:
            entries: what to process.
            closing: called at the end, when everything is stored, with the error that ended it.

        Raises:
            StorageError: the store cannot go on.
            WorkerStartError: no worker process can be started.
            ServerSetupError: the LLM server cannot be used, or did not come back.
            BudgetReachedError: nothing more may be spent on the LLM.
        """
        await self.work_on(self._intake.tasks(iter(entries)), closing)

    async def work_on(
        self,
        batches: AsyncIterable[list[Task]],
        closing: Callable[[BaseException | None], Awaitable[None]] | None = None,
    ) -> None:
        """The same for what is registered already: tasks, in batches of any size."""
        producing = asyncio.create_task(self._produce(batches))
        recording = asyncio.create_task(self._record())
        error: BaseException | None = None
        try:
            await asyncio.wait({producing, recording}, return_when=asyncio.FIRST_COMPLETED)
            if not producing.done():  # only an error ends the recorder first
                recording.result()
            await producing
        except BaseException as found:
            error = found
            raise
        finally:
            # Shielded, since a second cancellation must not lose what the workers had finished.
            await asyncio.shield(self._close(producing, recording, closing, error))
            self._copies.close()

    async def _produce(self, batches: AsyncIterable[list[Task]]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take_in(batches))
                if self._asking:
                    group.create_task(self._asking.run(self._texts, self._put))
                workers = [
                    group.create_task(self._work(worker)) for worker in self._equipment.workers
                ]
                await asyncio.wait(workers)
                if self._asking:
                    await self._texts.put(End())
        except BaseExceptionGroup as errors:
            # One cause is enough: the other tasks were cancelled because of it.
            raise errors.exceptions[0] from None

    async def _close(
        self,
        producing: asyncio.Task[None],
        recording: asyncio.Task[None],
        closing: Callable[[BaseException | None], Awaitable[None]] | None,
        error: BaseException | None,
    ) -> None:
        self._stopping.set()
        producing.cancel()
        await asyncio.wait({producing})
        # The recorder may end by an error while the queue is full: then nobody takes the end.
        ending = asyncio.create_task(self._outcomes.put(End()))
        await asyncio.wait({ending, recording}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({recording})
        ending.cancel()
        try:
            recording.result()
            if closing:
                await closing(error)
        except StorageError:
            if error is None or isinstance(error, STOPPED):
                raise  # else the error that stopped the work is the one to report

    async def _take_in(self, batches: AsyncIterable[list[Task]]) -> None:
        async for tasks in batches:
            self._on_progress(self.stats)
            for chunk in in_chunks(tasks, self._plan.chunk_size):
                await self._chunks.put(chunk)
        for _ in range(self._plan.workers):
            await self._chunks.put(End())

    # --- workers ------------------------------------------------------------------------------

    async def _work(self, worker: IsolatedWorker) -> None:
        try:
            while not isinstance(chunk := await self._chunks.get(), End):
                await self._work_on(worker, chunk)
        except BaseException:
            await worker.kill()
            raise

    async def _work_on(self, worker: IsolatedWorker, chunk: list[Task]) -> None:
        waiting = deque[Task]()
        missing = await self._copies.provide(chunk)
        for task in chunk:
            if failure := missing.get(task.document_id):
                await self._put(_failed(task, failure, crashes=task.crashes))
            elif outcome := self._decided(task):
                self._copies.drop([task.source])
                await self._put(outcome)
            elif not worker.classifies and isinstance(task.extraction, Extraction):
                stored = ReadDocument(task, task.extraction, False, Timings(), task.crashes)
                await self._to_llm(stored, None)
            else:
                waiting.append(task)
        deaths: dict[int, int] = {}
        while waiting:
            batch = list(waiting)
            since = time.monotonic()
            requests = [self._request(task) for task in batch]
            async with contextlib.aclosing(worker.answer(requests)) as answers:
                async for index, answer in answers:
                    task = batch[index]
                    died = task.crashes + deaths.get(task.document_id, 0)
                    if not isinstance(answer, Death):
                        self._copies.drop([waiting.popleft().source])
                        await self._hand_on(task, answer, died)
                        since = time.monotonic()
                        continue
                    busy = time.monotonic() - since
                    await self._in_store(
                        partial(
                            self._store.crashed,
                            self.run_id,
                            task.document_id,
                            answer.worker,
                            answer.reason,
                        )
                    )
                    deaths[task.document_id] = deaths.get(task.document_id, 0) + 1
                    # A hang will hang again; a crash may have been another's doing: once more.
                    if answer.timed_out or deaths[task.document_id] > 1:
                        self._copies.drop([waiting.popleft().source])
                        kind = TimeLimitError.kind if answer.timed_out else WorkerCrashError.kind
                        await self._put(_failed(task, Failure(kind, answer.reason), died + 1, busy))

    async def _hand_on(self, task: Task, reply: Reply, crashes: int) -> None:
        """Give a worker's answer to the LLM, where that has yet to decide, else to the recorder."""
        stored = task.extraction if isinstance(task.extraction, Extraction) else None
        extraction = reply.extraction or stored
        if self._asking and extraction:
            fresh = reply.extraction is not None
            read = ReadDocument(task, extraction, fresh, reply.timings, crashes)
            await self._to_llm(read, reply.classification)
            return
        await self._put(
            Outcome(
                document_id=task.document_id,
                file_id=task.file_id,
                classification=reply.classification,
                failure=reply.failure,
                extraction=reply.extraction,
                timings=reply.timings,
                crashes=crashes,
            )
        )

    async def _to_llm(self, read: ReadDocument, found: Classification | None) -> None:
        decided = await self._judge.before(read, found) if self._judge else None
        if decided is None:
            await self._texts.put(read)
            return
        for outcome in decided:
            await self._put(outcome)

    async def _put(self, outcome: Outcome) -> None:
        """Hand an outcome to the recorder."""
        for kept in await self._judge.after(outcome) if self._judge else [outcome]:
            await self._outcomes.put(kept)

    def _decided(self, task: Task) -> Outcome | None:
        """The outcome of a task that no worker needs to see."""
        if isinstance(task.answer, Classification):
            return Outcome(
                task.document_id, task.file_id, task.answer, decided_by=self._plan.teacher
            )
        if isinstance(task.extraction, Failure):
            return _failed(task, task.extraction, crashes=task.crashes)
        if task.crashes >= QUARANTINE_AFTER and not self._plan.force:
            reason = f"quarantined: {task.crashes} workers died on it"
            return _failed(task, Failure(WorkerCrashError.kind, reason), crashes=task.crashes)
        return None

    def _request(self, task: Task) -> Request:
        assert not isinstance(task.extraction, Failure)  # noqa: S101 (see _decided)
        copy = self._copies.of(task.source)
        return Request(next(self._numbers), task.source, task.extraction, copy)

    # --- recorder -----------------------------------------------------------------------------

    async def _record(self) -> None:
        batch: list[Outcome] = []
        ended = False
        while not ended:
            deadline = time.monotonic() + (_FLUSH_SOON if self._judge else _FLUSH_SECONDS)
            while len(batch) < self._plan.batch_size:
                try:
                    async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                        item = await self._outcomes.get()
                except TimeoutError:
                    break
                if isinstance(item, End):
                    ended = True
                    break
                batch.append(item)
            if batch:
                self.stats = await self._store_outcomes(batch)
                self._on_progress(self.stats)
                batch = []

    async def _store_outcomes(self, batch: Sequence[Outcome]) -> RunStats:
        if self._judge:
            return await self._judge.record(batch, self.elapsed())
        return await self._in_store(
            partial(self._store.record, self.run_id, batch, seconds=self.elapsed())
        )

    def elapsed(self) -> float:
        """Seconds since the work was begun."""
        return time.monotonic() - self._started

    async def _in_store(self, work: Callable[[], _T]) -> _T:
        return await self._equipment.in_store(work)


def _failed(task: Task, failure: Failure, crashes: int, busy: float = 0.0) -> Outcome:
    timings = Timings(busy=busy)
    return Outcome(
        task.document_id, task.file_id, failure=failure, timings=timings, crashes=crashes
    )
