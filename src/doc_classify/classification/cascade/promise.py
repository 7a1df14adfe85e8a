"""What is promised, about which documents, and what is known so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Guarantee = Literal["overall", "student"]


@dataclass(frozen=True, slots=True)
class Promise:
    """What the user wants to be sure of.

    Attributes:
        agreement: the share of documents that has to carry the category the LLM would have
            given, above 0 and below 1.
        assurance: the probability with which that has to hold, above 0 and below 1. It is taken
            over the random drawing of the samples; the documents and the answers that the LLM
            would give to them are fixed.
        guarantee: ``overall`` speaks of all documents of the lot, of which those that the LLM
            answered agree by definition; ``student`` of those that the student answers.

    Raises:
        ValueError: a share is not between 0 and 1, or the guarantee is unknown.
    """

    agreement: float = 0.95
    assurance: float = 0.95
    guarantee: Guarantee = "overall"

    def __post_init__(self) -> None:
        for name in ("agreement", "assurance"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} has to be above 0 and below 1")
        if self.guarantee not in ("overall", "student"):
            raise ValueError(f"no such guarantee: {self.guarantee}")

    @property
    def delta(self) -> float:
        """The probability that is left for a broken promise."""
        return 1 - self.assurance

    def tolerated(self, documents: int) -> int:
        """How many of these documents may carry another category than the LLM's."""
        # 0.95 and 0.9 have no exact binary form: 1 - 0.9 of 10 documents is to be 1, not 0.
        return math.floor(round((1 - self.agreement) * documents, 9))


@dataclass(frozen=True, slots=True)
class Judged:
    """What student and LLM said about one document of a sample.

    Every document of a sample has to be there, or the sample is no longer a random one:

    - A document that nobody can read: ``Judged(None, True)``. It gets no category either way.
    - A document to which the LLM gave no valid answer: ``agrees=False``, whatever the student
      said. That is on the safe side.
    - A document that the student cannot score: ``Judged(None, False)``. It goes to the LLM.

    Attributes:
        score: how sure the student is; larger is surer. None: never answered by the student.
        agrees: whether the student's category is the LLM's.
        category: the student's category, for the statement about each category.

    Raises:
        ValueError: the score is not a finite number.
    """

    score: float | None
    agrees: bool
    category: str | None = None

    def __post_init__(self) -> None:
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError("a score that is not a finite number has to be None")


@dataclass(frozen=True, slots=True)
class Lot:
    """The documents about which the promise is made, fixed before anything is drawn.

    Attributes:
        population: how many documents the lot has, at least 1.
        categories: how many categories the taxonomy has, at least 2.
        promise: what is wanted.
        max_calls: how many documents may be sent to the LLM at most, samples included. With
            it the question is reversed: the best guarantee for that many calls. Then
            ``promise.agreement`` is not used.

    Raises:
        ValueError: a number is too small.
    """

    population: int
    categories: int
    promise: Promise = field(default_factory=Promise)
    max_calls: int | None = None

    def __post_init__(self) -> None:
        if self.population < 1:
            raise ValueError("a lot has at least one document")
        if self.categories < 2:
            raise ValueError("there have to be at least two categories")
        if self.max_calls is not None and self.max_calls < 0:
            raise ValueError("the number of calls cannot be negative")


@dataclass(frozen=True, slots=True)
class Round:
    """One version of the student, and how it did.

    Attributes:
        version: what identifies the student's file, such as its hash.
        asked: documents of the lot that the LLM had been asked about when the student was
            frozen: everything of earlier rounds and this round's training documents, with the
            documents that got an answer because their text is the same. They are set aside:
            they carry the LLM's answer.
        expected: what the student says about the training documents that were drawn uniformly
            (those of the first round and calibration samples of earlier rounds, not those
            chosen from a pool), each judged by a student that had not seen it (leave-one-out).
            Only for planning; nothing is certified with it.
        chosen: the same of the training documents that were chosen from a pool.
        calibration: a sample drawn uniformly, after the student was frozen, from the
            ``population - asked`` other documents (:func:`draw` with a new stage number).
            Empty until it has been drawn and asked about.
    """

    version: str
    asked: int
    expected: tuple[Judged, ...]
    calibration: tuple[Judged, ...] = ()
    chosen: tuple[Judged, ...] = ()


@dataclass(frozen=True, slots=True)
class Consistency:
    """How often the LLM contradicted itself.

    Attributes:
        asked: documents that it was asked about a second time, without a cache.
        differed: how many of them got another category the second time.
    """

    asked: int = 0
    differed: int = 0

    @property
    def ceiling(self) -> float:
        """About the best agreement that any student could reach, from 0 to 1.

        Two independent answers that are each off with probability e differ about 2e of the
        time. A student that is never off still disagrees e of the time.
        """
        return 1 - self.differed / (2 * self.asked) if self.asked else 1.0
