"""The first stage: what discovery finds is hashed, and registered with the run.

Sources are listed and hashed in threads, ahead of the work but never far ahead: no more entries
are asked for until somebody takes the tasks of the last ones.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from functools import partial

from doc_classify.discovery import Skipped, hash_file, look_at
from doc_classify.errors import SourceChangedError, SourceUnreadableError, TransientError
from doc_classify.pipeline.copies import Copies
from doc_classify.pipeline.equipment import Equipment
from doc_classify.records import Rejected, RunStats, Source, is_object_uri
from doc_classify.storage.base import Hashed, Store, Task

Entry = Source | Rejected | Skipped

INTAKE_BATCH = 200


class Intake:
    """Takes entries in for one run.

    Args:
        store: where they are registered.
        equipment: threads to list and to hash with.
        stats: of the run; ``seen`` grows.
        copies: where the local copies of objects are kept for those who read them.
        stopping: set when hashing is to end.
        again: an earlier attempt at these entries was broken off: what it has registered and not
            finished is done now.
        taken_in: entries that are asked for at a time.
        only_listed: nothing is worked on yet: the batches stay empty, and no copy is kept.
    """

    def __init__(
        self,
        store: Store,
        equipment: Equipment,
        run_id: str,
        stats: Callable[[], RunStats],
        *,
        copies: Copies,
        stopping: threading.Event,
        again: bool = False,
        taken_in: int = INTAKE_BATCH,
        only_listed: bool = False,
    ) -> None:
        self._store = store
        self._equipment = equipment
        self._run_id = run_id
        self._stats = stats
        self._copies = copies
        self._stopping = stopping
        self._again = again
        self._taken_in = taken_in
        self._only_listed = only_listed

    async def tasks(self, entries: Iterator[Entry]) -> AsyncGenerator[list[Task]]:
        """Register everything; yields what there is to do, batch by batch."""
        loop = asyncio.get_running_loop()
        equipment = self._equipment
        while batch := await loop.run_in_executor(
            equipment.intake_thread, lambda: list(itertools.islice(entries, self._taken_in))
        ):
            sources = [entry for entry in batch if isinstance(entry, Source)]
            rejected = [entry for entry in batch if isinstance(entry, Rejected)]
            skipped = sum(isinstance(entry, Skipped) for entry in batch)
            known = await equipment.in_store(partial(self._store.known_hashes, sources))
            hashed, unreadable = await loop.run_in_executor(
                equipment.intake_thread, self._hash, sources, known
            )
            tasks = await equipment.in_store(
                partial(self._register, hashed, rejected + unreadable, skipped)
            )
            to_read = {task.source.uri for task in tasks if task.extraction is None}
            self._copies.drop(
                source
                for source, sha256 in zip(sources, known, strict=True)
                if sha256 is None and source.uri not in to_read
            )
            yield tasks

    def _register(
        self, hashed: Sequence[Hashed], rejected: Sequence[Rejected], skipped: int
    ) -> list[Task]:
        stats = self._stats()
        if rejected or skipped:
            stats.seen += self._store.reject(self._run_id, rejected, skipped, again=self._again)
        registration = self._store.register(
            self._run_id, hashed, again=self._again, only_listed=self._only_listed
        )
        stats.seen += sum(registration.statuses.values())
        return registration.tasks

    def _hash(
        self, sources: Sequence[Source], known: Sequence[str | None]
    ) -> tuple[list[Hashed], list[Rejected]]:
        equipment = self._equipment
        hashing = [
            (
                equipment.fetch_threads if is_object_uri(source.uri) else equipment.hash_threads
            ).submit(_hash_one, source, sha256, self._stopping, self._copies)
            for source, sha256 in zip(sources, known, strict=True)
        ]
        results = [future.result() for future in hashing]
        return (
            [result for result in results if isinstance(result, Hashed)],
            [result for result in results if isinstance(result, Rejected)],
        )


def _hash_one(
    source: Source, known: str | None, stopping: threading.Event, copies: Copies
) -> Hashed | Rejected:
    if known is not None:
        return Hashed(source, known)
    hash_source = copies.hash if is_object_uri(source.uri) else hash_file
    try:
        if stopping.is_set():
            raise SourceUnreadableError("the run was stopped")
        try:
            return Hashed(source, hash_source(source))
        except SourceChangedError:
            # It changed after it was listed; what it is now is as good.
            now = look_at(source.uri)
            return Hashed(now, hash_source(now)) if isinstance(now, Source) else now
    except TransientError as error:
        return Rejected(source.uri, error.kind, str(error))
