"""Commands for runs that Celery workers do: ``submit``, ``wait``, ``cancel``, ``resume``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from doc_classify.cli import EXIT_COULD_NOT_RUN, EXIT_INTERRUPTED
from doc_classify.cli.onlooking import Onlooker, Progress, check_installed
from doc_classify.cli.options import (
    Finite,
    Location,
    as_json,
    database_url,
    run_argument,
    settings_from,
    verbose,
    what_and_how_elsewhere,
)
from doc_classify.cli.runs import DISTRIBUTED, info_to_dict, opened, run_of
from doc_classify.errors import ConfigurationError, DocClassifyError
from doc_classify.terminal import one_line

if TYPE_CHECKING:
    from doc_classify.runners.distributed import CeleryDistributedProcessor
    from doc_classify.settings import Settings
    from doc_classify.storage.base import RunInfo

_SUBMITTER_SECONDS = 60.0
"""A run that was written so recently may still be in the hands of its submitter."""

_poll_interval = click.option(
    "--poll-interval",
    type=Finite(0.05, 86_400),
    default=5.0,
    show_default=True,
    help="Seconds between two looks.",
)


@click.command()
@click.argument("path", type=Location())
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Documents handed over at a time.",
)
@click.option(
    "--chunk-size",
    "distributed_chunk_size",
    type=click.IntRange(1),
    help="Documents that a worker claims at a time [default: 25].",
)
@what_and_how_elsewhere
@database_url
@click.option(
    "--use-database/--no-database",
    default=True,
    help="Keep the text that is read, for other categories later [default: yes]; results are "
    "kept in any case.",
)
@click.option("--recursive/--no-recursive", default=None, help="Go into subfolders, or not.")
@click.option("--force", is_flag=True, help="Do again what is done already.")
@click.option("--wait", "wait_for_it", is_flag=True, help="Look on until all is done.")
@_poll_interval
@as_json
@verbose
def submit(
    path: Path,
    batch_size: int,
    include_reasoning: bool,
    use_database: bool,
    force: bool,
    wait_for_it: bool,
    poll_interval: float,
    as_json: bool,
    verbose: bool,
    **fields: Any,
) -> int:
    """Hand every document of a folder to Celery workers; prints the id of the run."""
    settings = settings_from(**fields)
    run_id = ""
    submitted = 0
    progress = Progress("Submitting", shown=not as_json, at_once=False)

    def begun(new: str) -> None:
        nonlocal run_id
        run_id = new

    def on_submitted(number: int) -> None:
        nonlocal submitted
        submitted = number
        progress.show(number, None, f"{number:,} files submitted")

    with _processor(settings, use_database=use_database, batch_size=batch_size) as processor:
        _check_surroundings(settings)
        try:
            with progress:
                processor.submit_directory(
                    path,
                    recursive=settings.recursive,
                    include_reasoning=include_reasoning,
                    force=force,
                    on_begun=begun,
                    on_submitted=on_submitted,
                )
        except (KeyboardInterrupt, DocClassifyError) as error:
            if run_id:
                click.echo(
                    f"Run {run_id} holds the {submitted:,} files submitted so far, and workers do "
                    "them. The same command again submits everything; nothing is done twice.",
                    err=True,
                )
            if not isinstance(error, KeyboardInterrupt):
                raise
            return EXIT_INTERRUPTED
        if not as_json:
            click.echo(run_id)
            click.echo(
                f"{submitted:,} files submitted. 'doc-classify wait {run_id}' looks on, "
                f"'doc-classify status {run_id}' says how it stands.",
                err=True,
            )
        if wait_for_it:
            return _wait(processor, settings, run_id, poll_interval, None, as_json=as_json)
        if as_json:
            click.echo(json.dumps({"run_id": run_id, "submitted": submitted}))
    return 0


def _check_surroundings(settings: Settings) -> None:
    """Say at once what would keep the run from coming on.

    Raises:
        BrokerError: the broker is away; nothing was submitted yet.
    """
    from doc_classify.queue_status import WORKER_COMMAND, live_workers

    if not live_workers(settings, first_only=True):
        click.echo(f"No worker is connected yet; to start one: {WORKER_COMMAND}", err=True)
    if settings.database_url.startswith("sqlite"):
        click.echo("The database is a file: only workers of this machine can use it.", err=True)


@click.command()
@run_argument
@_poll_interval
@click.option("--timeout", type=Finite(0, 1e9), help="Stop waiting after so many seconds.")
@database_url
@as_json
@verbose
def wait(
    run: str | None,
    poll_interval: float,
    timeout: float | None,
    database_url: str | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Look on until workers have done a run (the newest of theirs, if none is named).

    Exit codes: 0 done, 1 some documents failed, 3 the run was ended before, or time is up, 130
    stopped looking on (the run goes on).
    """
    settings, info = _found(run, database_url)
    with _processor(settings) as processor:
        return _wait(processor, settings, info.run_id, poll_interval, timeout, as_json=as_json)


