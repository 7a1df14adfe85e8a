"""The evidence that a document holds: what was found, for whom it speaks, and how much."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.cues import CueIndex
from doc_classify.classification.lexicon import Kind, Lexicon
from doc_classify.classification.profiles import KEYWORD, Profile
from doc_classify.classification.structure import headings, lines_of, namings, structures
from doc_classify.classification.words import Words

_TITLE, _NAME = 1.5, 0.6
"""What a cue in the title or in the file's name counts, as against one in the text."""
_TOP_WORDS, _TOP = 60, 1.5
"""The first words of a text, and what they count more than others."""
_K1, _B = 1.0, 0.6
"""Saturation and normalisation by length of BM25."""
LENGTH = 400
"""Words of a typical document."""
_NAMED = 0.4
"""What the name of a kind counts at least in a heading that has other words too."""
_NAME_WORDS = 4

Found = tuple[int, float, str]
"""(target, weight, what it is)"""

_Weights = dict[str, dict[int, float]]


class EvidenceFinder:
    """Finds what speaks for its *targets*: numbers, of categories or of kinds of documents."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._index = CueIndex()
        self._headings: _Weights = {}
        self._namings: _Weights = {}
        self._structures: _Weights = {}

    def add_profile(self, profile: Profile, target: int) -> None:
        """Look for a category."""
        for kind, share in profile.kinds:
            self.add_kind(kind, target, share)
        for term, weight in profile.terms.items():
            self._index.add_stem(term, target, weight)
        for phrase in profile.phrases:
            self._index.add(phrase, target, KEYWORD)

    def add_kind(self, kind: Kind, target: int, share: float = 1.0) -> None:
        """Look for a kind of document; a target may stand for several."""
        for cue, weight in kind.cues.items():
            self._index.add(cue, target, weight * share)
        _enter(self._namings, kind.names, target, self._lexicon.name_weight * share)
        _enter(self._headings, kind.headings, target, self._lexicon.heading_weight * share)
        for what, weight in kind.structure.items():
            _enter(self._structures, (what,), target, weight * share)

    def find(self, seen: Words, document: ClassifierInput) -> Iterator[Found]:
        """All evidence in a document, in an order that depends on nothing else."""
        resistance = _K1 * (1 - _B + _B * len(seen.body) / LENGTH)
        for cue, number, at_top in self._index.find(seen.body, _TOP_WORDS):
            factor = number * (_K1 + 1) / (number + resistance) * (_TOP if at_top else 1.0)
            for target, weight in cue.weights.items():
                yield target, weight * factor, cue.shown
        for where, factor in ((seen.title, _TITLE), (seen.name, _NAME)):
            if where:
                yield from self._naming(where, factor)
                for cue, _, _ in self._index.find(where, 0):
                    for target, weight in cue.weights.items():
                        yield target, weight * factor, cue.shown
        if not self._structures:  # none of the categories is a kind of document
            return
        lines = lines_of(seen.sample)
        for phrase in dict.fromkeys(headings(lines)):
            for target, weight in self._headings.get(phrase, {}).items():
                yield target, weight, f"the heading '{phrase}'"
        for in_line in namings(lines):
            yield from self._naming(in_line, 1.0)
        for what, strength in structures(lines, seen, document.media_type).items():
            for target, weight in self._structures.get(what, {}).items():
                yield target, weight * strength, what

    def _naming(self, in_line: list[str], factor: float) -> Iterator[Found]:
        """The longest name of a kind in a heading; one that fills it counts in full."""
        for size in range(min(_NAME_WORDS, len(in_line)), 0, -1):
            for at in range(len(in_line) - size + 1):
                phrase = " ".join(in_line[at : at + size])
                if targets := self._namings.get(phrase):
                    share = factor * (_NAMED + (1 - _NAMED) * size / len(in_line))
                    for target, weight in targets.items():
                        yield target, weight * share, f"the heading '{phrase}'"
                    return


def _enter(table: _Weights, phrases: Iterable[str], target: int, weight: float) -> None:
    for phrase in phrases:
        weights = table.setdefault(phrase, {})
        weights[target] = max(weight, weights.get(target, 0.0))
