"""From labelled documents to a trained model.

Documents are turned into rows of hashed words as they come, about 12 bytes for each different
word, and their texts are not kept.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.calibration import calibrated
from doc_classify.classification.embedded import EmbeddedClassifier
from doc_classify.classification.features import Row, row_of
from doc_classify.classification.head import HeldOut, fit
from doc_classify.classification.model_file import (
    Provenance,
    TrainedModel,
    other_place,
    short_hashes,
    zero_shot_shares,
)
from doc_classify.classification.words import read
from doc_classify.errors import ConfigurationError
from doc_classify.taxonomy import Taxonomy

Floats = NDArray[np.float64]

MOST_DOCUMENTS = 100_000
"""More make no better model, but would take memory without bound."""

_UNLIKELY = 0.05
"""Where no documents of ``other`` are known: the share of those known that are less likely to be
what they are than a document of ``other`` should be at most."""
_HIGHEST_FLOOR = 0.5


@dataclass(frozen=True, slots=True)
class Labelled:
    """A document and what is known of its category.

    Attributes:
        document: as a classifier gets it.
        label: the category, or a probability for each (an LLM's); what is left out has none.
        weight: how much it counts; a person's word may count more than a model's.
        group: documents that are alike for another reason than their category (a source, a
            folder) and are left out together when a model is chosen and judged; "" for none.
        key: what it is known by: a later document of the same key takes its place. The SHA-256 of
            the file's bytes, as lower-case hex, lets an evaluation know it again. By default its
            own words.
    """

    document: ClassifierInput
    label: str | Mapping[str, float]
    weight: float = 1.0
    group: str = ""
    key: str = ""


class Example(NamedTuple):
    """What is kept of a document: its row, its label as (C,), and the prior as (C,)."""

    row: Row
    target: NDArray[np.float32]
    prior: NDArray[np.float32]
    weight: float
    group: str


class Learnt(NamedTuple):
    """A model, and what it says of documents that it did not learn from.

    ``targets`` (n, C), ``weights`` (n), ``groups`` (n: numbers; documents of one were left out
    together) and ``keys`` (n) are those of the examples, in the order that ``held_out.rows``
    refers to.
    """

    model: TrainedModel
    held_out: HeldOut
    targets: Floats
    weights: Floats
    groups: NDArray[np.intp]
    keys: tuple[str, ...]


class TrainingSet:
    """Labelled documents, reduced to what training needs.

    Args:
        taxonomy: the categories.
        zero_shot: build on the zero-shot classifier, where that turns out to help.
        cautious: the documents to be classified may be of other sources than these (see
            :func:`doc_classify.classification.head.fit`).
        most: documents that are kept: beyond that a random sample, always the same of the same.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        *,
        zero_shot: bool = True,
        cautious: bool = False,
        most: int = MOST_DOCUMENTS,
    ) -> None:
        self._most = most
        self._drawn: list[tuple[int, str]] = []
        self.taxonomy = taxonomy
        self.cautious = cautious
        self.zero_shot = EmbeddedClassifier(taxonomy) if zero_shot else None
        self.examples: dict[str, Example] = {}
        self._places = {name: at for at, name in enumerate(taxonomy.names)}

    def add(self, labelled: Labelled) -> bool:
        """Take in a document; False where it has no words to learn from.

        Raises:
            ConfigurationError: the label names no category of the taxonomy, or the weight or a
                probability is no positive number.
        """
        target = self._target(labelled.label)
        if not (np.isfinite(labelled.weight) and labelled.weight > 0):
            raise ConfigurationError(f"a weight is a positive number, got {labelled.weight}")
        words = read(labelled.document)
        if not words.body:
            return False
        seen = row_of(words)
        prior = np.zeros(len(target), np.float32)
        if self.zero_shot:
            shares = zero_shot_shares(self.zero_shot, labelled.document, self.taxonomy.names)
            prior = shares.astype(np.float32)
        own = hashlib.sha256(seen.indices.tobytes() + seen.values.tobytes())
        key = labelled.key or f"words {own.hexdigest()}"
        self.put(key, Example(seen, target, prior, labelled.weight, labelled.group))
        return True

    def put(self, key: str, example: Example) -> None:
        """Take in what was kept of a document, in the place of what has the same key."""
        if key not in self.examples:
            # The documents with the smallest hashes are a uniform sample of all there are.
            lot = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
            heapq.heappush(self._drawn, (-lot, key))
        self.examples[key] = example
        if len(self.examples) > self._most:
            del self.examples[heapq.heappop(self._drawn)[1]]

    def learn(self, created: str, *, seed: int = 0) -> Learnt:
        """Train a model; the order in which documents came makes no difference.

        Args:
            created: when, in ISO 8601, for the record.
            seed: of the choice of documents that are held out.

        Raises:
            ConfigurationError: there are no documents of two categories.
        """
        keys = tuple(sorted(self.examples))
        examples = [self.examples[key] for key in keys]
        number = len(self.taxonomy.names)
        targets = np.array([one.target for one in examples], np.float64).reshape(-1, number)
        likeliest = targets.argmax(1)
        if len(set(likeliest.tolist())) < 2:
            raise ConfigurationError(
                "training needs documents of two categories or more, got "
                f"{len(examples)} of {sorted({self.taxonomy.names[at] for at in likeliest})}"
            )
        weights = np.array([one.weight for one in examples])
        weights /= weights.mean()
        groups = _groups([one.group for one in examples], likeliest)
        fitted = fit(
            [one.row for one in examples],
            targets,
            weights,
            prior=np.array([one.prior for one in examples], np.float64) if self.zero_shot else None,
            groups=groups,
            cautious=self.cautious,
            seed=seed,
        )
        rows, scores = fitted.held_out
        counts = np.bincount(likeliest, minlength=number)
        floor = None
        at = other_place(self.taxonomy.names)
        if at is not None and not counts[at] and fitted.head.trust < 1:
            floor = min(float(np.quantile(scores.max(1), _UNLIKELY)), _HIGHEST_FLOOR)
            scores[:, at] = np.maximum(scores[:, at], floor)
        right = targets[rows, scores.argmax(1)]
        model = TrainedModel(
            self.taxonomy,
            fitted.head,
            calibrated(margins(scores), right, weights[rows]),
            Provenance(
                created,
                tuple(counts.tolist()),
                self._fingerprint(keys),
                self.zero_shot.fingerprint if self.zero_shot and fitted.head.trust else "",
            ),
            floor,
            short_hashes(keys),
        )
        alone = np.arange(len(keys)) if groups is None else groups
        return Learnt(model, fitted.held_out, targets, weights, alone, keys)

    def _target(self, label: str | Mapping[str, float]) -> NDArray[np.float32]:
        shares = {label: 1.0} if isinstance(label, str) else label
        target = np.zeros(len(self._places), np.float32)
        for name, share in shares.items():
            if name not in self._places:
                raise ConfigurationError(
                    f"there is no category {name!r}; there are {', '.join(self._places)}"
                )
            if not (np.isfinite(share) and share >= 0):
                raise ConfigurationError(f"the probability of {name!r} is {share}")
            target[self._places[name]] = share
        whole = float(target.sum())
        if not whole > 0:
            raise ConfigurationError("a label without any probability")
        return (target / whole).astype(np.float32)

    def _fingerprint(self, keys: tuple[str, ...]) -> str:
        digest = hashlib.sha256()
        for key in keys:
            one = self.examples[key]
            for part in (one.row.indices, one.row.values, one.target, np.float64(one.weight)):
                digest.update(part.tobytes())
        return digest.hexdigest()[:32]


