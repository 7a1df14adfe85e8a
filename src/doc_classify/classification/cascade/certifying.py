"""Where the student's threshold lies, and what that promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from doc_classify.classification.cascade.promise import Judged, Lot

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Takes = Literal["nothing", "above", "everything"]


@dataclass(frozen=True, slots=True)
class Statement:
    """What is certain about the documents that the student puts into one category.

    Attributes:
        category: the student's category.
        drawn: calibration documents that the student put there and was sure enough of.
        disagreed: how many of them the LLM put elsewhere.
        most_wrong: disagreements at most among the student's other documents in this category;
            None where the sample is too small to say anything.
    """

    category: str
    drawn: int
    disagreed: int
    most_wrong: int | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What one calibration sample allows.

    Attributes:
        takes: which documents the student answers: ``nothing``, those ``above`` the threshold,
            or ``everything`` that it can score.
        threshold: the score that a document has to exceed; None unless ``takes`` is ``above``.
        allowed: disagreements that the sample may show above the threshold, fixed before it was
            drawn; -1 where no number would keep the promise. None where the threshold was found
            in another way (``guarantee="student"``, ``max_calls``).
        population: documents from which the sample was drawn.
        drawn: size of the sample.
        disagreed: disagreements of the sample above the threshold.
        delta: error probability spent.
        most_wrong: disagreements at most among the documents that the student answers.
        agreement: certified agreement over the whole lot.
        student_agreement: certified agreement on the documents that the student answers; None
            where nothing can be said (it answers none, or their number is not known).
        student_share: share of the lot that the student answers, from 0 to 1; exact where the
            scores of the documents left were given, else estimated from the sample.
        expected_agreement: estimated agreement over the whole lot.
        statements: for each category, all of them holding together with the promise's assurance
            (a statement of its own, beside the promise).
    """

    takes: Takes
    threshold: float | None
    allowed: int | None
    population: int
    drawn: int
    disagreed: int
    delta: float
    most_wrong: int
    agreement: float
    student_agreement: float | None
    student_share: float
    expected_agreement: float
    statements: tuple[Statement, ...] = ()

    def accepts(self, score: float | None) -> bool:
        """Whether the student answers a document with this score; else the LLM does."""
        if score is None or self.takes == "nothing":
            return False
        return self.takes == "everything" or (self.threshold is not None and score > self.threshold)


def certify(
    lot: Lot,
    asked: int,
    calibration: Sequence[Judged],
    delta: float,
    left: npt.NDArray[np.float64] | None = None,
) -> Decision:
    """Find the lowest threshold that keeps the promise.

    Args:
        lot: the documents and the promise.
        asked: see :class:`Round`; the sample comes from the other ``population - asked``.
        calibration: the sample, complete.
        delta: error probability that this look may spend (:func:`.stages.spending`).
        left: the student's scores of all documents that the LLM has not been asked about, the
            sample excluded, NaN for those that it cannot score. Needed for
            ``guarantee="student"`` and for ``max_calls``; elsewhere it makes the shares exact.

    Returns:
        The decision. ``takes="nothing"`` where the sample cannot keep the promise.

    Raises:
        ValueError: the numbers contradict each other, or ``left`` is missing.
    """
    raise NotImplementedError
