"""The statistics of an evaluation, from counts and rows of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
"""The 97.5% point of the standard normal distribution."""
RESAMPLES = 2000
BINS = 10
_AT_ONCE = 2_000_000  # cells of resampled counts, to bound the memory
_CURVE_POINTS = 100


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval of 95%."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Documents of similar confidence: how sure the classifier was, and how often it was right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far a confidence can be taken at its word.

    Attributes:
        count: documents with a confidence.
        mean_confidence: over these.
        accuracy: over these.
        ece: expected calibration error over ten equal bins (Naeini et al., AAAI 2015; Guo et al.,
            ICML 2017): the mean distance between confidence and accuracy, weighted by documents.
            With few documents it is above zero even for a perfect classifier.
        largest_gap: the largest such distance of any bin.
        brier: mean squared difference between confidence and being right (1) or wrong (0).
        bins: those that hold documents.
    """

    count: int
    mean_confidence: float
    accuracy: float
    ece: float
    largest_gap: float
    brier: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """What taking only the answers of at least ``threshold`` gives: how many, how many right."""

    threshold: float
    coverage: float
    accuracy: float
    count: int


def wilson(hits: int, total: int) -> Interval | None:
    """Wilson's (1927) score interval of a share; None where there is nothing to share."""
    if total <= 0:
        return None
    share, z2 = hits / total, Z_95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total)
    half *= math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    # At the ends the formula gives 0 and 1 but for rounding.
    return Interval(
        0.0 if hits == 0 else max(0.0, middle - half),
        1.0 if hits == total else min(1.0, middle + half),
    )


def bootstrap(
    counts: Sequence[int],
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Percentile bootstrap interval (Efron, 1979) of a statistic of counts.

    Drawing documents with replacement and counting them by kind is drawing the counts from a
    multinomial distribution; so no single document is kept.

    Args:
        counts: documents of each kind.
        statistic: takes resampled counts, one sample a row, and gives a number for each row.
        seed: the same gives the same interval.
        resamples: samples to draw.

    Returns:
        The interval; None where there are no documents, and where all samples give the same:
        of 20 documents that are all right the bootstrap learns nothing about the rest.
    """
    row = np.asarray(counts, dtype=np.int64)
    total = int(row.sum())
    if total == 0:
        return None
    random = np.random.default_rng(seed)
    part = max(1, min(resamples, _AT_ONCE // len(row)))
    found = [
        statistic(random.multinomial(total, row / total, size=min(part, resamples - first)))
        for first in range(0, resamples, part)
    ]
    values = np.concatenate(found)
    if values.min() == values.max():
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


def macro_f1(
    labels: NDArray[np.int64], answers: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The mean F1 over the categories that have labelled documents in ``counts``.

    Args:
        labels: number of the category that each kind of document is of.
        answers: number of the category that it was given.
        counts: documents of each kind, one sample a row.
    """
    size = int(max(labels.max(), answers.max())) + 1
    rows = counts.shape[0]
    support, given, right = (np.zeros((rows, size)) for _ in range(3))
    for column, (label, answer) in enumerate(zip(labels, answers, strict=True)):
        support[:, label] += counts[:, column]
        given[:, answer] += counts[:, column]
        if label == answer:
            right[:, label] += counts[:, column]
    f1 = np.divide(2 * right, support + given, out=np.zeros_like(right), where=support + given > 0)
    present = support > 0
    return np.asarray((f1 * present).sum(axis=1) / present.sum(axis=1), dtype=np.float64)


def calibration(
    confidences: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int = BINS
) -> Calibration | None:
    """Confidence held against being right; None where no document has a confidence."""
    if not len(confidences):
        return None
    number = np.minimum((confidences * bins).astype(np.int64), bins - 1)
    found = []
    for each in range(bins):
        chosen = number == each
        count = int(chosen.sum())
        hits = int(right[chosen].sum())
        if interval := wilson(hits, count):
            mean = float(confidences[chosen].mean())
            found.append(Bin(each / bins, (each + 1) / bins, count, mean, hits / count, interval))
    gaps = [abs(one.confidence - one.accuracy) for one in found]
    return Calibration(
        count=len(confidences),
        mean_confidence=float(confidences.mean()),
        accuracy=float(right.mean()),
        ece=sum(gap * one.count for gap, one in zip(gaps, found, strict=True)) / len(confidences),
        largest_gap=max(gaps),
        brier=float(((confidences - right) ** 2).mean()),
        bins=tuple(found),
    )


def selective(sureness: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[Point, ...]:
    """Accuracy against coverage (El-Yaniv and Wiener, JMLR 2010), the surest answers first.

    Answers that are equally sure are taken together, since no threshold can part them. Of many
    points about a hundred are kept, evenly over the coverage, the last always.
    """
    if not len(sureness):
        return ()
    order = np.argsort(-sureness, kind="stable")
    values = sureness[order]
    hits = np.cumsum(right[order])
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    if len(ends) > _CURVE_POINTS:
        wanted = np.linspace(0, len(ends) - 1, _CURVE_POINTS).astype(np.int64)
        ends = ends[np.unique(wanted)]
    return tuple(
        Point(
            threshold=float(values[end]),
            coverage=(int(end) + 1) / len(values),
            accuracy=int(hits[end]) / (int(end) + 1),
            count=int(end) + 1,
        )
        for end in ends
    )
