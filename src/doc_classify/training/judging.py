"""How good a model is, by documents that it did not learn from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doc_classify.classification.calibration import calibrated
from doc_classify.classification.learning import Learnt, margins

_NORMAL = 1.96
_FOLDS = 5
_BINS = 10
_PAIRS = 5
_FEW = 10


@dataclass(frozen=True, slots=True)
class CategoryJudgement:
    """One category: documents that were learnt from, held out, and found again."""

    name: str
    documents: int
    held_out: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What can be said of a model.

    Attributes:
        documents: that were learnt from.
        held_out: that the figures below are of.
        groups: that were held out as a whole; 0: documents were held out one by one.
        accuracy: share whose likeliest label was found, held out.
        low, high: its 95% interval, in which documents of a group count as less than independent.
        calibration_error: expected calibration error over ten bins, where the confidence of a
            document is fitted on other held-out documents; None where there are too few.
        confused: the commonest mistakes: label, answer, number.
        zero_shot: how far the zero-shot classifier is trusted, 0 to 1.
        warnings: what a person should know.
    """

    documents: int
    held_out: int
    groups: int
    accuracy: float
    low: float
    high: float
    calibration_error: float | None
    categories: tuple[CategoryJudgement, ...]
    confused: tuple[tuple[str, str, int], ...]
    zero_shot: float
    warnings: tuple[str, ...]


def judge(learnt: Learnt) -> Judgement:
    """Judge a model by the scores that were held out when it was trained."""
    rows, scores = learnt.held_out
    names = learnt.model.categories
    truth, found = learnt.targets[rows].argmax(1), scores.argmax(1)
    right = truth == found
    groups = learnt.groups[rows]
    low, high = _interval(right, groups)
    counts = learnt.model.provenance.counts
    categories = tuple(
        CategoryJudgement(
            name=name,
            documents=counts[at],
            held_out=int((truth == at).sum()),
            recall=_share(right[truth == at]),
            precision=_share(right[found == at]),
        )
        for at, name in enumerate(names)
    )
    mistakes = Counter(zip(truth[~right].tolist(), found[~right].tolist(), strict=True))
    return Judgement(
        documents=len(learnt.keys),
        held_out=len(rows),
        groups=int((np.bincount(learnt.groups) > 1).sum()),
        accuracy=float(right.mean()),
        low=low,
        high=high,
        calibration_error=_calibration_error(margins(scores), right, groups),
        categories=categories,
        confused=tuple(
            (names[label], names[answer], number)
            for (label, answer), number in sorted(
                mistakes.items(), key=lambda item: (-item[1], item[0])
            )[:_PAIRS]
        ),
        zero_shot=learnt.model.head.trust,
        warnings=tuple(_warnings(learnt)),
    )


def _warnings(learnt: Learnt) -> list[str]:
    model = learnt.model
    few = [
        f"{name} ({number})"
        for name, number in zip(model.categories, model.provenance.counts, strict=True)
        if number < _FEW
    ]
    warnings = []
    if few:
        warnings.append(f"fewer than {_FEW} documents: {', '.join(few)}")
    if model.calibration is None:
        warnings.append("too few documents for a confidence: results have only scores")
    return warnings


def _share(right: NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if len(right) else None


def _interval(right: NDArray[np.bool_], groups: NDArray[np.intp]) -> tuple[float, float]:
    """95% interval of a share by Wilson (1927), for as many documents as groups leave of them.

    Documents of one group tend to be right or wrong together, so that they tell less: their number
    is divided by the design effect (Kish, "Survey Sampling", 1965), the variance of the share over
    groups against that of as many independent documents.
    """
    _, place = np.unique(groups, return_inverse=True)
    sizes = np.bincount(place).astype(np.float64)
    hits = np.bincount(place, weights=right)
    number, share = float(len(right)), float(right.mean())
    independent = share * (1 - share) / number
    if independent:
        clusters = len(sizes)
        spread = float(((hits - share * sizes) ** 2).sum()) / number**2
        effect = spread * clusters / max(1, clusters - 1) / independent
        number /= max(1.0, effect)
    else:
        number = float(len(sizes))
    squared = _NORMAL**2 / number
    middle = (share + squared / 2) / (1 + squared)
    half = np.sqrt(share * (1 - share) * squared + squared**2 / 4) / (1 + squared)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _calibration_error(
    margin: NDArray[np.float64], right: NDArray[np.bool_], groups: NDArray[np.intp]
) -> float | None:
    """Expected calibration error of confidences fitted on the other four fifths of the groups."""
    fold = np.random.default_rng(0).permutation(int(groups.max()) + 1)[groups] % _FOLDS
    confidence = np.empty(len(margin))
    for out in range(_FOLDS):
        rest, part = fold != out, fold == out
        curve = calibrated(margin[rest], right[rest].astype(np.float64))
        if curve is None:
            return None
        confidence[part] = [curve(float(one)) for one in margin[part]]
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(margin))
