"""An index of words and phrases that finds all of them in a text in one pass.

Every cue speaks for one or more *targets* (numbers that the caller gives a meaning), each with a
weight of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from doc_classify.classification.words import silhouette, stem

_FUZZY_LENGTH = 5
"""Words from this length on are also found as optical recognition may have misread them."""
_STEM_PREFIX = 5
_STEM_PREFIX_WEIGHT = 0.5
_MEMO = 100_000
"""Words that an index remembers having looked up."""
_PHRASE_WORDS = 8


class Cue:
    """Something to look for: how it is shown to a person, and what it weighs for whom."""

    __slots__ = ("shown", "weights")

    def __init__(self, text: str) -> None:
        self.shown = f"'{text}'"
        self.weights: dict[int, float] = {}

    def add(self, target: int, weight: float) -> None:
        """Let it speak for a target; the higher of two weights counts."""
        self.weights[target] = max(weight, self.weights.get(target, 0.0))


class CueIndex:
    """Words, phrases, beginnings, endings and stems, found whether or not they were misread."""

    def __init__(self) -> None:
        self._words: dict[str, Cue] = {}
        self._phrases: dict[str, dict[str, dict[tuple[str, ...], Cue]]] = {}
        self._beginnings: dict[str, Cue] = {}
        self._endings: dict[str, Cue] = {}
        self._stems: dict[str, Cue] = {}
        self._stem_prefixes: dict[str, Cue] = {}
        self._known: set[str] = set()
        self._silhouettes: dict[str, str] | None = None
        self._memo: dict[str, tuple[Cue, ...]] = {}
        self._corrections: dict[str, str | None] = {}

    def add(self, cue: str, target: int, weight: float) -> None:
        """Add a normalised word or phrase, ``pre*`` or ``*end``."""
        parts = cue.strip("*").split()[:_PHRASE_WORDS]
        if not parts:
            return
        text = " ".join(parts)
        if len(parts) > 1:
            by_second = self._phrases.setdefault(parts[0], {})
            found = by_second.setdefault(parts[1], {}).setdefault(tuple(parts), Cue(text))
        elif cue.endswith("*"):
            found = self._beginnings.setdefault(text, Cue(text))
        elif cue.startswith("*"):
            found = self._endings.setdefault(text, Cue(text))
        else:
            found = self._words.setdefault(text, Cue(text))
        found.add(target, weight)
        self._known.update(parts)

    def add_stem(self, word: str, target: int, weight: float) -> None:
        """Add a word in all its forms; words that only begin alike count less."""
        key = stem(word)
        self._stems.setdefault(key, Cue(word)).add(target, weight)
        if len(key) >= _STEM_PREFIX and key.isalpha():
            beginning = key[:_STEM_PREFIX]
            cue = self._stem_prefixes.setdefault(beginning, Cue(word))
            cue.add(target, weight * _STEM_PREFIX_WEIGHT)
            self._endings.setdefault(key, Cue(word)).add(target, weight * _STEM_PREFIX_WEIGHT)
        self._known.add(word)

    def find(self, sequence: list[str], top: int) -> Iterator[tuple[Cue, int, bool]]:
        """Every cue in a sequence of words: (cue, how often, whether in the first ``top``)."""
        counts = Counter(sequence)
        first = set(sequence[:top])
        corrected: dict[str, str] = {}
        found: dict[int, tuple[Cue, int, bool]] = {}
        for word, number in counts.items():
            cues = self._memo.get(word)
            if cues is None:
                cues = self._remember(word)
            correction = self._corrections.get(word)
            if correction is not None:
                corrected[word] = correction
            for cue in cues:
                before = found.get(id(cue))
                at_top = word in first
                if before is None:
                    found[id(cue)] = (cue, number, at_top)
                else:
                    found[id(cue)] = (cue, before[1] + number, before[2] or at_top)
        yield from found.values()
        if self._phrases:
            if corrected:
                sequence = [corrected.get(word, word) for word in sequence]
            yield from self._find_phrases(sequence, top)

    def _find_phrases(self, sequence: list[str], top: int) -> Iterator[tuple[Cue, int, bool]]:
        """Phrases, word for word after words that were misread have been corrected."""
        starters = self._phrases
        found: dict[tuple[str, ...], tuple[Cue, int, bool]] = {}
        for at, (word, second) in enumerate(pairwise(sequence)):
            if word in starters and (phrases := starters[word].get(second)):
                following = tuple(sequence[at : at + _PHRASE_WORDS])
                for phrase, cue in phrases.items():
                    if following[: len(phrase)] == phrase:
                        before = found.get(phrase)
                        found[phrase] = (
                            (cue, before[1] + 1, before[2]) if before else (cue, 1, at < top)
                        )
        yield from found.values()

    def _remember(self, word: str) -> tuple[Cue, ...]:
        if len(self._memo) >= _MEMO:  # hostile texts are all new words
            self._memo.clear()
            self._corrections.clear()
        if word not in self._known:
            self._corrections[word] = self._correction(word)
        cues = tuple(self._cues_of(self._corrections.get(word) or word))
        self._memo[word] = cues
        return cues

    def _correction(self, word: str) -> str | None:
        if len(word) < _FUZZY_LENGTH:
            return None
        if self._silhouettes is None:
            self._silhouettes = {
                silhouette(known): known
                for known in sorted(self._known, reverse=True)
                if len(known) >= _FUZZY_LENGTH
            }
        return self._silhouettes.get(silhouette(word))

    def _cues_of(self, word: str) -> Iterator[Cue]:
        if cue := self._words.get(word):
            yield cue
        for size in range(3, len(word) + 1):
            if cue := self._beginnings.get(word[:size]):
                yield cue
        # An ending is that of a compound, so that something must stand before it.
        for at in range(len(word) - 2):
            if (cue := self._endings.get(word[at:])) and (at or word not in self._stems):
                yield cue
        if self._stems:
            key = stem(word)
            cue = self._stems.get(key)
            if cue is None and len(key) >= _STEM_PREFIX:
                cue = self._stem_prefixes.get(key[:_STEM_PREFIX])
            if cue is not None:
                yield cue
