"""One run on this machine, from the first file to the last stored result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from doc_classify.classification.llm import LlmClassifier
from doc_classify.errors import BudgetReachedError
from doc_classify.pipeline.equipment import Equipment
from doc_classify.pipeline.intake import Entry
from doc_classify.pipeline.plan import Plan
from doc_classify.pipeline.stages import Stages
from doc_classify.records import RunStats
from doc_classify.storage.base import Store


class Run:
    """Takes entries of a discovery through all stages into a store, as a run of their own.

    Args:
        store: where everything is kept.
        plan: how to classify.
        classifier: the LLM to be asked, opened; None where the workers classify.
        on_progress: called in the event loop with the stats as committed.
        on_notice: called in the event loop with what the run waits for, None when it is over.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        *,
        classifier: LlmClassifier | None = None,
        on_progress: Callable[[RunStats], None] | None = None,
        on_notice: Callable[[str | None], None] | None = None,
    ) -> None:
        self._store = store
        self._plan = plan
        self._on_progress = on_progress or (lambda _stats: None)
        self._equipment = Equipment(plan, classifier, on_notice)
        self.stats = RunStats()

    async def execute(self, entries: Iterable[Entry], source: str, door: str) -> RunStats:
        """Process everything; returns the final stats, which are stored with the run.

        When cancelled, or when an error stops the run, what was classified is stored first, and
        the run is closed as ``interrupted`` or ``failed``.

        Raises:
            StorageError: the store cannot go on.
            WorkerStartError: no worker process can be started.
            ServerSetupError: the LLM server cannot be used, or did not come back.
            BudgetReachedError: nothing more may be spent on the LLM.
        """
        equipment = self._equipment
        try:
            spec = self._plan.spec(source, door)
            run_id = await equipment.in_store(lambda: self._store.start_run(spec))
            self.stats = RunStats(run_id=run_id)
            stages = Stages(self._store, equipment, run_id, on_progress=self._progressed)

            async def closing(error: BaseException | None) -> None:
                await equipment.close_workers()
                state, message = how_it_ended(error)
                stats = await equipment.in_store(
                    lambda: self._store.finish_run(
                        run_id, state, stages.elapsed(), message, equipment.spent
                    )
                )
                stats.workers = self._plan.workers
                self._progressed(stats)

            await stages.work(entries, closing)
        finally:
            # Also where the store has failed, so that nothing was closed in order.
            await asyncio.shield(equipment.close_workers())
            equipment.shut()
        return self.stats

    def _progressed(self, stats: RunStats) -> None:
        self.stats = stats
        self._on_progress(stats)


def how_it_ended(error: BaseException | None) -> tuple[str, str | None]:
    """The final state of a run, and why."""
    if error is None:
        return "finished", None
    if isinstance(error, asyncio.CancelledError):
        return "interrupted", "stopped by the user"
    state = "interrupted" if isinstance(error, BudgetReachedError) else "failed"
    return state, str(error) or type(error).__name__
