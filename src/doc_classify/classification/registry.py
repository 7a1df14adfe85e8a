"""Finding a classifier by its name.

Two kinds, two entry-point groups. What is small and quick runs inside each worker process
(:data:`WORKER_GROUP`: name -> a callable that takes a taxonomy and gives a
:class:`~.base.Classifier`). A language model is a server that is asked from one place
(:data:`BACKEND_GROUP`: name -> a class with ``from_settings`` that gives a
:class:`~.chat.ChatBackend`).
"""

from __future__ import annotations

import hashlib
from importlib.metadata import entry_points

from doc_classify.classification.base import Classifier
from doc_classify.errors import ConfigurationError
from doc_classify.records import CASCADE
from doc_classify.taxonomy import Taxonomy

WORKER_GROUP = "doc_classify.classifiers"
BACKEND_GROUP = "doc_classify.chat_backends"

AUTO = "auto"
"""Ollama where it can be used, else the embedded classifier (:mod:`.opening`)."""


def classifier_names() -> list[str]:
    """Every name that ``--classifier`` takes."""
    groups = (WORKER_GROUP, BACKEND_GROUP)
    found = {entry.name for group in groups for entry in entry_points(group=group)}
    return [AUTO, *sorted(found | {CASCADE})]


def make_classifier(name: str, taxonomy: Taxonomy, model: bytes | None = None) -> Classifier:
    """The classifier of that name that runs in a worker process.

    Args:
        name: as ``--classifier`` takes it.
        taxonomy: the categories.
        model: content of a trained model's file, for the embedded classifier.

    Raises:
        ConfigurationError: there is none of that name, or the model cannot be used.
    """
    if model is not None:
        # Imported here, since NumPy is in no worker that does not need it.
        from doc_classify.classification.model_file import TrainedModel
        from doc_classify.classification.trained import TrainedClassifier

        return TrainedClassifier(TrainedModel.from_bytes(model))
    for entry in entry_points(group=WORKER_GROUP, name=name):
        classifier: Classifier = entry.load()(taxonomy)
        return classifier
    raise unknown(name)


def model_digest(model: bytes) -> str:
    """Hex digest by which a trained model's file is known."""
    return hashlib.sha256(model).hexdigest()[:32]


def unknown(name: str) -> ConfigurationError:
    """What to raise for a name that no classifier has."""
    return ConfigurationError(
        f"there is no classifier {name!r}; available: {', '.join(classifier_names())}"
    )
