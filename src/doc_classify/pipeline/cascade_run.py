"""A run of a cascade on this machine: list, draw, ask, learn, certify, and then the rest.

::

    list everything -> lots -> (draw -> ask the LLM -> learn or calibrate) ... -> the rest
                               as often as the engine says (..cascade)           student or LLM

Every decision is stored with its lot before it is acted on, and every answer with its sample, so
that the next run goes on where this one was killed, with the same sample and the same student.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from doc_classify.classification.llm import LlmClassifier
from doc_classify.errors import ConfigurationError, StorageError
from doc_classify.pipeline.copies import Copies
from doc_classify.pipeline.equipment import Equipment
from doc_classify.pipeline.intake import Entry, Intake
from doc_classify.pipeline.lot_work import LotWork
from doc_classify.pipeline.plan import Plan
from doc_classify.pipeline.run import how_it_ended
from doc_classify.pipeline.stages import STOPPED
from doc_classify.records import RunStats
from doc_classify.storage.base import RunSpec, Store
from doc_classify.storage.lots import Lot, LotLedger
from doc_classify.storage.store import SqlStore


class CascadeRun:
    """Takes entries of a discovery through a cascade into a store, as a run of their own.

    Args:
        store: where everything is kept.
        plan: how to classify; of a cascade.
        classifier: the LLM that teaches, opened.
        on_progress: called in the event loop with the stats as committed.
        on_notice: called in the event loop with what the run waits for, None when it is over.
        on_stage: called in the event loop with what is done next, for a person.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        *,
        classifier: LlmClassifier,
        on_progress: Callable[[RunStats], None] | None = None,
        on_notice: Callable[[str | None], None] | None = None,
        on_stage: Callable[[str], None] | None = None,
    ) -> None:
        if not isinstance(store, SqlStore):
            raise ConfigurationError("a cascade needs a ledger in a SQL database")
        self._store = store
        self._plan = plan
        self._on_progress = on_progress or (lambda _stats: None)
        self._on_stage = on_stage or (lambda _text: None)
        self._equipment = Equipment(plan, classifier, on_notice)
        self._began = time.monotonic()
        self.stats = RunStats()

    async def execute(self, entries: Iterable[Entry], source: str, door: str) -> RunStats:
        """Process everything; returns the final stats, which are stored with the run.

        Raises:
            HopelessError: the student saves nothing, and the run is to stop then.
            StorageError, WorkerStartError, ServerSetupError, BudgetReachedError: as of any run.
        """
        equipment = self._equipment
        error: BaseException | None = None
        spec = self._plan.spec(source, door)
        try:
            run_id = await equipment.in_store(lambda: self._store.start_run(spec))
            self.stats = RunStats(run_id=run_id)
            try:
                await self._list(run_id, entries)
                await self._work(run_id, spec)
            except BaseException as found:
                error = found
                raise
            finally:
                await asyncio.shield(self._close(run_id, error))
        finally:
            # Also where the store has failed, so that nothing was closed in order.
            await asyncio.shield(equipment.close_workers())
            equipment.shut()
        return self.stats

    async def _list(self, run_id: str, entries: Iterable[Entry]) -> None:
        """Hash and register everything, before anything is decided about any of it."""
        self._on_stage("listing everything first, for the sample is drawn from all of it")
        listing = list_only(self._store, self._equipment, run_id, entries, stats=self.stats)
        async for stats in listing:
            self._progressed(stats)

    async def _work(self, run_id: str, spec: RunSpec) -> None:
        equipment = self._equipment
        with tempfile.TemporaryDirectory(prefix="doc-classify-student-") as folder:
            jobs = CascadeJobs(
                self._store,
                equipment,
                run_id,
                spec,
                Path(folder),
                self._on_stage,
                stats=self.stats,
                elapsed=self._elapsed,
                on_progress=self._progressed,
            )
            lots = await jobs.lots()
            if self._plan.max_calls is not None and equipment.asking:
                # The limit is one of the work, however many runs it takes.
                equipment.asking.count_as_spent(sum(lot.calls for lot in lots))
            for lot in lots:
                await jobs.work_on(lot).do()

    async def _close(self, run_id: str, error: BaseException | None) -> None:
        equipment = self._equipment
        await equipment.close_workers()
        state, message = how_it_ended(error)
        try:
            stats = await equipment.in_store(
                lambda: self._store.finish_run(
                    run_id, state, self._elapsed(), message, equipment.spent
                )
            )
        except StorageError:
            if error is None or isinstance(error, STOPPED):
                raise
            return  # the error that stopped the work is the one to report
        stats.workers = self._plan.workers
        self._progressed(stats)

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _progressed(self, stats: RunStats) -> None:
        self.stats = stats
        self._on_progress(stats)


