"""The local copies of objects that a run is about to read.

Workers have no credentials, so an object is fetched here. While it is hashed, its copy is kept for
the worker, as long as all copies together stay within a limit; beyond that, and where the hash
was known, the object is fetched when its turn comes. A copy is deleted as soon as the worker has
answered, so there are never more of them than documents in flight, and those are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from doc_classify.discovery import objects
from doc_classify.discovery.walking import StopSignal
from doc_classify.errors import SourceChangedError, TransientError
from doc_classify.records import Failure, Source, is_object_uri, path_to_uri, uri_to_path
from doc_classify.storage.base import Task

KEPT_BYTES = 1_000_000_000
"""Copies kept between hashing and reading."""
FETCH_THREADS = 16
"""Many, since they wait for the network rather than for a disk."""
_CHUNK_BYTES = 64_000_000
"""Objects handed to a worker at a time are no more than this together, or a single one."""
_PREFIX = "doc-classify-objects-"
_LOCK = "lock"
_YOUNG_SECONDS = 60.0


class Copies:
    """Copies in a folder of their own, which only its owner may enter.

    Args:
        stopping: when set, no more is fetched.
    """

    def __init__(self, stopping: StopSignal) -> None:
        self._stopping = stopping
        # Of its own: who waits for a worker must not queue behind all that is being hashed.
        self._threads = ThreadPoolExecutor(FETCH_THREADS, "copies")
        self._guard = threading.Lock()
        self._folder: Path | None = None
        self._lock_file: int | None = None
        self._closed = False
        self._copy_of: dict[str, Source] = {}
        self._bytes = 0

    def hash(self, source: Source) -> str:
        """SHA-256 of an object, whose copy is kept if there is room.

        Raises:
            SourceChangedError, SourceUnreadableError: it cannot be had as it was listed.
        """
        with self._guard:
            kept = self._bytes + source.size <= KEPT_BYTES
            self._bytes += source.size if kept else 0
        if not kept:
            return objects.hash_object(source, self._stopping)
        try:
            fetched = objects.fetch(source, self._place(), self._stopping)
        except BaseException:
            self._give_back(source.size)
            raise
        self._add(source, fetched.path)
        return fetched.sha256

    async def provide(self, tasks: Sequence[Task]) -> dict[int, Failure]:
        """Fetch what the tasks have to read and is not here; returns failures by document."""
        loop = asyncio.get_running_loop()
        missing = [
            task
            for task in tasks
            if task.extraction is None
            and is_object_uri(task.source.uri)
            and self.of(task.source) is None
        ]
        failures = await asyncio.gather(
            *(loop.run_in_executor(self._threads, self._provide, task) for task in missing)
        )
        return {
            task.document_id: failure
            for task, failure in zip(missing, failures, strict=True)
            if failure is not None
        }

    def _provide(self, task: Task) -> Failure | None:
        source = task.source
        try:
            fetched = objects.fetch(source, self._place(), self._stopping)
            with self._guard:
                self._bytes += source.size
            self._add(source, fetched.path)
            if fetched.sha256 != task.sha256:
                self.drop([source])
                raise SourceChangedError(f"{source.uri} changed after it was registered")
        except TransientError as error:
            return Failure(error.kind, str(error))
        return None

    def of(self, source: Source) -> Source | None:
        """The copy of a source, None if there is none."""
        return self._copy_of.get(source.uri)

    def drop(self, sources: Iterable[Source]) -> None:
        """Delete the copies of these sources, where there are any."""
        for source in sources:
            with self._guard:
                copy = self._copy_of.pop(source.uri, None)
            if copy is not None:
                Path(uri_to_path(copy.uri)).unlink(missing_ok=True)
                self._give_back(copy.size)

    def close(self) -> None:
        """Delete all that is left; for when nobody hashes any more."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        with self._guard:
            self._closed = True
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            if self._lock_file is not None:
                os.close(self._lock_file)
            self._folder = self._lock_file = None
            self._copy_of.clear()

    def _add(self, source: Source, path: Path) -> None:
        status = path.stat()
        copy = Source(path_to_uri(path), status.st_size, status.st_mtime_ns)
        self.drop([source])  # a list may name an object twice
        with self._guard:
            self._copy_of[source.uri] = copy

    def _give_back(self, size: int) -> None:
        with self._guard:
            self._bytes -= size

    def _place(self) -> Path:
        """The folder, made when it is first needed."""
        with self._guard:
            assert not self._closed  # noqa: S101 (who fetches is waited for)
            if self._folder is None:
                _delete_orphans()
                self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
                self._lock_file = os.open(self._folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
                fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            return self._folder


def in_chunks(tasks: Sequence[Task], size: int) -> Iterator[list[Task]]:
    """Cut tasks into chunks for workers: of ``size`` tasks, fewer where objects are large."""
    chunk: list[Task] = []
    held = 0
    for task in tasks:
        fetched = task.source.size if is_object_uri(task.source.uri) else 0
        if chunk and (len(chunk) == size or held + fetched > _CHUNK_BYTES):
            yield chunk
            chunk, held = [], 0
        chunk.append(task)
        held += fetched
    if chunk:
        yield chunk


def _delete_orphans() -> None:
    """Delete what runs have left behind that were killed: the lock of a living one is held."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                # A young one may be about to be locked.
                if time.time() - os.fstat(lock).st_mtime > _YOUNG_SECONDS:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
