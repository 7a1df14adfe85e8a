"""A store that takes notes: what every document cost, and what the store itself did."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from doc_classify.benchmark.setting import ending_of
from doc_classify.benchmark.tally import Tally
from doc_classify.records import FileStatus, Outcome, Rejected, RunStats, Source
from doc_classify.storage.base import Hashed, Registration, Task
from doc_classify.storage.store import SqlStore

_T = TypeVar("_T")


class ObservedStore(SqlStore):
    """The ledger, with the ear of a :class:`Tally`.

    All calls of a run come from one thread, so nothing is locked.

    Args:
        url: as for :class:`SqlStore`.
        tally: told of every batch and every document.
        keep: called with each document and its outcome, before it is recorded.
    """

    def __init__(
        self, url: str, tally: Tally, keep: Callable[[Task, Outcome], None] | None = None
    ) -> None:
        super().__init__(url)
        self._tally = tally
        self._keep = keep
        self._tasks: dict[int, Task] = {}
        self._hashing_since: float | None = None

    def known_hashes(self, sources: Sequence[Source]) -> list[str | None]:
        """What the store knows; the files are hashed next."""
        found = super().known_hashes(sources)
        self._hashing_since = time.perf_counter()
        return found

    def reject(
        self, run_id: str, rejected: Sequence[Rejected], skipped: int = 0, *, again: bool = False
    ) -> int:
        """Files that could not be read are documents that failed."""
        for item in rejected:
            self._tally.rejected(ending_of(item.uri), item.kind)
        return super().reject(run_id, rejected, skipped, again=again)

    def register(
        self,
        run_id: str,
        seen: Sequence[Hashed],
        *,
        again: bool = False,
        only_listed: bool = False,
    ) -> Registration:
        """Register, and remember the documents until their outcomes come."""
        if self._hashing_since is not None:
            hashing = time.perf_counter() - self._hashing_since
            self._tally.batch("hash", len(seen), hashing, None)
            self._hashing_since = None
        found = self._timed(
            "register", len(seen), lambda: super(ObservedStore, self).register(
                run_id, seen, again=again, only_listed=only_listed
            )
        )  # fmt: skip
        self._tasks.update((task.document_id, task) for task in found.tasks)
        self._tally.duplicates += found.statuses.get(FileStatus.DUPLICATE, 0)
        return found

    def record(self, run_id: str, outcomes: Sequence[Outcome], *, seconds: float = 0.0) -> RunStats:
        """Record, and count every document."""
        for outcome in outcomes:
            task = self._tasks.pop(outcome.document_id)
            read = outcome.extraction
            self._tally.document(
                ending=ending_of(task.source.uri),
                size=task.source.size,
                timings=outcome.timings,
                pages=len(read.pages) if read else 0,
                ocr_pages=read.ocr_pages if read else 0,
                failure=outcome.failure.kind if outcome.failure else None,
                usage=outcome.usage,
            )
            if self._keep:
                self._keep(task, outcome)
        return self._timed(
            "record", len(outcomes), lambda: super(ObservedStore, self).record(
                run_id, outcomes, seconds=seconds
            )
        )  # fmt: skip

    def _timed(self, stage: str, documents: int, work: Callable[[], _T]) -> _T:
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            return work()
        finally:
            self._tally.batch(
                stage, documents, time.perf_counter() - wall, time.thread_time() - cpu
            )
