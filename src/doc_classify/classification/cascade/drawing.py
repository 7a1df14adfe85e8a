"""Drawing documents at random, without keeping a list of them all."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable


def rank(key: bytes, stage: int, document: str) -> int:
    """A document's place in the random order of a stage.

    Documents of low rank are drawn first. Each stage has an order of its own: the documents
    that a stage left over because of what they contain must not come first in the next.

    Args:
        key: secret of the lot, 16 to 64 random bytes made before anything is drawn. Who knows
            it could choose file names that are drawn.
        stage: number of the draw; never used twice in a lot.
        document: what identifies the document in the lot.

    Returns:
        A number below 2^63, the same for the same arguments everywhere and always.

    Raises:
        ValueError: the key is too short or too long.
    """
    if not 16 <= len(key) <= 64:
        raise ValueError("the key has to have 16 to 64 bytes")
    digest = hashlib.blake2b(
        stage.to_bytes(8, "big") + document.encode("utf-8", "surrogatepass"),
        key=key,
        digest_size=8,
    ).digest()
    return int.from_bytes(digest, "big") >> 1


def draw(documents: Iterable[str], number: int, key: bytes, stage: int) -> list[str]:
    """Draw documents uniformly, without putting any back.

    Args:
        documents: those that may be drawn: all of the lot that the LLM was not yet asked about.
        number: how many; all are drawn where there are fewer.
        key: see :func:`rank`.
        stage: see :func:`rank`.

    Returns:
        The documents drawn, by rank. The memory needed grows with ``number`` alone.
    """
    return heapq.nsmallest(number, documents, key=lambda one: (rank(key, stage, one), one))
