"""What is done about one lot of a cascade, step by step, each step stored before the next.

The journal of a lot is the list of its steps: ``train`` (draw, ask, learn) and ``calibrate`` (draw,
ask, compare), each with the number of its draw, and how it ended. What the next step is, the
engine says from the journal and the stored sample alone (:func:`..cascade.next_step`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doc_classify.classification import ClassifierInput, cascade
from doc_classify.classification.student import StudentClassifier
from doc_classify.errors import ConfigurationError, HopelessError
from doc_classify.pipeline import teaching
from doc_classify.pipeline.equipment import Equipment
from doc_classify.pipeline.lot_journal import described, history, summary_of
from doc_classify.pipeline.lot_stages import LotStages
from doc_classify.records import RunStats
from doc_classify.storage.base import RunSpec, Store
from doc_classify.storage.lot_rows import CALIBRATE, POOL, TRAIN
from doc_classify.storage.lots import FINISHED, Lot, LotLedger

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

REPEATED = 100
"""Documents that the LLM is asked about twice, to see how consistent it is."""
_REPEATED_SHARE = 0.05
"""The same of small lots, and where few may be asked about, as a share of those."""


class LotWork:
    """Works on one lot until all that the run has of it is decided.

    Args:
        store: the ledger.
        ledger: the same, of lots.
        equipment: to work with.
        run_id: the run.
        spec: of the run.
        lot: as it is stored.
        folder: where the student is laid for the worker processes.
        stats: of the run, so far.
        elapsed: seconds since the run was begun.
        on_progress: called with the stats as committed.
        on_stage: called with what is done next, for a person.
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
        on_stage: Callable[[str], None],
    ) -> None:
        if equipment.plan.promise is None:
            raise ConfigurationError("a cascade needs a promise")
        self._ledger = ledger
        self._samples = ledger.samples
        self._equipment = equipment
        self._plan = equipment.plan
        self._run_id = run_id
        self._spec = spec
        self._lot = lot
        self._say = on_stage
        self._stages = LotStages(
            store,
            ledger,
            equipment,
            run_id,
            spec,
            lot,
            folder,
            stats=stats,
            elapsed=elapsed,
            on_progress=on_progress,
        )
        self._journal: dict[str, Any] = {"steps": []} | lot.journal
        self._revision = lot.revision
        budget = self._plan.max_calls
        most = lot.population if budget is None else min(budget, lot.population)
        self._repeated = min(REPEATED, int(_REPEATED_SHARE * most))
        if budget is not None:
            # What the LLM has answered before costs nothing, but is counted as asked about.
            budget += lot.known - self._repeated
        self._terms = cascade.Lot(
            population=lot.population,
            categories=len(self._plan.taxonomy.names),
            promise=equipment.plan.promise,
            max_calls=budget,
        )

    @property
    def _steps(self) -> list[dict[str, Any]]:
        steps: list[dict[str, Any]] = self._journal["steps"]
        return steps

    async def do(self) -> None:
        """Sample, certify, and decide about the rest.

        Raises:
            HopelessError: nothing is saved, and the run is to stop then.
            DocClassifyError: what ends a run; what was done is stored.
        """
        await self.certify()
        await self.rest()
        await self.settle()

    async def certify(self) -> None:
        """Draw, ask and learn until there is a certificate, or it is known that none pays.

        Raises:
            HopelessError: it does not, and the run is to stop then.
        """
        left: npt.NDArray[np.float64] | None = None
        while "certificate" not in self._journal:
            if self._steps and not self._steps[-1].get("done"):
                await self._go_on_with(self._steps[-1])
                continue
            if any(step.get("version", "") is None for step in self._steps):
                await self._give_up(
                    "one_category",
                    "the LLM names one category alone in the sample, and that leaves nothing to "
                    "learn",
                )
                return
            rounds, consistency = await self._equipment.in_store(
                lambda: history(self._samples, self._lot.id, self._steps, self._spec)
            )
            if self._needs_left and rounds and rounds[-1].calibration:
                left = await self._left()
            step = await asyncio.to_thread(
                cascade.next_step, self._terms, rounds, consistency, left
            )
            if not self._steps and isinstance(step, cascade.Train):
                await self._begin_at_all(step)
            elif isinstance(step, cascade.Train | cascade.Calibrate):
                await self._begin(step)
            elif isinstance(step, cascade.Accept):
                certificate = cascade.Certificate.of(
                    self._terms,
                    rounds,
                    step.round,
                    step.decision,
                    teacher=self._spec.teacher_fingerprint,
                    consistency=consistency,
                )
                await self._certify(certificate)
            else:
                await self._give_up(step.reason, step.message)
                return
        if found := self._certificate:
            self._say(described(found))

    @property
    def _certificate(self) -> cascade.Certificate | None:
        """The certificate of the lot; None: all to the LLM."""
        stored = self._journal.get("certificate")
        return cascade.Certificate.from_dict(stored) if stored else None

    async def _certify(self, certificate: cascade.Certificate, state: str | None = None) -> None:
        self._journal["certificate"] = certificate.to_dict()
        self._journal["summary"] = summary_of(certificate)
        await self._write(state)

    async def settle(self) -> None:
        """Close the lot, with the numbers as they have become."""

        def look() -> dict[str, int]:
            self._journal["outcome"] = self._ledger.outcome(self._lot.id, self._spec)
            return self._ledger.answered(self._lot.id, self._spec)

        answered = await self._equipment.in_store(look)
        if certificate := self._certificate:
            await self._certify(certificate.settle(answered), FINISHED)
        else:
            await self._write(FINISHED)

    async def _give_up(self, reason: str, message: str) -> None:
        self._journal["hopeless"] = {"reason": reason, "message": message}
        await self._write()
        if self._plan.stops_if_hopeless:
            raise HopelessError(f"the cascade would save nothing: {message}")
        self._say(f"the cascade saves nothing here: {message}; the LLM does it all")

    async def _begin_at_all(self, step: cascade.Train) -> None:
        """Begin with what the LLM has answered before, if that is as much as would be drawn."""
        there = await self._equipment.in_store(
            lambda: self._samples.count_examples(self._lot.id, self._spec)
        )
        if there < step.documents:
            await self._begin(step)
        else:
            self._steps.append({"kind": TRAIN, "stage": 0, "documents": 0})
            await self._write()

    @property
    def _needs_left(self) -> bool:
        return self._terms.max_calls is not None or self._terms.promise.guarantee == "student"

    async def _begin(self, step: cascade.Train | cascade.Calibrate) -> None:
        kind = TRAIN if isinstance(step, cascade.Train) else CALIBRATE
        expected = step.expected_calls
        self._steps.append(
            {
                "kind": kind,
                "stage": len(self._steps) + 1,
                "documents": step.documents,
                "pool": getattr(step, "pool", step.documents),
                "expected_calls": expected,
            }
        )
        await self._write()

    async def _go_on_with(self, step: dict[str, Any]) -> None:
        if not step["stage"]:
            await self._learn(step)
            return
        purpose = "learn from" if step["kind"] == TRAIN else "calibrate by"
        expected = step["expected_calls"]
        self._say(
            f"sample {step['stage']}: {step['documents']:,} of {self._lot.population:,} documents "
            f"to {purpose}"
            + ("" if expected is None else f"; about {expected:,} LLM answers in all expected")
        )
        await self._draw(step)
        await self._stages.ask(step["stage"])
        if step["kind"] == TRAIN:
            if step["stage"] == 1 and self._repeated:
                await self._stages.ask_again(1, self._repeated)
            await self._learn(step)
        else:
            await self._compare(step)

    async def _draw(self, step: dict[str, Any]) -> None:
        """Draw for a step; of a pool, those that the student knows least about."""
        stage, number = step["stage"], step["documents"]
        chosen = step["pool"] > number
        role = POOL if chosen else step["kind"]
        step["drawn"] = await self._equipment.in_store(
            lambda: self._samples.draw(self._lot.id, stage, role, step["pool"])
        )
        if chosen:
            await self._stages.look(
                self._samples.in_pool(self._run_id, self._lot.id, self._spec, stage),
                self._version,
            )
            await self._equipment.in_store(
                lambda: self._samples.choose(self._lot.id, stage, number)
            )

    @property
    def _version(self) -> str:
        """The version of the newest student."""
        versions = [step["version"] for step in self._steps if step.get("version")]
        return str(versions[-1])

    async def _learn(self, step: dict[str, Any]) -> None:
        def work() -> None:
            examples = self._samples.examples(self._lot.id, self._spec, teaching.MOST_EXAMPLES)
            trained = teaching.train(examples, self._plan.taxonomy)
            step["version"] = self._ledger.students.put(trained.data) if trained else None
            step["asked"] = self._samples.drawn(self._lot.id)
            for name in ("expected", "chosen"):
                found = getattr(trained, name) if trained else ()
                step[name] = [[one.score, one.agrees, one.category] for one in found]

        await self._equipment.in_store(work)
        step["done"] = True
        await self._write()

    async def _compare(self, step: dict[str, Any]) -> None:
        version = self._version
        step["done"] = True

        def work() -> None:
            student = StudentClassifier.from_bytes(self._ledger.students.get(version))
            texts = self._samples.texts(self._lot.id, self._spec, step["stage"])
            found = {
                one.document_id: student.classify(ClassifierInput.of(one.extraction, one.name))
                for one in texts
            }
            opinions = {id_: (said.category, said.score) for id_, said in found.items()}
            self._samples.scored(self._lot.id, opinions, self._revision, self._journal)
            self._revision += 1

        await self._equipment.in_store(work)

    async def _left(self) -> npt.NDArray[np.float64]:
        """The student's scores of all that was not drawn; made where they are not stored."""
        step = self._steps[-1]
        version = self._version
        if not step.get("scored"):
            if step.get("scoring") != version:
                await self._equipment.in_store(lambda: self._samples.forget_scores(self._lot.id))
                step["scoring"] = version
                await self._write()
            self._say("the student looks at everything before anything is decided")
            await self._stages.look(
                self._ledger.pending(self._run_id, self._lot.id, self._spec, unscored=True),
                version,
            )
            step["scored"] = True
            await self._write()
        return await self._equipment.in_store(lambda: self._samples.scores_left(self._lot.id))

    async def rest(self, between: tuple[int, int] = (0, 2**63 - 1)) -> None:
        """Decide about what was not drawn, of the files with ids in this range."""
        certificate = self._certificate
        await self._stages.decide(
            self._ledger.pending(self._run_id, self._lot.id, self._spec, between=between),
            certificate.looks[certificate.round].version if certificate else None,
            certificate.decision if certificate else None,
        )

    async def _write(self, state: str | None = None) -> None:
        await self._equipment.in_store(
            lambda: self._ledger.write_journal(self._lot.id, self._revision, self._journal, state)
        )
        self._revision += 1
