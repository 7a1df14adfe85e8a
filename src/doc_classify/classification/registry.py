"""Finding a classifier by its name."""

from __future__ import annotations

from importlib.metadata import entry_points

from doc_classify.classification.base import Classifier
from doc_classify.errors import ConfigurationError
from doc_classify.taxonomy import Taxonomy

GROUP = "doc_classify.classifiers"
"""Entry-point group: name -> a callable that takes a taxonomy and gives a classifier."""


def classifier_names() -> list[str]:
    """The names that :func:`make_classifier` takes."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def make_classifier(name: str, taxonomy: Taxonomy) -> Classifier:
    """The classifier of that name for a taxonomy.

    Raises:
        ConfigurationError: there is none of that name; the message lists those there are.
    """
    for entry in entry_points(group=GROUP, name=name):
        classifier: Classifier = entry.load()(taxonomy)
        return classifier
    raise ConfigurationError(
        f"there is no classifier {name!r}; available: {', '.join(classifier_names())}"
    )
