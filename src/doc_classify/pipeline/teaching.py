"""Teaching the student of a cascade from what the LLM has answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.cascade import Judged
from doc_classify.classification.learning import Labelled, TrainingSet, margins
from doc_classify.errors import ConfigurationError
from doc_classify.storage.samples import Example
from doc_classify.taxonomy import Taxonomy

MOST_EXAMPLES = 8_000
"""Documents that a student learns from at most."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A student, and what it would have said of documents that it learned from.

    ``expected``: of those that were drawn uniformly, each judged by a student that had not seen it;
    ``chosen``: of the others.
    """

    data: bytes
    expected: tuple[Judged, ...]
    chosen: tuple[Judged, ...]


def train(examples: Iterable[Example], taxonomy: Taxonomy) -> Trained | None:
    """Train a student; None where the LLM has not named two categories.

    It learns from the LLM's scores for all categories where there are any, so that an answer of
    which the LLM was not sure counts for less.
    """
    training = TrainingSet(taxonomy)
    uniform: set[str] = set()
    for example in examples:
        shares = {name: score for name, score in example.scores if score > 0}
        label = shares if example.label in shares else str(example.label)
        document = ClassifierInput.of(example.extraction, example.name)
        key = str(example.document_id)
        if training.add(Labelled(document, label, key=key)) and example.uniform:
            uniform.add(key)
    try:
        learnt = training.learn("")
    except ConfigurationError:
        return None
    names = taxonomy.names
    rows, scores = learnt.held_out
    guesses = scores.argmax(1)
    labels = learnt.targets[rows].argmax(1)
    expected: list[Judged] = []
    chosen: list[Judged] = []
    for row, margin, guess, label in zip(rows, margins(scores), guesses, labels, strict=True):
        judged = Judged(float(margin), bool(guess == label), names[guess])
        (expected if not uniform or learnt.keys[row] in uniform else chosen).append(judged)
    return Trained(learnt.model.to_bytes(), tuple(expected), tuple(chosen))
