"""Commands for runs that Celery workers do: ``submit``, ``wait``, ``cancel``, ``resume``."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from doc_classify.cli import EXIT_COULD_NOT_RUN, EXIT_INTERRUPTED
from doc_classify.cli.options import (
    Location,
    as_json,
    database_url,
    run_argument,
    settings_from,
    verbose,
    what_and_how_elsewhere,
)
from doc_classify.cli.runs import DISTRIBUTED, info_to_dict, opened, run_of
from doc_classify.errors import ConfigurationError, DocClassifyError, MissingDependencyError
from doc_classify.terminal import one_line

if TYPE_CHECKING:
    from doc_classify.queue_status import Standing
    from doc_classify.runners.distributed import CeleryDistributedProcessor
    from doc_classify.settings import Settings
    from doc_classify.storage.base import RunInfo, Store

_LINE_SECONDS = 10.0
_RATE_SECONDS = 60.0
_STUCK_SECONDS = 60.0
"""Seconds without any progress after which ``wait`` says what the matter may be."""
_SUBMITTER_SECONDS = 60.0
"""A run that was written so recently may still be in the hands of its submitter."""

_poll_interval = click.option(
    "--poll-interval",
    type=click.FloatRange(0.05),
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
    progress = _Progress("Submitting", shown=not as_json, at_once=False)

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
@click.option("--timeout", type=click.FloatRange(0), help="Stop waiting after so many seconds.")
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

    progress = _Progress("Classifying", shown=not as_json)
    onlooker = _Onlooker(processor.store, settings, progress)
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
    _check_installed()
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


def _check_installed() -> None:
    """Raises MissingDependencyError where there is no Celery."""
    import doc_classify.runners.distributed  # noqa: F401


def _processor(settings: Settings, **how: Any) -> CeleryDistributedProcessor:
    from doc_classify.runners.distributed import CeleryDistributedProcessor

    return CeleryDistributedProcessor(settings=settings, **how)


# --- progress -----------------------------------------------------------------------------------


class _Progress:
    """A bar for a person, a line now and then for a log; on standard error."""

    def __init__(self, what: str, *, shown: bool, at_once: bool = True) -> None:
        self._shown = shown
        self._bar: Any = None
        self._last_line = -_LINE_SECONDS if at_once else time.monotonic()
        if shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                console=Console(stderr=True, highlight=False, markup=False),
            )
            self._task = self._bar.add_task(what, total=None, text="")

    def __enter__(self) -> None:
        if self._bar:
            self._bar.start()

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, done: int, total: int | None, text: str) -> None:
        """Show how far it is; in a log seldom."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, text=text)
        elif self._shown and time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.monotonic()
            click.echo(text if total is None else f"{done:,} of {total:,} done, {text}", err=True)

    def say(self, text: str) -> None:
        """Show something that is to be read."""
        if self._bar:
            self._bar.console.print(text)
        elif self._shown:
            click.echo(text, err=True)


class _Onlooker:
    """Shows rate and remaining time, and what the matter may be while nothing moves."""

    def __init__(self, store: Store, settings: Settings, progress: _Progress) -> None:
        self._store: Any = store
        self._settings = settings
        self._progress = progress
        self._looks: deque[tuple[float, int]] = deque()
        self._moved = time.monotonic()
        self._said: list[str] = []

    def update(self, found: dict[str, Any]) -> None:
        at, done, total = time.monotonic(), found["completed"], found["total_tasks"]
        looks = self._looks
        if not looks or done != looks[-1][1]:
            self._moved = at
            self._said = []
        looks.append((at, done))
        while at - looks[0][0] > _RATE_SECONDS and len(looks) > 2:
            looks.popleft()
        took = at - looks[0][0]
        rate = (done - looks[0][1]) / took if took > 0 else 0.0
        self._progress.show(done, total, self._text(found, rate))
        if at - self._moved > _STUCK_SECONDS:
            self._moved = at
            self._explain(found["batch_id"])

    def _text(self, found: dict[str, Any], rate: float) -> str:
        from doc_classify.summary import duration

        parts = [f"{found['failed']:,} failed"] if found["failed"] else []
        parts.append(f"{rate:,.1f} documents/s")
        if found["state"] != "running":
            parts.append(found["state"])  # while it is being submitted, the total still grows
        elif rate:
            rest = (found["total_tasks"] - found["completed"]) / rate
            parts.append(f"about {duration(rest)} left")
        return ", ".join(parts)

    def _explain(self, run_id: str) -> None:
        from doc_classify.queue_status import look, troubles

        try:
            info = run_of(self._store, run_id)
            said = [one_line(text) for text in troubles(look(self._store, info, self._settings))]
        except DocClassifyError as error:
            said = [one_line(str(error))]
        for text in said:
            if text not in self._said:
                self._progress.say(text)
        self._said = said


