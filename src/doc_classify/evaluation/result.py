"""What an evaluation found, as values; JSON-ready with :func:`dataclasses.asdict`."""

from __future__ import annotations

from dataclasses import dataclass

from doc_classify.evaluation.statistics import Calibration, Interval, Point


@dataclass(frozen=True, slots=True)
class CategoryScore:
    """One category, over the documents that got an answer.

    Attributes:
        support: documents that are labelled so and got an answer.
        given: documents that were put there.
        right: of both.
        failed: documents that are labelled so and got none; in none of the other counts.
        precision: right of given, recall: right of support; each None where there are none.
        f1: their harmonic mean, 0 where nothing is right, None where nothing is labelled so.
    """

    name: str
    support: int
    given: int
    right: int
    failed: int
    precision: float | None
    precision_95: Interval | None
    recall: float | None
    recall_95: Interval | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class Mistake:
    """A document that was put into the wrong category."""

    path: str
    label: str
    answer: str
    confidence: float | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Review:
    """What the classifier itself marked for review, and how it did on the rest."""

    marked: int
    accuracy_of_marked: float | None
    accuracy_of_rest: float | None
    accuracy_of_rest_95: Interval | None


@dataclass(frozen=True, slots=True)
class Speed:
    """How long it took: wall clock of the whole run, and CPU seconds of reading and classifying.

    ``classify_seconds`` is waiting time where an LLM was asked.
    """

    wall_seconds: float
    documents_per_second: float
    extract_seconds: float
    classify_seconds: float
    llm_calls: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything.

    Attributes:
        folder, labels: what was evaluated on, and where the labels are from.
        classifier, model, fingerprint: what was evaluated; the fingerprint is that of its results.
        categories: names of the taxonomy.
        labelled: distinct labelled documents = ``answered`` + ``failed``.
        answered: got a category; ``right`` of these got theirs.
        failed: got none: never counted as right. ``failures`` are their number by kind.
        copies: further files with the bytes of another, not counted; ``contradicting`` of them
            are labelled otherwise than the first.
        unlabelled: files without a label, not looked at.
        missing: labels of files that are not there.
        trained_with: of those answered, with which the model was trained: figures on these flatter.
            None where that is not known, or nothing was trained.
        accuracy: right of answered; ``accuracy_95`` is Wilson's interval, ``accuracy_bootstrap``
            the bootstrap's. None without answers.
        accuracy_of_all: right of labelled: with failures as wrong.
        macro_f1: mean F1 of the categories that have labelled documents.
        confusion: label, answer, number of documents, where there are any.
        sureness: what ``selective`` is ordered by: ``confidence``, or ``score``, which is no
            probability; None where answers have neither.
        calibration: only where answers have a confidence.
        mistakes: the surest ones first, some of them.
    """

    folder: str
    labels: str
    classifier: str
    model: str | None
    fingerprint: str
    categories: tuple[str, ...]
    labelled: int
    answered: int
    right: int
    failed: int
    failures: dict[str, int]
    copies: int
    contradicting: int
    unlabelled: int
    missing: int
    trained_with: int | None
    accuracy: float | None
    accuracy_95: Interval | None
    accuracy_bootstrap: Interval | None
    accuracy_of_all: float | None
    accuracy_of_all_95: Interval | None
    macro_f1: float | None
    macro_f1_bootstrap: Interval | None
    scores: tuple[CategoryScore, ...]
    confusion: tuple[tuple[str, str, int], ...]
    sureness: str | None
    calibration: Calibration | None
    selective: tuple[Point, ...]
    review: Review
    mistakes: tuple[Mistake, ...]
    speed: Speed
