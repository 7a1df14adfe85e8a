"""Where the student's threshold lies, and what that promises."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from doc_classify.classification.cascade.bounds import allowed, most_left, tail
from doc_classify.classification.cascade.promise import Judged, Lot

Takes = Literal["nothing", "above", "everything"]
Scores = npt.NDArray[np.float64]

_CUTS = 200
"""Thresholds that are tried in turn for ``guarantee="student"``."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What is certain about the documents that the student puts into one category.

    Attributes:
        category: the student's category.
        drawn: calibration documents that the student put there and was sure enough of.
        disagreed: how many of them the LLM put elsewhere.
        most_wrong: disagreements at most among the other documents that the student puts there.
        answered: how many those are; None until that is known.
    """

    category: str
    drawn: int
    disagreed: int
    most_wrong: int
    answered: int | None = None

    @property
    def agreement(self) -> float | None:
        """Certified agreement in this category; None where it is too rare for a statement."""
        if not self.answered or self.most_wrong >= self.answered:
            return None
        return 1 - self.most_wrong / self.answered


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
        answered: documents that the student answers; exact where ``settled``, else estimated
            from the sample.
        settled: whether ``answered`` is exact.
        documents: size of the lot.
        expected_wrong: estimated disagreements among the documents that the student answers.
        inside: documents above the threshold when it was found, those of the sample included; None
            where the scores of the documents left were not given.
        statements: for each category. All of them hold together with the assurance of this
            look: a statement of its own beside the promise.
    """

    takes: Takes
    threshold: float | None
    allowed: int | None
    population: int
    drawn: int
    disagreed: int
    delta: float
    most_wrong: int
    answered: int
    settled: bool
    documents: int
    expected_wrong: float
    statements: tuple[Statement, ...] = ()
    inside: int | None = None

    @property
    def agreement(self) -> float:
        """Certified agreement over the whole lot; the LLM's own answers agree."""
        return 1 - self.most_wrong / self.documents

    @property
    def expected_agreement(self) -> float:
        """Estimated agreement over the whole lot."""
        return 1 - self.expected_wrong / self.documents

    @property
    def student_agreement(self) -> float | None:
        """Certified agreement on the documents that the student answers.

        None where it answers none, or where their number is not yet exact.
        """
        if not self.settled or not self.answered:
            return None
        return max(0.0, 1 - self.most_wrong / self.answered)

    @property
    def student_share(self) -> float:
        """Share of the lot that the student answers, from 0 to 1."""
        return self.answered / self.documents

    def accepts(self, score: float | None) -> bool:
        """Whether the student answers a document with this score; else the LLM does."""
        if score is None or self.takes == "nothing":
            return False
        return self.takes == "everything" or (self.threshold is not None and score > self.threshold)

    def settle(self, answered: Mapping[str, int]) -> Decision:
        """The decision with the exact numbers, once the student has answered.

        Args:
            answered: documents that the student answered, by category. Those that carry the
                LLM's answer are not among them.
        """
        total = sum(answered.values())
        return replace(
            self,
            answered=total,
            settled=True,
            most_wrong=min(self.most_wrong, total),
            expected_wrong=min(self.expected_wrong, float(total)),
            statements=tuple(
                replace(one, answered=answered.get(one.category, 0)) for one in self.statements
            ),
        )


