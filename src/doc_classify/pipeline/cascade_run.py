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
from collections.abc import Callable, Iterable
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
        self._ledger = LotLedger(store)
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
        stopping = threading.Event()
        copies = Copies(stopping)
        intake = Intake(
            self._store,
            self._equipment,
            run_id,
            lambda: self.stats,
            copies=copies,
            stopping=stopping,
            only_listed=True,
        )
        try:
            async for _ in intake.tasks(iter(entries)):
                self._progressed(self.stats)
        finally:
            stopping.set()
            copies.close()

    async def _work(self, run_id: str, spec: RunSpec) -> None:
        equipment, ledger = self._equipment, self._ledger
        lots = await equipment.in_store(lambda: ledger.unfinished(run_id, spec))
        new = await equipment.in_store(lambda: ledger.make(run_id, spec, lots))
        if self._plan.max_calls is not None and equipment.asking:
            # The limit is one of the work, however many runs it takes.
            equipment.asking.count_as_spent(sum(lot.calls for lot in lots))
        with tempfile.TemporaryDirectory(prefix="doc-classify-student-") as folder:
            for lot in [*lots, *([new] if new else [])]:
                await self._work_on(run_id, spec, lot, Path(folder))

    async def _work_on(self, run_id: str, spec: RunSpec, lot: Lot, folder: Path) -> None:
        work = LotWork(
            self._store,
            self._ledger,
            self._equipment,
            run_id,
            spec,
            lot,
            folder,
            stats=self.stats,
            elapsed=self._elapsed,
            on_progress=self._progressed,
            on_stage=self._on_stage,
        )
        await work.do()

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