class CascadeJobs:
    """What there is to do for the lots of a run, in whatever process.

    Args:
        store: the ledger.
        equipment: to work with, of the same plan as the run.
        run_id: the run.
        spec: of the run.
        folder: where students are laid for worker processes.
        on_stage: called with what is done next, for a person.
        stats: of the run, so far.
        elapsed: seconds since the run was begun.
        on_progress: called with the stats as committed.
    """

    def __init__(
        self,
        store: SqlStore,
        equipment: Equipment,
        run_id: str,
        spec: RunSpec,
        folder: Path,
        on_stage: Callable[[str], None],
        *,
        stats: RunStats | None = None,
        elapsed: Callable[[], float] = lambda: 0.0,
        on_progress: Callable[[RunStats], None] = lambda _stats: None,
    ) -> None:
        self._store = store
        self._ledger = LotLedger(store)
        self._equipment = equipment
        self._run_id = run_id
        self._spec = spec
        self._folder = folder
        self._on_stage = on_stage
        self._stats = stats or RunStats(run_id=run_id)
        self._elapsed = elapsed
        self._on_progress = on_progress

    async def lots(self) -> list[Lot]:
        """The lots of the run: unfinished ones that it goes on with, and one of all the rest."""

        def work() -> list[Lot]:
            lots = self._ledger.unfinished(self._run_id, self._spec)
            new = self._ledger.make(self._run_id, self._spec, lots)
            return [*lots, *([new] if new else [])]

        return await self._equipment.in_store(work)

    def work_on(self, lot: Lot) -> LotWork:
        """What does the work on one of them."""
        return LotWork(
            self._store,
            self._ledger,
            self._equipment,
            self._run_id,
            self._spec,
            lot,
            self._folder,
            stats=self._stats,
            elapsed=self._elapsed,
            on_progress=self._on_progress,
            on_stage=self._on_stage,
        )

    async def sample(self, size: int) -> list[tuple[int, ...]]:
        """Certify every lot; returns what is left to decide, in parts of about ``size``."""
        parts: list[tuple[int, ...]] = []
        for lot in await self.lots():
            await self.work_on(lot).certify()
            parts += await self._equipment.in_store(
                lambda lot=lot: self._ledger.parts(self._run_id, lot.id, size)  # type: ignore[misc]
            )
        return parts

    async def rest(self, part: tuple[int, ...]) -> None:
        """Decide about one of these parts."""
        lot_id, after, to = part
        lot = await self._equipment.in_store(lambda: self._ledger.lot(lot_id))
        await self.work_on(lot).rest((after, to))

    async def settle(self) -> None:
        """Close the lots, when all parts are done."""
        for lot in await self._equipment.in_store(lambda: self._ledger.open_lots(self._run_id)):
            await self.work_on(lot).settle()


async def list_only(
    store: Store,
    equipment: Equipment,
    run_id: str,
    entries: Iterable[Entry],
    *,
    stats: RunStats | None = None,
    again: bool = False,
) -> AsyncIterator[RunStats]:
    """Hash and register entries; yields the stats of the run after each batch."""
    found = stats or RunStats(run_id=run_id)
    stopping = threading.Event()
    copies = Copies(stopping)
    intake = Intake(
        store,
        equipment,
        run_id,
        lambda: found,
        copies=copies,
        stopping=stopping,
        again=again,
        only_listed=True,
    )
    try:
        async for _ in intake.tasks(iter(entries)):
            yield found
    finally:
        stopping.set()
        copies.close()
