"""The operations that are measured: the product's own stages, alone or all together.

``end_to_end`` is a whole run, as ``classify-parallel`` makes it. The others take from a
:class:`Spool` what the stage before would have given them: ``extract`` and ``classify`` use the
same isolated worker processes (or ask the same LLM) without a ledger, ``store`` the same ledger
without workers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from doc_classify.benchmark.observed import ObservedStore
from doc_classify.benchmark.sampling import Observation
from doc_classify.benchmark.setting import ending_of
from doc_classify.benchmark.spool import Spool, Spooled
from doc_classify.benchmark.tally import Tally
from doc_classify.classification.llm import LlmClassifier
from doc_classify.discovery import walk
from doc_classify.errors import TimeLimitError, WorkerCrashError
from doc_classify.pipeline.asking import Asking, End, ReadDocument
from doc_classify.pipeline.isolation import Death, IsolatedWorker
from doc_classify.pipeline.messages import Reply, WorkerConfig
from doc_classify.pipeline.plan import Plan
from doc_classify.pipeline.run import Run
from doc_classify.records import Outcome, Timings
from doc_classify.storage.base import Hashed, Task

_REGISTERED_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Bench:
    """What all passes share.

    Attributes:
        folder: the documents.
        plan: how they are classified, with the number of workers to measure.
        llm: to be asked, opened; None where the workers classify.
        spool: what an earlier pass kept; None where only ``end_to_end`` is measured.
        database: gives the address of the database for a pass: mostly of a new one.
        on_notice: called with what an LLM is waited for.
    """

    folder: Path
    recursive: bool
    plan: Plan
    llm: LlmClassifier | None
    spool: Spool | None
    database: Callable[[], str]
    on_notice: Callable[[str | None], None] = lambda _notice: None

    @property
    def documents(self) -> Spool:
        """The spool, which must be there."""
        assert self.spool is not None  # noqa: S101 (made wherever it is needed)
        return self.spool


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass: how it was looked at, what was counted, and how long the workers took to start."""

    seen: Observation
    tally: Tally
    start: float


async def end_to_end(
    bench: Bench,
    keep: Callable[[Task, Outcome], None] | None = None,
) -> Pass:
    """A run from the first file to the last row; ``keep`` gets every document."""
    start = await _starting(bench.plan)
    model = bench.llm.model if bench.llm else None
    tally = Tally(extracts=True, classifies=True, llm=model)
    store = ObservedStore(bench.database(), tally, keep)
    try:
        run = Run(store, bench.plan, classifier=bench.llm, on_notice=bench.on_notice)
        entries = walk(bench.folder, recursive=bench.recursive)
        with Observation() as seen:
            await run.execute(entries, "benchmark", "benchmark")
    finally:
        store.close()
    return Pass(seen, tally, start)


async def extract(bench: Bench) -> Pass:
    """Tell the type of every document and read it."""
    config = replace(bench.plan.worker_config(), classifier=None)
    tally = Tally(extracts=True, classifies=False)
    with Observation() as seen:
        start = await _through_workers(bench, config, bench.documents.documents(), tally)
    return Pass(seen, tally, start)


async def classify(bench: Bench) -> Pass:
    """Put documents whose text is known into categories."""
    if bench.llm:
        return await _ask(bench, bench.llm)
    tally = Tally(extracts=False, classifies=True)
    with Observation() as seen:
        texts = bench.documents.texts()
        start = await _through_workers(bench, bench.plan.worker_config(), texts, tally)
    return Pass(seen, tally, start)


async def store(bench: Bench) -> Pass:
    """Register every document, and record what came of it; one thread, as in every run."""
    tally = Tally(extracts=False, classifies=False)
    ledger = ObservedStore(bench.database(), tally)
    try:
        with Observation() as seen:
            await asyncio.to_thread(_replay, ledger, bench)
    finally:
        ledger.close()
    return Pass(seen, tally, 0.0)


def _replay(ledger: ObservedStore, bench: Bench) -> None:
    plan = bench.plan
    started = time.monotonic()
    run_id = ledger.start_run(plan.spec("benchmark", "benchmark"))
    documents = bench.documents.documents()
    while batch := list(islice(documents, _REGISTERED_AT_ONCE)):
        hashed = [Hashed(one.request.source, one.sha256) for one in batch]
        tasks = {task.source.uri: task for task in ledger.register(run_id, hashed).tasks}
        outcomes = [
            _outcome(tasks[one.request.source.uri], one.reply)
            for one in batch
            if one.request.source.uri in tasks
        ]
        for first in range(0, len(outcomes), plan.batch_size):
            part = outcomes[first : first + plan.batch_size]
            ledger.record(run_id, part, seconds=time.monotonic() - started)
    ledger.finish_run(run_id, "finished", time.monotonic() - started)


