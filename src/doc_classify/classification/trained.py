"""The classifier that a trained model makes."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.features import features, row_of
from doc_classify.classification.model_file import TrainedModel
from doc_classify.classification.profiles import is_other
from doc_classify.classification.words import Words, read
from doc_classify.records import Classification, freeze_scores

_VERSION = 1
"""To be raised with every change of the code here that can change an answer."""
_FEW_WORDS, _LITTLE_KNOWN = 15, 0.2
"""A text of fewer words, or with a smaller share of words that were seen in training, is thin."""
_REVIEW_MARGIN, _REVIEW_CONFIDENCE = 0.2, 0.6
_SHOWN, _SHOWN_CHARACTERS = 5, 30


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
        self._other = next((at for at, name in enumerate(self._names) if is_other(name)), None)
        _ = model.zero_shot  # made now, so that a model that cannot be used says so at once

    @property
    def fingerprint(self) -> str:
        """Digest of the version and of the model."""
        return hashlib.sha256(f"{_VERSION} {self.model.digest}".encode()).hexdigest()[:16]

    def classify(
        self, document: ClassifierInput, *, include_reasoning: bool = False
    ) -> Classification:
        """See :meth:`doc_classify.classification.Classifier.classify`."""
        seen = read(document)
        row = row_of(seen)
        scores = self.model.head.scores(row, self.model.prior(document))
        unknown = self.model.head.known(row) < _LITTLE_KNOWN
        thin = unknown or len(seen.body) < _FEW_WORDS
        if unknown and self._other is not None and not self.model.head.trust:
            scores[self._other] = max(scores.max(), 0.0) + _REVIEW_MARGIN
        ranked = np.argsort(-scores, kind="stable")
        best, second = int(ranked[0]), int(ranked[1])
        margin = float(scores[best] - scores[second])
        confidence = None
        if self.model.calibration and not thin:
            confidence = round(self.model.calibration(margin), 3)
        shares = _shares(scores)
        return Classification(
            category=self._names[best],
            score=round(float(shares[best]), 4),
            confidence=confidence,
            scores=freeze_scores(
                {name: round(float(shares[at]), 4) for at, name in enumerate(self._names)}
            ),
            needs_review=(
                thin
                or (
                    margin < _REVIEW_MARGIN
                    if confidence is None
                    else confidence < _REVIEW_CONFIDENCE
                )
            ),
            reasoning=self._reasoning(seen, best, second) if include_reasoning else None,
        )

    def _reasoning(self, seen: Words, best: int, second: int) -> str:
        """One sentence with words of the document: letters and digits alone, cut to a length."""
        found = list(features(seen))
        added = self.model.head.spoke(row_of(seen), [bucket for _, bucket, _ in found])
        added = added - added.mean(axis=1, keepdims=True)
        words = [word for word, _, _ in found]
        return (
            f"For {self._names[best]} spoke {_spoke(words, added[:, best])}; "
            f"for the runner-up {self._names[second]}, {_spoke(words, added[:, second])}."
        )


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
