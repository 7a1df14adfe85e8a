"""A model learnt from documents that nobody has labelled.

The zero-shot classifier labels what it is surest of in each category; a head learns from these
what else such documents say, labels more, and learns again (Yarowsky, "Unsupervised Word Sense
Disambiguation Rivaling Supervised Methods", 1995). Each category gives the same share of its
documents, so that an easy one does not crowd out the others, and the head never replaces the
zero-shot scores but is added to them.

How far the zero-shot scores are trusted depends on what the categories are, and was chosen by
measuring (``docs/model-card.md``): much where they are kinds of documents, whose many cues are
hard to improve on; little where they are topics, known by the few words that the user gave; and
in between where there is a category ``other`` beside topics, since what it holds is known by a
threshold alone.

Nobody can tell without labels whether the result is better. What can be told is that it cannot be:
:func:`self_train` refuses where the words of the documents do not bear out their labels, where the
answers change beyond recognition, and where categories all but vanish.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from doc_classify.classification import lexicon
from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.embedded import EmbeddedClassifier
from doc_classify.classification.features import Row, row, stack
from doc_classify.classification.head import gram, pruned, tf_idf
from doc_classify.classification.model_file import Provenance, TrainedModel, zero_shot_shares
from doc_classify.classification.profiles import is_other, profiles
from doc_classify.errors import ConfigurationError
from doc_classify.taxonomy import Taxonomy

Floats = NDArray[np.float64]

MIN_DOCUMENTS = 100
"""Fewer documents hold too few that are alike."""
MOST_DOCUMENTS = 3_000
"""A uniform sample of so many is learnt from: the time grows with its cube."""

_STRENGTH = 0.3
_KINDS, _TOPICS, _TOPICS_AND_OTHER = 1.0, 0.25, 0.5
"""Trust in the zero-shot scores, by what the categories are."""
_ROUNDS_OF_KINDS = (0.5, 0.7, 0.9)
_ROUNDS_OF_TOPICS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The share of each category's documents that is learnt from, round by round."""
_LEAST_OF_CATEGORY = 5
_UNDECIDED = 0.02
"""Documents with a smaller margin teach nothing; the others, by their margin."""
_LEAST_WEIGHT = 0.1
_LEAST_BORNE_OUT = 0.3
_LEAST_AGREEMENT = 0.5
_VANISHING = 1 / 5
"""A category that keeps less than this share of its documents all but vanishes."""
_MOST_VANISHING = 1 / 8
"""The share of all documents that such categories may have had."""


@dataclass(frozen=True, slots=True)
class SelfTraining:
    """What self-training did.

    Attributes:
        seen: documents that came.
        used: the sample of them that was learnt from.
        before: how many of the sample each category had, in the taxonomy's order.
        after: how many it has now.
        agreement: the share of the sample that has kept its category.
        borne_out: how well the other documents' words tell what the zero-shot classifier is sure
            of (Cohen's kappa, each document left out of what judges it): 1 is fully, 0 by chance.
    """

    seen: int
    used: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    agreement: float
    borne_out: float

    @property
    def vanishing(self) -> tuple[int, ...]:
        """The places of the categories that have lost almost all of their documents."""
        return tuple(
            at
            for at, (before, after) in enumerate(zip(self.before, self.after, strict=True))
            if after < before * _VANISHING
        )


class SelfTrained(NamedTuple):
    """A model, and how it came about."""

    model: TrainedModel
    report: SelfTraining


def self_train(
    documents: Iterable[ClassifierInput], taxonomy: Taxonomy, *, created: str = "", seed: int = 0
) -> SelfTrained:
    """Learn from unlabelled documents, taken one by one. Deterministic.

    The model has no calibration, since there are no labels to calibrate on: what it answers has a
    score and no confidence.

    Args:
        documents: those that are to be classified, or others like them.
        taxonomy: the categories.
        created: when, in ISO 8601, for the record.
        seed: of the sample, where there are more than :data:`MOST_DOCUMENTS`.

    Raises:
        ConfigurationError: there are too few documents, or self-training would make things worse;
            the message says why.
    """
    zero_shot = EmbeddedClassifier(taxonomy)
    seen, rows, priors = _sample(documents, zero_shot, taxonomy.names, seed)
    if len(rows) < MIN_DOCUMENTS:
        raise ConfigurationError(
            f"self-training needs {MIN_DOCUMENTS} documents with words or more, got {len(rows)}"
        )
    trust, shares = _plan(taxonomy)
    matrix, buckets, idf = tf_idf(stack(rows))
    kernel = gram(matrix)
    scores = priors
    borne_out = 0.0
    for turn, share in enumerate(shares):
        at = _surest(scores, share)
        labels = scores[at].argmax(1)
        if len(set(labels.tolist())) < 2:
            raise ConfigurationError(
                "self-training cannot tell categories apart: the descriptions of the categories "
                "are clearly borne out by documents of one category at most"
            )
        dual, bias, left_out = _ridge(kernel[np.ix_(at, at)], labels, scores, at, turn == 0)
        if left_out is not None:
            borne_out = _kappa(left_out.argmax(1), labels, len(taxonomy.names))
        scores = kernel[:, at] @ dual + bias + trust * priors
    before, after = (
        np.bincount(of.argmax(1), minlength=len(taxonomy.names)) for of in (priors, scores)
    )
    report = SelfTraining(
        seen=seen,
        used=len(rows),
        before=tuple(before.tolist()),
        after=tuple(after.tolist()),
        agreement=float((priors.argmax(1) == scores.argmax(1)).mean()),
        borne_out=borne_out,
    )
    _check(report, taxonomy)
    head = pruned(buckets, idf, matrix[at].T @ dual, bias, trust)
    provenance = Provenance(created, report.after, _digest(rows, priors), zero_shot.fingerprint)
    return SelfTrained(TrainedModel(taxonomy, head, None, provenance), report)


