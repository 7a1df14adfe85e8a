"""Commands that classify: ``classify-parallel`` for folders of any size, ``classify`` for a few."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from doc_classify.cli.options import (
    Location,
    as_json,
    database_url,
    llm_limits,
    settings_from,
    verbose,
    what_and_how,
)
from doc_classify.errors import ConfigurationError
from doc_classify.terminal import one_line, shown_path

if TYPE_CHECKING:
    from doc_classify.cli.progress import ProgressReport
    from doc_classify.records import RunStats
    from doc_classify.runners.base import Processor
    from doc_classify.settings import Settings
    from doc_classify.storage.base import ResultRow

_F = TypeVar("_F", bound=Callable[..., Any])

_EXPORT_FORMATS = ["json", "jsonl", "csv", "parquet"]


def _folder_options(function: _F) -> _F:
    """What the commands for folders have in common."""
    for option in reversed(
        (
            click.argument("path", type=Location()),
            click.option(
                "-w", "--workers", type=click.IntRange(1), help="Worker processes [default: cores]."
            ),
            click.option(
                "--chunk-size", type=click.IntRange(1), help="Documents a worker gets at a time."
            ),
            click.option(
                "--batch-size", type=click.IntRange(1), help="Results written in one transaction."
            ),
            what_and_how,
            llm_limits,
            database_url,
            click.option(
                "--export", "do_export", is_flag=True, help="Write the results to a file."
            ),
            click.option(
                "--export-format",
                type=click.Choice(_EXPORT_FORMATS),
                default="json",
                show_default=True,
                help="How the file is written.",
            ),
            click.option(
                "-o",
                "--output",
                type=click.Path(path_type=Path, file_okay=False),
                default=Path("results"),
                show_default=True,
                help="Folder of the export.",
            ),
            click.option(
                "--recursive/--no-recursive", default=None, help="Go into subfolders, or not."
            ),
            click.option("--force", is_flag=True, help="Do again what is done already."),
            click.option("--dry-run", is_flag=True, help="Only say what would be done."),
            click.option(
                "--progress/--no-progress",
                "show_progress",
                default=True,
                help="Show progress on standard error.",
            ),
            as_json,
            verbose,
        )
    ):
        function = option(function)
    return function


@click.command("classify-parallel")
@_folder_options
@click.option(
    "--use-database/--no-database",
    default=False,
    help="Keep the results, so that a later run takes only what is new [default: no].",
)
def classify_parallel(**options: Any) -> int:
    """Classify every document of a folder with all CPU cores.

    PATH is a folder, a file, or the URL of documents in an object store: s3://bucket/prefix (gs://
    and az:// likewise), with credentials from the environment.
    """
    from doc_classify.runners.parallel import ParallelDocumentProcessor

    def work(
        path: Path | str, settings: Settings, how: _How
    ) -> tuple[Processor, Callable[[], RunStats]]:
        processor = ParallelDocumentProcessor(
            use_database=how.use_database,
            settings=settings,
            on_progress=how.progress.update,
            on_notice=how.progress.notice,
            on_choice=how.on_choice,
            on_stage=how.progress.say,
        )
        return processor, partial(
            processor.process_directory,
            path,
            recursive=settings.recursive,
            include_reasoning=how.include_reasoning,
            force=how.force,
        )

    return _classify_folder(work, **options)


@click.command("classify-async")
@_folder_options
@click.option(
    "--use-database/--no-database",
    default=True,
    help="Keep the results, so that a later run takes only what is new [default: yes].",
)
def classify_async(**options: Any) -> int:
    """Classify every document of a folder with many LLM requests in flight.

    PATH is a folder, a file, or the URL of documents in an object store, such as
    s3://bucket/prefix.
    """
    from doc_classify.blocking import run_blocking
    from doc_classify.runners.async_batch import AsyncBatchProcessor

    def work(
        path: Path | str, settings: Settings, how: _How
    ) -> tuple[Processor, Callable[[], RunStats]]:
        processor = AsyncBatchProcessor(
            use_database=how.use_database,
            deduplicate=not how.force,
            settings=settings,
            on_progress=how.progress.update,
            on_notice=how.progress.notice,
            on_choice=how.on_choice,
            on_stage=how.progress.say,
        )
        return processor, lambda: run_blocking(
            processor.process_directory_async(
                path, recursive=settings.recursive, include_reasoning=how.include_reasoning
            )
        )

    return _classify_folder(work, **options)


@dataclass(frozen=True, slots=True)
class _How:
    """What a door is told besides the settings."""

    use_database: bool
    include_reasoning: bool
    force: bool
    progress: ProgressReport
    on_choice: Callable[[str], None]


def _classify_folder(
    work: Callable[[Path | str, Settings, _How], tuple[Processor, Callable[[], RunStats]]],
    *,
    path: Path | str,
    use_database: bool,
    do_export: bool,
    export_format: str,
    output: Path,
    force: bool,
    include_reasoning: bool,
    dry_run: bool,
    show_progress: bool,
    as_json: bool,
    verbose: bool,
    **fields: Any,
) -> int:
    """The body of both commands; ``work`` makes the processor and what it has to do."""
    from doc_classify.cli.progress import ProgressReport
    from doc_classify.cli.report import Report, check_export
    from doc_classify.storage import mask_url

    settings = settings_from(**fields)
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

    def announce(classifier: str) -> None:
        click.echo(
            f"Classifying {shown_path(path)} with {settings.worker_count} workers, "
            f"classifier {one_line(classifier)}, results: {database}",
            err=True,
        )

    progress = ProgressReport(
        path, recursive=settings.recursive, shown=show_progress and not as_json
    )
    how = _How(use_database, include_reasoning, force, progress, announce)
    processor, to_do = work(path, settings, how)
    with processor:
        report = Report(
            processor,
            as_json=as_json,
            verbose=verbose,
            export_to=(output, export_format) if do_export else None,
            hint=" --database-url ..." if fields["database_url"] else "",
            resume=f"the same command {'starts over' if force else 'does the rest'}",
        )
        return report.of(to_do, progress)


def _was_given(*names: str) -> bool:
    """Whether one of these options stands on the command line."""
    source = click.get_current_context().get_parameter_source
    return any(source(name) is click.core.ParameterSource.COMMANDLINE for name in names)


def _dry_run(path: Path | str, settings: Settings, *, as_json: bool, **how: bool) -> int:
    from doc_classify.preview import preview

    click.echo(f"Looking at {shown_path(path)}; nothing is written", err=True)
    found = preview(path, settings, **how)
    click.echo(json.dumps(asdict(found)) if as_json else "\n".join(found.lines()))
    return 0


@click.command("classify")
@click.argument("paths", type=Location(), nargs=-1, required=True)
@what_and_how
@as_json
@verbose
def classify(
    paths: tuple[Path | str, ...],
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
        if isinstance(path, Path) and not path.exists() and not path.is_symlink():
            raise ConfigurationError(f"there is no {shown_path(path)}")
    # All of them are looked at before the first is read.
    found = chain.from_iterable([walk(path) for path in paths])
    source = ", ".join(map(shown_path, paths[:3])) + (", ..." if len(paths) > 3 else "")
    with ParallelDocumentProcessor(
        num_workers=1,
        settings=settings_from(**what),
        on_choice=lambda reason: click.echo(f"Classifier {one_line(reason)}", err=True),
    ) as processor:
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
