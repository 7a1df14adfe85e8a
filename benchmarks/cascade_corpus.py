"""Labelled documents for benchmarks/cascade.py: read once, then only numbers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from doc_classify.classification import ClassifierInput
from doc_classify.classification.embedded import EmbeddedClassifier
from doc_classify.classification.features import Row, row, stack
from doc_classify.classification.head import Head, fit
from doc_classify.classification.learning import margins
from doc_classify.classification.model_file import zero_shot_shares
from doc_classify.taxonomy import DEFAULT_TAXONOMY, Taxonomy

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


class Student(NamedTuple):
    """What a student says of all documents, and of those it learned from as if it had not.

    ``guess`` and ``score`` (n,) are of all documents; ``kept_guess`` and ``kept_score`` (t,) are
    leave-one-out, in the order of the training documents.
    """

    guess: Ints
    score: Floats
    kept_guess: Ints
    kept_score: Floats


class Corpus:
    """Documents with their labels, as a student sees them.

    Args:
        folder: every sub-folder is a category and holds its documents as text files.
        taxonomy: what the zero-shot classifier knows; by default the folders' names, or the
            default taxonomy where they are its names.
        zero_shot: build on the zero-shot classifier, as the product does.
    """

    def __init__(
        self, folder: Path, taxonomy: Taxonomy | None = None, *, zero_shot: bool = True
    ) -> None:
        self.name = folder.name
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = sorted({path.relative_to(folder).parts[0] for path in files})
        if taxonomy is None:
            ours = set(names) <= set(DEFAULT_TAXONOMY.names)
            taxonomy = DEFAULT_TAXONOMY if ours else Taxonomy.from_names(names)
        self.categories = len(taxonomy.names)
        classifier = EmbeddedClassifier(taxonomy) if zero_shot else None
        self.rows: list[Row] = []
        labels, prior = [], []
        for path in files:
            document = ClassifierInput(path.read_text("utf-8", "replace"))
            seen = row(document)
            if not len(seen.indices):
                continue
            self.rows.append(seen)
            labels.append(taxonomy.names.index(path.relative_to(folder).parts[0]))
            if classifier:
                prior.append(zero_shot_shares(classifier, document, taxonomy.names))
        self.labels: Ints = np.array(labels, dtype=np.intp)
        self.prior: Floats | None = np.array(prior) if classifier else None
        counts = stack(self.rows)
        # Of the many buckets only those that occur: everything is faster by some times.
        self._buckets, columns = np.unique(counts.indices, return_inverse=True)
        self._counts = csr_matrix(
            (counts.data, columns, counts.indptr), shape=(len(self.rows), len(self._buckets))
        )
        self._row_of = np.repeat(np.arange(len(self.rows)), np.diff(counts.indptr))

    def __len__(self) -> int:
        return len(self.labels)

    def learn(self, chosen: Ints, answers: Ints) -> Student:
        """Train on some documents with the teacher's answers ``answers`` (n,) to all."""
        targets = np.zeros((len(chosen), self.categories))
        targets[np.arange(len(chosen)), answers[chosen]] = 1
        prior = None if self.prior is None else self.prior[chosen]
        fitted = fit([self.rows[at] for at in chosen], targets, prior=prior)
        scores = self._scores(fitted.head)
        # Beyond some thousand documents only a part was held out: the others are left out here.
        kept = np.full((len(chosen), self.categories), np.nan)
        kept[fitted.held_out.rows] = fitted.held_out.scores
        return Student(scores.argmax(1), margins(scores), kept.argmax(1), margins(kept))

    def _scores(self, head: Head) -> Floats:
        at = np.searchsorted(self._buckets, head.buckets)
        idf = np.zeros(len(self._buckets))
        idf[at] = head.idf
        weights = np.zeros((len(self._buckets), self.categories))
        weights[at] = head.weights
        values = self._counts.data * idf[self._counts.indices]
        squares = np.bincount(self._row_of, weights=values * values, minlength=len(self))
        matrix = csr_matrix(
            (values, self._counts.indices, self._counts.indptr), shape=self._counts.shape
        )
        scores = np.asarray(matrix @ weights) / np.maximum(np.sqrt(squares), 1e-12)[:, None]
        scores = scores + head.bias
        if head.trust and self.prior is not None:
            scores = scores + head.trust * self.prior
        return np.asarray(scores, dtype=np.float64)


def teachers(corpus: Corpus, seed: int = 0) -> Iterable[tuple[str, Ints]]:
    """The answers of three teachers: the label, and the label with two kinds of error.

    Random: 5% of the answers are another category, each document for itself; no student can
    learn that. Systematic: 8% are, for documents that share a word. A student can learn that.
    """
    random = np.random.default_rng(seed)
    number, categories = len(corpus), corpus.categories
    yield "label", corpus.labels
    other = (corpus.labels + random.integers(1, categories, number)) % categories
    yield "5% random", np.where(random.random(number) < 0.05, other, corpus.labels)
    yield "8% systematic", _systematic(corpus, 0.08, random)


def _systematic(corpus: Corpus, share: float, random: np.random.Generator) -> Ints:
    """Documents of a category that hold a certain word go to the next category.

    A few such rules, each for 2% of the documents or more.
    """
    answers = corpus.labels.copy()
    columns = stack(corpus.rows).tocsc()
    often = np.diff(columns.indptr)
    words = random.permutation(
        np.flatnonzero((often > len(corpus) / 50) & (often < len(corpus) / 2))
    )
    changed = np.zeros(len(corpus), dtype=bool)
    for word in words:
        if changed.mean() >= share - 0.005:
            break
        at = columns.indices[columns.indptr[word] : columns.indptr[word + 1]]
        category = int(random.integers(corpus.categories))
        at = at[(corpus.labels[at] == category) & ~changed[at]]
        most = (share + 0.01) * len(corpus)
        if len(at) < 0.02 * len(corpus) or changed.sum() + len(at) > most:
            continue
        changed[at] = True
        answers[at] = (category + 1) % corpus.categories
    return answers
