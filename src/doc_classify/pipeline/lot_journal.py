"""What the journal and the sample of a lot say: to the engine, and to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from doc_classify.classification import cascade
from doc_classify.classification.cascade import Consistency, Judged, Round
from doc_classify.errors import may_be_read_later
from doc_classify.storage.base import RunSpec
from doc_classify.storage.lot_rows import TRAIN
from doc_classify.storage.samples import Drawn, Samples


def history(
    samples: Samples, lot_id: int, steps: Sequence[Mapping[str, Any]], spec: RunSpec
) -> tuple[list[Round], Consistency]:
    """What was done for a lot so far, as the engine takes it."""
    rounds: list[Round] = []
    for step in steps:
        if step["kind"] == TRAIN:
            expected, chosen = (
                tuple(Judged(*one) for one in step[name]) for name in ("expected", "chosen")
            )
            rounds.append(Round(step["version"], step["asked"], expected, chosen=chosen))
        else:
            sample = judged(samples.stage(lot_id, step["stage"]))
            rounds[-1] = replace(rounds[-1], calibration=sample)
    return rounds, Consistency(*samples.consistency(spec.teacher_fingerprint))


def judged(sample: Sequence[Drawn]) -> tuple[Judged, ...]:
    """The documents of a sample as the engine takes them.

    Of one that could not be read just now nobody knows what the student would have said; documents
    like it may be read by the time that the rest is decided. So it counts as the surest of all
    disagreements.
    """
    surest = max((one.score for one in sample if one.score is not None), default=0.0) + 1.0
    return tuple(_judged(one, surest) for one in sample)


def _judged(one: Drawn, surest: float) -> Judged:
    if one.failure is not None and may_be_read_later(one.failure):
        return Judged(surest, False)
    if one.failure is not None:
        # The student might still have answered it, unless nobody could read it.
        return Judged(one.score, one.unreadable, one.guess)
    return Judged(one.score, one.score is not None and one.guess == one.label, one.guess)


def summary_of(certificate: cascade.Certificate) -> dict[str, Any]:
    """What a certificate says, worked out: JSON-ready, for people and for other programs."""
    lot, decision = certificate.lot, certificate.decision
    return {
        "guarantee": lot.promise.guarantee,
        "wanted_agreement": None if lot.max_calls is not None else lot.promise.agreement,
        "assurance": lot.promise.assurance,
        "max_llm_documents": lot.max_calls,
        "certified_agreement": decision.agreement,
        "expected_agreement": decision.expected_agreement,
        "student_agreement": decision.student_agreement,
        "student": certificate.looks[certificate.round].version,
        "threshold": decision.threshold,
        "takes": decision.takes,
        "student_share": decision.student_share,
        "llm_documents": certificate.calls,
        "llm_documents_without": certificate.calls_without,
        "error_allowed": lot.promise.delta,
        "error_spent": certificate.spent,
        "asked_twice": certificate.consistency.asked,
        "differed": certificate.consistency.differed,
        "teacher_ceiling": certificate.consistency.ceiling,
        "categories": [
            {
                "category": one.category,
                "answered": one.answered,
                "drawn": one.drawn,
                "disagreed": one.disagreed,
                "certified_agreement": one.agreement,
            }
            for one in decision.statements
        ],
    }


def described(certificate: cascade.Certificate) -> str:
    """A certificate in a line, before all is decided."""
    decision = certificate.decision
    return (
        f"certified: the student (version {certificate.looks[certificate.round].version[:8]}) "
        f"answers about {decision.student_share:.0%}; agreement of at least "
        f"{decision.agreement:.1%}, {decision.expected_agreement:.1%} expected"
    )
