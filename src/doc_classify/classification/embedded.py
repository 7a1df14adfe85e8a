"""The classifier that needs no server and no download: evidence added up category by category.

Categories that name a kind of document (``invoices``, ``letters``, ``CVs`` ...) bring the cues of
the lexicon: words, phrases, headings and structures. Any other category is known by its name,
description, keywords and examples. A word counts with the saturating term frequency of BM25,
normalised by length (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and
Beyond", 2009), more in the title and at the top than further down, and little in the file's name.

``other`` is no topic: it is what is left when the evidence for everything else stays under a
threshold, or when the document is recognised as a kind that none of the categories claims.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import chain, pairwise

from doc_classify.classification import lexicon as lexicons
from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.evidence import LENGTH, EvidenceFinder, Found
from doc_classify.classification.explaining import (
    Check,
    Evidence,
    Explanation,
    caveats,
    needs_review,
    strongest,
)
from doc_classify.classification.legibility import Languages, legibility_checks
from doc_classify.classification.profiles import is_other, profiles
from doc_classify.classification.words import read
from doc_classify.records import Classification, freeze_scores
from doc_classify.taxonomy import DEFAULT_TAXONOMY, OTHER, Taxonomy

_VERSION = 3
"""To be raised with every change of the code that can change an answer."""

_KIND_UNIT, _TOPIC_UNIT = 11.0, 4.0
"""Evidence that makes a category as likely as ``other``: for a kind of document, which has many
cues, and for a topic, which has the few words that the user gave."""
_LONGER, _LONGEST = 0.45, 1200
"""Long texts collect stray cues, so that they need more evidence: the power of the length, and
the words up to which it grows."""
_STRANGE = 0.65
"""What evidence for a kind that no category claims adds to ``other``."""
_SHARPNESS = 2.2
_LITTLE = 0.5
"""Evidence below this share of a unit is for review."""
_REVIEW_MARGIN, _REVIEW_CONFIDENCE = 0.2, 0.6
_SHOWN, _SHOWN_CHARACTERS, _EXPLAINED = 5, 60, 12
"""How many pieces of evidence the reasoning names, how much of each, how many an explanation."""


@dataclass(frozen=True, slots=True)
class _Decision:
    """What was found in a document, and what follows; categories by their numbers."""

    found: list[Found]
    totals: list[float]
    scores: list[float]
    ranked: list[int]
    confidence: float | None
    checks: tuple[Check, ...]


class EmbeddedClassifier:
    """Zero-shot classification by lexical and structural evidence; see the module's docstring.

    ``Classification.score`` is the category's share of the evidence. ``confidence`` is given for
    the default taxonomy where there is evidence enough, else None: the share of right answers at
    the same margin between the best two categories among 737 public office documents from 23
    sources (isotonic regression, ``benchmarks/classifier.py --fit``; with the source of a document
    left out of the fit, the calibration error over ten bins was 0.017). It means what it says for
    documents like those.

    Args:
        taxonomy: the categories.
    """

    name = "embedded"

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._names = taxonomy.names
        self._other = next((at for at, name in enumerate(self._names) if is_other(name)), None)
        self._calibrated = taxonomy == DEFAULT_TAXONOMY
        self._lexicon = lexicons.load()
        self._finder = EvidenceFinder(self._lexicon)
        known = profiles(taxonomy, self._lexicon)
        for target, profile in enumerate(known):
            self._finder.add_profile(profile, target)
        self._units = [_TOPIC_UNIT if profile.topical else _KIND_UNIT for profile in known]
        # Kinds that no category claims are targets of their own, after those of the categories:
        # a document that is one of them is ``other``. Not so where a category is a topic: a
        # letter about gardening is no stranger to a category called gardening.
        self._strangers: list[str] = []
        topics = [at for at, profile in enumerate(known) if profile.topical and at != self._other]
        if self._other is not None and not topics:
            claimed = {kind.name for profile in known for kind, _ in profile.kinds}
            for kind in self._lexicon.kinds:
                if kind.name not in claimed:
                    self._finder.add_kind(kind, len(known) + len(self._strangers))
                    self._strangers.append(kind.name)
        self._units += [_KIND_UNIT] * len(self._strangers)
        # Cues of kinds are known in several languages; the user's own words are in one.
        kinds = [kind for profile in known for kind, _ in profile.kinds]
        own = [
            " ".join((one.name, one.description, *one.keywords, *one.examples))
            for one in taxonomy.categories
        ]
        cues = (cue for kind in kinds for cue in kind.cues)
        self._languages = Languages(chain(own, cues), several=bool(kinds))

    @property
    def fingerprint(self) -> str:
        """Digest of the version and of the lexicon."""
        return hashlib.sha256(f"{_VERSION} {self._lexicon.digest}".encode()).hexdigest()[:16]

    def classify(
        self, document: ClassifierInput, *, include_reasoning: bool = False
    ) -> Classification:
        """See :meth:`doc_classify.classification.Classifier.classify`."""
        decision = self._decide(document)
        return self._classification(decision, include_reasoning=include_reasoning)

    def explain(self, document: ClassifierInput) -> Explanation:
        """See :meth:`doc_classify.classification.explaining.Explaining.explain`."""
        decision = self._decide(document)
        names = (*self._names, *(f"{OTHER}: {_shown(name)}" for name in self._strangers))
        evidence = [
            Evidence(names[target], what[:_SHOWN_CHARACTERS], weight)
            for target, weight, what in decision.found
        ]
        return Explanation(
            self._classification(decision, include_reasoning=True),
            decision.checks,
            tuple(strongest(evidence, names, _EXPLAINED)),
        )

    def _decide(self, document: ClassifierInput) -> _Decision:
        seen = read(document)
        found = list(self._finder.find(seen, document))
        totals = [0.0] * (len(self._names) + len(self._strangers))
        for target, weight, _ in found:
            totals[target] += weight
        longer = (0.25 + min(len(seen.body), _LONGEST) / LENGTH) ** _LONGER
        strengths = [
            total / (unit * longer) for total, unit in zip(totals, self._units, strict=True)
        ]
        scores = self._scores(strengths)
        ranked = sorted(range(len(scores)), key=lambda at: (-scores[at], at))
        margin = scores[ranked[0]] - scores[ranked[1]]
        stranger = self._languages.stranger(seen.sample, seen.body)
        legible = (
            *legibility_checks(seen),
            Check(
                "strongest evidence", round(max(strengths), 3), _LITTLE, "there is little evidence"
            ),
        )
        confidence = None
        if self._calibrated and not needs_review(legible):
            confidence = _interpolated(self._lexicon.calibration, margin)
        checks = (
            *legible,
            Check(
                "language",
                None if stranger is None else 0.0,
                1.0,
                f"it is in {stranger}, which the categories are not known in",
            ),
            Check(
                "margin to the runner-up",
                round(margin, 4),
                _REVIEW_MARGIN,
                "the evidence is almost even",
            ),
            Check("confidence", confidence, _REVIEW_CONFIDENCE, "the confidence is low"),
        )
        return _Decision(found, totals, scores, ranked, confidence, checks)

    def _classification(self, decision: _Decision, *, include_reasoning: bool) -> Classification:
        scores = decision.scores
        best, second = decision.ranked[:2]
        reasoning = None
        if include_reasoning:
            reasoning = self._reasoning(decision.found, decision.totals, best, second)
            reasoning += caveats(decision.checks)
        return Classification(
            category=self._names[best],
            score=round(scores[best], 4),
            confidence=decision.confidence,
            scores=freeze_scores(
                {name: round(scores[at], 4) for at, name in enumerate(self._names)}
            ),
            needs_review=needs_review(decision.checks),
            reasoning=reasoning,
        )

    def _scores(self, strengths: list[float]) -> list[float]:
        """The share of each category, from evidence in units of what it takes to be decided."""
        levels = strengths[: len(self._names)]
        if self._other is not None:
            strangest = max(strengths[len(self._names) :], default=0.0)
            levels[self._other] = 1.0 + _STRANGE * strangest
        top = max(levels)
        weights = [math.exp(_SHARPNESS * (level - top)) for level in levels]
        whole = sum(weights)
        return [weight / whole for weight in weights]

    def _reasoning(self, found: list[Found], totals: list[float], best: int, second: int) -> str:
        """One sentence of words of the lexicon and the taxonomy, never of the document's own."""
        return (
            f"For {self._names[best]} spoke {self._spoke(found, totals, best)}; "
            f"for the runner-up {self._names[second]}, {self._spoke(found, totals, second)}."
        )

    def _spoke(self, found: list[Found], totals: list[float], target: int) -> str:
        prefix = ""
        if target == self._other:
            strangers = range(len(self._names), len(totals))
            strongest = max(strangers, key=lambda at: totals[at], default=target)
            if strongest == target or totals[strongest] < _KIND_UNIT * _LITTLE:
                return "little evidence for anything else"
            name = _shown(self._strangers[strongest - len(self._names)])
            prefix, target = f"the looks of another kind of document ({name}): ", strongest
        weights: dict[str, float] = {}
        for at, weight, what in found:
            if at == target:
                weights[what] = weights.get(what, 0.0) + weight
        strongest_first = sorted(weights, key=lambda what: (-weights[what], what))[:_SHOWN]
        if not strongest_first:
            return "nothing in particular"
        return prefix + ", ".join(what[:_SHOWN_CHARACTERS] for what in strongest_first)


def _shown(kind: str) -> str:
    return kind.replace("_", " ")


def _interpolated(table: tuple[tuple[float, float], ...], margin: float) -> float:
    """The value at a margin, between the fitted points; the outermost ones hold beyond."""
    if margin <= table[0][0]:
        return table[0][1]
    for (low, at_low), (high, at_high) in pairwise(table):
        if margin <= high:
            return round(at_low + (at_high - at_low) * (margin - low) / (high - low), 3)
    return table[-1][1]
