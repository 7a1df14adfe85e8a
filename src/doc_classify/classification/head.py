"""A linear head over hashed words: ridge regression of every category against all others.

Ridge on one-hot targets equals or beats logistic regression on TF-IDF rows, takes soft targets (an
LLM's probabilities) as they are, and has leave-one-out predictions in closed form (Allen's PRESS;
Rifkin and Lippert, "Notes on Regularized Least Squares", 2007), so that the same documents train,
choose the strength of regularisation, and say how good the result is.

Where a prior is given (the zero-shot classifier's share for each category), the head learns what
has to be added to ``trust * prior``; how far the prior is trusted is chosen with the strength, by
the same leave-one-out error. Few labels then only correct what is known without any.

Documents may come in groups (their source, their folder). A group is then left out as a whole, in
closed form as well, so that strength, trust and scores are those for documents of a new group.

Scoring is a gather in numpy. SciPy is imported by training alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from doc_classify.classification.features import BUCKETS, Row, stack

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float64]

EXACT_ROWS = 2_000
"""Rows up to which the kernel matrix is decomposed; more are solved for iteratively."""
_HELD_OUT = 5_000
"""Rows held out at most where there are no leave-one-out scores in closed form."""
_STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)
_TRUSTS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
_SQUARED = 0.25
"""What the squared error counts beside the share of wrong answers when both are chosen: by itself
it trusts the prior too much, whose shares are closer to 0 and 1 than they are right."""
_MAX_WEIGHTS = 4_000_000
"""Buckets times categories that a head keeps, those with the smallest weights left out."""
_BLOCK = 512
_ITERATIONS, _TOLERANCE = 200, 1e-4


@dataclass(frozen=True, slots=True)
class Head:
    """What was learnt.

    Attributes:
        buckets: uint32 (B,), ascending: those that were seen in training.
        idf: float32 (B,).
        weights: float16 (B, C).
        bias: float32 (C,).
        trust: the factor of the prior, 0 where none is used.
    """

    buckets: NDArray[np.uint32]
    idf: NDArray[np.float32]
    weights: NDArray[np.float16]
    bias: NDArray[np.float32]
    trust: float = 0.0

    def scores(self, row: Row, prior: NDArray[np.floating] | None = None) -> Floats:
        """The score of each category (C,): near 1 for the right one, near 0 for the others.

        Raises:
            ValueError: the head has learnt on top of a prior, and none is given.
        """
        at, values = self._known(row)
        scores = self.bias + values @ self.weights[at].astype(np.float64)
        if self.trust:
            if prior is None:
                raise ValueError("this head needs a prior")
            scores = scores + self.trust * prior
        return np.asarray(scores, dtype=np.float64)

    def known(self, row: Row) -> float:
        """The share of a row's words, by value, that were seen in training; 0 of an empty row."""
        whole = float(row.values.sum())
        found = self._positions(row.indices)
        return float(row.values[found >= 0].sum()) / whole if whole else 0.0

    def spoke(self, row: Row, buckets: Sequence[int]) -> Floats:
        """What words in these buckets added to the score of each category: (len(buckets), C)."""
        at, values = self._known(row)
        added = dict(
            zip(
                self.buckets[at].tolist(),
                values[:, None] * self.weights[at].astype(np.float64),
                strict=True,
            )
        )
        nothing = np.zeros(len(self.bias))
        return np.array([added.get(bucket, nothing) for bucket in buckets]).reshape(
            len(buckets), len(self.bias)
        )

    def _known(self, row: Row) -> tuple[NDArray[np.intp], Floats]:
        """Positions of the row's buckets, and their TF-IDF values, of length 1 together."""
        at = self._positions(row.indices)
        seen = at >= 0
        at = at[seen]
        values = row.values[seen].astype(np.float64) * self.idf[at]
        return at, values / max(float(np.sqrt(values @ values)), 1e-12)

    def _positions(self, indices: NDArray[np.uint32]) -> NDArray[np.intp]:
        """Where the buckets stand in the head, -1 for those that were never seen."""
        if not len(self.buckets):
            return np.full(len(indices), -1, dtype=np.intp)
        at = np.minimum(np.searchsorted(self.buckets, indices), len(self.buckets) - 1)
        return np.where(self.buckets[at] == indices, at, -1)


