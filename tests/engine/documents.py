"""Generated documents with their categories, as plain text."""

from __future__ import annotations

import random
from collections.abc import Iterator

from doc_classify.dataset.compose import CATEGORIES, compose

__all__ = ["CATEGORIES", "documents"]


def documents(
    seed: int, count: int, words: tuple[int, int] = (60, 120)
) -> Iterator[tuple[str, str]]:
    """The beginnings of one-page documents in English, each with its category."""
    rng = random.Random(seed)
    for number in range(count):
        category = CATEGORIES[number % len(CATEGORIES)]
        content = compose(rng, category, "en", 1)
        text = "\n".join([content.title, *content.lines()])
        yield category, _beginning(text, rng.randint(*words))


def _beginning(text: str, words: int) -> str:
    kept: list[str] = []
    for line in text.split("\n"):
        found = line.split(" ")[:words]
        kept.append(" ".join(found))
        words -= len(found)
        if words <= 0:
            break
    return "\n".join(kept)
