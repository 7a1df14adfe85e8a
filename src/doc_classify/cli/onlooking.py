"""How runs that Celery workers do are looked on at, and what is said of them."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from doc_classify.cli.runs import run_of
from doc_classify.errors import DocClassifyError, MissingDependencyError
from doc_classify.terminal import one_line

if TYPE_CHECKING:
    from doc_classify.queue_status import Standing
    from doc_classify.settings import Settings
    from doc_classify.storage.base import RunInfo, Store

_LINE_SECONDS = 10.0
_RATE_SECONDS = 60.0
_STUCK_SECONDS = 60.0
"""Seconds without any progress after which ``wait`` says what the matter may be."""


def check_installed() -> None:
    """Raises MissingDependencyError where there is no Celery."""
    import doc_classify.runners.distributed  # noqa: F401


class Progress:
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


class Onlooker:
    """Shows rate and remaining time, and what the matter may be while nothing moves."""

    def __init__(self, store: Store, settings: Settings, progress: Progress) -> None:
        self._store: Any = store
        self._settings = settings
        self._progress = progress
        self._looks: deque[tuple[float, int]] = deque()
        self._moved = time.monotonic()
        self._said: list[str] = []

    def update(self, found: dict[str, Any]) -> None:
        """Take in how the run stands, and show it."""
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
        check_installed()
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
