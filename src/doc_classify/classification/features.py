"""Documents as sparse rows of numbers: hashed words.

The hashing trick (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009)
needs no vocabulary: a word's bucket follows from its bytes alone, the same in every process and on
every machine. Words of the title and of the file's name have buckets of their own and count less.
The value is the sublinear term frequency, 1 + log(count). Bigrams and character n-grams were
measured too: they made no difference worth their time (``benchmarks/trained.py``).
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.words import Words, read

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FEATURES_VERSION = 1
"""To be raised with every change that gives a document another row; :mod:`.words` included."""
BUCKETS = 1 << 18

_TITLE, _NAME = 0.5, 0.5
"""Weights of words that stand in the title and in the file's name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One document.

    Attributes:
        indices: uint32, ascending, each below :data:`BUCKETS`, none twice.
        values: float32, positive, of the same length.
    """

    indices: NDArray[np.uint32]
    values: NDArray[np.float32]


def row(document: ClassifierInput) -> Row:
    """The row of a document; empty where it has no words."""
    return row_of(read(document))


def row_of(seen: Words) -> Row:
    """The row of words that were read already."""
    found: dict[int, float] = {}
    for _, bucket, value in features(seen):
        found[bucket] = found.get(bucket, 0.0) + value
    indices = np.fromiter(found, dtype=np.uint32, count=len(found))
    values = np.fromiter(found.values(), dtype=np.float32, count=len(found))
    order = np.argsort(indices)
    return Row(indices[order], values[order])


def features(seen: Words) -> Iterator[tuple[str, int, float]]:
    """Each different word of each field with its bucket and its value."""
    for field, listed, weight in (
        ("", seen.body, 1.0),
        ("title ", seen.title, _TITLE),
        ("name ", seen.name, _NAME),
    ):
        for word, count in Counter(listed).items():
            yield word, bucket_of(field + word), weight * (1.0 + math.log(count))


def bucket_of(feature: str) -> int:
    """The bucket: CRC-32 of the UTF-8 bytes, modulo :data:`BUCKETS`."""
    return zlib.crc32(feature.encode("utf-8", "surrogatepass")) % BUCKETS


def stack(rows: Sequence[Row]) -> csr_matrix:
    """The rows as one float32 matrix of shape (rows, :data:`BUCKETS`)."""
    from scipy.sparse import csr_matrix

    ends = np.cumsum([0, *(len(one.indices) for one in rows)], dtype=np.int64)
    nothing = Row(np.empty(0, np.uint32), np.empty(0, np.float32))
    parts = rows or [nothing]
    return csr_matrix(
        (
            np.concatenate([one.values for one in parts]),
            np.concatenate([one.indices for one in parts]).astype(np.int32),
            ends,
        ),
        shape=(len(rows), BUCKETS),
    )
