"""What ``classifier.py`` computes from answers: accuracy, F1, calibration, and intervals."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

_RESAMPLES = 2000
_BINS = 10
_POINTS = 12


@dataclass(frozen=True)
class Answer:
    """What was said of a document, and what it is.

    ``place`` is the document's number: one that was answered several times counts once, with the
    share of right answers.
    """

    place: int
    label: str
    answer: str
    margin: float
    confidence: float | None
    review: bool
    source: str
    folder: str
    seconds: float


def summary(answers: list[Answer]) -> dict[str, Any]:
    """Accuracy with intervals over documents and over sources, F1, calibration, review, speed."""
    right = hits(answers)
    reviewed = np.array([answer.review for answer in answers])
    per_document = _means(right, [answer.place for answer in answers])
    result: dict[str, Any] = {
        "documents": len(per_document),
        "accuracy": float(right.mean()),
        "accuracy_95": interval(per_document),
        "macro_f1": macro_f1(answers),
        "ece": calibration_error(right, [answer.confidence for answer in answers]),
        "needs_review": float(reviewed.mean()),
        "accuracy_without_review": float(right[~reviewed].mean()) if (~reviewed).any() else None,
        "documents_per_cpu_second": len(answers) / sum(answer.seconds for answer in answers),
        "categories": by_category(answers),
    }
    sources = [answer.source for answer in answers]
    if len(set(sources)) > 1:
        result["accuracy_95_over_sources"] = interval_over_sources(right, sources)
    return result


def hits(answers: list[Answer]) -> np.ndarray:
    """Which answers are right."""
    return np.array([answer.label == answer.answer for answer in answers], float)


def interval(values: np.ndarray) -> list[float]:
    """Bootstrap interval (percentiles 2.5 and 97.5) of the mean."""
    random = np.random.default_rng(0)
    means = [random.choice(values, len(values)).mean() for _ in range(_RESAMPLES)]
    return [float(value) for value in np.percentile(means, [2.5, 97.5])]


def interval_over_sources(right: np.ndarray, sources: list[str]) -> list[float]:
    """The same where whole sources are drawn: documents of one source resemble each other."""
    _, places = np.unique(sources, return_inverse=True)
    sums, sizes = np.bincount(places, right), np.bincount(places)
    random = np.random.default_rng(0)
    drawn = random.integers(len(sums), size=(_RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    return [float(value) for value in np.percentile(means, [2.5, 97.5])]


def difference(answers: list[Answer], others: list[Answer]) -> tuple[float, list[float]]:
    """How much more accurate the first are on the same documents, with its interval."""
    first, second = (
        _means(hits(each), [answer.place for answer in each]) for each in (answers, others)
    )
    return float((first - second).mean()), interval(first - second)


def by_category(answers: list[Answer]) -> dict[str, tuple[float, float, float]]:
    """Precision, recall and F1 of each category that has documents."""
    hit = Counter(answer.label for answer in answers if answer.label == answer.answer)
    labels = Counter(answer.label for answer in answers)
    given = Counter(answer.answer for answer in answers)
    result = {}
    for name in sorted(labels):
        precision = hit[name] / given[name] if given[name] else 0.0
        recall = hit[name] / labels[name]
        total = precision + recall
        result[name] = (precision, recall, 2 * precision * recall / total if total else 0.0)
    return result


def macro_f1(answers: list[Answer]) -> float:
    """The mean of the categories' F1."""
    return float(np.mean([f1 for _, _, f1 in by_category(answers).values()]))


def accuracies(answers: list[Answer], what: str) -> dict[str, tuple[int, float]]:
    """Documents and accuracy by ``folder``, or by ``source`` within a label."""
    right: dict[str, list[bool]] = {}
    for answer in answers:
        key = answer.folder if what == "folder" else f"{answer.label}: {answer.source}"
        right.setdefault(key, []).append(answer.label == answer.answer)
    return {key: (len(of), sum(of) / len(of)) for key, of in sorted(right.items())}


def calibration_error(right: np.ndarray, confidences: list[float | None]) -> float | None:
    """Expected calibration error over equal bins (Guo et al., 2017), where there is confidence."""
    given = np.array([confidence is not None for confidence in confidences])
    if not given.any():
        return None
    values = np.array([value for value in confidences if value is not None])
    right = right[given]
    bins = np.minimum((values * _BINS).astype(int), _BINS - 1)
    gaps = [
        (bins == b).mean() * abs(right[bins == b].mean() - values[bins == b].mean())
        for b in set(bins)
    ]
    return float(sum(gaps))


def fitted(answers: list[Answer]) -> dict[str, Any]:
    """The calibration table of these answers, and its error for sources left out of the fit."""
    given = [answer for answer in answers if answer.confidence is not None]
    margins = np.array([answer.margin for answer in given])
    right = hits(given)
    origin = np.array([answer.source for answer in given])
    predicted = np.zeros(len(given))
    for source in sorted(set(origin)):
        out = origin == source
        if out.all():
            break
        table = np.array(isotonic(margins[~out], right[~out]))
        predicted[out] = np.interp(margins[out], table[:, 0], table[:, 1])
    return {
        "table": isotonic(margins, right),
        "ece_sources_left_out": calibration_error(right, list(predicted)),
    }


def isotonic(margins: np.ndarray, right: np.ndarray) -> list[tuple[float, float]]:
    """Points of the increasing fit of the share of right answers, by pooling adjacent violators.

    A dozen points at most, each of as many documents; none is 0 or 1, since no finite sample
    says that.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(margins, kind="stable")
    margins = margins[order]
    fit = isotonic_regression(right[order]).x
    points: dict[float, float] = {}
    for part in np.array_split(np.arange(len(margins)), min(_POINTS, len(margins))):
        share = (fit[part].sum() + 0.5) / (len(part) + 1)
        points[round(float(margins[part].mean()), 3)] = round(float(share), 3)
    return sorted(points.items())


def _means(right: np.ndarray, places: list[int]) -> np.ndarray:
    _, of = np.unique(places, return_inverse=True)
    return np.bincount(of, right) / np.bincount(of)
