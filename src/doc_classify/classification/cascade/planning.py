"""What a sample of a given size is expected to be worth. Estimates: nothing rests on them.

A wrong estimate costs calls, never the promise: sizes are chosen with training documents, and
with calibration samples that have been looked at and paid for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from doc_classify.classification.cascade.bounds import allowed, most_left, tail
from doc_classify.classification.cascade.certifying import tolerated_inside
from doc_classify.classification.cascade.promise import Judged, Lot

_LARGEST_SAMPLE = 50_000
"""Calibration documents beyond which another one changes nothing worth having."""
_STEP = 1.2
"""From one sample size that is considered to the next."""
_QUANTILES = np.array([-1.645, -1.036, -0.674, -0.385, -0.126, 0.126, 0.385, 0.674, 1.036, 1.645])
"""Of a normal distribution at 0.05, 0.15, ... 0.95."""
_TRUSTED = 4
"""Disagreements whose number counts as much as the fit."""
_NEWTON, _RIDGE = 12, 0.5
"""Steps of the fit, and how strongly it is drawn to a risk that does not depend on the score."""


class Curve:
    """How many documents a student answers for how many disagreements.

    The samples that it is made from are small, and above the interesting threshold there is often
    no disagreement at all. So the probability of a disagreement is fitted to the score (logistic
    regression), and the scores say how many documents have it. Disagreements that were seen count
    beside the fit, the more of them the more: among the surest documents there are more than it
    thinks.

    Args:
        judged: what the student said about documents that it had not seen, drawn uniformly.
        chosen: the same about documents that were chosen by their scores. At a given score
            they are like others, so that they help with the fit, but not with the numbers.
    """

    def __init__(self, judged: Sequence[Judged], chosen: Sequence[Judged] = ()) -> None:
        self.size = max(len(judged), 1)
        scored = sorted(
            ((one.score, not one.agrees) for one in judged if one.score is not None), reverse=True
        )
        scores = np.array([score for score, _ in scored])
        seen = np.cumsum([wrong for _, wrong in scored])
        fitted = [
            (one.score, not one.agrees) for one in (*judged, *chosen) if one.score is not None
        ]
        risk = _risk(np.array(fitted, dtype=np.float64).reshape(-1, 2))
        self._taken = np.arange(len(scores) + 1) / self.size
        # Where some disagreements were seen, their number says more than the fit.
        trust = seen / (seen + _TRUSTED)
        wrong = trust * seen + (1 - trust) * np.cumsum(risk(scores))
        self._wrong = np.maximum.accumulate(np.concatenate([[0.0], wrong])) / self.size

    def share(self, allowed_: int, drawn: int) -> float:
        """The expected share of documents above disagreement number ``allowed_ + 1`` of a sample.

        How many disagreements of all documents lie above that one is about gamma distributed; the
        share is averaged over a few quantiles (Wilson and Hilferty's approximation, 1931).

        Args:
            allowed_: disagreements that the sample may show above the threshold.
            drawn: size of that sample.
        """
        if allowed_ < 0:
            return 0.0
        number = allowed_ + 1
        spread = 1 - 1 / (9 * number) + _QUANTILES / (3 * math.sqrt(number))
        at = number * np.maximum(spread, 0) ** 3 / (drawn + 1)
        return float(np.interp(at, self._wrong, self._taken).mean())

    def wrong(self, share: float) -> float:
        """The share of documents that are taken and disagree, if this share is taken."""
        return float(np.interp(share, self._taken, self._wrong))


def _risk(
    seen: npt.NDArray[np.float64],
) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    """The probability of a disagreement by score, never rising with it.

    Logistic regression by Newton's method, with one invented agreement and disagreement in the
    middle of the scores, so that there is an answer where all agree or all disagree.
    """
    if not len(seen):
        return lambda scores: np.full(len(scores), 0.5)
    middle, width = float(np.median(seen[:, 0])), float(np.std(seen[:, 0])) or 1.0
    x = np.concatenate([(seen[:, 0] - middle) / width, [0.0, 0.0]])
    y = np.concatenate([seen[:, 1], [0.0, 1.0]])
    weight = np.concatenate([np.ones(len(seen)), [0.75, 0.25]])
    design = np.stack([np.ones(len(x)), x], axis=1)
    at = np.zeros(2)
    for _ in range(_NEWTON):
        p = _logistic(design @ at)
        slope = design.T @ (weight * (y - p)) - _RIDGE * at * [0, 1]
        curvature = (design * (weight * np.maximum(p * (1 - p), 1e-6))[:, None]).T @ design
        at = at + np.clip(np.linalg.solve(curvature + np.diag([1e-6, _RIDGE]), slope), -2, 2)
    start, steep = float(at[0]), min(0.0, float(at[1]))
    return lambda scores: _logistic(start + steep * (scores - middle) / width)


def _logistic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Plan:
    """A calibration sample and what is expected of it.

    Attributes:
        drawn: size of the sample.
        calls: calls that the whole lot is expected to need.
        cost: what is made as small as possible: ``calls``, or with ``max_calls`` the
            disagreements that cannot be ruled out.
    """

    drawn: int
    calls: int
    cost: float


def plan(lot: Lot, curve: Curve, asked: int, delta: float, shrink: float = 1.0) -> Plan | None:
    """Find the size of the calibration sample that is expected to cost least.

    Args:
        lot: the documents and the promise.
        curve: of the present student.
        asked: documents that will have been set aside.
        delta: error probability that the look may spend.
        shrink: by what factor the documents that the student does not answer are expected to
            become fewer with the training that is still to come.

    Returns:
        The best plan; None where no sample could keep the promise.
    """
    best: Plan | None = None
    for drawn in _sizes(lot, asked):
        found = _expect(lot, curve, asked, drawn, delta, shrink)
        if found is not None and (best is None or found.cost < best.cost):
            best = found
    return best


def smallest_sample(lot: Lot, asked: int, delta: float, limit: int = 0) -> int | None:
    """The smallest sample that may show ``limit`` disagreements; None where there is none."""
    population = lot.population - asked
    tolerated = lot.promise.tolerated(lot.population)
    low, high = 1, population
    if population < 1 or allowed(population, tolerated, population, delta) < limit:
        return None
    while low < high:
        middle = (low + high) // 2
        if allowed(population, tolerated, middle, delta) >= limit:
            high = middle
        else:
            low = middle + 1
    return low


def _sizes(lot: Lot, asked: int) -> Iterator[int]:
    top = min(lot.population - asked, _LARGEST_SAMPLE)
    if lot.max_calls is not None:
        top = min(top, lot.max_calls - asked)
    last = 0
    size = 15.0
    while size < top * _STEP:
        now = min(top, round(size))
        if now > last:
            yield now
        last = now
        size *= _STEP


def _expect(
    lot: Lot, curve: Curve, asked: int, drawn: int, delta: float, shrink: float
) -> Plan | None:
    population = lot.population - asked
    if lot.max_calls is not None:
        return _expect_bound(lot, curve, asked, drawn, delta, shrink)
    if lot.promise.guarantee == "student":
        share = _student_share(lot, curve, population, drawn, delta)
    else:
        limit = allowed(population, lot.promise.tolerated(lot.population), drawn, delta)
        if limit < 0:
            return None
        share = curve.share(limit, drawn)
    share = 1 - (1 - share) * shrink
    calls = asked + drawn + round((population - drawn) * (1 - share))
    return Plan(drawn, calls, float(calls))


def _expect_bound(
    lot: Lot, curve: Curve, asked: int, drawn: int, delta: float, shrink: float
) -> Plan | None:
    """What the sample is expected to certify for a fixed number of calls."""
    population = lot.population - asked
    calls = lot.max_calls or 0
    taken = min(1.0, max(0.0, (lot.population - calls) / max(population - drawn, 1)))
    wrong = curve.wrong(taken) * shrink
    inside, sample = math.ceil(population * taken), int(drawn * taken)
    if sample < 1:
        return None
    seen = min(sample, drawn * wrong)
    low = most_left(inside, sample, int(seen), delta)
    high = most_left(inside, sample, min(sample, int(seen) + 1), delta)
    return Plan(drawn, calls, low + (high - low) * (seen - int(seen)))


def _student_share(lot: Lot, curve: Curve, population: int, drawn: int, delta: float) -> float:
    best = 0.0
    for share in np.linspace(1, 0.05, 20):
        seen = math.ceil(drawn * curve.wrong(float(share)))
        inside = tolerated_inside(lot, int(population * share), population, drawn)
        if tail(population, inside + 1, drawn, seen) <= delta:
            best = max(best, float(share))
    return best
