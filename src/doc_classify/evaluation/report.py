"""An evaluation for a person to read on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from doc_classify.evaluation.result import Evaluation, Mistake
from doc_classify.evaluation.statistics import Interval, Point
from doc_classify.terminal import one_line

_MATRIX_AT_MOST = 12
_CONFUSIONS = 10
_MISTAKES = 5
_COVERAGES = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)


def lines(found: Evaluation) -> Iterator[str]:
    """The report line by line."""
    model = f" ({one_line(found.model)})" if found.model else ""
    yield f"EVALUATION of {one_line(found.classifier)}{model} on {one_line(found.folder)}"
    yield from _counts(found)
    yield ""
    yield f"Accuracy: {_share(found.accuracy)}" + (
        f" {of_interval(found.accuracy_95)}, Wilson 95%" if found.accuracy_95 else ""
    )
    if found.accuracy_bootstrap:
        yield f"          {of_interval(found.accuracy_bootstrap)}, bootstrap 95%"
    if found.failed:
        yield (
            f"          {_share(found.accuracy_of_all)} {of_interval(found.accuracy_of_all_95)} "
            "with failures as wrong"
        )
    drawn = found.macro_f1_bootstrap
    yield f"Macro F1: {_share(found.macro_f1)}" + (
        f" {of_interval(drawn)}, bootstrap 95%" if drawn else ""
    )
    yield from _categories(found)
    yield from _confusion(found)
    yield from _sureness(found)
    for mistake in found.mistakes[:_MISTAKES]:
        yield (
            f"  wrong: {one_line(mistake.path)}: {one_line(mistake.answer)}{_sure(mistake)}, "
            f"is {one_line(mistake.label)}"
        )
    speed = found.speed
    yield ""
    yield (
        f"Time: {speed.wall_seconds:.1f} s, {speed.documents_per_second:,.1f} documents/s; "
        f"reading {speed.extract_seconds:.2f} s of CPU, "
        + (
            f"{speed.llm_calls:,} LLM requests, {speed.classify_seconds:.2f} s of waiting for all "
            "answers together"
            if speed.llm_calls
            else f"classifying {speed.classify_seconds:.2f} s of CPU"
        )
    )


def _counts(found: Evaluation) -> Iterator[str]:
    yield (
        f"{found.labelled:,} labelled documents ({one_line(found.labels)}): "
        f"{found.right:,} right, {found.answered - found.right:,} wrong, {found.failed:,} failed"
    )
    for kind, number in found.failures.items():
        yield f"  failed: {number:,} {one_line(kind)}"
    if found.copies:
        against = (
            f", {found.contradicting:,} of them labelled otherwise than the first"
            if found.contradicting
            else ""
        )
        what = "copy of another" if found.copies == 1 else "copies of others"
        yield f"  left out: {found.copies:,} {what}{against}"
    if found.unlabelled:
        yield f"  left out: {found.unlabelled:,} files without a label"
    if found.trained_with:
        yield f"  {flattered(found)}"
    if found.missing:
        yield f"  not there: {found.missing:,} labelled files"


def flattered(found: Evaluation) -> str:
    """What to say of documents that the model was trained with."""
    return (
        f"the model was trained with {found.trained_with:,} of the {found.answered:,} documents "
        "that got an answer: these figures flatter it"
    )


def _categories(found: Evaluation) -> Iterator[str]:
    width = max(8, *(len(one_line(score.name)) for score in found.scores))
    yield ""
    yield f"{'category':<{width}}  precision  recall      F1  support  failed"
    for score in found.scores:
        yield (
            f"{one_line(score.name):<{width}}  {_share(score.precision):>9}  "
            f"{_share(score.recall):>6}  {_share(score.f1):>6}  {score.support:>7,}  "
            f"{score.failed:>6,}"
        )


def _confusion(found: Evaluation) -> Iterator[str]:
    yield ""
    if len(found.categories) <= _MATRIX_AT_MOST:
        counts = {(label, answer): number for label, answer, number in found.confusion}
        width = max(len(one_line(name)) for name in found.categories)
        columns = [one_line(name)[:9] for name in found.categories]
        yield "Labelled (rows), answered (columns):"
        yield " " * width + "".join(f" {column:>9}" for column in columns)
        for label in found.categories:
            cells = (counts.get((label, answer), 0) for answer in found.categories)
            yield f"{one_line(label):<{width}}" + "".join(f" {cell or '·':>9}" for cell in cells)
        return
    yield "Most frequent confusions:"
    wrong = [item for item in found.confusion if item[0] != item[1]]
    for label, answer, number in wrong[:_CONFUSIONS]:
        yield f"  {number:>6,} {one_line(label)} taken for {one_line(answer)}"


def _sureness(found: Evaluation) -> Iterator[str]:
    yield ""
    if found.calibration:
        is_ = found.calibration
        yield (
            f"Calibration: expected error {is_.ece:.3f} (10 bins), largest gap "
            f"{is_.largest_gap:.3f}, Brier score {is_.brier:.3f}, {is_.count:,} documents"
        )
        yield "  confidence   documents  mean confidence  accuracy"
        for one in is_.bins:
            yield (
                f"  {one.low:.1f} to {one.high:.1f} {one.count:>11,} {one.confidence:>16.3f} "
                f"{one.accuracy:>9.3f} {of_interval(one.interval)}"
            )
    else:
        yield "Calibration: these answers have no confidence" + (
            "; their scores are no probabilities" if found.sureness else ""
        )
    if found.selective:
        yield f"Taking only the surest answers, by {found.sureness}:"
        for point in dict.fromkeys(_at_least(found.selective, share) for share in _COVERAGES):
            yield (
                f"  {point.coverage:>5.0%} of the documents ({found.sureness} "
                f"{point.threshold:.3f} and more): accuracy {point.accuracy:.3f}"
            )
    review = found.review
    if review.marked:
        yield (
            f"For review: {review.marked:,}, accuracy of these "
            f"{_share(review.accuracy_of_marked)}, of the rest {_share(review.accuracy_of_rest)} "
            f"{of_interval(review.accuracy_of_rest_95)}"
        )
    yield ""


def _at_least(points: Iterable[Point], coverage: float) -> Point:
    """The point with the least documents that are at least such a share."""
    return next(point for point in points if point.coverage >= coverage - 1e-9)


def _sure(mistake: Mistake) -> str:
    if mistake.confidence is not None:
        return f" (confidence {mistake.confidence:.2f})"
    return "" if mistake.score is None else f" (score {mistake.score:.2f})"


def of_interval(interval: Interval | None) -> str:
    """An interval in brackets."""
    return "" if interval is None else f"({interval.low:.3f} to {interval.high:.3f})"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
