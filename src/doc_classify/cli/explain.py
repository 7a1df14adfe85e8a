"""``explain``: one document, looked at closely."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from doc_classify.cli import EXIT_SOME_FAILED
from doc_classify.cli.options import Location, as_json, settings_from, verbose, what_and_how
from doc_classify.terminal import one_line

if TYPE_CHECKING:
    from doc_classify.classification.explaining import Asked, Check, Explanation
    from doc_classify.explanation import Examined
    from doc_classify.records import Extraction

_EXCERPT = 300
"""Characters of the text that are shown unasked."""
_BAR = 30


@click.command()
@click.argument("path", type=Location())
@what_and_how
@click.option("--show-text", is_flag=True, help="Show all the text that was read.")
@as_json
@verbose
def explain(
    path: Path | str,
    include_reasoning: bool,
    show_text: bool,
    as_json: bool,
    verbose: bool,
    **what: Any,
) -> int:
    """Show what is read in a document, and what speaks for which category.

    The document is read and classified as in a run. Nothing is stored.
    """
    from doc_classify.explanation import examine

    examined = examine(path, settings_from(**what), include_reasoning=include_reasoning)
    if as_json:
        click.echo(json.dumps(_to_dict(examined, show_text=show_text)))
    else:
        for line in _lines(examined, show_text=show_text):
            click.echo(line)
    return EXIT_SOME_FAILED if examined.failure else 0


def _to_dict(examined: Examined, *, show_text: bool) -> dict[str, Any]:
    from doc_classify.records import display_name

    extraction, explanation = examined.extraction, examined.explanation
    read: dict[str, Any] | None = None
    if extraction is not None:
        read = asdict(extraction)
        del read["pages"]
        read |= {
            "pages_read": len(extraction.pages),
            "ocr_pages": extraction.ocr_pages,
            "characters": len(extraction.text),
            "excerpt": _excerpt(extraction),
        }
        if show_text:
            read["text"] = extraction.text
    decided: dict[str, Any] = {}
    if explanation is not None:
        decided = asdict(explanation.classification) | {
            "scores": dict(explanation.classification.scores),
            "checks": [asdict(one) | {"passed": one.passed} for one in explanation.checks],
            "evidence": [asdict(one) for one in explanation.evidence],
            "asked": explanation.asked and asdict(explanation.asked),
        }
    return {
        "path": display_name(examined.uri),
        "uri": examined.uri,
        "size": examined.size,
        "classifier": examined.classifier,
        "categories": list(examined.taxonomy.names),
        "read": read,
        "decision": decided or None,
        "error_kind": examined.failure and examined.failure.kind,
        "error_message": examined.failure and examined.failure.message,
    }


def _lines(examined: Examined, *, show_text: bool) -> Iterator[str]:
    from doc_classify.records import display_name

    size = "" if examined.size is None else f", {examined.size:,} bytes"
    yield f"{display_name(examined.uri)}{size}"
    if examined.extraction is not None:
        yield from _what_was_read(examined.extraction, show_text=show_text)
    if examined.failure is not None:
        what = "not classified" if examined.extraction else "not read"
        yield f"{what} ({examined.failure.kind}): {one_line(examined.failure.message)}"
    yield f"classifier {one_line(examined.classifier)}"
    if examined.explanation is not None:
        yield from _what_was_decided(examined.explanation)


def _what_was_read(read: Extraction, *, show_text: bool) -> Iterator[str]:
    from doc_classify.sniffing import describe

    pages = f"{len(read.pages):,}"
    if read.page_count is not None:
        pages += f" of {read.page_count:,}"
    by_ocr = f", {read.ocr_pages:,} of them by OCR" if read.ocr_pages else ""
    kind = one_line(f"{describe(read.media_type)}, {read.media_type}, by {read.engine}")
    yield f"read as {kind}: pages {pages}{by_ocr}, {len(read.text):,} characters"
    for name in ("title", "author", "language", "created", "modified"):
        if value := getattr(read, name):
            yield f"  {name}: {one_line(value)}"
    for attachment in read.attachments:
        yield f"  attached: {one_line(attachment)}"
    for problem in read.problems:
        where = f"page {problem.page}: " if problem.page else ""
        yield f"  not read: {where}{one_line(problem.message)}"
    if read.truncated:
        yield "  not read: what is beyond the limit of characters"
    if not show_text:
        yield f"  begins: {one_line(_excerpt(read)) or '(nothing)'}"
        return
    for page in read.pages:
        yield f"--- page {page.number}{', by OCR' if page.ocr else ''}"
        yield from (_whole_line(line) for line in page.text.splitlines())
    yield "---"


def _whole_line(line: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _excerpt(read: Extraction) -> str:
    return " ".join(read.text[: 4 * _EXCERPT].split())[:_EXCERPT]


def _what_was_decided(explanation: Explanation) -> Iterator[str]:
    found = explanation.classification
    sure = (
        f"confidence {found.confidence:.2f}"
        if found.confidence is not None
        else f"score {found.score:.2f}, which is no probability"
        if found.score is not None
        else "no score"
    )
    yield f"category {found.category}, {sure}{', for review' if found.needs_review else ''}"
    if found.reasoning:
        yield f"  {one_line(found.reasoning)}"
    if found.scores:
        yield "scores"
        wide = max(len(name) for name, _ in found.scores)
        for name, score in found.scores:
            bar = "#" * round(score * _BAR)
            yield f"  {name:<{wide}}  {score:.4f}  {bar}".rstrip()
    if explanation.checks:
        yield "checks: a document that fails one is for review"
        yield from (f"  {_check(check)}" for check in explanation.checks)
    by_category: dict[str, list[str]] = {}
    for one in explanation.evidence:
        by_category.setdefault(one.category, []).append(f"{one.what} {one.weight:.2g}")
    if by_category:
        yield "evidence, with its weight"
        for name, pieces in by_category.items():
            yield f"  {name}: {one_line('; '.join(pieces))}"
    if explanation.asked:
        yield from _what_was_asked(explanation.asked)


def _check(check: Check) -> str:
    bound = "at most" if check.most else "at least"
    if check.value is None:
        return f"-     {check.name}: nothing to say"
    if check.passed:
        return f"ok    {check.name}: {check.value:g}, {bound} {check.limit:g} needed"
    return f"fails {check.name}: {check.value:g}, {bound} {check.limit:g} needed: {check.reason}"


def _what_was_asked(asked: Asked) -> Iterator[str]:
    used = asked.usage
    yield (
        f"asked {used.calls} time{'s' if used.calls != 1 else ''}: {asked.system:,} characters of "
        f"task and categories, {asked.user:,} of document and question, about {asked.tokens:,} "
        "tokens"
    )
    yield (
        f"used {used.prompt_tokens:,} prompt tokens ({used.cached_tokens:,} cached), "
        f"{used.completion_tokens:,} answer tokens by the server's count"
    )
    if asked.label_mass is None:
        yield "the server tells no probabilities"
