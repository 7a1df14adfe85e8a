"""The protocol of an extractor, and the document that it is given.

A new format is one module with one class that has these members, and one entry point in the
group ``doc_classify.extractors``; nothing else in the package names formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

from doc_classify.errors import SourceUnreadableError
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.records import Extraction


@dataclass
class Document:
    """The file that an extractor reads.

    Attributes:
        path: where to open it; extractors that can read piecemeal do so.
        name: the file's name, a hint and nothing more: hostile, never a path.
        media_type: what the bytes say it is.
    """

    path: Path
    name: str
    media_type: str

    @cached_property
    def data(self) -> bytes:
        """All bytes of the file.

        Raises:
            SourceUnreadableError: the operating system would not give them.
        """
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise SourceUnreadableError(f"cannot read the file: {error.strerror}") from error


class Extractor(Protocol):
    """Turns documents of some media types into text.

    Extractors run in a worker process that may be killed at any moment; they keep no state that
    matters, import their engines inside :meth:`extract` (so that listing extractors stays cheap),
    and raise the errors of :mod:`doc_classify.errors`.
    """

    name: ClassVar[str]
    """Recorded as ``Extraction.engine``."""
    media_types: ClassVar[frozenset[str]]
    """The media types it takes, as :func:`doc_classify.sniffing.sniff` names them."""
    extra: ClassVar[str | None]
    """The extra of the distribution that brings its engine; None for what is always there."""

    def extract(self, document: Document, options: ExtractionOptions) -> Extraction:
        """Read the document.

        A page that cannot be read becomes a :class:`~doc_classify.records.Problem` while the
        others are kept; text need not be cleaned, the caller does that for all formats.

        Raises:
            ExtractionError: nothing can be read; the message says why to the file's owner.
        """
        ...
