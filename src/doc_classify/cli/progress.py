"""Progress on standard error: a bar for a person, a line now and then for a log."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from doc_classify.discovery import count
from doc_classify.errors import DocClassifyError
from doc_classify.records import RunStats
from doc_classify.terminal import one_line

_LINE_SECONDS = 10.0


class ProgressReport:
    """Shows how a run comes on; ``update`` is its callback.

    Args:
        root: the folder being classified, counted in the background for the total.
        recursive: whether subfolders count.
        shown: False keeps silent.
    """

    def __init__(self, root: Path | str | None, *, recursive: bool, shown: bool = True) -> None:
        self._bar: Progress | None = None
        self._shown = shown
        self._stop = threading.Event()
        self._total: int | None = None
        self._noticed = False
        self._counter: threading.Thread | None = None
        self._started = self._last_line = time.monotonic()
        if shown and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[failed]}"),
                TextColumn("{task.fields[notice]}", markup=False),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(
                "Classifying", total=None, rate="", failed="", notice=""
            )
            if root is not None:
                self._counter = threading.Thread(
                    target=self._count, args=(root, recursive), daemon=True
                )

    def __enter__(self) -> ProgressReport:
        if self._bar:
            self._bar.start()
        if self._counter:
            self._counter.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._counter:
            self._counter.join()
        if self._bar:
            self._bar.stop()

    def update(self, stats: RunStats) -> None:
        """Show the stats as committed."""
        done = stats.seen - stats.pending
        now = time.monotonic()
        rate = done / (now - self._started) if now > self._started else 0.0
        if self._bar:
            self._bar.update(
                self._task,
                completed=done,
                total=None if self._total is None else max(self._total, stats.seen),
                rate=f"{rate:,.1f}/s",
                failed=f"{stats.failed:,} failed" if stats.failed else "",
            )
        elif self._shown and now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            sys.stderr.write(
                f"{done:,} done, {stats.pending:,} waiting, {stats.failed:,} failed, "
                f"{rate:,.1f} documents/s\n"
            )

    def say(self, text: str) -> None:
        """Show something that is to be read, once."""
        if self._bar:
            self._bar.console.print(one_line(text), markup=False, highlight=False)
        elif self._shown:
            sys.stderr.write(f"{one_line(text)}\n")

    def notice(self, text: str | None) -> None:
        """Show what the run waits for; None when it is over."""
        if self._bar:
            self._bar.update(self._task, notice=one_line(text) if text else "")
        elif self._shown and (text or self._noticed):
            sys.stderr.write(f"{one_line(text)}\n" if text else "going on\n")
        self._noticed = text is not None

    def _count(self, root: Path | str, recursive: bool) -> None:
        # A folder that cannot be read is reported by the run itself.
        with contextlib.suppress(DocClassifyError):
            self._total = count(root, recursive=recursive, stop=self._stop)
