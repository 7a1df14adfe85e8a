"""Sentences from templates: ``[one|another]`` is a choice, ``{name}`` a fact, both may nest."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

T = TypeVar("T")

# A part is a text, a fact (wrapped in a one-element tuple of its name) or a list of alternatives.
_Part = str | tuple[str] | list["_Parts"]
_Parts = tuple["_Part", ...]

_PIECE = re.compile(r"[\[\]|]|\{[^{}]+\}|[^\[\]|{}]+")
_SPACES = re.compile(r"[ \t]{2,}")
_LOOSE = re.compile(r" +([,.)])")
_LOOSE_ENGLISH = re.compile(r" +([;:?!])")


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """One of the options; several times faster than ``rng.choice``."""
    return options[int(rng.random() * len(options))]


def some(rng: random.Random, options: Sequence[T], low: int, high: int) -> list[T]:
    """Between ``low`` and ``high`` different options in random order, fewer if there are fewer."""
    wanted = min(rng.randint(low, high), len(options))
    return rng.sample(options, wanted)


@cache
def _compile(template: str) -> _Parts:
    pieces = _PIECE.findall(template)
    position = 0

    def sequence(nested: bool) -> _Parts:
        nonlocal position
        parts: list[_Part] = []
        while position < len(pieces):
            piece = pieces[position]
            if nested and piece in "|]":
                break
            position += 1
            if piece == "[":
                parts.append(alternatives())
            elif piece[0] == "{":
                parts.append((piece[1:-1],))
            else:
                parts.append(piece)
        return tuple(parts)

    def alternatives() -> list[_Parts]:
        nonlocal position
        found = [sequence(True)]
        while position < len(pieces) and pieces[position] == "|":
            position += 1
            found.append(sequence(True))
        position += 1
        return found

    return sequence(False)


def expand(template: str, rng: random.Random, fact: Callable[[str], str]) -> str:
    """The template with every choice made and every fact filled in."""
    out: list[str] = []
    _expand(_compile(template), rng, fact, out)
    return "".join(out)


def _expand(parts: _Parts, rng: random.Random, fact: Callable[[str], str], out: list[str]) -> None:
    for part in parts:
        if isinstance(part, str):
            out.append(part)
        elif isinstance(part, list):
            _expand(pick(rng, part), rng, fact, out)
        else:
            out.append(fact(part[0]))


def tidy(text: str, language: str) -> str:
    """Undo what empty choices leave behind, and begin with a capital letter."""
    text = _LOOSE.sub(r"\1", _SPACES.sub(" ", text)).strip()
    if language != "fr":  # French puts a space before tall punctuation
        text = _LOOSE_ENGLISH.sub(r"\1", text)
    if ".." in text and "..." not in text:  # a sentence that ends with "Inc."
        text = text.replace("..", ".")
    return text[:1].upper() + text[1:]
