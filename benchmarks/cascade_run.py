"""One run of the cascade over labelled documents, the labels standing in for the LLM."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from cascade_corpus import Corpus, Floats, Ints, Student
from numpy.typing import NDArray

from doc_classify.classification.cascade import (
    AskAll,
    Calibrate,
    Judged,
    Lot,
    Round,
    Train,
    next_step,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to.

    Attributes:
        calls: documents sent to the LLM.
        wrong: documents that carry another category than the LLM's.
        trained: training documents of the student that answered.
        calibrated: documents of the sample that decided.
        looks: calibration samples drawn.
        reason: why the student was given up; empty where it was not.
        student: the one that answered.
        unlearned: documents that it had not learned from when it was calibrated.
    """

    calls: int
    wrong: int
    trained: int
    calibrated: int
    looks: int
    reason: str
    student: Student | None
    unlearned: Ints


def run(
    corpus: Corpus, lot: Lot, answers: Ints, random: np.random.Generator, members: Ints
) -> Outcome:
    """Do as the engine says.

    Args:
        corpus: the documents.
        lot: how many there are, and the promise.
        answers: the LLM's answers to all documents of the corpus.
        random: draws.
        members: the documents of the corpus that are the lot.
    """
    free = members
    uniform: list[int] = []
    chosen: list[int] = []
    rounds: list[Round] = []
    students: list[Student] = []
    samples: list[Ints] = []
    unlearned: list[Ints] = []
    while True:
        left = students[-1].score[free] if rounds and rounds[-1].calibration else None
        step = next_step(lot, rounds, left=left)
        if isinstance(step, Train):
            if rounds and rounds[-1].calibration:
                uniform += samples[-1].tolist()
            pool = random.permutation(free)[: step.pool]
            if step.pool > step.documents:
                pool = pool[np.argsort(students[-1].score[pool], kind="stable")][: step.documents]
                chosen += pool.tolist()
            else:
                uniform += pool.tolist()
            free = np.setdiff1d(free, pool)
            known = np.array(uniform + chosen)
            student = corpus.learn(known, answers)
            students.append(student)
            unlearned.append(free)
            agrees = student.kept_guess == answers[known]
            kept = [
                Judged(float(score), bool(right)) if np.isfinite(score) else None
                for score, right in zip(student.kept_score, agrees, strict=True)
            ]
            rounds.append(
                Round(
                    version=str(len(rounds)),
                    asked=lot.population - len(free),
                    expected=tuple(one for one in kept[: len(uniform)] if one),
                    chosen=tuple(one for one in kept[len(uniform) :] if one),
                )
            )
        elif isinstance(step, Calibrate):
            sample = random.permutation(free)[: step.documents]
            free = np.setdiff1d(free, sample)
            samples.append(sample)
            student = students[-1]
            right = student.guess[sample] == answers[sample]
            judged = tuple(
                Judged(float(score), bool(agrees))
                for score, agrees in zip(student.score[sample], right, strict=True)
            )
            rounds[-1] = replace(rounds[-1], calibration=judged)
        else:
            looks = len(samples)
            if isinstance(step, AskAll):
                used = lot.population - len(free)
                return Outcome(lot.population, 0, used, 0, looks, step.reason, None, free)
            student = students[step.round]
            taken = _taken(step.decision.takes, step.decision.threshold, student.score[free])
            wrong = int((student.guess[free][taken] != answers[free][taken]).sum())
            calls = lot.population - int(taken.sum())
            drawn = len(rounds[step.round].calibration)
            asked = rounds[step.round].asked
            return Outcome(calls, wrong, asked, drawn, looks, "", student, unlearned[step.round])


def _taken(takes: str, threshold: float | None, scores: Floats) -> NDArray[np.bool_]:
    if takes == "nothing":
        return np.zeros(len(scores), dtype=bool)
    return scores > (-np.inf if threshold is None else threshold)
