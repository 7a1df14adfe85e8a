"""Runs a classifier over labelled documents and holds its answers against the labels."""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from doc_classify.classification.opening import trained_model
from doc_classify.errors import ConfigurationError
from doc_classify.evaluation.labels import Labels
from doc_classify.evaluation.result import (
    CategoryScore,
    Evaluation,
    Mistake,
    Review,
    Speed,
)
from doc_classify.evaluation.statistics import (
    Interval,
    Point,
    bootstrap,
    calibration,
    macro_f1,
    selective,
    wilson,
)
from doc_classify.records import FileStatus, RunStats, display_name
from doc_classify.runners.parallel import ParallelDocumentProcessor
from doc_classify.settings import Settings
from doc_classify.storage.base import ResultRow, RunInfo
from doc_classify.taxonomy import Taxonomy
from doc_classify.terminal import shown_path

_MISTAKES_KEPT = 50


def evaluate(
    labels: Labels,
    taxonomy: Taxonomy,
    settings: Settings,
    *,
    include_reasoning: bool = False,
    on_progress: Callable[[RunStats], None] | None = None,
    on_notice: Callable[[str | None], None] | None = None,
    on_choice: Callable[[str], None] | None = None,
) -> Evaluation:
    """Classify the labelled documents as every run does, into a store that is gone afterwards.

    The classifier sees what it sees in a run: also the names of the files, but not their folders.

    Raises:
        ConfigurationError: nothing is labelled, or a setting cannot be used.
        ServerError, CannotGoOnError: the LLM server cannot be used, or a limit is reached.
    """
    with ParallelDocumentProcessor(
        categories=taxonomy,
        settings=settings,
        on_progress=on_progress,
        on_notice=on_notice,
        on_choice=on_choice,
    ) as processor:
        found = labels.documents(recursive=settings.recursive)
        stats = processor.process_found(found, "evaluation", include_reasoning)
        info = processor.store.run(stats.run_id)
        if info is None or not stats.seen:
            raise ConfigurationError(f"{shown_path(labels.root)} holds no labelled documents")
        model = trained_model(settings)
        answers = Answers(labels, model.knows if model and len(model.learnt_from) else None)
        for row in processor.store.results(stats.run_id):
            answers.add(row)
        return answers.evaluation(taxonomy, info, stats)


