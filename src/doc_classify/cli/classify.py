"""Commands that classify: ``classify-parallel`` for folders of any size, ``classify`` for a few."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import click

from doc_classify.cli import EXIT_INTERRUPTED, EXIT_SOME_FAILED
from doc_classify.cli.options import (
    as_json,
    database_url,
    settings_from,
    verbose,
    what_and_how,
)
from doc_classify.records import RunStats

_EXAMPLES = 5
_EXPORT_FORMATS = ["json", "jsonl", "csv", "parquet"]


@click.command("classify-parallel")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-w", "--workers", type=click.IntRange(1), help="Worker processes [default: cores].")
@click.option("--chunk-size", type=click.IntRange(1), help="Documents a worker gets at a time.")
@what_and_how
@click.option(
    "--use-database/--no-database",
    default=False,
    help="Keep the results, so that a later run takes only what is new [default: no].",
)
@database_url
@click.option("--export", "do_export", is_flag=True, help="Write the results to a file.")
@click.option("--export-format", type=click.Choice(_EXPORT_FORMATS), default="json")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Folder of the export.",
)
@click.option("--recursive/--no-recursive", default=None, help="Go into subfolders, or not.")
@click.option("--force", is_flag=True, help="Do again what is done already.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--progress/--no-progress", default=True, help="Show progress on standard error.")
@as_json
@verbose
def classify_parallel(
    path: Path,
    workers: int | None,
    chunk_size: int | None,
    use_database: bool,
    database_url: str | None,
    do_export: bool,
    export_format: str,
    output: Path,
    recursive: bool | None,
    force: bool,
    include_reasoning: bool,
    dry_run: bool,
    progress: bool,
    as_json: bool,
    verbose: bool,
    **what: Any,
) -> int:
    """Classify every document of a folder with all CPU cores."""
    from doc_classify.cli.progress import ProgressReport
    from doc_classify.export.formats import Format, writer_for
    from doc_classify.runners.parallel import ParallelDocumentProcessor
    from doc_classify.storage import mask_url

    settings = settings_from(
        workers=workers,
        chunk_size=chunk_size,
        database_url=database_url,
        recursive=recursive,
        **what,
    )
    if dry_run:
        from doc_classify.preview import preview

        found = preview(path, settings, include_reasoning=include_reasoning, force=force)
        click.echo(json.dumps(asdict(found)) if as_json else "\n".join(found.lines()))
        return 0
    if do_export:
        # A missing package is better known before the run than after it.
        writer_for(Format(export_format), {})
    database = mask_url(settings.database_url) if use_database else "not kept in a database"
    click.echo(
        f"Classifying {click.format_filename(path)} with {settings.worker_count} workers, "
        f"classifier {settings.classifier}, results: {database}",
        err=True,
    )
    report = ProgressReport(path, recursive=settings.recursive, shown=progress and not as_json)
    processor = ParallelDocumentProcessor(
        use_database=use_database, settings=settings, on_progress=report.update
    )
    interrupted = False
    with processor:
        try:
            with report:
                processor.process_directory(
                    path,
                    recursive=settings.recursive,
                    include_reasoning=include_reasoning,
                    force=force,
                )
        except KeyboardInterrupt:
            interrupted = True
            if not processor.stats.run_id:
                raise
        exported = None
        if do_export:
            name = f"results_{processor.stats.run_id}.{export_format}"
            exported = processor.export_results(output / name)
        return _finish(processor, exported, as_json=as_json, interrupted=interrupted)


def _finish(processor: Any, exported: Path | None, *, as_json: bool, interrupted: bool) -> int:
    """Print what became of a run; returns the exit code."""
    from doc_classify.summary import print_summary

    stats: RunStats = processor.stats
    if as_json:
        data = stats_to_dict(stats) | {"interrupted": interrupted}
        data["export"] = None if exported is None else str(exported)
        click.echo(json.dumps(data))
    else:
        print_summary(stats, sys.stdout, failed_examples=_failed_examples(processor, stats))
        if exported:
            click.echo(f"Results: {exported}")
        click.echo(_advice(stats, interrupted, kept=processor.use_database))
    if interrupted:
        return EXIT_INTERRUPTED
    return exit_code(stats)


def exit_code(stats: RunStats) -> int:
    """0 when every document has its category, 1 when some have failed, now or earlier."""
    return EXIT_SOME_FAILED if stats.failed or stats.already_failed else 0


def stats_to_dict(stats: RunStats) -> dict[str, Any]:
    """Counts of a run, JSON-ready, with the rates."""
    data = asdict(stats)
    data["categories"] = {
        name: {
            "files": item.files,
            "mean_score": item.mean_score,
            "mean_confidence": item.mean_confidence,
        }
        for name, item in stats.categories.items()
    }
    return data | {
        "pending": stats.pending,
        "documents_per_second": stats.documents_per_second,
        "pages_per_second": stats.pages_per_second,
        "seconds_for_500000": stats.seconds_for(500_000),
    }


def program() -> str:
    """The command as this user can type it: with its path where the shell would not find it."""
    called = Path(sys.argv[0])
    if shutil.which(called.name):
        return called.name
    here = Path.cwd()
    return str(called.relative_to(here) if called.is_relative_to(here) else called)


def _failed_examples(processor: Any, stats: RunStats) -> Sequence[tuple[str, str, str]]:
    from doc_classify.records import FileStatus, display_name
    from doc_classify.storage.base import ResultFilter

    only = ResultFilter(statuses=frozenset({FileStatus.FAILED}), limit=_EXAMPLES)
    return [
        (Path(display_name(row.uri)).name, row.failure.kind, row.failure.message)
        for row in islice(processor.store.results(stats.run_id, only), _EXAMPLES)
        if row.failure
    ]


def _advice(stats: RunStats, interrupted: bool, *, kept: bool) -> str:
    if interrupted:
        return (
            "Interrupted. What is classified is stored; the same command does the rest."
            if kept
            else "Interrupted. With --use-database the same command would do only the rest."
        )
    if not kept:
        return "Next: --use-database keeps the results, so that a later run takes only new files."
    command = program()
    if stats.failed:
        return f"Next: '{command} results --failed' lists the failures with their reasons."
    return f"Next: '{command} results' lists every file with its category."


@click.command("classify")
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@what_and_how
@as_json
@verbose
def classify(
    paths: tuple[Path, ...],
    include_reasoning: bool,
    as_json: bool,
    verbose: bool,
    **what: Any,
) -> int:
    """Classify a few files, or a small folder, and show what was found."""
    from doc_classify.errors import ConfigurationError
    from doc_classify.export import row_to_dict
    from doc_classify.runners.parallel import ParallelDocumentProcessor

    for path in paths:
        if not path.exists() and not path.is_symlink():
            raise ConfigurationError(f"there is no {click.format_filename(path)}")
    files = (
        file
        for path in paths
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if not file.is_dir()
    )
    with ParallelDocumentProcessor(num_workers=1, settings=settings_from(**what)) as processor:
        stats = processor.process_batch(files, include_reasoning=include_reasoning)
        for row in processor.store.results(stats.run_id):
            if as_json:
                click.echo(json.dumps(row_to_dict(row)))
            else:
                click.echo("\n".join(_describe(row)))
    return exit_code(stats)


def _describe(row: Any) -> list[str]:
    from doc_classify.records import display_name

    name = display_name(row.uri)
    if row.failure:
        return [f"{name}: {row.status.value} ({row.failure.kind}): {row.failure.message}"]
    if row.category is None:
        return [f"{name}: {row.status.value}"]
    sure = (
        f"confidence {row.confidence:.2f}"
        if row.confidence is not None
        else f"score {row.score:.2f} (uncalibrated)"
        if row.score is not None
        else "no score"
    )
    lines = [f"{name}: {row.category}, {sure}{', for review' if row.needs_review else ''}"]
    if len(row.scores) > 1:
        runner_up, score = row.scores[1]
        lines.append(f"  runner-up: {runner_up} (score {score:.2f})")
    if row.reasoning:
        lines.append(f"  {row.reasoning}")
    return lines + [f"  not read: {problem.message}" for problem in row.problems]
