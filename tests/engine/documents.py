"""Generated documents with their categories, as plain text."""

from __future__ import annotations

import random
from collections.abc import Iterator

from doc_classify.dataset.compose import CATEGORIES, WORDS_PER_PAGE, compose

_LANGUAGES, _SHARES = ("en", "de", "fr"), (8, 1, 1)

__all__ = ["CATEGORIES", "documents"]


def documents(
    seed: int, count: int, words: tuple[int, int] = (60, 120)
) -> Iterator[tuple[str, str]]:
    """The beginnings of documents, each with its category; most are in English."""
    rng = random.Random(seed)
    pages = 1 + words[1] // WORDS_PER_PAGE
    offset = rng.randrange(len(CATEGORIES))
    for number in range(count):
        category = CATEGORIES[(offset + number) % len(CATEGORIES)]
        language = rng.choices(_LANGUAGES, _SHARES)[0]
        content = compose(rng, category, language, pages)
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