def train(
    documents: Iterable[Labelled],
    taxonomy: Taxonomy,
    *,
    created: str = "",
    zero_shot: bool = True,
    cautious: bool = False,
    seed: int = 0,
) -> TrainedModel:
    """Train a model from documents, taken one by one.

    Args:
        documents: labelled ones; those without words are left out.
        taxonomy: the categories.
        created: when, in ISO 8601, for the record.
        zero_shot: build on the zero-shot classifier, where that turns out to help.
        cautious: the documents to be classified may be of other sources than these.
        seed: of the choice of documents that are held out.

    Raises:
        ConfigurationError: a label cannot be used, or there are no two categories to tell apart.
    """
    examples = TrainingSet(taxonomy, zero_shot=zero_shot, cautious=cautious)
    for labelled in documents:
        examples.add(labelled)
    return examples.learn(created, seed=seed).model


def _groups(names: list[str], categories: NDArray[np.intp]) -> NDArray[np.intp] | None:
    """The number of each document's group; None where no category has two groups.

    A category that is in one group alone would vanish with it: its documents are left out one by
    one, and so are those without a group.
    """
    within: dict[int, set[str]] = {}
    for name, category in zip(names, categories.tolist(), strict=True):
        within.setdefault(category, set()).add(name)
    numbers: dict[object, int] = {}
    groups = [
        numbers.setdefault(name if name and len(within[category]) > 1 else at, len(numbers))
        for at, (name, category) in enumerate(zip(names, categories.tolist(), strict=True))
    ]
    return np.array(groups) if len(numbers) < len(names) else None


def margins(scores: Floats) -> Floats:
    """The differences (n,) of the best two scores of each row of (n, C)."""
    best = np.partition(scores, -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])
