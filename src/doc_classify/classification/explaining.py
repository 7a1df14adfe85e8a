"""What a classifier tells of one decision: what it saw, and why a person should look or need not.

The checks are not told afterwards: ``needs_review`` is whether one of them fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from doc_classify.classification.base import ClassifierInput
from doc_classify.records import Classification, Usage


@dataclass(frozen=True, slots=True)
class Check:
    """A condition for not needing review.

    Attributes:
        name: what is looked at, in a few words.
        value: what was found; None where nothing can be said, which fails no check.
        limit: what it has to reach, or with ``most`` may reach.
        reason: why it matters, said where it fails.
        most: the limit is an upper one.
    """

    name: str
    value: float | None
    limit: float
    reason: str
    most: bool = False

    @property
    def passed(self) -> bool:
        """Whether the condition holds."""
        if self.value is None:
            return True
        return self.value <= self.limit if self.most else self.value >= self.limit


def needs_review(checks: Iterable[Check]) -> bool:
    """Whether one of the checks fails."""
    return not all(check.passed for check in checks)


def caveats(checks: Iterable[Check]) -> str:
    """A sentence for each check that fails."""
    return "".join(f" For review: {check.reason}." for check in checks if not check.passed)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something seen that speaks for a category.

    ``weight`` is comparable within one explanation only, and may be negative.
    """

    category: str
    what: str
    weight: float


@dataclass(frozen=True, slots=True)
class Asked:
    """What an LLM was asked.

    Attributes:
        system: characters of the task and the taxonomy.
        user: characters of the document as it is shown, and the question.
        tokens: of both, by our estimate.
        label_mass: probability, 0 to 1, that the model gave to any category at all; None where
            the server tells no probabilities.
        usage: tokens of all requests by the server's count.
    """

    system: int
    user: int
    tokens: int
    label_mass: float | None
    usage: Usage


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and what it rests on; ``evidence`` has the strongest first."""

    classification: Classification
    checks: tuple[Check, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    asked: Asked | None = None


class Explaining(Protocol):
    """A classifier of the workers' kind that can explain itself."""

    def explain(self, document: ClassifierInput) -> Explanation:
        """Classify one document, the same way, and tell what the decision rests on."""
        ...


def strongest(
    evidence: Iterable[Evidence], categories: Sequence[str], number: int
) -> list[Evidence]:
    """The strongest pieces of evidence of each category, summed by what they are."""
    sums: dict[tuple[str, str], float] = {}
    for one in evidence:
        key = (one.category, one.what)
        sums[key] = sums.get(key, 0.0) + one.weight
    found: list[Evidence] = []
    for category in categories:
        own = [Evidence(*key, weight) for key, weight in sums.items() if key[0] == category]
        found += sorted(own, key=lambda one: (-one.weight, one.what))[:number]
    return found
