"""Office documents made of zipped XML: Word, PowerPoint, OpenDocument, EPUB."""

from __future__ import annotations

import posixpath
from typing import ClassVar

from doc_classify.errors import DamagedError, EncryptedError
from doc_classify.extraction.archive import Archive
from doc_classify.extraction.base import Document
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.extraction.zipped import epub, opendocument, presentation, word
from doc_classify.extraction.zipped.parts import Found
from doc_classify.records import Extraction, Page, Problem

ENCRYPTED = "application/x-ole-encrypted"
_OPENXML = "application/vnd.openxmlformats-officedocument"
_READERS = {
    **dict.fromkeys(
        (
            f"{_OPENXML}.wordprocessingml.document",
            f"{_OPENXML}.wordprocessingml.template",
            "application/vnd.ms-word.document.macroEnabled.12",
            "application/vnd.ms-word.template.macroEnabled.12",
        ),
        word.read,
    ),
    **dict.fromkeys(
        (
            f"{_OPENXML}.presentationml.presentation",
            f"{_OPENXML}.presentationml.slideshow",
            f"{_OPENXML}.presentationml.template",
            "application/vnd.ms-powerpoint.presentation.macroEnabled.12",
            "application/vnd.ms-powerpoint.slideshow.macroEnabled.12",
            "application/vnd.ms-powerpoint.template.macroEnabled.12",
        ),
        presentation.read,
    ),
    **{
        f"application/vnd.oasis.opendocument.{kind}{suffix}": reader
        for kind, reader in (
            ("text", opendocument.read_text),
            ("presentation", opendocument.read_pages),
            ("graphics", opendocument.read_pages),
        )
        for suffix in ("", "-template")
    },
    "application/epub+zip": epub.read,
}


class ZippedXmlExtractor:
    """Reads zipped XML without building trees of the text parts."""

    name: ClassVar[str] = "zipped_xml"
    media_types: ClassVar[frozenset[str]] = frozenset({*_READERS, ENCRYPTED})
    extra: ClassVar[str | None] = None

    def extract(self, document: Document, options: ExtractionOptions) -> Extraction:
        """Read the document; a part that breaks off keeps what came before the fault."""
        if document.media_type == ENCRYPTED:
            raise EncryptedError("protected by a password")
        found = Found(options)
        with Archive(document.path, options.max_unpacked_bytes) as archive:
            archive.check_markup()
            _READERS[document.media_type](archive, found)
            names = tuple(
                posixpath.basename(name)
                for name in archive.names()
                if "/embeddings/" in name.lower() and not name.endswith("/")
            )
        if found.damage and not any(text.strip() for _, text in found.pages):
            raise DamagedError(found.damage[0])
        return Extraction(
            media_type=document.media_type,
            pages=tuple(Page(number, text) for number, text in found.pages),
            engine=self.name,
            page_count=found.page_count,
            title=found.metadata.get("title"),
            author=found.metadata.get("author"),
            created=found.metadata.get("created"),
            modified=found.metadata.get("modified"),
            language=found.metadata.get("language"),
            attachments=names,
            problems=tuple(Problem("damaged", message) for message in found.damage),
            truncated=found.truncated,
        )