def certify(
    lot: Lot,
    asked: int,
    calibration: Sequence[Judged],
    delta: float,
    left: Scores | None = None,
) -> Decision:
    """Find the lowest threshold that keeps the promise.

    ``overall``: the sample's disagreement number k + 1, best score first, where
    :func:`.bounds.allowed` has fixed k. ``student``: thresholds are tested in turn from the
    surest documents down, and the last before the first that fails is taken (fixed-sequence
    testing: Angelopoulos et al., Learn then Test, 2021). ``max_calls``: the threshold follows
    from the scores alone; the sample then says what it is worth.

    Args:
        lot: the documents and the promise.
        asked: see :class:`Round`; the sample comes from the other ``population - asked``.
        calibration: the sample, complete.
        delta: error probability that this look may spend (:func:`.stages.spending`).
        left: the student's scores of all documents that the LLM has not been asked about, the
            sample excluded, NaN for those that it cannot score. Needed for
            ``guarantee="student"`` and for ``max_calls``; elsewhere it makes the share exact.

    Returns:
        The decision. ``takes="nothing"`` where the sample cannot keep the promise.

    Raises:
        ValueError: the numbers contradict each other, or ``left`` is missing.
    """
    population = lot.population - asked
    if asked < 0 or len(calibration) > population:
        raise ValueError("there are more documents in the sample than are left in the lot")
    if not 0 < delta < 1:
        raise ValueError("the error probability has to be above 0 and below 1")
    if left is not None and len(left) != population - len(calibration):
        raise ValueError("there has to be one score for each document that is left")
    scores = np.array([math.nan if x.score is None else x.score for x in calibration])
    wrong = ~np.array([x.agrees for x in calibration], dtype=bool)
    limit = None
    if lot.max_calls is not None:
        cut, most = _within_budget(lot, asked, scores, wrong, delta, _needed(left, "max_calls"))
    elif lot.promise.guarantee == "student":
        cut, most = _down_the_scores(lot, scores, wrong, delta, _needed(left, "student"))
    else:
        limit = allowed(population, lot.promise.tolerated(lot.population), len(scores), delta)
        cut, most = _counted(population, scores, wrong, limit, delta)
    return _decision(lot, population, calibration, scores, wrong, delta, left, limit, cut, most)


def _needed(left: Scores | None, purpose: str) -> Scores:
    if left is None:
        raise ValueError(f"{purpose} needs the scores of all documents that are left")
    return left


def _counted(
    population: int, scores: Scores, wrong: npt.NDArray[np.bool_], limit: int, delta: float
) -> tuple[float, int]:
    """The threshold and the bound for the whole lot; the threshold is infinite for nothing."""
    if limit < 0:
        return math.inf, 0
    worst_first = -np.sort(-scores[wrong & ~np.isnan(scores)])
    cut = float(worst_first[limit]) if limit < len(worst_first) else -math.inf
    return cut, most_left(population, len(scores), limit, delta)


