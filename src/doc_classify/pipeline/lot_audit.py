"""Auditing a lot: its certificate computed again, and held against documents drawn afresh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from doc_classify.classification import cascade
from doc_classify.classification.llm import LlmClassifier
from doc_classify.errors import ConfigurationError, ServerSetupError
from doc_classify.pipeline.equipment import Equipment
from doc_classify.pipeline.judging import LotJudge
from doc_classify.pipeline.lot_journal import judged, summary_of
from doc_classify.pipeline.plan import Plan
from doc_classify.pipeline.stages import Stages
from doc_classify.storage.base import RunInfo, Task
from doc_classify.storage.lot_rows import AUDIT, TRAIN
from doc_classify.storage.lots import Lot, LotLedger
from doc_classify.storage.rows import clean_json
from doc_classify.storage.store import SqlStore

_TRIES = 3


def faults_of(ledger: LotLedger, lot: Lot) -> list[str] | None:
    """What of a lot's certificate does not follow from its stored sample; None without one."""
    if "certificate" not in lot.journal:
        return None
    try:
        return _faults_of(ledger, lot)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return [f"the journal is damaged: {error}"]


def _faults_of(ledger: LotLedger, lot: Lot) -> list[str]:
    certificate = cascade.Certificate.from_dict(lot.journal["certificate"])
    rounds: list[tuple[Any, Any, int | None]] = []
    for step in lot.journal["steps"]:
        if step["kind"] == TRAIN:
            rounds.append((step["version"], step["asked"], None))
        else:
            rounds[-1] = (*rounds[-1][:2], step["stage"])
    looks = [(look.version, look.asked) for look in certificate.looks]
    faults = []
    if certificate.lot.population != lot.population:
        faults.append(f"the lot has {lot.population} documents, not {certificate.lot.population}")
    if looks != [one[:2] for one in rounds]:
        faults.append("its rounds are not those that were recorded step by step")
    if lot.journal["summary"] != clean_json(summary_of(certificate)):
        faults.append("the summary says something else than the certificate")
    stage = rounds[certificate.round][2]
    if stage is None:
        return [*faults, "the sample that it rests on is not there"]
    return faults + cascade.verify(certificate, judged(ledger.samples.stage(lot.id, stage)))


class LotAudit:
    """Asks the LLM about documents that the student has decided, drawn afresh.

    What the LLM says is stored as the LLM's own answer, and for the audit; the results of the run
    stay as they are.

    Args:
        store: the ledger.
        plan: as the run had it.
        classifier: the LLM that has taught, opened.
        info: the run.

    Raises:
        ConfigurationError: it is not the same LLM, or not asked in the same way.
    """

    def __init__(
        self, store: SqlStore, plan: Plan, classifier: LlmClassifier, info: RunInfo
    ) -> None:
        if plan.teacher_fingerprint != info.spec.teacher_fingerprint:
            raise ConfigurationError(
                f"run {info.run_id} was taught by another LLM, or one that was asked in another "
                f"way, than {classifier.name} with {classifier.model} is here: what that says "
                "about the run's documents proves nothing"
            )
        self._store = store
        self._ledger = LotLedger(store)
        self._info = info
        self._equipment = Equipment(plan, classifier)

    async def audit(self, lot: Lot, more: int | None) -> dict[str, Any]:
        """Draw, ask, and judge; what came of it is stored with the lot.

        An audit that was broken off is gone on with.

        Args:
            lot: one with a certificate, finished.
            more: documents to draw; None: as many as should suffice.
        """
        certificate = cascade.Certificate.from_dict(lot.journal["certificate"])
        spec, ledger = self._info.spec, self._ledger
        answered = sum(ledger.answered(lot.id, spec).values())
        journal, revision = lot.journal, lot.revision
        audits: list[dict[str, Any]] = journal.setdefault("audits", [])
        if not audits or "verdict" in audits[-1]:
            documents = more or cascade.audit_size(certificate, answered)
            stage = len(journal["steps"]) + 1 + len(audits)
            audits.append({"stage": stage, "documents": min(documents, answered)})
            ledger.write_journal(lot.id, revision, journal)
            revision += 1
        this = audits[-1]
        ledger.samples.draw(lot.id, this["stage"], AUDIT, this["documents"], decided=spec)
        await self._ask(lot, this["stage"])
        stages = [one["stage"] for one in audits]
        judged, disagreed, gone = ledger.audited(lot.id, stages, spec)
        found = cascade.audit(
            certificate,
            answered=answered - gone,
            drawn=judged,
            disagreed=disagreed,
            look=len(audits) - 1,
        )
        this |= asdict(found) | {"gone": gone}
        ledger.write_journal(lot.id, revision, journal)
        return this

    async def _ask(self, lot: Lot, stage: int) -> None:
        info = self._info
        for tried in range(1, _TRIES + 1):
            judge = LotJudge(
                self._ledger,
                self._equipment,
                info.run_id,
                info.spec,
                lot,
                lambda: info.stats.total_processing_time,
                is_sample=True,
                is_last=tried == _TRIES,
            )
            stages = Stages(self._store, self._equipment, info.run_id, judge=judge)
            batches = self._ledger.samples.unanswered(info.run_id, lot.id, info.spec, stage)

            async def fetched(batches: Any = batches) -> AsyncIterator[list[Task]]:
                while batch := await asyncio.to_thread(lambda: next(batches, None)):
                    yield batch

            await stages.work_on(fetched())
            if not judge.held:
                return
        raise ServerSetupError(
            f"the LLM server failed over {judge.held} of the documents again and again"
        )

    async def close(self) -> None:
        """End the worker processes."""
        await self._equipment.close()