def _plan(taxonomy: Taxonomy) -> tuple[float, tuple[float, ...]]:
    """How far to trust the zero-shot scores, and the share to learn from in each round."""
    known = [
        profile
        for category, profile in zip(
            taxonomy.categories, profiles(taxonomy, lexicon.load()), strict=True
        )
        if not is_other(category.name)
    ]
    if sum(profile.topical for profile in known) * 2 <= len(known):
        return _KINDS, _ROUNDS_OF_KINDS
    with_other = len(known) < len(taxonomy.categories)
    return (_TOPICS_AND_OTHER if with_other else _TOPICS), _ROUNDS_OF_TOPICS


def _sample(
    documents: Iterable[ClassifierInput],
    zero_shot: EmbeddedClassifier,
    names: tuple[str, ...],
    seed: int,
) -> tuple[int, list[Row], Floats]:
    """A uniform sample of documents with words (Vitter's Algorithm R), and how many came."""
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    priors: list[Floats] = []
    seen = worded = 0
    for document in documents:
        seen += 1
        if not any(character.isalnum() for character in document.text):
            continue
        worded += 1
        place = len(rows) if len(rows) < MOST_DOCUMENTS else int(random.integers(worded))
        if place >= MOST_DOCUMENTS:
            continue
        one = row(document), zero_shot_shares(zero_shot, document, names)
        if place == len(rows):
            rows.append(one[0])
            priors.append(one[1])
        else:
            rows[place], priors[place] = one
    return seen, rows, np.array(priors).reshape(len(rows), len(names))


def _margins(scores: Floats) -> Floats:
    best = np.partition(scores, -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


def _surest(scores: Floats, share: float) -> NDArray[np.intp]:
    """The share of each category's documents that have the widest margins; ascending."""
    margins, likeliest = _margins(scores), scores.argmax(1)
    chosen: list[NDArray[np.intp]] = []
    for category in range(scores.shape[1]):
        of = np.flatnonzero((likeliest == category) & (margins >= _UNDECIDED))
        number = max(_LEAST_OF_CATEGORY, int(np.ceil(share * len(of))))
        chosen.append(of[np.argsort(-margins[of], kind="stable")[:number]])
    return np.sort(np.concatenate(chosen))


def _ridge(
    kernel: Floats, labels: NDArray[np.intp], scores: Floats, at: NDArray[np.intp], check: bool
) -> tuple[Floats, Floats, Floats | None]:
    """Weighted kernel ridge: dual coefficients (n, C), bias (C,), leave-one-out scores (n, C)."""
    weights = np.clip(_margins(scores[at]), _LEAST_WEIGHT, 1.0)
    targets = np.eye(scores.shape[1])[labels]
    bias = weights @ targets / weights.sum()
    system = kernel + np.diag(_STRENGTH / weights)
    if not check:
        return np.linalg.solve(system, targets - bias), bias, None
    inverse = np.linalg.inv(system)
    dual = inverse @ (targets - bias)
    return dual, bias, targets - dual / np.diag(inverse)[:, None]


def _kappa(answers: NDArray[np.intp], labels: NDArray[np.intp], categories: int) -> float:
    """Agreement beyond that by chance (Cohen, 1960)."""
    by_chance = (
        float(
            np.bincount(answers, minlength=categories) @ np.bincount(labels, minlength=categories)
        )
        / len(labels) ** 2
    )
    agreed = float((answers == labels).mean())
    return (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0


def _check(report: SelfTraining, taxonomy: Taxonomy) -> None:
    """Refuse what can be seen to be no improvement."""
    without = "; classify without a model, or label some documents and train on these"
    if report.borne_out < _LEAST_BORNE_OUT:
        raise ConfigurationError(
            "self-training would not help: documents that seem to be of one category have little "
            f"in common (kappa {report.borne_out:.2f}){without}"
        )
    if report.agreement < _LEAST_AGREEMENT:
        raise ConfigurationError(
            f"self-training would change the category of {1 - report.agreement:.0%} of the "
            f"documents, which is more than it can be trusted with{without}"
        )
    lost = report.vanishing
    if sum(report.before[at] for at in lost) >= _MOST_VANISHING * report.used:
        names = ", ".join(
            f"{report.after[at]} of {report.before[at]} documents in {taxonomy.names[at]!r}"
            for at in lost
        )
        raise ConfigurationError(f"self-training would leave {names}{without}")


def _digest(rows: Sequence[Row], priors: Floats) -> str:
    digest = hashlib.sha256(priors.tobytes())
    for one in rows:
        digest.update(one.indices.tobytes())
        digest.update(one.values.tobytes())
    return digest.hexdigest()[:32]
