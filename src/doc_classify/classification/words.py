"""Text as a classifier sees it: normalised words and lines, bounded in number, in linear time."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from doc_classify.classification.base import ClassifierInput

HEAD_CHARACTERS = 6_000
TAIL_CHARACTERS = 1_500
MAX_WORD = 40
_TITLE_CHARACTERS = 300

# Scripts without spaces between words: kana, Han (also the rarer planes), Thai, Lao, Burmese,
# Khmer. A run of them is taken as overlapping pairs of characters.
_UNSPACED = "぀-ヿ㐀-䶿一-鿿豈-﫿\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3\U00020000-\U0003ffff"
# Marks that belong to a word though they are no letters: Hebrew and Arabic points, the vowel
# signs of the scripts of India.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u3099-\u309a"
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_SPACED_WORD = re.compile(r"[^\W_]+")
_NOT_SPACED = re.compile(f"[{_UNSPACED}{_MARKS}]")
_WORD = re.compile(rf"[{_UNSPACED}]+|(?:[^\W_{_UNSPACED}]|[{_MARKS}])+")
_UNSPACED_START = re.compile(f"[{_UNSPACED}]")
_LATIN_MARKS = re.compile(r"[\u0300-\u036f]")
_HYPHENATED = re.compile(r"-\r?\n(?=[a-z])")
_SPACED_OUT = re.compile(r"[A-Z](?<!\S[A-Z])(?: [A-Z]){3,20}(?!\S)")
_FIRST_UNSPACED = "\u0e00"


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
    text = _HYPHENATED.sub("", text.replace("\xad", ""))
    text = _SPACED_OUT.sub(_joined, text)
    name = document.name[-_TITLE_CHARACTERS:]
    return Words(
        title=words((document.title or "")[:_TITLE_CHARACTERS]),
        name=words(name.rpartition(".")[0] or name),
        body=words(text),
        sample=text,
    )


def words(text: str) -> list[str]:
    """Words without case and Latin accents; pairs of characters where a script has no spaces.

    Words over 40 characters are no words and are left out.
    """
    text = fold(text)
    if text.isascii():
        return [word for word in _ASCII_WORD.findall(text) if len(word) <= MAX_WORD]
    if not _NOT_SPACED.search(text):
        return [word for word in _SPACED_WORD.findall(text) if len(word) <= MAX_WORD]
    found: list[str] = []
    for word in _WORD.findall(text):
        if word[0] >= _FIRST_UNSPACED and unspaced(word):
            found.extend(word[at : at + 2] for at in range(max(1, len(word) - 1)))
        elif len(word) <= MAX_WORD:
            found.append(word)
    return found


def fold(text: str) -> str:
    """Compatibility forms, case and Latin accents folded, so that spellings compare equal."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", _LATIN_MARKS.sub("", decomposed))


def unspaced(word: str) -> bool:
    """Whether a word is of a script without spaces between words."""
    return _UNSPACED_START.match(word) is not None


# What optical recognition confuses, folded to one form: "lnvoice", "1nvoice" and "invoicc" look
# the same as "invoice".
_LOOKALIKES = str.maketrans({"i": "l", "1": "l", "j": "l", "0": "o", "5": "s", "8": "b", "c": "e"})


def silhouette(word: str) -> str:
    """A word with the letters that optical recognition confuses made equal."""
    if "rn" in word:
        word = word.replace("rn", "m")
    if "vv" in word:
        word = word.replace("vv", "w")
    return word.translate(_LOOKALIKES)


def stem(word: str) -> str:
    """A crude English stem: enough to match a category's name with its plural."""
    if len(word) <= 3 or not word.isascii():
        return word
    for ending, kept in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) + len(kept) >= 3:
            if ending == "s" and word.endswith(("ss", "us", "is")):
                return word
            return word[: len(word) - len(ending)] + kept
    return word


_ENDINGS = (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""))


def _joined(match: re.Match[str]) -> str:
    return match.group().replace(" ", "")
