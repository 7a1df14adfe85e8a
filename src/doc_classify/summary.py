"""The table at the end of a run, for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from doc_classify.records import RunStats
from doc_classify.terminal import one_line

_PROJECTED = 500_000
"""Documents that the time is projected to."""
_ENOUGH = 20
"""Documents below which a projection would say nothing."""


def print_summary(
    stats: RunStats, file: TextIO, *, failed_examples: Sequence[tuple[str, str, str]] = ()
) -> None:
    """Print what became of every file of a run.

    Args:
        stats: the run's counts.
        file: where to print.
        failed_examples: (file name, kind, message) of some failures.
    """
    console = Console(file=file, highlight=False, soft_wrap=not file.isatty())
    if stats.categories:
        console.print(_category_table(stats))
    if stats.failures or stats.unsupported_types:
        console.print(_failure_table(stats))
        for name, kind, message in failed_examples:
            # Text, not markup: names and messages come from documents.
            console.print(Text(f"  {one_line(name)}: {kind}: {one_line(message)}"))
        if 0 < len(failed_examples) < stats.failed:
            console.print(Text(f"  ... and {stats.failed - len(failed_examples):,} more"))
    for line in summary_lines(stats):
        console.print(Text(line))


def summary_lines(stats: RunStats) -> list[str]:
    """The lines below the tables: the account of all files, rates, projection."""
    parts = [
        f"{stats.classified:,} classified",
        f"{stats.duplicates:,} duplicates",
        f"{stats.already_done:,} already done",
        f"{stats.unsupported:,} unsupported",
        f"{stats.failed:,} failed",
    ]
    if stats.pending:
        parts.append(f"{stats.pending:,} not reached")
    lines = [f"{stats.seen:,} files seen = {' + '.join(parts)}"]
    if stats.skipped:
        lines.append(f"{stats.skipped:,} hidden or temporary files skipped")
    if stats.already_done and not stats.processed and not stats.pending:
        lines.append("Everything was done already; --force does it again.")
    if stats.already_failed:
        lines.append(
            f"{stats.already_failed:,} of those done already had failed; "
            "'doc-classify retry --failed' tries them again"
        )
    if stats.with_problems:
        lines.append(f"{stats.with_problems:,} classified although a part could not be read")
    if stats.needs_review:
        lines.append(f"{stats.needs_review:,} with too little evidence, for review")
    if stats.corrected:
        lines.append(f"{stats.corrected:,} files with a category that a person has corrected")
    if stats.processed and stats.total_processing_time:
        lines.append(
            f"{stats.total_processing_time:.1f} s"
            f"{f' with {stats.workers} workers' if stats.workers else ''}: "
            f"{stats.documents_per_second:,.1f} documents/s, "
            f"{stats.pages_per_second:,.1f} pages/s ({stats.pages:,} pages read, "
            f"{stats.ocr_pages:,} of them by OCR)"
        )
    if stats.llm_calls:
        lines.append(_llm_line(stats))
    if stats.processed and stats.total_processing_time:
        seconds = stats.seconds_for(_PROJECTED)
        if seconds and stats.processed >= _ENOUGH:
            lines.append(f"{_PROJECTED:,} documents like these: about {duration(seconds)}")
    return lines


def _llm_line(stats: RunStats) -> str:
    line = (
        f"{stats.llm_calls:,} LLM requests: {stats.prompt_tokens:,} prompt tokens"
        f"{f' ({stats.cached_tokens:,} of them cached)' if stats.cached_tokens else ''}, "
        f"{stats.completion_tokens:,} answer tokens"
    )
    return line if stats.cost is None else f"{line}; cost {stats.cost:.4g}"


def lot_lines(lots: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the cascade of a run promises, for a person: a few lines for each of its lots."""
    return [line for lot in lots for line in _lot_lines(lot)]


def _lot_lines(lot: Mapping[str, Any]) -> list[str]:
    said, outcome = lot["summary"], lot["outcome"]
    head = f"Cascade, lot {lot['lot']} of {lot['population']:,} documents: "
    if lot["state"] == "superseded":
        return [
            f"{head}left unfinished, and taken over by a later lot: nothing is promised for what "
            "its student had decided by then"
        ]
    if lot["hopeless"]:
        return [f"{head}nothing to save: {one_line(lot['hopeless']['message'])}"]
    if said is None:
        drawn = sum(sample["drawn"] for sample in lot["samples"])
        return [f"{head}not certified yet, {drawn:,} drawn"]
    what = "documents" if said["guarantee"] == "overall" else "documents of the student"
    lines = [
        f"{head}with {said['assurance']:.1%} assurance, at least "
        f"{_promised(said):.1%} of the {what} carry the LLM's category "
        f"({said['expected_agreement']:.1%} of all expected)"
    ]
    if outcome:
        without = said["llm_documents_without"]
        lines.append(
            f"  {outcome['student']:,} decided by the student, {outcome['llm']:,} by the LLM, "
            f"{outcome['failed']:,} failed: {lot['llm_requests']:,} LLM requests where "
            f"{without:,} documents would have been asked about"
        )
    for audit in lot["audits"]:
        if "verdict" in audit:
            lines.append(f"  audit: {audit_line(audit)}")
    return lines


def _promised(said: Mapping[str, Any]) -> float:
    own = said["student_agreement"]
    if said["guarantee"] == "student" and own is not None:
        return float(own)
    return float(said["certified_agreement"])


def audit_line(audit: Mapping[str, Any]) -> str:
    """What an audit has found, for a person."""
    verdict = {
        "confirms": "confirms the certificate",
        "refutes": "REFUTES the certificate",
        "undecided": "is undecided: draw more",
    }[audit["verdict"]]
    return (
        f"{audit['disagreed']:,} of {audit['drawn']:,} fresh documents disagree, so that "
        f"{audit['least_wrong']:,} to {audit['most_wrong']:,} of {audit['answered']:,} do where "
        f"{audit['claimed']:,} may; it {verdict}"
    )


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``45 s``, ``3 min``, ``5.2 h``, ``12 days``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 72 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"


def _category_table(stats: RunStats) -> Table:
    calibrated = any(item.confidence_count for item in stats.categories.values())
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Category")
    table.add_column("Files", justify="right")
    table.add_column(
        "Mean confidence" if calibrated else "Mean score (uncalibrated)", justify="right"
    )
    for name, item in sorted(stats.categories.items(), key=lambda pair: -pair[1].files):
        mean = item.mean_confidence if calibrated else item.mean_score
        table.add_row(Text(name), f"{item.files:,}", "-" if mean is None else f"{mean:.2f}")
    return table


def _failure_table(stats: RunStats) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Not classified")
    table.add_column("Files", justify="right")
    for kind, number in stats.failures.items():
        table.add_row(Text(f"failed: {kind}"), f"{number:,}")
    for kind, number in stats.unsupported_types.items():
        name = "type of file" if kind == "unsupported" else kind
        table.add_row(Text(f"unsupported: {name}"), f"{number:,}")
    return table
