"""Commands that classify: ``classify-parallel`` for folders of any size, ``classify`` for a few."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from doc_classify.cli.options import (
    as_json,
    database_url,
    settings_from,
    verbose,
    what_and_how,
)
from doc_classify.errors import ConfigurationError
from doc_classify.terminal import one_line, shown_path

if TYPE_CHECKING:
    from doc_classify.settings import Settings
    from doc_classify.storage.base import ResultRow

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
@click.option(
    "--export-format",
    type=click.Choice(_EXPORT_FORMATS),
    default="json",
    show_default=True,
    help="How the file is written.",
)
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
@click.option(
    "--progress/--no-progress",
    "show_progress",
    default=True,
    help="Show progress on standard error.",
)
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
    show_progress: bool,
    as_json: bool,
    verbose: bool,
    **what: Any,
) -> int:
    """Classify every document of a folder with all CPU cores."""
    from doc_classify.cli.progress import ProgressReport
    from doc_classify.cli.report import Report, check_export
    from doc_classify.runners.parallel import ParallelDocumentProcessor
    from doc_classify.storage import mask_url

    settings = settings_from(
        workers=workers,
        chunk_size=chunk_size,
        database_url=database_url,
        recursive=recursive,
        **what,
    )
    if do_export:
        check_export(output, export_format)
    elif _was_given("output", "export_format"):
        raise ConfigurationError("-o and --export-format need --export")
    if dry_run:
        return _dry_run(
            path,
            settings,
            as_json=as_json,
            include_reasoning=include_reasoning,
            force=force or not use_database,
        )
    database = mask_url(settings.database_url) if use_database else "not kept in a database"
    click.echo(
        f"Classifying {shown_path(path)} with {settings.worker_count} workers, "
        f"classifier {settings.classifier}, results: {database}",
        err=True,
    )
    progress = ProgressReport(
        path, recursive=settings.recursive, shown=show_progress and not as_json
    )
    with ParallelDocumentProcessor(
        use_database=use_database, settings=settings, on_progress=progress.update
    ) as processor:
        report = Report(
            processor,
            as_json=as_json,
            verbose=verbose,
            export_to=(output, export_format) if do_export else None,
            hint=" --database-url ..." if database_url else "",
            resume=f"the same command {'starts over' if force else 'does the rest'}",
        )
        work = partial(
            processor.process_directory,
            path,
            recursive=settings.recursive,
            include_reasoning=include_reasoning,
            force=force,
        )
        return report.of(work, progress)


def _was_given(*names: str) -> bool:
    """Whether one of these options stands on the command line."""
    source = click.get_current_context().get_parameter_source
    return any(source(name) is click.core.ParameterSource.COMMANDLINE for name in names)


def _dry_run(path: Path, settings: Settings, *, as_json: bool, **how: bool) -> int:
    from doc_classify.preview import preview

    click.echo(f"Looking at {shown_path(path)}; nothing is written", err=True)
    found = preview(path, settings, **how)
    click.echo(json.dumps(asdict(found)) if as_json else "\n".join(found.lines()))
    return 0


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
    from doc_classify.cli.report import exit_code
    from doc_classify.discovery import walk
    from doc_classify.export import row_to_dict
    from doc_classify.runners.parallel import ParallelDocumentProcessor

    for path in paths:
        if not path.exists() and not path.is_symlink():
            raise ConfigurationError(f"there is no {shown_path(path)}")
    # All of them are looked at before the first is read.
    found = chain.from_iterable([walk(path) for path in paths])
    source = ", ".join(map(shown_path, paths[:3])) + (", ..." if len(paths) > 3 else "")
    with ParallelDocumentProcessor(num_workers=1, settings=settings_from(**what)) as processor:
        stats = processor.process_found(found, source, include_reasoning)
        for row in processor.store.results(stats.run_id):
            click.echo(json.dumps(row_to_dict(row)) if as_json else "\n".join(_describe(row)))
        if not stats.seen:
            click.echo("There was nothing to classify.", err=True)
    return exit_code(stats)


def _describe(row: ResultRow) -> list[str]:
    from doc_classify.records import display_name

    name = display_name(row.uri)
    if row.failure:
        reason = f"({row.failure.kind}): {one_line(row.failure.message)}"
        return [f"{name}: {row.status.value} {reason}"]
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
    if row.duplicate_of:
        lines.append(f"  copy of {display_name(row.duplicate_of)}")
    for runner_up, score in [item for item in row.scores if item[0] != row.category][:1]:
        lines.append(f"  runner-up: {runner_up} (score {score:.2f})")
    if row.reasoning:
        lines.append(f"  {one_line(row.reasoning)}")
    return lines + [f"  not read: {one_line(problem.message)}" for problem in row.problems]