class HeldOut(NamedTuple):
    """Scores of documents by heads that did not learn from them.

    ``rows`` (m,) says which they are, ``scores`` is (m, C). All of them, each left out by itself
    or with its group, up to :data:`EXACT_ROWS`; beyond that a random sample of documents or groups
    that were left out together.
    """

    rows: NDArray[np.intp]
    scores: Floats


class Fitted(NamedTuple):
    """A head, and how it does on documents that it has not seen."""

    head: Head
    held_out: HeldOut
    strength: float


def fit(
    rows: Sequence[Row],
    targets: Floats,
    weights: Floats | None = None,
    *,
    prior: Floats | None = None,
    groups: NDArray[np.intp] | None = None,
    cautious: bool = False,
    seed: int = 0,
) -> Fitted:
    """Learn a head. Deterministic.

    Up to :data:`EXACT_ROWS` documents take memory for a few matrices of their number squared;
    beyond that it is the rows themselves that count, about 12 bytes a different word.

    Args:
        rows: n documents.
        targets: (n, C), the probability of each category.
        weights: (n,), positive; how much each document counts.
        prior: (n, C), what is known of each document beforehand, 0 to 1.
        groups: (n,), the number of the group of each document; by default each is its own.
        cautious: choose by squared error alone, which trusts the prior more than the share of
            right answers would. It costs a point or two of accuracy on documents like those of the
            training, and saves many on others.
        seed: of the choice of documents that are held out.

    Raises:
        ValueError: no rows, or shapes that do not agree.
    """
    number = len(rows)
    if not number or targets.shape[:1] != (number,):
        raise ValueError(f"targets of shape {targets.shape} for {number} rows")
    matrix, buckets, idf = tf_idf(stack(rows))
    root = np.sqrt(np.ones(number) if weights is None else weights)
    known = np.zeros_like(targets) if prior is None else prior
    trusts = (0.0,) if prior is None else _TRUSTS
    group = np.arange(number) if groups is None else groups
    accuracy = 0.0 if cautious else 1.0
    if number <= EXACT_ROWS:
        chosen = _exact(matrix, targets, root, known, trusts, group, accuracy)
        held_out = HeldOut(np.arange(number), chosen.left_out)
        dual = root[:, None] * chosen.dual
        learnt, bias = matrix.T @ dual, dual.sum(0)
    else:
        random = np.random.default_rng(seed)
        some = np.sort(random.permutation(number)[:EXACT_ROWS])
        chosen = _exact(
            matrix[some], targets[some], root[some], known[some], trusts, group[some], accuracy
        )
        left = _left_out(group, min(_HELD_OUT, number // 5), random)
        out, kept = np.flatnonzero(left), np.flatnonzero(~left)
        rest = targets - chosen.trust * known
        learnt, bias = _solved(matrix[kept], rest[kept], root[kept], chosen.strength)
        scores = matrix[out] @ learnt + bias + chosen.trust * known[out]
        held_out = HeldOut(out, scores)
        learnt, bias = _solved(matrix, rest, root, chosen.strength)
    head = pruned(buckets, idf, learnt, bias, chosen.trust)
    return Fitted(head, held_out, chosen.strength)


class _Exact(NamedTuple):
    strength: float
    trust: float
    dual: Floats
    left_out: Floats


def _exact(
    matrix: csr_matrix,
    targets: Floats,
    root: Floats,
    prior: Floats,
    trusts: tuple[float, ...],
    group: NDArray[np.intp],
    accuracy: float,
) -> _Exact:
    """Ridge in the dual, with strength and trust of least leave-out error.

    With G = (K + strength)^-1 the errors of the documents g without themselves are
    (G_gg)^-1 (G y)_g. They are linear in the targets, so that a change of trust costs nothing.
    """
    kernel = (gram(matrix) + 1.0) * root[:, None] * root
    values, vectors = np.linalg.eigh(kernel)
    values = np.maximum(values, 0.0)
    members = _members(group)
    best, least = None, np.inf
    for strength in _STRENGTHS:
        inverse = (vectors / (values + strength)) @ vectors.T
        both = inverse @ (root[:, None] * np.hstack([targets, prior]))
        errors = both / np.diag(inverse)[:, None]
        for at in members:
            errors[at] = np.linalg.solve(inverse[np.ix_(at, at)], both[at])
        of_targets, of_prior = np.hsplit(errors, 2)
        for trust in trusts:
            error = of_targets - trust * of_prior
            left_out = targets - error / root[:, None]
            right = targets[np.arange(len(targets)), left_out.argmax(1)]
            loss = float(accuracy * (root**2 @ (1.0 - right)) + _SQUARED * (error * error).sum())
            if loss < least:
                least = loss
                dual = np.hsplit(both, 2)
                best = _Exact(strength, trust, dual[0] - trust * dual[1], left_out)
    if best is None:
        raise ValueError("the rows, targets or weights are not finite")
    return best


def _members(group: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Positions of the documents of each group that has more than one."""
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return [part for part in parts if len(part) > 1]


def _left_out(
    group: NDArray[np.intp], wanted: int, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Whole groups chosen at random until there are as many documents as wanted."""
    names, place, sizes = np.unique(group, return_inverse=True, return_counts=True)
    # Never more than twice as many, lest one huge group leave nothing to learn from.
    chosen, total = np.zeros(len(names), dtype=bool), 0
    for at in random.permutation(len(names)):
        if total < wanted and total + sizes[at] <= 2 * wanted:
            chosen[at] = True
            total += sizes[at]
    if not total:
        return np.asarray(random.permutation(len(group)) < wanted)
    return np.asarray(chosen[place])


def gram(matrix: csr_matrix) -> Floats:
    """All products of rows, block by block: a sparse product would need twice the memory."""
    number = matrix.shape[0]
    products = np.empty((number, number))
    turned = matrix.T.tocsc()
    for start in range(0, number, _BLOCK):
        products[start : start + _BLOCK] = (matrix[start : start + _BLOCK] @ turned).toarray()
    return products


def _solved(
    matrix: csr_matrix, targets: Floats, root: Floats, strength: float
) -> tuple[Floats, Floats]:
    """Ridge in the primal by LSMR (Fong and Saunders, 2011): weights (B, C) and bias (C,)."""
    from scipy.sparse import csr_matrix, diags, hstack
    from scipy.sparse.linalg import lsmr

    ones = csr_matrix(np.ones((matrix.shape[0], 1)))
    weighted = csr_matrix(diags(root) @ csr_matrix(hstack([matrix, ones])))
    damp = float(np.sqrt(strength))
    columns = [
        lsmr(
            weighted,
            root * targets[:, at],
            damp=damp,
            atol=_TOLERANCE,
            btol=_TOLERANCE,
            maxiter=_ITERATIONS,
        )[0]
        for at in range(targets.shape[1])
    ]
    solution = np.stack(columns, axis=1)
    return solution[:-1], solution[-1]


def tf_idf(counts: csr_matrix) -> tuple[csr_matrix, NDArray[np.uint32], Floats]:
    """Rows of length 1 over the buckets that occur, those buckets, and their IDF."""
    from scipy.sparse import csr_matrix, diags

    seen = np.bincount(counts.indices, minlength=BUCKETS)
    buckets = np.flatnonzero(seen)
    idf = np.log((1 + counts.shape[0]) / (1 + seen[buckets])) + 1.0
    matrix = csr_matrix(counts[:, buckets].astype(np.float64) @ diags(idf))
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scaled = csr_matrix(diags(1.0 / np.maximum(lengths, 1e-12)) @ matrix)
    return scaled, buckets.astype(np.uint32), idf


def pruned(
    buckets: NDArray[np.uint32], idf: Floats, learnt: Floats, bias: Floats, trust: float
) -> Head:
    """The head in the precision of its file; beyond a bound, without its smallest weights."""
    learnt = np.asarray(learnt)
    most = max(1, _MAX_WEIGHTS // learnt.shape[1])
    if len(buckets) > most:
        strongest = np.argsort(-(learnt * learnt).sum(axis=1), kind="stable")[:most]
        keep = np.sort(strongest)
        buckets, idf, learnt = buckets[keep], idf[keep], learnt[keep]
    return Head(
        buckets,
        idf.astype(np.float32),
        learnt.astype(np.float16),
        bias.astype(np.float32),
        float(trust),
    )
