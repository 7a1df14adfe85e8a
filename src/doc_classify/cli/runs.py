"""Commands on the runs in the database."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import click

from doc_classify.cli.options import (
    Location,
    as_json,
    database_url,
    llm_limits,
    run_argument,
    server_address,
    settings_from,
    verbose,
)
from doc_classify.errors import ConfigurationError
from doc_classify.records import STUDENT
from doc_classify.settings import Settings
from doc_classify.storage.base import ResultFilter, ResultRow, RunInfo, Store
from doc_classify.terminal import one_line, shown_path

DISTRIBUTED = "distributed"
"""The door of the runs that workers do."""

_SILENT_SECONDS = 300
"""A run that has written nothing for so long was probably killed."""


@contextlib.contextmanager
def opened(database_url: str | None) -> Iterator[tuple[Store, Settings]]:
    """The ledger, which has to be there.

    Raises:
        ConfigurationError: there is none.
    """
    from doc_classify.storage import mask_url, open_existing

    settings = settings_from(database_url=database_url)
    url = settings.database_url
    store = open_existing(url)
    if store is None:
        raise ConfigurationError(
            f"there is no database {mask_url(url)} yet: classify-parallel --use-database makes it"
        )
    try:
        yield store, settings
    finally:
        store.close()


def run_of(store: Store, run: str | None) -> RunInfo:
    """The run of that id, the newest without one.

    Raises:
        ConfigurationError: there is none.
    """
    info = store.run(run)
    if info is None:
        raise ConfigurationError(f"there is no run {run!r}" if run else "there are no runs yet")
    return info


def _check_category(info: RunInfo, category: str | None) -> None:
    if category is not None and category not in info.spec.categories:
        known = ", ".join(info.spec.categories)
        raise ConfigurationError(f"run {info.run_id} has no category {category!r}: it has {known}")


@click.command()
@click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many."
)
@database_url
@as_json
@verbose
def runs(limit: int, database_url: str | None, as_json: bool, verbose: bool) -> int:
    """List the runs in the database, newest first."""
    with opened(database_url) as (store, _):
        for info in store.runs(limit):
            if as_json:
                click.echo(json.dumps(info_to_dict(info)))
            else:
                stats = info.stats
                click.echo(
                    f"{info.run_id}  {_state(info):<12} {stats.seen:>9,} seen "
                    f"{stats.classified:>9,} classified {stats.failed:>7,} failed "
                    f"{stats.documents_per_second:>7,.1f}/s  {one_line(info.spec.source)}"
                )
    return 0


@click.command()
@run_argument
@database_url
@as_json
@verbose
def status(run: str | None, database_url: str | None, as_json: bool, verbose: bool) -> int:
    """Show how a run stands (the newest, if none is named)."""
    from doc_classify.summary import lot_lines, print_summary

    with opened(database_url) as (store, settings):
        info = run_of(store, run)
        standing = None
        if info.spec.door == DISTRIBUTED and info.state != "finished":
            from doc_classify.cli.onlooking import standing_of

            standing = standing_of(store, info, settings)
        if as_json:
            data = info_to_dict(info)
            if info.spec.teacher:
                data["cascade"] = {"lots": store.lots(info.run_id)}
            click.echo(json.dumps(data | {"distributed": standing[0]} if standing else data))
            return 0
        state = _state(info)
        click.echo(f"Run {info.run_id}: {state}, {one_line(info.spec.source)}")
        click.echo(f"Started {info.started}, last written {info.heartbeat}")
        click.echo(
            f"Classifier {info.spec.classifier}{_model(info)}, categories "
            f"{', '.join(info.spec.categories)}"
        )
        if info.message:
            ended = "Said last" if info.spec.door == DISTRIBUTED else "Ended with"
            click.echo(f"{ended}: {one_line(info.message)}")
        print_summary(info.stats, sys.stdout)
        for line in lot_lines(store.lots(info.run_id)):
            click.echo(line)
        if standing:
            click.echo("\n".join(standing[1]))
        elif info.stats.pending and state != "running":
            click.echo("What was not reached is done by the same command as before.")
    return 0


@click.command()
@run_argument
@click.option("--category", metavar="NAME", help="Only files of this category.")
@click.option("--failed", is_flag=True, help="Only files whose document failed.")
@click.option("--error", "error_kind", metavar="KIND", help="Only this kind of failure.")
@click.option("--review", is_flag=True, help="Only those with too little evidence.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@database_url
@as_json
@verbose
def results(
    run: str | None,
    category: str | None,
    failed: bool,
    error_kind: str | None,
    review: bool,
    limit: int | None,
    database_url: str | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """List the files of a run with their categories (the newest, if none is named)."""
    from doc_classify.export import row_to_dict

    only = ResultFilter(
        category=category, failed=failed, error_kind=error_kind, needs_review=review, limit=limit
    )
    with opened(database_url) as (store, _):
        info = run_of(store, run)
        _check_category(info, category)
        shown = False
        with contextlib.closing(store.results(info.run_id, only)) as rows:  # type: ignore[type-var]
            for row in rows:
                shown = True
                click.echo(json.dumps(row_to_dict(row)) if as_json else _line(row))
        if not shown:
            click.echo(f"Nothing in run {info.run_id} matches.", err=True)
    return 0


def _line(row: ResultRow) -> str:
    from doc_classify.records import display_name

    if row.failure:
        what = f"{row.status.value}: {row.failure.kind}: {one_line(row.failure.message)}"
    else:
        number = row.confidence if row.confidence is not None else row.score
        kind = "confidence" if row.confidence is not None else "score"
        sure = "" if number is None else f" ({kind} {number:.2f})"
        if row.corrected:
            what = f"{row.category} (corrected; the classifier said {row.predicted_category}{sure})"
        else:
            what = f"{row.category or row.status.value}{sure}"
        if row.classifier == STUDENT:
            what += ", by the student"
        if row.needs_review:
            what += ", for review"
        if row.duplicate_of:
            what += f", copy of {display_name(row.duplicate_of)}"
    return f"{display_name(row.uri)}  {what}"


@click.command()
@run_argument
@click.option(
    "-o",
    "--output",
    type=Location(),
    help="File to write, or URL in an object store; its ending says how [default: "
    "results/results_RUN.json].",
)
@database_url
@verbose
def export(
    run: str | None, output: Path | str | None, database_url: str | None, verbose: bool
) -> int:
    """Write the results of a run to a .json, .jsonl, .csv or .parquet file."""
    from doc_classify.export import export_results, format_of

    with opened(database_url) as (store, _):
        info = run_of(store, run)
        if isinstance(output, str):
            from doc_classify.discovery.objects import object_name, upload

            kind = format_of(Path(object_name(output)))
            with tempfile.TemporaryDirectory(prefix="doc-classify-") as folder:
                path = Path(folder) / f"results.{kind.value}"
                upload(export_results(store, info.run_id, path), output)
            click.echo(one_line(output))
            return 0
        path = output or Path("results") / f"results_{info.run_id}.json"
        click.echo(shown_path(export_results(store, info.run_id, path)))
    return 0


@click.command()
@run_argument
@click.option("--failed", is_flag=True, help="Files whose document failed [default].")
@click.option("--error", "error_kind", metavar="KIND", help="Only this kind of failure.")
@click.option("--category", metavar="NAME", help="Files of this category.")
@click.option("-w", "--workers", type=click.IntRange(1), help="Worker processes [default: cores].")
@server_address
@llm_limits
@database_url
@as_json
@verbose
def retry(
    run: str | None,
    failed: bool,
    error_kind: str | None,
    category: str | None,
    workers: int | None,
    address: str | None,
    database_url: str | None,
    as_json: bool,
    verbose: bool,
    **limits: Any,
) -> int:
    """Do files of a run again, the way that run did them (the newest, if none is named)."""
    from doc_classify.cli.progress import ProgressReport
    from doc_classify.cli.report import Report
    from doc_classify.runners.parallel import ParallelDocumentProcessor

    if category and (failed or error_kind):
        raise ConfigurationError("--category cannot go with --failed or --error")
    # A kind may also be "unsupported", which counts as no failure.
    failed = not (category or error_kind)
    only = ResultFilter(category=category, error_kind=error_kind, failed=failed)
    with opened(database_url) as (store, _):
        info = run_of(store, run)
        settings = settings_from(
            database_url=database_url,
            workers=workers,
            classifier=info.spec.classifier,
            teacher=info.spec.teacher or None,
            address=address,
            **limits,
        )
        _check_category(info, category)
        if not any(True for _ in islice(store.task_files(info.run_id, only), 1)):
            click.echo(f"Nothing in run {info.run_id} matches.", err=as_json)
            return 0
    if info.spec.door == DISTRIBUTED:
        from doc_classify.cli.distributed import retry_elsewhere

        return retry_elsewhere(settings, info.run_id, only, as_json=as_json)
    progress = ProgressReport(None, recursive=True, shown=not as_json)
    with ParallelDocumentProcessor(
        use_database=True,
        settings=settings,
        on_progress=progress.update,
        on_notice=progress.notice,
        on_choice=lambda reason: click.echo(f"Classifier {one_line(reason)}", err=True),
        on_stage=progress.say,
    ) as processor:
        hint = " --database-url ..." if database_url else ""
        # Without a name it would be this very run, which knows only what it has reached.
        resume = f"name run {info.run_id} to retry all of its files"
        report = Report(processor, as_json=as_json, verbose=verbose, hint=hint, resume=resume)
        return report.of(partial(processor.retry, info.run_id, only), progress)


def _model(info: RunInfo) -> str:
    if not info.spec.fingerprint and info.spec.classifier != "embedded":
        return " (the first worker settles which model)"
    model = info.spec.settings.get("model")
    return f" with {one_line(str(model))}" if model else ""


def _state(info: RunInfo) -> str:
    if info.state != "running" or info.spec.door == DISTRIBUTED:
        return info.state
    silent = datetime.now(UTC) - datetime.fromisoformat(info.heartbeat)
    return "killed?" if silent.total_seconds() > _SILENT_SECONDS else "running"


def info_to_dict(info: RunInfo) -> dict[str, Any]:
    """A run, JSON-ready."""
    from doc_classify.cli.report import stats_to_dict

    return {
        "run_id": info.run_id,
        "state": _state(info),
        "source": info.spec.source,
        "door": info.spec.door,
        "classifier": info.spec.classifier,
        "model": info.spec.settings.get("model"),
        "categories": list(info.spec.categories),
        "started": info.started,
        "heartbeat": info.heartbeat,
        "finished": info.finished,
        "message": info.message,
        "fingerprint": info.spec.fingerprint,
        "stats": stats_to_dict(info.stats),
    }
