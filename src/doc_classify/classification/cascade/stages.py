"""What to do next: learn from more documents, calibrate, stop or give up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from doc_classify.classification.cascade.certifying import Decision
from doc_classify.classification.cascade.promise import Consistency, Lot, Round

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Train:
    """Ask about more documents, train a new student on all answers, and append a round.

    Draw ``pool`` documents uniformly from those not yet asked about (:func:`.drawing.draw` with
    a new stage number), let the student of the last round score them, and ask the LLM about the
    ``documents`` of lowest score: from those the next student learns most, and most of them
    would have to be asked about anyway. The rest of the pool goes back; its scores are not
    needed again. Choosing is allowed because nothing is certified with training documents.

    Attributes:
        documents: how many to ask about. 0: only train again, with the last calibration sample.
        pool: how many to draw. Equal to ``documents`` in the first round, where there is no
            student: ask about all of them.
        expected_calls: calls that the whole lot is expected to need this way; None where
            nothing is known yet.
    """

    documents: int
    pool: int
    expected_calls: int | None = None


@dataclass(frozen=True, slots=True)
class Calibrate:
    """Ask about a sample and judge the present student by it.

    Attributes:
        documents: how many to draw uniformly from those not yet asked about.
        expected_calls: calls that the whole lot is expected to need this way.
    """

    documents: int
    expected_calls: int


@dataclass(frozen=True, slots=True)
class Accept:
    """Let the student answer what the decision allows, the LLM the rest.

    Attributes:
        decision: the threshold and what it promises.
        round: index of the round whose student answers.
    """

    decision: Decision
    round: int


Reason = Literal[
    "too_few_documents",
    "no_budget",
    "teacher_inconsistent",
    "too_many_categories",
    "student_too_weak",
]


@dataclass(frozen=True, slots=True)
class AskAll:
    """The student saves nothing: the LLM has to answer for every document, or the run stops.

    Attributes:
        reason: why, for programs.
        message: why, for people, with the numbers.
    """

    reason: Reason
    message: str


Step = Train | Calibrate | Accept | AskAll


def spending(lot: Lot, look: int) -> float:
    """The error probability that a look at a calibration sample may spend.

    Args:
        lot: the documents and the promise.
        look: number of the round, from 0.

    Returns:
        Four fifths of what the looks before have left; the sum over any number of looks stays
        below ``lot.promise.delta``.
    """
    return lot.promise.delta * 0.8 * 0.2**look


def next_step(
    lot: Lot,
    rounds: Sequence[Round],
    consistency: Consistency | None = None,
    left: npt.NDArray[np.float64] | None = None,
) -> Step:
    """Say what to do next.

    A pure function of what is stored: the same arguments give the same step, so that a run that
    was killed asks again and goes on.

    Args:
        lot: the documents and the promise.
        rounds: what has been done so far, in order; empty at the start.
        consistency: how often the LLM contradicted itself, where that was measured.
        left: see :func:`certify`; for the last round's student, once it is calibrated.

    Returns:
        The step.
    """
    raise NotImplementedError