class Answers:
    """Counts answers as they come; of a single document only numbers are kept.

    Args:
        labels: the right answers.
        known: says by the hash of a document's bytes whether the classifier was trained with it;
            None where nobody knows.
    """

    def __init__(self, labels: Labels, known: Callable[[str], bool] | None = None) -> None:
        self._labels = labels
        self._known = known
        self._trained_with = 0
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._failed: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._confidences, self._scores = array("d"), array("d")
        self._right_by_confidence, self._right_by_score = bytearray(), bytearray()
        self._reviewed: Counter[tuple[bool, bool]] = Counter()
        self._mistakes: list[tuple[float, int, Mistake]] = []
        self._copies = self._contradicting = self._wrong = 0

    def add(self, row: ResultRow) -> None:
        """Count one file of the run."""
        label = self._labels.of(row.uri)
        if label is None:
            return
        if row.status is FileStatus.DUPLICATE:
            self._copies += 1
            first = row.duplicate_of and self._labels.of(row.duplicate_of)
            self._contradicting += first != label
            return
        if row.category is None:
            self._failed[label] += 1
            self._failures[row.failure.kind if row.failure else row.status.value] += 1
            return
        if self._known and row.sha256:
            self._trained_with += self._known(row.sha256)
        right = row.category == label
        self._pairs[label, row.category] += 1
        self._reviewed[row.needs_review, right] += 1
        if row.confidence is not None:
            self._confidences.append(row.confidence)
            self._right_by_confidence.append(right)
        if row.score is not None:
            self._scores.append(row.score)
            self._right_by_score.append(right)
        if not right:
            self._keep(row, label)

    def _keep(self, row: ResultRow, label: str) -> None:
        self._wrong += 1
        sure = row.score if row.confidence is None else row.confidence
        mistake = Mistake(
            path=display_name(self._labels.path_of(row.uri)),
            label=label,
            answer=row.category or "",
            confidence=row.confidence,
            score=row.score,
        )
        # The running number decides between equals: mistakes have no order.
        item = (-1.0 if sure is None else sure, -self._wrong, mistake)
        if len(self._mistakes) < _MISTAKES_KEPT:
            heapq.heappush(self._mistakes, item)
        else:
            heapq.heappushpop(self._mistakes, item)

    def evaluation(self, taxonomy: Taxonomy, info: RunInfo, stats: RunStats) -> Evaluation:
        """Everything that follows from what was counted."""
        answered = self._pairs.total()
        right = sum(number for (label, answer), number in self._pairs.items() if label == answer)
        failed = self._failed.total()
        sureness, curve = self._curve(answered)
        confidences = _row(self._confidences)
        f1, f1_interval = self._macro_f1()
        model = info.spec.settings.get("model")
        return Evaluation(
            folder=shown_path(self._labels.root),
            labels=self._labels.origin,
            classifier=info.spec.classifier,
            model=model if isinstance(model, str) else None,
            fingerprint=info.spec.fingerprint,
            categories=taxonomy.names,
            labelled=answered + failed,
            answered=answered,
            right=right,
            failed=failed,
            failures=dict(self._failures.most_common()),
            copies=self._copies,
            contradicting=self._contradicting,
            unlabelled=self._labels.unlabelled,
            missing=self._labels.missing,
            trained_with=self._trained_with if self._known else None,
            accuracy=_share(right, answered),
            accuracy_95=wilson(right, answered),
            accuracy_bootstrap=bootstrap(
                (right, answered - right), lambda counts: counts[:, 0] / counts.sum(axis=1)
            ),
            accuracy_of_all=_share(right, answered + failed),
            accuracy_of_all_95=wilson(right, answered + failed),
            macro_f1=f1,
            macro_f1_bootstrap=f1_interval,
            scores=tuple(self._by_category(taxonomy.names)),
            confusion=tuple(
                (label, answer, number)
                for (label, answer), number in sorted(
                    self._pairs.items(), key=lambda item: (-item[1], item[0])
                )
            ),
            sureness=sureness,
            calibration=calibration(confidences, _flags(self._right_by_confidence)),
            selective=curve,
            review=self._review(),
            mistakes=tuple(item for _, _, item in sorted(self._mistakes, reverse=True)),
            speed=Speed(
                wall_seconds=stats.total_processing_time,
                documents_per_second=stats.documents_per_second,
                extract_seconds=stats.extract_seconds,
                classify_seconds=stats.classify_seconds,
                llm_calls=stats.llm_calls,
                prompt_tokens=stats.prompt_tokens,
                completion_tokens=stats.completion_tokens,
            ),
        )

    def _curve(self, answered: int) -> tuple[str | None, tuple[Point, ...]]:
        """What all answers can be ordered by, and the curve in that order."""
        for name, values, right in (
            ("confidence", self._confidences, self._right_by_confidence),
            ("score", self._scores, self._right_by_score),
        ):
            if values and len(values) == answered:
                return name, selective(_row(values), _flags(right))
        return None, ()

    def _review(self) -> Review:
        marked, rest = (
            (self._reviewed[of, True], self._reviewed[of, True] + self._reviewed[of, False])
            for of in (True, False)
        )
        return Review(
            marked=marked[1],
            accuracy_of_marked=_share(*marked),
            accuracy_of_rest=_share(*rest),
            accuracy_of_rest_95=wilson(*rest),
        )

    def _macro_f1(self) -> tuple[float | None, Interval | None]:
        if not self._pairs:
            return None, None
        present = sorted(set(chain.from_iterable(self._pairs)))
        names = {name: number for number, name in enumerate(present)}
        labels, answers = (np.array([names[pair[side]] for pair in self._pairs]) for side in (0, 1))
        counts = list(self._pairs.values())
        value = macro_f1(labels, answers, np.array([counts]))[0]
        return float(value), bootstrap(counts, lambda drawn: macro_f1(labels, answers, drawn))

    def _by_category(self, names: tuple[str, ...]) -> Iterator[CategoryScore]:
        support, given = Counter[str](), Counter[str]()
        for (label, answer), number in self._pairs.items():
            support[label] += number
            given[answer] += number
        for name in names:
            right = self._pairs[name, name]
            yield CategoryScore(
                name=name,
                support=support[name],
                given=given[name],
                right=right,
                failed=self._failed[name],
                precision=_share(right, given[name]),
                precision_95=wilson(right, given[name]),
                recall=_share(right, support[name]),
                recall_95=wilson(right, support[name]),
                f1=2 * right / (support[name] + given[name]) if support[name] else None,
            )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _row(values: array[float]) -> NDArray[np.float64]:
    return np.frombuffer(values, dtype=np.float64) if values else np.zeros(0)


def _flags(values: bytearray) -> NDArray[np.bool_]:
    return np.frombuffer(bytes(values), dtype=np.bool_)