def _outcome(task: Task, reply: Reply) -> Outcome:
    return Outcome(
        document_id=task.document_id,
        file_id=task.file_id,
        classification=reply.classification,
        failure=reply.failure,
        extraction=reply.extraction,
        timings=reply.timings,
    )


async def _through_workers(
    bench: Bench, config: WorkerConfig, documents: Iterator[Spooled], tally: Tally
) -> float:
    """Have worker processes answer for all documents; returns the seconds until they were ready."""
    plan = bench.plan

    async def serve(worker: IsolatedWorker) -> None:
        while chunk := list(islice(documents, plan.chunk_size)):
            while chunk:
                requests = [one.request for one in chunk]
                done, since = 0, time.perf_counter()
                async with aclosing(worker.answer(requests)) as answers:
                    async for index, answer in answers:
                        done = index + 1
                        now = time.perf_counter()
                        _count(tally, chunk[index], answer, now - since)
                        since = now
                chunk = chunk[done:]  # after a death the rest was not looked at

    async with _workers(plan, config) as (workers, start):
        await _all(serve(worker) for worker in workers)
    return start


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of it at a time; the first error ends the rest and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


@asynccontextmanager
async def _workers(
    plan: Plan, config: WorkerConfig
) -> AsyncIterator[tuple[list[IsolatedWorker], float]]:
    """Worker processes, ready, and the seconds that this took."""
    after = plan.recycle_after
    workers = [IsolatedWorker(config, recycle_after=after) for _ in range(plan.workers)]
    started = time.perf_counter()
    try:
        await _all(_start(worker) for worker in workers)
        yield workers, time.perf_counter() - started
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers))


async def _start(worker: IsolatedWorker) -> None:
    async for _ in worker.answer(()):
        pass


async def _starting(plan: Plan) -> float:
    async with _workers(plan, plan.worker_config()) as (_, seconds):
        return seconds


def _count(tally: Tally, document: Spooled, answer: Reply | Death, busy: float) -> None:
    """Count an answer; ``busy`` is how long the worker had been at it, should it have died."""
    source = document.request.source
    pages, ocr_pages = document.pages
    failure: str | None
    if isinstance(answer, Death):
        timings, pages, ocr_pages = Timings(busy=busy), 0, 0
        failure = TimeLimitError.kind if answer.timed_out else WorkerCrashError.kind
    else:
        timings = answer.timings
        failure = answer.failure.kind if answer.failure else None
        if answer.extraction:
            pages, ocr_pages = len(answer.extraction.pages), answer.extraction.ocr_pages
    tally.document(
        ending=ending_of(source.uri),
        size=source.size,
        timings=timings,
        pages=pages,
        ocr_pages=ocr_pages,
        failure=failure,
    )


async def _ask(bench: Bench, llm: LlmClassifier) -> Pass:
    """Ask the LLM about every text, as many at a time as its server makes use of."""
    plan = bench.plan
    tally = Tally(extracts=False, classifies=True, llm=llm.model)
    queue: asyncio.Queue[ReadDocument | End] = asyncio.Queue(plan.max_concurrent)
    asking = Asking(
        llm,
        maximum=plan.max_concurrent,
        give_up=plan.give_up,
        budget=plan.budget(),
        on_notice=bench.on_notice,
    )
    waiting: dict[int, Spooled] = {}

    async def feed() -> None:
        for number, one in enumerate(bench.documents.texts()):
            read = one.reply.extraction
            assert read is not None  # noqa: S101 (texts() yields no other)
            waiting[number] = one
            task = Task(document_id=number, file_id=number, source=one.request.source)
            await queue.put(ReadDocument(task, read, False, Timings(), 0))
        await queue.put(End())

    async def put(outcome: Outcome) -> None:
        one = waiting.pop(outcome.document_id)
        pages, ocr_pages = one.pages
        tally.document(
            ending=ending_of(one.request.source.uri),
            size=one.request.source.size,
            timings=outcome.timings,
            pages=pages,
            ocr_pages=ocr_pages,
            failure=outcome.failure.kind if outcome.failure else None,
            usage=outcome.usage,
        )

    with Observation() as seen:
        await _all((feed(), asking.run(queue, put)))
    return Pass(seen, tally, 0.0)
