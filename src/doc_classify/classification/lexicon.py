"""What is known beforehand about kinds of documents: the words of ``lexicon.json``.

The file has one entry a kind of document (invoice, receipt, letter, curriculum vitae ...):

``category``
    the default category that the kind belongs to, ``other`` where it belongs to none of them.
``names``
    what the kind is called. A heading with such a name is strong evidence, and a category of the
    user's that bears the name takes the kind's cues.
``headings``
    titles of sections that such documents have.
``strong``, ``clear``, ``weak``
    words and phrases of the text; ``pre*`` stands for a beginning, ``*end`` for an ending.
``structure``
    what :mod:`doc_classify.classification.structure` counts, with its weight.

Lists are lines of cues separated by commas; case and Latin accents make no difference.
``calibration`` maps the margin between the best two categories to the share of right answers.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from doc_classify.classification.words import stem, words

_STRENGTHS = ("strong", "clear", "weak")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of document. Phrases are normalised as the words of a document are."""

    name: str
    category: str
    names: frozenset[str]
    headings: frozenset[str]
    cues: dict[str, float]
    structure: dict[str, float]
    singular_names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """All kinds, the weights of names and headings, and the calibration of the margin."""

    kinds: tuple[Kind, ...]
    name_weight: float
    heading_weight: float
    calibration: tuple[tuple[float, float], ...]
    digest: str

    def of_category(self, category: str) -> tuple[Kind, ...]:
        """The kinds that belong to a default category."""
        return tuple(kind for kind in self.kinds if kind.category == category)

    def named(self, name: str) -> tuple[Kind, ...]:
        """The kinds that are called so, in the singular or the plural."""
        return tuple(kind for kind in self.kinds if _singular(name) in kind.singular_names)


@functools.cache
def load() -> Lexicon:
    """The lexicon that comes with the package; read once per process."""
    return parse((resources.files(__package__) / "lexicon.json").read_bytes())


def parse(raw: bytes) -> Lexicon:
    """A lexicon from the bytes of its file."""
    data = json.loads(raw)
    weights = data["weights"]
    return Lexicon(
        kinds=tuple(_kind(name, entry, weights) for name, entry in data["kinds"].items()),
        name_weight=float(weights["name"]),
        heading_weight=float(weights["heading"]),
        calibration=tuple((float(low), float(value)) for low, value in data["calibration"]),
        digest=hashlib.sha256(raw).hexdigest()[:16],
    )


def normalised(phrase: str) -> str:
    """A phrase in the form in which the words of documents are compared."""
    return " ".join(words(phrase))


def _kind(name: str, entry: dict[str, Any], weights: dict[str, float]) -> Kind:
    cues: dict[str, float] = {}
    for strength in _STRENGTHS:
        for cue in _split(entry[strength]):
            start, end = "*" * cue.startswith("*"), "*" * cue.endswith("*")
            cues.setdefault(f"{start}{normalised(cue)}{end}", float(weights[strength]))
    names = frozenset(normalised(phrase) for phrase in _split(entry["names"]))
    return Kind(
        name=name,
        category=entry["category"],
        names=names,
        headings=frozenset(normalised(phrase) for phrase in _split(entry["headings"])),
        cues=cues,
        structure={what: float(weight) for what, weight in entry["structure"].items()},
        singular_names=frozenset(_singular(phrase) for phrase in names),
    )


def _singular(phrase: str) -> str:
    return " ".join(stem(word) for word in phrase.split())


def _split(lines: list[str]) -> list[str]:
    return [cue for cue in (part.strip() for part in " ".join(lines).split(",")) if cue]
