"""Plain text and its kin: Markdown, CSV, TSV, JSON."""

from __future__ import annotations

import re
from typing import ClassVar

from doc_classify.extraction.base import Document
from doc_classify.extraction.decoding import decode
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.records import Extraction, Page

_JSON = frozenset({"application/json", "application/jsonl"})
_ESCAPE = re.compile(r"\\u([0-9A-Fa-f]{4})")
_BYTES_PER_CHARACTER = 4


class TextExtractor:
    """Reads text as it stands, whatever its encoding."""

    name: ClassVar[str] = "text"
    media_types: ClassVar[frozenset[str]] = frozenset(
        {"text/plain", "text/markdown", "text/csv", "text/tab-separated-values"} | _JSON
    )
    extra: ClassVar[str | None] = None

    def extract(self, document: Document, options: ExtractionOptions) -> Extraction:
        """Read as many bytes as ``options.max_characters`` can need, and decode them."""
        limit = (options.max_characters + 1) * _BYTES_PER_CHARACTER
        with document.path.open("rb") as file:
            data = file.read(limit + 1)
        cut = len(data) > limit
        text = decode(data[:limit], cut=cut)
        if document.media_type in _JSON:
            text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
        return Extraction(
            media_type=document.media_type,
            pages=(Page(1, text),),
            engine=self.name,
            truncated=cut,
        )
