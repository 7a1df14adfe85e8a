"""What to do next: learn from more documents, calibrate, accept or give up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from doc_classify.classification.cascade.bounds import allowed
from doc_classify.classification.cascade.certifying import Decision, certify
from doc_classify.classification.cascade.planning import Curve, Plan, plan, smallest_sample
from doc_classify.classification.cascade.promise import Consistency, Lot, Round

_POOL = 4
"""Documents that are drawn for each that the student chooses. A larger pool finds harder
documents, but mostly freaks; see docs/cascade-statistics.md."""
_EXPONENT = 0.8
"""How fast a student learns before that is measured: what it cannot answer falls with this
power of the training documents."""
_WORTHWHILE = 0.98
"""Another stage has to be expected to cost less than this much of going on without."""
_HOPELESS = 0.95
"""A cascade is not worth having if it is expected to need more than this share of the calls that
are left when the tolerated disagreements are used up by a student that is always wrong."""
_BEST_CASE = 0.7
"""Nor is one that would need more than this share of the calls with a student never wrong."""
_MOST_LOOKS = 4


@dataclass(frozen=True, slots=True)
class Train:
    """Ask about more documents, train a new student on all answers, and append a round.

    Draw ``pool`` documents uniformly from those not yet asked about, in an order of this draw
    alone, let the student of the last round score them, and ask the LLM about the
    ``documents`` of lowest score: from those the next student learns most, and most of them
    would have to be asked about anyway. The rest of the pool goes back; its scores are not
    needed again. Choosing is allowed because nothing is certified with training documents.

    Attributes:
        documents: how many to ask about. 0: only train again, with the last calibration sample.
        pool: how many to draw. Equal to ``documents`` in the first round, where there is no
            student: ask about all of them.
        expected_calls: calls that the whole lot is expected to need this way; None where
            nothing is known yet.
    """

    documents: int
    pool: int
    expected_calls: int | None = None


@dataclass(frozen=True, slots=True)
class Calibrate:
    """Ask about a sample and judge the present student by it.

    Attributes:
        documents: how many to draw uniformly from those not yet asked about.
        expected_calls: calls that the whole lot is expected to need this way.
    """

    documents: int
    expected_calls: int


@dataclass(frozen=True, slots=True)
class Accept:
    """Let the student answer what the decision allows, the LLM the rest.

    Attributes:
        decision: the threshold and what it promises.
        round: index of the round whose student answers.
    """

    decision: Decision
    round: int


Reason = Literal[
    "too_few_documents",
    "no_budget",
    "teacher_inconsistent",
    "too_many_categories",
    "student_too_weak",
]


@dataclass(frozen=True, slots=True)
class AskAll:
    """The student saves nothing: the LLM has to answer for every document, or the run stops.

    Attributes:
        reason: why, for programs.
        message: why, for people, with the numbers.
    """

    reason: Reason
    message: str


Step = Train | Calibrate | Accept | AskAll


def spending(lot: Lot, look: int) -> float:
    """The error probability that a look at a calibration sample may spend.

    The first look gets most, because most lots need no second one.

    Args:
        lot: the documents and the promise.
        look: how many rounds before this one were calibrated.

    Returns:
        Four fifths of what the looks before have left; the sum over any number of looks stays
        below ``lot.promise.delta``.
    """
    return lot.promise.delta * 0.8 * 0.2**look


def next_step(
    lot: Lot,
    rounds: Sequence[Round],
    consistency: Consistency | None = None,
    left: npt.NDArray[np.float64] | None = None,
) -> Step:
    """Say what to do next.

    A pure function of what is stored: the same arguments give the same step, so that a run that
    was killed asks again and goes on.

    Args:
        lot: the documents and the promise.
        rounds: what has been done so far, in order; empty at the start.
        consistency: how often the LLM contradicted itself, where that was measured.
        left: see :func:`.certifying.certify`; for the last round's student, once it is
            calibrated.

    Returns:
        The step.

    Raises:
        ValueError: the numbers contradict each other, or ``left`` is needed and missing.
    """
    consistency = consistency or Consistency()
    if not rounds:
        return _start(lot)
    if not rounds[-1].calibration:
        return _before_calibration(lot, rounds, consistency)
    return _after_calibration(lot, rounds, consistency, left)


def _start(lot: Lot) -> Step:
    first = min(lot.population, max(6 * lot.categories, round(1.5 * math.sqrt(lot.population))))
    if lot.max_calls is not None:
        first = min(first, lot.max_calls // 3)
        if first < 2 * lot.categories:
            return AskAll(
                "no_budget",
                f"{lot.max_calls} calls are too few to learn {lot.categories} categories from",
            )
        return Train(first, first)
    sample = smallest_sample(lot, first, spending(lot, 0))
    if sample is None or first + sample >= lot.population * _BEST_CASE:
        return AskAll(
            "too_few_documents",
            f"with {lot.population} documents and an agreement of {lot.promise.agreement:g} the "
            "samples would cost as many calls as they save",
        )
    return Train(first, first)


def _before_calibration(lot: Lot, rounds: Sequence[Round], consistency: Consistency) -> Step:
    """Calibrate, unless more training is expected to pay."""
    last = rounds[-1]
    delta = spending(lot, _looks(rounds))
    curve = Curve(last.expected, last.chosen)
    now = plan(lot, curve, last.asked, delta)
    batch, later = _more_training(lot, rounds, curve, last.asked, delta, [0.5, 1, 3, 7])
    if later is not None and (now is None or later.cost < _WORTHWHILE * now.cost):
        if lot.max_calls is None and later.calls >= _worthless(lot):
            return _hopeless(lot, rounds, consistency, later.calls)
        return Train(batch, _pool(lot, last.asked, batch), later.calls)
    if now is None or (lot.max_calls is None and now.calls >= _worthless(lot)):
        return _hopeless(lot, rounds, consistency, lot.population if now is None else now.calls)
    return Calibrate(_trimmed(lot, last.asked, now.drawn, delta), now.calls)


def _after_calibration(
    lot: Lot,
    rounds: Sequence[Round],
    consistency: Consistency,
    left: npt.NDArray[np.float64] | None,
) -> Step:
    """Accept, unless another round is expected to pay."""
    last = rounds[-1]
    used = last.asked + len(last.calibration)
    if lot.max_calls is not None and left is not None:
        unscored = int(np.isnan(left).sum()) + sum(x.score is None for x in last.calibration)
        if unscored > lot.max_calls - used:
            return AskAll(
                "no_budget",
                f"{unscored} documents can only be answered by the LLM, and of "
                f"{lot.max_calls} calls {lot.max_calls - used} are left",
            )
    best = _best(lot, rounds, used, left)
    calls = lot.population - best.decision.answered
    looks = _looks(rounds)
    if lot.max_calls is None and looks < _MOST_LOOKS:
        curve = Curve(last.calibration, (*last.expected, *last.chosen))
        delta = spending(lot, looks)
        batch, later = _more_training(lot, rounds, curve, used, delta, [0, 0.5, 1])
        if later is not None and later.calls < 0.9 * calls:
            return Train(batch, _pool(lot, used, batch), later.calls)
    if best.decision.takes == "nothing" and lot.max_calls is None:
        return _hopeless(lot, rounds, consistency, calls)
    return best


def _best(
    lot: Lot, rounds: Sequence[Round], used: int, left: npt.NDArray[np.float64] | None
) -> Accept:
    """The round whose decision leaves fewest documents to the LLM.

    Each look kept within its own share of the error probability, so that all hold together and
    any of them may be taken. Only the last round's student has scored the documents left.
    """
    whole = lot.max_calls is None and lot.promise.guarantee == "overall"
    best: Accept | None = None
    look = 0
    for index, one in enumerate(rounds):
        if not one.calibration:
            continue
        delta = spending(lot, look)
        look += 1
        last = index == len(rounds) - 1
        if not (whole or last):
            continue
        decision = certify(lot, one.asked, one.calibration, delta, left if last else None)
        # What was asked about since then is answered already.
        rest = (lot.population - used) / max(1, lot.population - one.asked - len(one.calibration))
        if best is None or decision.answered * rest > best.decision.answered:
            best = Accept(decision, index)
    if best is None:
        raise ValueError("no round was calibrated")
    return best


def _more_training(
    lot: Lot,
    rounds: Sequence[Round],
    curve: Curve,
    asked: int,
    delta: float,
    growth: Sequence[float],
) -> tuple[int, Plan | None]:
    """The next batch, and what training on is expected to lead to in the best case."""
    exponent = _exponent(lot, rounds, delta)
    best: Plan | None = None
    batch = 0
    learnt = _learnt(rounds[-1])
    known = learnt + asked - rounds[-1].asked  # what the next student learns from at least
    most = lot.population if lot.max_calls is None else lot.max_calls // 2
    for factor in growth:
        more = round(factor * known)
        if asked + more >= most:
            continue
        found = plan(lot, curve, asked + more, delta, (learnt / (known + more)) ** exponent)
        if found is not None and (best is None or found.cost < best.cost):
            best = found
            batch = min(more, math.ceil(known / 2))
    return batch, best


def _learnt(one: Round) -> int:
    """Documents that a student learnt from; of other lots, they are none that were asked here."""
    return max(1, one.asked, len(one.expected) + len(one.chosen))


def _exponent(lot: Lot, rounds: Sequence[Round], delta: float) -> float:
    """How fast the student learns: measured as far as there are rounds, else assumed."""
    first, last = rounds[0], rounds[-1]
    grown = _learnt(last) / _learnt(first)
    if grown <= 1 or not first.expected:
        return _EXPONENT
    kept = []
    for one in (first, last):
        curve = Curve(one.expected, one.chosen)
        found = plan(lot, curve, one.asked, delta)
        left = (found.calls - one.asked - found.drawn) if found else lot.population
        kept.append(max(1.0, left) / lot.population)
    measured = math.log(kept[0] / kept[1]) / math.log(grown)
    # Both are noisy; the assumption keeps its say until the student has grown sixteenfold.
    weight = min(1.0, math.log(grown) / math.log(16))
    return min(1.0, max(0.0, weight * measured + (1 - weight) * _EXPONENT))


def _trimmed(lot: Lot, asked: int, drawn: int, delta: float) -> int:
    """The smallest sample that may show as many disagreements as one of this size."""
    if lot.max_calls is not None or lot.promise.guarantee == "student":
        return drawn
    limit = allowed(lot.population - asked, lot.promise.tolerated(lot.population), drawn, delta)
    return smallest_sample(lot, asked, delta, limit) or drawn


def _worthless(lot: Lot) -> float:
    return _HOPELESS * (lot.population - lot.promise.tolerated(lot.population))


def _pool(lot: Lot, asked: int, batch: int) -> int:
    return min(lot.population - asked, _POOL * batch)


def _looks(rounds: Sequence[Round]) -> int:
    return sum(bool(one.calibration) for one in rounds)


def _hopeless(lot: Lot, rounds: Sequence[Round], consistency: Consistency, calls: int) -> AskAll:
    asked = _learnt(rounds[-1])
    if consistency.asked and 1 - consistency.ceiling >= 0.5 * (1 - lot.promise.agreement):
        return AskAll(
            "teacher_inconsistent",
            f"asked twice about {consistency.asked} documents, the LLM changed its mind about "
            f"{consistency.differed}; no student can agree with it more than about "
            f"{consistency.ceiling:.0%}",
        )
    if asked < 20 * lot.categories:
        return AskAll(
            "too_many_categories",
            f"{asked} answers are too few to learn {lot.categories} categories from, and more "
            f"would cost what they save in {lot.population} documents",
        )
    return AskAll(
        "student_too_weak",
        f"a student that learnt from {asked} answers agrees too little with the LLM: about "
        f"{calls} of {lot.population} documents would have to be sent to it all the same",
    )
