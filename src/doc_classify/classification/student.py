"""The student of a cascade: a trained model whose score is its margin."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.model_file import TrainedModel
from doc_classify.records import STUDENT, Classification, freeze_scores

_PLACES = 9
"""Processors may differ in the last bits of a sum. Texts that are alike have to tie all the same,
or some of them would lie above a threshold that one of them has set."""


class StudentClassifier:
    """Classifies as an LLM would, by what it learned from the LLM's answers.

    ``Classification.score`` is the lead of the best category over the second: what the threshold
    of a cascade is about. It is no probability, so there is no ``confidence``.
    """

    name = STUDENT

    def __init__(self, model: TrainedModel) -> None:
        self._model = model
        _ = model.zero_shot  # made now, so that a model that cannot be used says so at once

    @classmethod
    def from_bytes(cls, data: bytes) -> StudentClassifier:
        """The student in the bytes of a trained model.

        Raises:
            ConfigurationError: this version of the program cannot use it.
        """
        return cls(TrainedModel.from_bytes(data, "the student of the cascade"))

    @classmethod
    def from_file(cls, path: Path) -> StudentClassifier:
        """The same from a file."""
        return cls.from_bytes(path.read_bytes())

    @property
    def fingerprint(self) -> str:
        """Digest of the model."""
        return self._model.digest

    def classify(
        self, document: ClassifierInput, *, include_reasoning: bool = False
    ) -> Classification:
        """See :meth:`doc_classify.classification.Classifier.classify`; it gives no reasons."""
        scores = self._model.scores(document)
        best, second = np.argsort(-scores, kind="stable")[:2]
        names = self._model.categories
        return Classification(
            category=names[int(best)],
            score=round(float(scores[best] - scores[second]), _PLACES),
            scores=freeze_scores(dict(zip(names, scores.tolist(), strict=True))),
        )
