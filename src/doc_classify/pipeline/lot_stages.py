"""The documents of a lot on their way through the stages: sampled, looked at, decided."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from doc_classify.errors import ServerSetupError
from doc_classify.pipeline.asking import ReadDocument
from doc_classify.pipeline.equipment import Equipment
from doc_classify.pipeline.judging import LotJudge, ScoringJudge
from doc_classify.pipeline.stages import Judge, Stages
from doc_classify.records import Extraction, Outcome, RunStats, Timings
from doc_classify.storage.base import RunSpec, Store, Task
from doc_classify.storage.lots import Lot, LotLedger

if TYPE_CHECKING:
    from doc_classify.classification.cascade import Decision

_TRIES = 3


class LotStages:
    """Takes documents of one lot through the stages, each time with the judge that it takes.

    The arguments are those of :class:`.lot_work.LotWork`.
    """

    def __init__(
        self,
        store: Store,
        ledger: LotLedger,
        equipment: Equipment,
        run_id: str,
        spec: RunSpec,
        lot: Lot,
        folder: Path,
        *,
        stats: RunStats,
        elapsed: Callable[[], float],
        on_progress: Callable[[RunStats], None],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._samples = ledger.samples
        self._equipment = equipment
        self._plan = equipment.plan
        self._run_id = run_id
        self._spec = spec
        self._lot = lot
        self._folder = folder
        self._stats = stats
        self._elapsed = elapsed
        self._on_progress = on_progress

    async def ask(self, stage: int) -> None:
        """Ask about everything that was drawn for a stage, until all of it has its answer.

        Raises:
            ServerSetupError: the server fails over some of it again and again.
        """
        await self._equipment.employ(self._plan.worker_config())
        held = 0
        for tried in range(1, _TRIES + 1):
            judge = self._judge(None, is_sample=True, is_last=tried == _TRIES)
            await self._take(
                self._samples.unanswered(self._run_id, self._lot.id, self._spec, stage), judge
            )
            held = judge.held
            if not held:
                return
        raise ServerSetupError(
            f"the LLM server failed over {held} documents of the sample again and again, and a "
            "sample without them would promise too much; the same command goes on with it"
        )

    async def ask_again(self, stage: int, number: int) -> None:
        """Ask once more about a few that were answered, to see how consistent the LLM is."""
        asking = self._equipment.asking
        if asking is None:
            return
        tasks = await self._equipment.in_store(
            lambda: self._samples.to_repeat(self._run_id, self._lot.id, self._spec, stage, number)
        )
        read = [
            ReadDocument(task, task.extraction, False, Timings(), task.crashes)
            for task in tasks
            if isinstance(task.extraction, Extraction)
        ]

        async def store(outcome: Outcome) -> None:
            said = outcome.classification.category if outcome.classification else ""
            calls = outcome.usage.calls if outcome.usage else 0
            await self._equipment.in_store(
                lambda: self._samples.asked_again(self._lot.id, outcome.document_id, said, calls)
            )

        await asking.ask_again(read, store)

    async def look(self, batches: Iterator[list[Task]], version: str) -> None:
        """Have a student look at documents: what it says is stored, and decides nothing."""
        await self._employ_student(version)
        judge = ScoringJudge(
            self._ledger, self._equipment, self._run_id, self._spec, self._lot, self._elapsed
        )
        await self._take(batches, judge)

    async def decide(
        self, batches: Iterator[list[Task]], version: str | None, decision: Decision | None
    ) -> None:
        """Decide about documents: the student as far as it may, the LLM about the others."""
        if version is None:
            await self._equipment.employ(self._plan.worker_config())
        else:
            await self._employ_student(version)
        await self._take(batches, self._judge(decision))

    def _judge(
        self, decision: Decision | None, *, is_sample: bool = False, is_last: bool = False
    ) -> LotJudge:
        return LotJudge(
            self._ledger,
            self._equipment,
            self._run_id,
            self._spec,
            self._lot,
            self._elapsed,
            decision,
            is_sample=is_sample,
            is_last=is_last,
        )

    async def _take(self, batches: Iterator[list[Task]], judge: Judge) -> None:
        """Take tasks through the stages."""

        async def fetched() -> AsyncIterator[list[Task]]:
            while True:
                batch = await self._equipment.in_store(lambda: next(batches, None))
                if batch is None:
                    return
                yield batch

        def progressed(stats: RunStats) -> None:
            self._stats = stats
            self._on_progress(stats)

        stages = Stages(
            self._store, self._equipment, self._run_id, judge=judge, on_progress=progressed
        )
        stages.stats = self._stats
        await stages.work_on(fetched())

    async def _employ_student(self, version: str) -> None:
        path = self._folder / version

        def lay() -> None:
            if not path.exists():
                path.write_bytes(self._ledger.students.get(version))

        await self._equipment.in_store(lay)
        config = replace(self._plan.worker_config(), student=str(path))
        await self._equipment.employ(config)