# --- status -------------------------------------------------------------------------------------


def standing_of(store: Any, info: RunInfo, settings: Settings) -> tuple[dict[str, Any], list[str]]:
    """What ``status`` says of a run of workers besides its counts: JSON-ready, and for a person."""
    try:
        _check_installed()
    except MissingDependencyError as error:
        return {"error": str(error)}, [str(error)]
    from doc_classify.queue_status import look

    seen = look(store, info, settings)
    return _to_dict(seen), _lines(seen)


def _lines(seen: Standing) -> list[str]:
    from doc_classify.queue_status import bottleneck, troubles
    from doc_classify.summary import duration

    total = seen.stats.submitted
    share = f" ({seen.done / total:.1%})" if total else ""
    left = "" if seen.remaining is None else f", about {duration(seen.remaining)} left"
    counts = seen.chunks
    lines = [
        f"{seen.done:,} of {total:,} documents done{share}, {seen.rate:,.1f}/s on average{left}",
        f"Chunks: {counts.pending:,} waiting, {counts.claimed - counts.expired:,} held, "
        f"{counts.expired:,} held by workers that are gone, {counts.done:,} done",
    ]
    oldest = seen.oldest_waiting
    waits = "" if oldest is None else f"; the oldest chunk has waited for {duration(oldest)}"
    depth = "unknown" if seen.depth is None else f"{seen.depth:,} messages"
    lines.append(f"Queue: {depth}{waits}")
    if seen.depth is not None:
        lines.append(f"Workers: {len(seen.workers)} with {seen.processes} processes for chunks")
    for worker in seen.workers:
        deaf = "" if worker.listening else ", takes no chunks"
        lines.append(
            f"  {one_line(worker.name)}: {worker.processes} processes, {worker.active} busy, "
            f"doc-classify {one_line(worker.version)}{deaf}"
        )
    if there := seen.connections:
        lines.append(
            f"Database connections: {there.ours} of doc-classify, {there.used} in all, "
            f"{there.allowed} allowed; these workers may need {seen.connections_needed}"
        )
    for crash in seen.crashes:
        lines.append(f"Crash at {crash.at}: {one_line(crash.worker)}: {one_line(crash.reason)}")
    if seen.most_attempts > 1:
        lines.append(f"A chunk is in its attempt no. {seen.most_attempts}")
    if limit := bottleneck(seen):
        lines.append(limit)
    return lines + [one_line(f"! {text}") for text in troubles(seen)]


def _to_dict(seen: Standing) -> dict[str, Any]:
    from doc_classify.queue_status import bottleneck, troubles

    data = asdict(seen)
    for name in ("stats", "run_id", "state", "message", "classifier"):
        del data[name]
    return data | {
        "documents_per_second": seen.rate,
        "remaining_seconds": seen.remaining,
        "processes": seen.processes,
        "connections_needed": seen.connections_needed,
        "bottleneck": bottleneck(seen),
        "troubles": troubles(seen),
    }
