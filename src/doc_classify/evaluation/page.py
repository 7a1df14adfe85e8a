"""An evaluation as one HTML page, which needs nothing else: no script, no font, no network.

Names of categories and documents are hostile: everything that is not markup of ours is escaped,
and a content security policy forbids whatever might get through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files

from doc_classify.evaluation import plots
from doc_classify.evaluation.report import flattered, of_interval
from doc_classify.evaluation.result import CategoryScore, Evaluation
from doc_classify.evaluation.statistics import Interval
from doc_classify.terminal import one_line

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_MATRIX_AT_MOST, _UPRIGHT_AT_MOST = 40, 8
_CONFUSIONS = 40


def page(found: Evaluation) -> str:
    """The whole page."""
    style = files("doc_classify.evaluation").joinpath("page.css").read_text("utf-8")
    title = f"Evaluation of {found.classifier} on {found.folder}"
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)}</title>",
            f"<style>{style}</style></head><body><main>",
            *_body(found),
            "</main></body></html>",
            "",
        )
    )


def _body(found: Evaluation) -> Iterator[str]:
    model = f" ({_text(found.model)})" if found.model else ""
    yield (
        f"<header><h1>How often is <em>{_text(found.classifier)}</em>{model} right?</h1>"
        f"<p>{found.labelled:,} labelled documents of <code>{_text(found.folder)}</code>, labels "
        f"from {_text(found.labels)}. Fingerprint of the results: "
        f"<code>{_text(found.fingerprint)}</code></p></header>"
    )
    if found.trained_with:
        yield f"<p><strong>{_text(flattered(found))}.</strong></p>"
    yield from _headline(found)
    yield from _categories(found)
    yield from _confusion(found)
    yield '<div class="pair">'
    yield from _calibration(found)
    yield from _selective(found)
    yield "</div>"
    yield from _mistakes(found)
    yield from _details(found)


def _headline(found: Evaluation) -> Iterator[str]:
    yield '<section class="cards" aria-label="Main figures">'
    yield _card(
        "Accuracy",
        found.accuracy,
        _intervals(Wilson=found.accuracy_95, bootstrap=found.accuracy_bootstrap)
        if found.answered
        else "no document got an answer",
    )
    yield _card("Macro F1", found.macro_f1, _intervals(bootstrap=found.macro_f1_bootstrap))
    error = found.calibration.ece if found.calibration else None
    yield _card(
        "Calibration error",
        error,
        "expected, over 10 bins" if found.calibration else "these answers have no confidence",
    )
    yield _card(
        "With failures as wrong",
        found.accuracy_of_all,
        f"{found.right:,} right, {found.answered - found.right:,} wrong, {found.failed:,} failed",
    )
    yield "</section>"


def _intervals(**by_method: Interval | None) -> str:
    shown = [f"{of_interval(found)} {name}" for name, found in by_method.items() if found]
    return f"95%: {', '.join(shown)}" if shown else ""


def _card(name: str, value: float | None, note: str) -> str:
    shown = "none" if value is None else f"{value:.3f}"
    return (
        f'<div class="card"><p class="name">{escape(name)}</p><p class="value">{shown}</p>'
        f'<p class="note">{escape(note)}</p></div>'
    )


def _categories(found: Evaluation) -> Iterator[str]:
    yield "<section><h2>Categories</h2>"
    yield "<p>Bars are shares, thin lines their 95% intervals (Wilson).</p>"
    yield from _table(
        ("Category", "Precision", "", "Recall", "", "F1", "Support", "Failed"),
        (_category(score) for score in found.scores),
    )
    yield "</section>"


def _category(score: CategoryScore) -> tuple[str, ...]:
    return (
        _text(score.name),
        _number(score.precision),
        plots.bar(score.precision, score.precision_95, f"precision of {one_line(score.name)}"),
        _number(score.recall),
        plots.bar(score.recall, score.recall_95, f"recall of {one_line(score.name)}"),
        _number(score.f1),
        f"{score.support:,}",
        f"{score.failed:,}" if score.failed else "",
    )


def _confusion(found: Evaluation) -> Iterator[str]:
    yield "<section><h2>Confusions</h2>"
    wrong = [item for item in found.confusion if item[0] != item[1]]
    if len(found.categories) <= _MATRIX_AT_MOST:
        yield (
            "<p>Rows are the labels, columns the answers; the darker a cell, the larger its share "
            "of the row. On the diagonal the answers are right.</p>"
        )
        yield from _matrix(found)
    elif wrong:
        yield f"<p>The most frequent of {len(wrong):,} kinds.</p>"
        yield from _table(
            ("Labelled", "Answered", "Documents"),
            (
                (_text(label), _text(answer), f"{number:,}")
                for label, answer, number in wrong[:_CONFUSIONS]
            ),
        )
    yield "</section>"


def _matrix(found: Evaluation) -> Iterator[str]:
    counts = {(label, answer): number for label, answer, number in found.confusion}
    support = {score.name: score.support for score in found.scores}
    many = " many" if len(found.categories) > _UPRIGHT_AT_MOST else ""
    yield f'<div class="scroll" tabindex="0"><table class="matrix{many}"><thead><tr>'
    yield '<th scope="col">Labelled</th>'
    for name in found.categories:
        yield f'<th scope="col"><span>{_text(name)}</span></th>'
    yield "</tr></thead><tbody>"
    for label in found.categories:
        cells = []
        for answer in found.categories:
            number = counts.get((label, answer), 0)
            share = number / support[label] if support.get(label) else 0.0
            kind = "right" if label == answer else "wrong"
            deep = " deep" if share > 0.55 else ""
            cells.append(
                f'<td class="{kind}{deep}" style="--share:{share:.3f}">{number:,}</td>'
                if number
                else "<td></td>"
            )
        yield f'<tr><th scope="row">{_text(label)}</th>{"".join(cells)}</tr>'
    yield "</tbody></table></div>"


def _calibration(found: Evaluation) -> Iterator[str]:
    yield "<section><h2>Calibration</h2>"
    if not (is_ := found.calibration):
        yield (
            "<p>These answers have no confidence"
            + (", only scores, which are no probabilities." if found.sureness else ".")
            + "</p></section>"
        )
        return
    yield (
        f"<p>Of {is_.count:,} answers with a confidence, {is_.mean_confidence:.1%} are expected "
        f"to be right on average, and {is_.accuracy:.1%} are. Expected calibration error "
        f"{is_.ece:.3f}, largest gap {is_.largest_gap:.3f}, Brier score {is_.brier:.3f}. Above "
        "the diagonal it is right more often than it says, below it less often.</p>"
        f"<figure>{plots.reliability(is_.bins)}</figure>"
    )
    yield "<details><summary>The figures</summary>"
    yield from _table(
        ("Confidence", "Documents", "Mean confidence", "Accuracy", "95%"),
        (
            (
                f"{one.low:.1f} to {one.high:.1f}",
                f"{one.count:,}",
                f"{one.confidence:.3f}",
                f"{one.accuracy:.3f}",
                of_interval(one.interval),
            )
            for one in is_.bins
        ),
    )
    yield "</details></section>"


def _selective(found: Evaluation) -> Iterator[str]:
    review = found.review
    if not found.selective or not found.sureness:
        return
    yield "<section><h2>Only the surest answers</h2>"
    kept = found.answered - review.marked
    line = None
    if review.marked and review.accuracy_of_rest is not None:
        line = (kept / found.answered, review.accuracy_of_rest)
        marked = "" if review.accuracy_of_marked is None else f"{review.accuracy_of_marked:.3f}"
        yield (
            f"<p>The classifier marks {review.marked:,} answers for review: of these {marked} are "
            f"right, of the rest {review.accuracy_of_rest:.3f} "
            f"{of_interval(review.accuracy_of_rest_95)} (the ring).</p>"
        )
    yield f"<figure>{plots.coverage(found.selective, found.sureness, line)}</figure>"
    yield "<details><summary>The figures</summary>"
    yield from _table(
        (found.sureness.capitalize() + " of at least", "Share", "Documents", "Accuracy"),
        (
            (
                f"{point.threshold:.4f}",
                f"{point.coverage:.1%}",
                f"{point.count:,}",
                f"{point.accuracy:.3f}",
            )
            for point in found.selective
        ),
    )
    yield "</details></section>"


def _mistakes(found: Evaluation) -> Iterator[str]:
    if not found.mistakes:
        return
    wrong = found.answered - found.right
    yield f"<section><h2>Mistakes</h2><p>The surest {len(found.mistakes):,} of {wrong:,}.</p>"
    yield from _table(
        ("Document", "Answered", "Labelled", "Confidence", "Score"),
        (
            (
                _text(one.path),
                _text(one.answer),
                _text(one.label),
                _number(one.confidence),
                _number(one.score),
            )
            for one in found.mistakes
        ),
    )
    yield "</section>"


def _details(found: Evaluation) -> Iterator[str]:
    speed = found.speed
    rows = [
        ("Labelled documents", f"{found.labelled:,}"),
        *((f"Failed: {kind}", f"{number:,}") for kind, number in found.failures.items()),
        ("Copies left out", f"{found.copies:,}"),
        ("of them labelled otherwise", f"{found.contradicting:,}"),
        ("Files without a label", f"{found.unlabelled:,}"),
        ("Labelled files that are not there", f"{found.missing:,}"),
        *(
            [("Documents that the model was trained with", f"{found.trained_with:,}")]
            if found.trained_with is not None
            else []
        ),
        ("Wall clock", f"{speed.wall_seconds:.1f} s"),
        ("Documents a second", f"{speed.documents_per_second:,.1f}"),
        ("Reading", f"{speed.extract_seconds:.2f} s of CPU"),
        (
            "Waiting for answers, all together" if speed.llm_calls else "Classifying",
            f"{speed.classify_seconds:.2f} s" + ("" if speed.llm_calls else " of CPU"),
        ),
    ]
    if speed.llm_calls:
        rows.append(("LLM requests", f"{speed.llm_calls:,}"))
        rows.append(
            ("Tokens", f"{speed.prompt_tokens:,} asked, {speed.completion_tokens:,} answered")
        )
    yield "<section><h2>Counts and time</h2>"
    yield from _table(("", ""), ((_text(name), value) for name, value in rows))
    yield "</section>"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """A table; cells are markup already, heads are not. The first cell heads its row."""
    yield '<div class="scroll" tabindex="0"><table>'
    if any(heads):
        shown = "".join(
            f'<th scope="col">{escape(head)}</th>' if head else "<td></td>" for head in heads
        )
        yield f"<thead><tr>{shown}</tr></thead>"
    yield "<tbody>"
    for first, *others in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in others)
        yield f'<tr><th scope="row">{first}</th>{cells}</tr>'
    yield "</tbody></table></div>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _text(foreign: str) -> str:
    """Foreign text as markup: on one line, nothing in it taken for markup or for a direction."""
    return f"<bdi>{escape(one_line(foreign))}</bdi>"
