"""Documents between two operations that are measured apart: on disk, whatever their number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from doc_classify.pipeline.messages import Reply, Request, WorkerConfig
from doc_classify.records import Outcome
from doc_classify.storage.base import Task


@dataclass(frozen=True, slots=True)
class Spooled:
    """A document and what a worker answered about it. ``sha256`` is that of its bytes."""

    sha256: str
    request: Request
    reply: Reply

    @property
    def pages(self) -> tuple[int, int]:
        """Pages that were read, and those of them by OCR."""
        read = self.reply.extraction
        return (len(read.pages), read.ocr_pages) if read else (0, 0)


class Spool:
    """Written once, read as often as there are operations to measure.

    A document has three lines: its hash, and those that a worker process is sent and sends.
    """

    def __init__(self, path: Path, config: WorkerConfig) -> None:
        self._path = path
        self._config = config
        self._file: BinaryIO | None = None
        self._count = 0

    def __enter__(self) -> Spool:
        self._file = self._path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def add(self, task: Task, outcome: Outcome) -> None:
        """Put one document at the end."""
        assert self._file is not None  # noqa: S101 (for the type checker)
        self._count += 1
        reply = Reply(
            number=self._count,
            classification=outcome.classification,
            failure=outcome.failure,
            extraction=outcome.extraction,
            timings=outcome.timings,
        )
        self._file.write(f"{task.sha256}\n".encode())
        self._file.write(Request(self._count, task.source).encode())
        self._file.write(reply.encode())

    def documents(self) -> Iterator[Spooled]:
        """All of them, one after the other."""
        with self._path.open("rb") as lines:
            for line in lines:
                request, reply = Request.decode(next(lines)), next(lines)
                yield Spooled(line.decode().strip(), request, Reply.decode(reply, self._config))

    def texts(self) -> Iterator[Spooled]:
        """Those with a text, to be classified."""
        for document in self.documents():
            if document.reply.extraction:
                request = replace(document.request, extraction=document.reply.extraction)
                yield replace(document, request=request)
