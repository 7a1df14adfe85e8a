"""The classifier that a trained model makes."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.explaining import (
    Check,
    Evidence,
    Explanation,
    caveats,
    needs_review,
    strongest,
)
from doc_classify.classification.features import features, row_of
from doc_classify.classification.legibility import legibility_checks
from doc_classify.classification.model_file import TrainedModel, other_place
from doc_classify.classification.words import Words, read
from doc_classify.records import Classification, freeze_scores

_VERSION = 2
"""To be raised with every change of the code here that can change an answer."""
_LITTLE_KNOWN = 0.2
"""A text with a smaller share of words that were seen in training is thin."""
_REVIEW_MARGIN, _REVIEW_CONFIDENCE = 0.2, 0.6
_SHOWN, _SHOWN_CHARACTERS, _EXPLAINED = 5, 30, 12


class TrainedClassifier:
    """Classifies by a trained model.

    ``Classification.score`` is the category's share of the scores. ``confidence`` is the model's
    calibration: the share of right answers at the same margin among documents that were held out
    in training; None where there were too few, or where this document's evidence is thin.

    Args:
        model: also brings the taxonomy.

    Raises:
        ConfigurationError: the model builds on another version of the zero-shot classifier.
    """

    name = "embedded"

    def __init__(self, model: TrainedModel) -> None:
        self.model = model
        self._names = model.categories
        self._other = other_place(self._names)
        _ = model.zero_shot  # made now, so that a model that cannot be used says so at once

    @property
    def fingerprint(self) -> str:
        """Digest of the version and of the model."""
        return hashlib.sha256(f"{_VERSION} {self.model.fingerprint}".encode()).hexdigest()[:16]

    def classify(
        self, document: ClassifierInput, *, include_reasoning: bool = False
    ) -> Classification:
        """See :meth:`doc_classify.classification.Classifier.classify`."""
        return self._decide(document, include_reasoning=include_reasoning)[0]

    def explain(self, document: ClassifierInput) -> Explanation:
        """See :meth:`doc_classify.classification.explaining.Explaining.explain`."""
        classification, checks = self._decide(document, include_reasoning=True)
        words, added = self._added(read(document))
        evidence = [
            Evidence(name, word[:_SHOWN_CHARACTERS], float(added[at, number]))
            for number, name in enumerate(self._names)
            for at, word in enumerate(words)
            if added[at, number] > 0
        ]
        prior = self.model.prior(document)
        if prior is not None:
            evidence += [
                Evidence(name, "(the classifier without training)", self.model.head.trust * share)
                for name, share in zip(self._names, prior.tolist(), strict=True)
                if share > 0
            ]
        return Explanation(
            classification, checks, tuple(strongest(evidence, self._names, _EXPLAINED))
        )

    def _decide(
        self, document: ClassifierInput, *, include_reasoning: bool
    ) -> tuple[Classification, tuple[Check, ...]]:
        seen = read(document)
        row = row_of(seen)
        scores = self.model.scores_of(row, self.model.prior(document))
        known = Check(
            "share of words known from training",
            round(self.model.head.known(row), 3),
            _LITTLE_KNOWN,
            "few of its words were seen in training",
        )
        if not known.passed and self._other is not None and not self.model.head.trust:
            scores[self._other] = max(scores.max(), 0.0) + _REVIEW_MARGIN
        legible = (*legibility_checks(seen), known)
        ranked = np.argsort(-scores, kind="stable")
        best, second = int(ranked[0]), int(ranked[1])
        margin = float(scores[best] - scores[second])
        confidence = None
        if self.model.calibration and not needs_review(legible):
            confidence = round(self.model.calibration(margin), 3)
        sure = (
            Check("margin to the runner-up", round(margin, 4), _REVIEW_MARGIN, "it is almost even")
            if confidence is None
            else Check("confidence", confidence, _REVIEW_CONFIDENCE, "the confidence is low")
        )
        checks = (*legible, sure)
        reasoning = None
        if include_reasoning:
            reasoning = self._reasoning(seen, best, second) + caveats(checks)
        shares = _shares(scores)
        classification = Classification(
            category=self._names[best],
            score=round(float(shares[best]), 4),
            confidence=confidence,
            scores=freeze_scores(
                {name: round(float(shares[at]), 4) for at, name in enumerate(self._names)}
            ),
            needs_review=needs_review(checks),
            reasoning=reasoning,
        )
        return classification, checks

    def _reasoning(self, seen: Words, best: int, second: int) -> str:
        """One sentence with words of the document: letters and digits alone, cut to a length."""
        words, added = self._added(seen)
        return (
            f"For {self._names[best]} spoke {_spoke(words, added[:, best])}; "
            f"for the runner-up {self._names[second]}, {_spoke(words, added[:, second])}."
        )

    def _added(self, seen: Words) -> tuple[list[str], NDArray[np.float64]]:
        """Words, and what each spoke more for a category than for the average of all: (W, C)."""
        found = list(features(seen))
        added = self.model.head.spoke(row_of(seen), [bucket for _, bucket, _ in found])
        return [word for word, _, _ in found], added - added.mean(axis=1, keepdims=True)


def _shares(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores as shares of 1 in the same order; those below zero have none."""
    positive = np.maximum(scores, 0.0)
    whole = positive.sum()
    return positive / whole if whole else np.full(len(scores), 1.0 / len(scores))


def _spoke(words: list[str], added: NDArray[np.float64]) -> str:
    strongest = [int(at) for at in np.argsort(-added, kind="stable")[:_SHOWN] if added[at] > 0]
    if not strongest:
        return "no word in particular"
    return ", ".join(dict.fromkeys(words[at][:_SHOWN_CHARACTERS] for at in strongest))
