"""The classifier that needs no server and no download: lexical evidence, category by category.

Default categories bring a lexicon of cues (``lexicon.toml``) and structural evidence; any other
category is known by its name, description, keywords and examples. A cue counts with a saturating
term frequency normalised by length, as in BM25 (Robertson and Zaragoza, "The Probabilistic
Relevance Framework", 2009), more in the title and at the top of the document than further down.
``other`` is no topic: it is what is left when the evidence for everything else stays low.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise

from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.structure import structures
from doc_classify.classification.words import Words, read, stem, words
from doc_classify.records import Classification, freeze_scores
from doc_classify.taxonomy import DEFAULT_TAXONOMY, OTHER, Category, Taxonomy

_VERSION = 1

_TITLE_WEIGHT = 1.5
_NAME_WEIGHT = 0.7
_TOP_WORDS = 60
_TOP_WEIGHT = 1.6
_LENGTH = 400
"""Words of a typical document, for the normalisation by length."""
_STRUCTURE_FULL = 8
"""Occurrences at which a structure counts in full."""
_TEMPERATURE, _CUSTOM_TEMPERATURE = 6.0, 4.0
"""Evidence that makes a category e times as likely as another; a few words of the user's own say
less in sum than a lexicon does."""
_OTHER_EVIDENCE, _CUSTOM_OTHER_EVIDENCE = 11.0, 3.0
"""Evidence that a category must beat so that a document is not ``other``."""
_OTHER_PER_LENGTH = 0.5
_FEW_WORDS = 15
_REVIEW_MARGIN = 0.15

_NAME, _KEYWORD, _DESCRIPTION, _EXAMPLE = 6.0, 5.0, 2.0, 1.0
"""Weights of the words of a category that the user describes."""
_EXAMPLE_WORDS = 200

_STOP_WORDS = frozenset(
    word
    for line in (
        "a about all an and any are as at be by can do for from has have if in into is it its more",
        "most no nor not of on one or other our over some such than that the their them these they",
        "this those to up was we what when which who will with you your etc der die das und oder",
        "für mit von zu den dem ein eine le la les un une et ou de des du pour avec el los las y o",
        "con para por document documents file files thing things whatever everything anything",
    )
    for word in line.split()
)

# Confidence by margin (share of the best category minus that of the second): fitted by isotonic
# regression on labelled office documents in the seven default categories; see docs/model-card.md.
_CALIBRATION = (
    (0.09, 0.36),
    (0.28, 0.59),
    (0.49, 0.77),
    (0.72, 0.84),
    (0.89, 0.92),
    (0.96, 0.99),
)


@dataclass(frozen=True, slots=True)
class _Cue:
    phrase: tuple[str, ...]
    category: int
    weight: float


@dataclass(slots=True)
class _Evidence:
    """What one document holds for one category: weight by what it was found in."""

    total: float = 0.0
    found: dict[str, float] | None = None

    def add(self, what: str, weight: float) -> None:
        self.total += weight
        if self.found is None:
            self.found = {}
        self.found[what] = self.found.get(what, 0.0) + weight


class EmbeddedClassifier:
    """Zero-shot classification by lexical and structural evidence; see the module's docstring.

    ``Classification.score`` is the category's share of the evidence. A calibrated confidence is
    given only for the default taxonomy; for any other it is None.

    Args:
        taxonomy: the categories.
    """

    name = "embedded"

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._names = taxonomy.names
        self._other = self._names.index(OTHER) if OTHER in self._names else None
        self._calibrated = set(self._names) == set(DEFAULT_TAXONOMY.names)
        self._by_word: dict[str, list[_Cue]] = defaultdict(list)
        self._by_prefix: dict[str, list[_Cue]] = defaultdict(list)
        lexicon = tomllib.loads(_lexicon())
        self._default = {name for name in self._names if name in lexicon}
        custom: list[tuple[int, Category]] = []
        if any(name not in lexicon for name in self._names):
            # Topics that are foreign to offices may be just what the user's categories are about.
            del lexicon[OTHER]
            self._default.discard(OTHER)
        for index, category in enumerate(taxonomy.categories):
            if category.name in lexicon:
                for weight, phrases in lexicon[category.name].items():
                    for phrase in phrases:
                        self._add(phrase, index, float(weight))
                for keyword in category.keywords:
                    self._add(" ".join(words(keyword)), index, _KEYWORD)
            elif category.name != OTHER:
                custom.append((index, category))
        self._stemmed = bool(custom)
        self._add_custom(custom)
        self._prefix_lengths = sorted({len(prefix) for prefix in self._by_prefix})

    @property
    def fingerprint(self) -> str:
        """Digest of the version and of the lexicon."""
        return hashlib.sha256(f"{_VERSION}\n{_lexicon()}".encode()).hexdigest()[:16]

    def classify(
        self, document: ClassifierInput, *, include_reasoning: bool = False
    ) -> Classification:
        """See :meth:`doc_classify.classification.Classifier.classify`."""
        read_words = read(document)
        evidence = self._evidence(read_words)
        scores = self._scores(evidence, len(read_words.body))
        ranked = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
        best, second = ranked[0], ranked[1]
        margin = scores[best] - scores[second]
        thin = len(read_words.body) < _FEW_WORDS or evidence[best].total < 3.0
        return Classification(
            category=self._names[best],
            score=round(scores[best], 4),
            confidence=_confidence(margin) if self._calibrated else None,
            scores=freeze_scores(
                {name: round(scores[at], 4) for at, name in enumerate(self._names)}
            ),
            needs_review=thin or margin < _REVIEW_MARGIN,
            reasoning=self._reasoning(evidence, best, second) if include_reasoning else None,
        )

    def _add(self, phrase: str, category: int, weight: float) -> None:
        cue = _Cue(tuple(phrase.rstrip("*").split()), category, weight)
        if not cue.phrase:
            return
        if phrase.endswith("*") and len(cue.phrase) == 1:
            self._by_prefix[cue.phrase[0]].append(cue)
        else:
            self._by_word[cue.phrase[0]].append(cue)

    def _add_custom(self, custom: list[tuple[int, Category]]) -> None:
        """Cues of the user's own categories; a word that many of them share says less."""
        profiles: dict[int, dict[str, float]] = {}
        for index, category in custom:
            profile: dict[str, float] = {}
            examples = Counter(
                word for text in category.examples for word in words(text)[:_EXAMPLE_WORDS]
            )
            for found, weight in (
                (words(category.name), _NAME),
                ([word for keyword in category.keywords for word in words(keyword)], _KEYWORD),
                (words(category.description), _DESCRIPTION),
                (list(examples), _EXAMPLE),
            ):
                for word in found:
                    if word not in _STOP_WORDS and (len(word) > 1 or not word.isascii()):
                        key = stem(word)
                        profile[key] = max(profile.get(key, 0.0), weight)
            profiles[index] = profile
        shared = Counter(word for profile in profiles.values() for word in profile)
        for index, profile in profiles.items():
            for word, weight in profile.items():
                rarity = math.log((1 + len(profiles)) / shared[word]) / math.log(1 + len(profiles))
                if rarity > 0:
                    self._by_word[f"={word}"].append(_Cue((f"={word}",), index, weight * rarity))
            keywords = (keyword for keyword in dict(custom)[index].keywords if " " in keyword)
            for keyword in keywords:
                self._add(" ".join(words(keyword)), index, _KEYWORD)

    def _evidence(self, document: Words) -> list[_Evidence]:
        evidence = [_Evidence() for _ in self._names]
        slowness = 0.4 + 0.6 * len(document.body) / _LENGTH
        for cue, count, first in self._find(document.body):
            weight = cue.weight * count * (1 + slowness) / (count + slowness)
            if first < _TOP_WORDS:
                weight *= _TOP_WEIGHT
            evidence[cue.category].add(_show(cue.phrase), weight)
        for where, factor in ((document.title, _TITLE_WEIGHT), (document.name, _NAME_WEIGHT)):
            for cue, _count, _first in self._find(where):
                evidence[cue.category].add(_show(cue.phrase), cue.weight * factor)
        for description, number, weights in structures(document.sample):
            strength = min(1.5, math.log1p(number) / math.log1p(_STRUCTURE_FULL))
            for name, weight in weights.items():
                if name in self._default:
                    evidence[self._names.index(name)].add(description, weight * strength)
        return evidence

    def _find(self, sequence: list[str]) -> list[tuple[_Cue, int, int]]:
        """Every cue in a sequence of words, with how often and where it first stands."""
        counts: dict[_Cue, int] = {}
        firsts: dict[_Cue, int] = {}
        for at, word in enumerate(sequence):
            for cue in self._by_word.get(word, ()):
                size = len(cue.phrase)
                if size == 1 or tuple(sequence[at : at + size]) == cue.phrase:
                    counts[cue] = counts.get(cue, 0) + 1
                    firsts.setdefault(cue, at)
        if self._by_prefix or self._stemmed:
            distinct: dict[str, int] = {}
            for at, word in enumerate(sequence):
                distinct.setdefault(word, at)
            occurrences = Counter(sequence)
            for word, at in distinct.items():
                for cue in self._variants(word):
                    counts[cue] = counts.get(cue, 0) + occurrences[word]
                    firsts[cue] = min(firsts.get(cue, at), at)
        return [(cue, count, firsts[cue]) for cue, count in counts.items()]

    def _variants(self, word: str) -> list[_Cue]:
        cues: list[_Cue] = []
        for length in self._prefix_lengths:
            if length > len(word):
                break
            cues += self._by_prefix.get(word[:length], ())
        if self._stemmed:
            cues += self._by_word.get(f"={stem(word)}", ())
        return cues

    def _scores(self, evidence: list[_Evidence], length: int) -> list[float]:
        totals = [item.total for item in evidence]
        # Long texts collect stray cues, so that they need more evidence for anything.
        base = _CUSTOM_OTHER_EVIDENCE if self._stemmed else _OTHER_EVIDENCE
        needed = base * (min(length, 1200) / _LENGTH + 0.25) ** _OTHER_PER_LENGTH
        if self._other is not None:
            totals[self._other] += needed
        top = max(totals)
        temperature = _CUSTOM_TEMPERATURE if self._stemmed else _TEMPERATURE
        weights = [math.exp((total - top) / temperature) for total in totals]
        whole = sum(weights)
        return [weight / whole for weight in weights]

    def _reasoning(self, evidence: list[_Evidence], best: int, second: int) -> str:
        parts = []
        for index, role in ((best, "for"), (second, "runner-up")):
            found = evidence[index].found or {}
            strongest = sorted(found, key=lambda what: (-found[what], what))[:5]
            if strongest:
                shown = ", ".join(what[:40] for what in strongest)
            elif index == self._other:
                shown = "little evidence for anything else"
            else:
                shown = "nothing in particular"
            parts.append(f"{role} {self._names[index]}: {shown}")
        return "; ".join(parts)


def _show(phrase: tuple[str, ...]) -> str:
    return f"'{' '.join(phrase).lstrip('=')}'"


def _confidence(margin: float) -> float:
    """Calibrated probability of being right, interpolated between the fitted points."""
    if margin <= _CALIBRATION[0][0]:
        return _CALIBRATION[0][1]
    for (low, at_low), (high, at_high) in pairwise(_CALIBRATION):
        if margin <= high:
            return round(at_low + (at_high - at_low) * (margin - low) / (high - low), 3)
    return _CALIBRATION[-1][1]


def _lexicon() -> str:
    return (resources.files(__package__) / "lexicon.toml").read_text("utf-8")
