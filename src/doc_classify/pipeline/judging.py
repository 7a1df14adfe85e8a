"""Between the student's word and the LLM: who decides about a document of a lot."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from doc_classify.errors import ServerError, may_be_read_later
from doc_classify.pipeline.asking import ReadDocument
from doc_classify.pipeline.equipment import Equipment
from doc_classify.records import (
    STUDENT,
    Classification,
    Extraction,
    Failure,
    Outcome,
    RunStats,
)
from doc_classify.storage.base import RunSpec
from doc_classify.storage.lots import Lot, LotLedger

if TYPE_CHECKING:
    from doc_classify.classification.cascade import Decision

_BLANK = re.compile(r"\s+")
_MOST_TWINS, _RECENT = 50, 1_000
"""Documents that wait for one answer, and answers that may not be stored yet."""


class LotJudge:
    """The judge of the documents of a lot.

    A document that the student is sure enough of is the student's. Of the others, whose text the
    LLM has seen before gets the answer of then; about the rest the LLM is asked.

    Args:
        ledger: where everything is kept.
        equipment: to talk to the store with.
        spec: of the run.
        lot: the documents.
        elapsed: seconds since the run was begun.
        decision: what the student may decide; None: nothing, these are a sample.

        is_sample: they are.
        is_last: of a sample, what could not be read this time is not tried again.

    Attributes:
        held: outcomes of a sample that were kept back, since the server failed over them, or they
            could not be read just now: a sample is only one when all of it is there.
    """

    def __init__(
        self,
        ledger: LotLedger,
        equipment: Equipment,
        run_id: str,
        spec: RunSpec,
        lot: Lot,
        elapsed: Callable[[], float],
        decision: Decision | None = None,
        *,
        is_sample: bool = False,
        is_last: bool = False,
    ) -> None:
        self._ledger = ledger
        self._equipment = equipment
        self._run_id = run_id
        self._spec = spec
        self._lot = lot
        self._elapsed = elapsed
        self._decision = decision
        self._is_sample = is_sample
        self._is_last = is_last
        self._digests: dict[int, bytes] = {}
        self._twins: dict[bytes, list[ReadDocument]] = {}
        self._recent: dict[bytes, Classification] = {}
        self.held = 0

    async def before(
        self, read: ReadDocument, found: Classification | None
    ) -> Sequence[Outcome] | None:
        """See :class:`.stages.Judge`."""
        task = read.task
        sure = self._decision and found and self._decision.accepts(found.score)
        if found and sure and not task.llm_only:
            return [outcome_of(read, found, STUDENT)]
        if task.answer:
            return [outcome_of(read, task.answer, self._spec.teacher)]
        digest = text_digest(read.extraction)
        twins = self._twins.get(digest)
        if twins is not None and len(twins) < _MOST_TWINS:
            twins.append(read)  # the same text is being asked about: its answer is theirs, too
            return []
        said = self._recent.get(digest) or await self._equipment.in_store(
            lambda: self._ledger.answer_to(self._run_id, self._spec, digest)
        )
        if said:
            return [outcome_of(read, said, self._spec.teacher)]
        self._digests[task.document_id] = digest
        self._twins.setdefault(digest, [])
        return None

    async def after(self, outcome: Outcome) -> Sequence[Outcome]:
        """See :class:`.stages.Judge`."""
        digest = self._digests.pop(outcome.document_id, None)
        twins = self._twins.pop(digest, []) if digest else []
        if self._is_sample and outcome.failure and self._may_pass(outcome.failure.kind):
            self.held += 1 + len(twins)
            return []
        if digest is None:
            return [outcome]
        if outcome.classification:
            self._recent[digest] = outcome.classification
            if len(self._recent) > _RECENT:
                self._recent.pop(next(iter(self._recent)))
        found = outcome.classification or outcome.failure
        return [
            replace(outcome, text_digest=digest),
            *(outcome_of(twin, found, self._spec.teacher) for twin in twins if found),
        ]

    def _may_pass(self, kind: str) -> bool:
        return kind == ServerError.kind or (not self._is_last and may_be_read_later(kind))

    async def record(self, outcomes: Sequence[Outcome], seconds: float) -> RunStats:
        """See :class:`.stages.Judge`; ``seconds`` of the stages alone are of no interest."""
        return await self._equipment.in_store(
            lambda: self._ledger.record(
                self._run_id,
                self._lot.id,
                self._spec,
                outcomes,
                self._elapsed(),
                keep_text=self._is_sample,
            )
        )


class ScoringJudge:
    """Stores what the student says of every document, and decides nothing.

    What cannot be read is a failure all the same.
    """

    def __init__(
        self,
        ledger: LotLedger,
        equipment: Equipment,
        run_id: str,
        spec: RunSpec,
        lot: Lot,
        elapsed: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._equipment = equipment
        self._run_id = run_id
        self._spec = spec
        self._lot = lot
        self._elapsed = elapsed

    async def before(
        self, read: ReadDocument, found: Classification | None
    ) -> Sequence[Outcome] | None:
        """See :class:`.stages.Judge`."""
        return [outcome_of(read, found, STUDENT)] if found else []

    async def after(self, outcome: Outcome) -> Sequence[Outcome]:
        """See :class:`.stages.Judge`."""
        return [outcome]

    async def record(self, outcomes: Sequence[Outcome], seconds: float) -> RunStats:
        """See :class:`.stages.Judge`."""
        return await self._equipment.in_store(
            lambda: self._ledger.record_scores(
                self._run_id, self._lot.id, self._spec, outcomes, self._elapsed()
            )
        )


def outcome_of(read: ReadDocument, found: Classification | Failure, decided_by: str) -> Outcome:
    """The outcome of a document that no LLM was asked about."""
    return Outcome(
        document_id=read.task.document_id,
        file_id=read.task.file_id,
        classification=found if isinstance(found, Classification) else None,
        failure=found if isinstance(found, Failure) else None,
        extraction=read.extraction if read.fresh else None,
        timings=read.timings,
        crashes=read.crashes,
        decided_by=decided_by,
    )


def text_digest(extraction: Extraction) -> bytes:
    """16 bytes that texts share which differ in blanks and letter case alone."""
    text = _BLANK.sub(" ", extraction.text).strip().casefold()
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
