"""Text as a classifier sees it: words in lower case, bounded in number, in linear time."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from doc_classify.classification.base import ClassifierInput

HEAD_CHARACTERS = 6_000
TAIL_CHARACTERS = 1_500
_WORD = re.compile(r"[^\W_]+")
# Scripts without spaces between words: each character is taken with the next one.
_UNSPACED = re.compile(r"[぀-ヿ㐀-鿿豈-﫿฀-๿]")
_MAX_WORD = 40


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a document by where they stand, and the text they were taken from."""

    title: list[str]
    name: list[str]
    body: list[str]
    sample: str


def read(document: ClassifierInput) -> Words:
    """The words of the head and the tail of a document, of its title and of its file name."""
    text = document.text
    if len(text) > HEAD_CHARACTERS + TAIL_CHARACTERS:
        text = f"{text[:HEAD_CHARACTERS]}\n{text[-TAIL_CHARACTERS:]}"
    text = unicodedata.normalize("NFKC", text)
    return Words(
        title=words((document.title or "")[:500]),
        name=words(document.name.rpartition(".")[0][:200] or document.name[:200]),
        body=words(text),
        sample=text,
    )


def words(text: str) -> list[str]:
    """Lower-case words; where a script has no spaces, overlapping pairs of characters."""
    found: list[str] = []
    for match in _WORD.finditer(text.lower()):
        word = match.group()
        if _UNSPACED.search(word):
            found.extend(word[at : at + 2] for at in range(max(1, len(word) - 1)))
        elif len(word) <= _MAX_WORD:
            found.append(word)
    return found


def stem(word: str) -> str:
    """A crude English stem: enough to match a category's name with its plural."""
    if len(word) <= 3 or not word.isascii():
        return word
    for ending, kept in (
        ("ies", "y"),
        ("sses", "ss"),
        ("ing", ""),
        ("ed", ""),
        ("es", ""),
        ("s", ""),
    ):
        if word.endswith(ending) and len(word) - len(ending) + len(kept) >= 3:
            if ending == "s" and word.endswith(("ss", "us", "is")):
                return word
            return word[: len(word) - len(ending)] + kept
    return word
