"""What an LLM's answer says: one of the categories, or nothing.

The score comes from the log-probabilities of the answer's own tokens. Walking along the answer,
the alternatives at each place are given to the category that they begin; the part of the
probability that falls on categories at all is then shared out among them. It is a score and no
confidence: models are sure of much that is wrong (Guo et al., "On Calibration of Modern Neural
Networks", 2017).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from doc_classify.classification.chat import ChatReply, Token
from doc_classify.records import freeze_scores
from doc_classify.taxonomy import Taxonomy

_AROUND = " \t\n\r\"'`*_.:;,!()[]{}“”‘’«»"
_LEAD = re.compile(r"^(?:the )?(?:answer|category)(?: is)?\s*[:=]?\s*", re.IGNORECASE)
_VALUE = re.compile(r'"category"\s*:\s*"')
_LONGEST_REASONING = 2_000
_LONGEST_ANSWER = 1_000
"""Characters of the longest answer that may be the name of a category."""

Scores = tuple[tuple[str, float], ...]
"""Share of each category, highest first."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A category, and what the answer told besides.

    ``scores``: share of each category, highest first; empty where the server gave no
    log-probabilities, or none of them falls on a category. ``label_mass``: probability, 0 to 1,
    that fell on any category at all, None where there are no scores.
    """

    category: str
    scores: Scores = ()
    label_mass: float | None = None
    reasoning: str | None = None


class Decoder:
    """Reads answers about documents of one taxonomy."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._name_of = {_folded(name): name for name in taxonomy.names}
        # Answers come in quotes, with a full stop ...; names may have such signs at their ends.
        self._bare: dict[str, str] = {}
        for folded, name in self._name_of.items():
            self._bare.setdefault(folded.strip(_AROUND), name)

    def name(self, reply: ChatReply) -> Decision | None:
        """The decision of an answer that is a bare name; None where it is none."""
        category = self._category(reply.text)
        if category is None:
            return None
        scores, mass = self._scores(reply.tokens, 0)
        return Decision(category, scores, mass)

    def json(self, reply: ChatReply) -> Decision | None:
        """The decision of an answer in JSON; None where it is none."""
        try:
            data = json.loads(_unfenced(reply.text))
        except (ValueError, RecursionError):
            return None
        if not isinstance(data, dict) or not isinstance(data.get("category"), str):
            return None
        category = self._category(data["category"])
        if category is None:
            return None
        reasoning = data.get("reasoning")
        if not isinstance(reasoning, str) or not reasoning.strip():
            reasoning = None
        else:
            reasoning = " ".join(reasoning.split())[:_LONGEST_REASONING]
        scores, mass = self._scores_in_json(reply)
        return Decision(category, scores, mass, reasoning)

    def _category(self, text: str) -> str | None:
        """The category that the text names, and nothing else."""
        if len(text) > _LONGEST_ANSWER:
            return None
        if name := self._name_of.get(_folded(text)):
            return name
        bare = text.strip(_AROUND)
        for form in (bare, _LEAD.sub("", bare).strip(_AROUND)):
            if name := self._bare.get(_folded(form)):
                return name
        return None

    def _scores_in_json(self, reply: ChatReply) -> tuple[Scores, float | None]:
        """Scores at the place where the category's name begins."""
        answer = "".join(token.text for token in reply.tokens)
        places = list(_VALUE.finditer(answer))
        if not places:
            return (), None
        start = places[-1].end()
        end = 0
        for at, token in enumerate(reply.tokens):
            end += len(token.text)
            if end > start:
                return self._scores(reply.tokens, at)
        return (), None

    def _scores(self, tokens: Sequence[Token], start: int) -> tuple[Scores, float | None]:
        """Share of each category from the token at ``start`` on, and the mass of all together."""
        masses = dict.fromkeys(self._name_of.values(), 0.0)
        prefix, reached = "", 1.0
        for token in tokens[start:]:
            chosen = 0.0
            alternatives = dict(token.alternatives)
            alternatives.setdefault(token.text, token.logprob)
            following = _joined(prefix, token.text)
            for text, logprob in alternatives.items():
                probability = math.exp(min(logprob, 0.0))
                if text == token.text:
                    chosen = probability
                    continue
                begun = self._begun_by(_joined(prefix, text))
                if len(begun) == 1:  # else it may become one of several, and we do not know which
                    masses[begun[0]] += reached * probability
            begun = self._begun_by(following)
            reached *= chosen
            if len(begun) == 1:
                masses[begun[0]] += reached
            prefix = following
            if len(begun) <= 1:
                break
        else:
            # The answer ends with a name that is also the beginning of another.
            if exact := self._bare.get(prefix.strip(_AROUND)):
                masses[exact] += reached
        mass = sum(masses.values())
        if mass <= 0.0:
            return (), None
        shares = {name: round(part / mass, 4) for name, part in masses.items()}
        return freeze_scores(shares), min(mass, 1.0)

    def _begun_by(self, prefix: str) -> list[str]:
        """The categories that an answer may name which begins like this."""
        if not prefix:
            return list(self._name_of.values())
        whole = [
            (folded, name)
            for folded, name in self._bare.items()
            if folded.startswith(prefix) or prefix.startswith(folded)
        ]
        going_on = [name for folded, name in whole if folded.startswith(prefix)]
        # "invoices." is past the end of a name: the longest one that it begins with is meant.
        return going_on or [name for _, name in sorted(whole)[-1:]]


def _unfenced(text: str) -> str:
    """The answer without the fence that models like to put around code."""
    return text.strip().removeprefix("```").removeprefix("json").removesuffix("```")


def _joined(prefix: str, text: str) -> str:
    """The beginning of an answer, folded, without what stands before a name."""
    return (prefix + text.casefold().replace("▁", " ")).lstrip(_AROUND)


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())
