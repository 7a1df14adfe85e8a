"""Word and PowerPoint files of 1997 to 2003, by the engine of the extra ``legacy``."""

from __future__ import annotations

from typing import Any, ClassVar

from doc_classify.errors import EncryptedError, LimitExceededError, MissingDependencyError
from doc_classify.extraction.base import Document
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.records import Extraction, Page
from doc_classify.sniffing import describe


class LegacyExtractor:
    """Reads old binary office documents as one page."""

    name: ClassVar[str] = "legacy"
    media_types: ClassVar[frozenset[str]] = frozenset(
        {"application/msword", "application/vnd.ms-powerpoint"}
    )
    extra: ClassVar[str | None] = "legacy"

    def extract(self, document: Document, options: ExtractionOptions) -> Extraction:
        """Hand the bytes and the type found in them to the engine."""
        try:
            import kreuzberg
        except ImportError as error:
            raise MissingDependencyError(
                "kreuzberg", "legacy", f"read a {describe(document.media_type)}"
            ) from error
        if len(document.data) > options.max_unpacked_bytes:
            raise LimitExceededError(f"over {options.max_unpacked_bytes // 10**6} MB")
        if _is_encrypted_word(document.data):
            raise EncryptedError("protected by a password")
        config = kreuzberg.ExtractionConfig(use_cache=False)
        result = kreuzberg.extract_bytes_sync(document.data, document.media_type, config)
        metadata: Any = result.metadata or {}
        authors = metadata.get("authors") or []
        return Extraction(
            media_type=document.media_type,
            pages=(Page(1, result.content),),
            engine=self.name,
            title=metadata.get("title"),
            author=", ".join(map(str, authors)) or metadata.get("created_by"),
            created=metadata.get("created_at"),
            modified=metadata.get("modified_at"),
        )


def _is_encrypted_word(data: bytes) -> bool:
    """Whether the header of the text stream says so; the stream nearly always begins a sector."""
    at = data.find(b"\xec\xa5", 512)
    while at >= 0 and at % 512:
        at = data.find(b"\xec\xa5", at + 1)
    return at >= 0 and at + 12 <= len(data) and bool(data[at + 11] & 0x01)