def _wait(
    processor: CeleryDistributedProcessor,
    settings: Settings,
    run_id: str,
    poll_interval: float,
    timeout: float | None,
    *,
    as_json: bool,
) -> int:
    from doc_classify.cli.report import exit_code
    from doc_classify.runners.distributed import ENDED
    from doc_classify.summary import print_summary

    progress = Progress("Classifying", shown=not as_json)
    onlooker = Onlooker(processor.store, settings, progress)
    interrupted = False
    try:
        with progress:
            processor.wait_for_completion(
                run_id, poll_interval, timeout=timeout, on_progress=onlooker.update
            )
    except KeyboardInterrupt:
        interrupted = True
    info = run_of(processor.store, run_id)
    ended = info.state in ENDED
    if as_json:
        click.echo(json.dumps(info_to_dict(info) | {"interrupted": interrupted}))
    elif ended:
        print_summary(info.stats, sys.stdout)
    if interrupted:
        click.echo(
            f"Stopped looking on; run {run_id} goes on without. 'doc-classify wait {run_id}' looks "
            f"on again, 'doc-classify cancel {run_id}' ends it.",
            err=True,
        )
        return EXIT_INTERRUPTED
    if not ended:
        click.echo(f"Time is up; run {run_id} goes on.", err=True)
        return EXIT_COULD_NOT_RUN
    if info.message and not as_json:
        click.echo(f"The run said last: {one_line(info.message)}", err=True)
    if info.state == "finished" and info.message:
        # Only that something was not submitted outlives the end.
        click.echo("Submitting the same again takes the rest.", err=True)
        return EXIT_COULD_NOT_RUN
    if info.state != "finished":
        click.echo(
            f"Run {run_id} was ended before all was done ({info.state}); "
            f"'doc-classify resume {run_id}' lets it go on.",
            err=True,
        )
        return EXIT_COULD_NOT_RUN
    return exit_code(info.stats)


@click.command()
@click.argument("run")
@database_url
@as_json
@verbose
def cancel(run: str, database_url: str | None, as_json: bool, verbose: bool) -> int:
    """Have workers begin nothing more of a run; what they are at is finished."""
    settings, info = _found(run, database_url)
    with _processor(settings) as processor:
        cancelled = processor.cancel(info.run_id)
    if as_json:
        click.echo(json.dumps({"run_id": info.run_id, "cancelled": cancelled}))
    elif cancelled:
        click.echo(
            f"Run {info.run_id} is cancelled. Chunks that are being worked on are finished; "
            f"'doc-classify resume {info.run_id}' would let it go on."
        )
    else:
        click.echo(f"Run {info.run_id} had ended already: {info.state}.")
    return 0


@click.command()
@click.argument("run")
@database_url
@as_json
@verbose
def resume(run: str, database_url: str | None, as_json: bool, verbose: bool) -> int:
    """Let a run go on that was cancelled, has failed, or whose messages were lost."""
    from datetime import UTC, datetime

    settings, info = _found(run, database_url)
    silent = (datetime.now(UTC) - datetime.fromisoformat(info.heartbeat)).total_seconds()
    if info.state == "submitting" and silent < _SUBMITTER_SECONDS:
        raise ConfigurationError(
            f"run {info.run_id} seems to be being submitted: it was written {silent:.0f} s ago. "
            "If it is not, try again in a minute"
        )
    with _processor(settings) as processor:
        sent = processor.resume(info.run_id)
    if as_json:
        click.echo(json.dumps({"run_id": info.run_id, "chunks_sent": sent}))
    elif info.state == "finished":
        click.echo(f"Run {info.run_id} is finished: there is nothing to resume.")
    else:
        click.echo(f"Run {info.run_id} goes on: {sent:,} chunks were sent again.")
    return 0


def retry_elsewhere(settings: Settings, run_id: str, only: Any, *, as_json: bool) -> int:
    """Submit files of a distributed run again as a new run; prints its id."""
    with _processor(settings) as processor:
        new = processor.retry(run_id, only)
    if new is None:
        click.echo(f"Nothing in run {run_id} matches.", err=True)
        return 0
    click.echo(json.dumps({"run_id": new}) if as_json else new)
    click.echo(f"Submitted again; 'doc-classify wait {new}' looks on.", err=True)
    return 0


def _found(run: str | None, database_url: str | None) -> tuple[Settings, RunInfo]:
    """The settings and a distributed run; the newest without a name.

    Raises:
        ConfigurationError: there is none, or it is one of a single machine.
    """
    check_installed()
    with opened(database_url) as (store, settings):
        if run is None:
            found = (info for info in store.runs() if info.spec.door == DISTRIBUTED)
            if (newest := next(found, None)) is None:
                raise ConfigurationError("no run was submitted to workers yet")
            return settings, newest
        info = run_of(store, run)
    if info.spec.door != DISTRIBUTED:
        raise ConfigurationError(
            f"run {info.run_id} is not one of workers: it is done by the command that began it"
        )
    return settings, info


def _processor(settings: Settings, **how: Any) -> CeleryDistributedProcessor:
    from doc_classify.runners.distributed import CeleryDistributedProcessor

    return CeleryDistributedProcessor(settings=settings, **how)


# --- progress -----------------------------------------------------------------------------------