def tolerated_inside(lot: Lot, inside: int, population: int, drawn: int) -> int:
    """Disagreements tolerated among documents above a threshold, those of the sample included.

    As many as are tolerated among those that the student is expected to answer, so that it keeps
    the promise even where the sample holds none of them.
    """
    return lot.promise.tolerated(inside * (population - drawn) // population)


def _down_the_scores(
    lot: Lot, scores: Scores, wrong: npt.NDArray[np.bool_], delta: float, left: Scores
) -> tuple[float, int]:
    """The threshold and the bound for the student's own share.

    The thresholds, with which of them to start, and what is tested at each depend on the scores of
    sample and rest together and on the size of the sample: on nothing that the drawing decided.
    So with probability 1 - delta no threshold passes that should not, and of those that passed any
    may be taken.
    """
    population, drawn = len(scores) + len(left), len(scores)
    together = np.concatenate([scores, left])
    ascending = np.sort(together[~np.isnan(together)])
    if not len(ascending):
        return math.inf, 0
    places = np.unique(np.linspace(0, len(ascending) - 1, _CUTS).astype(np.int64))[::-1]
    cuts = [*dict.fromkeys(float(ascending[i]) for i in places), -math.inf]
    above = [len(ascending) - int(np.searchsorted(ascending, cut, "right")) for cut in cuts]
    most = [tolerated_inside(lot, inside, population, drawn) for inside in above]

    def passes(at: int, seen: int) -> bool:
        return tail(population, most[at] + 1, drawn, seen) <= delta

    starts = (
        at
        for spare in (3, 1, 0)  # a start that a single disagreement thwarts is a bad one
        for at in range(len(cuts))
        if above[at] and passes(at, spare)
    )
    start = next(starts, len(cuts))
    best, bound = math.inf, 0
    for at in range(start, len(cuts)):
        taken = scores > cuts[at]
        seen = int((taken & wrong).sum())
        if not passes(at, seen):
            break
        rest = max(0, most[at] - seen)
        if rest <= lot.promise.tolerated(above[at] - int(taken.sum())):
            best, bound = cuts[at], rest
    return best, bound


def _within_budget(
    lot: Lot,
    asked: int,
    scores: Scores,
    wrong: npt.NDArray[np.bool_],
    delta: float,
    left: Scores,
) -> tuple[float, int]:
    """The threshold that the budget allows, and the bound that the sample gives for it."""
    room = (lot.max_calls or 0) - asked - len(scores)
    if room >= len(left):
        return math.inf, 0
    together = np.concatenate([scores, left])
    together = np.sort(together)  # NaN last
    scored = together[~np.isnan(together)]
    room -= len(together) - len(scored)
    if room < 0:
        raise ValueError("the budget is too small for the documents that only the LLM can answer")
    if room >= len(scored):
        return math.inf, 0
    # As many of the lowest of sample and rest together as there is room for; of equal scores all
    # or none. That the sample is asked about already would make room for a few more, but a
    # threshold that depends on where the sample lies could not be judged by the sample.
    count = int(np.searchsorted(scored, scored[room], "left"))
    cut = float(scored[count - 1]) if count else -math.inf
    taken = scores > cut
    inside = len(scored) - count
    drawn, seen = int(taken.sum()), int((taken & wrong).sum())
    return cut, most_left(inside, drawn, seen, delta)


def _decision(
    lot: Lot,
    population: int,
    calibration: Sequence[Judged],
    scores: Scores,
    wrong: npt.NDArray[np.bool_],
    delta: float,
    left: Scores | None,
    limit: int | None,
    cut: float,
    most: int,
) -> Decision:
    drawn = len(scores)
    taken = scores > cut if cut > -math.inf else ~np.isnan(scores)
    disagreed = int((taken & wrong).sum())
    rest = population - drawn
    if left is None:
        answered = round(rest * int(taken.sum()) / drawn) if drawn else 0
    else:
        answered = int((left > cut).sum() if cut > -math.inf else (~np.isnan(left)).sum())
    takes: Takes = "above"
    if cut == math.inf:
        takes = "nothing"
    elif cut == -math.inf:
        takes = "everything"
    return Decision(
        takes=takes,
        threshold=cut if takes == "above" else None,
        allowed=limit,
        population=population,
        drawn=drawn,
        disagreed=disagreed,
        delta=delta,
        most_wrong=min(most, rest) if left is None else min(most, answered),
        answered=answered,
        settled=left is not None,
        documents=lot.population,
        expected_wrong=rest * disagreed / drawn if drawn else 0.0,
        statements=_statements(lot, population, calibration, taken, delta),
        inside=None if left is None else answered + int(taken.sum()),
    )


def _statements(
    lot: Lot,
    population: int,
    calibration: Sequence[Judged],
    taken: npt.NDArray[np.bool_],
    delta: float,
) -> tuple[Statement, ...]:
    """Bounds for each category that hold at whatever threshold was chosen.

    With k disagreements of a category above the threshold, the threshold is not below the
    category's disagreement number k + 1 of the sample. That bound holds for one k fixed in
    advance; the weights 1 / ((k + 1)(k + 2)), which add up to one, pay for all of them.
    """
    counts: dict[str, list[int]] = {}
    for one, is_taken in zip(calibration, taken, strict=True):
        if is_taken and one.category is not None:
            count = counts.setdefault(one.category, [0, 0])
            count[0] += 1
            count[1] += not one.agrees
    share = delta / lot.categories
    return tuple(
        Statement(
            category=category,
            drawn=inside,
            disagreed=seen,
            most_wrong=most_left(
                population, len(calibration), seen, share / ((seen + 1) * (seen + 2))
            ),
        )
        for category, (inside, seen) in sorted(counts.items())
    )
