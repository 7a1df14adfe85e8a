"""What to read of a document, and the limits within which it is read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from doc_classify.errors import ConfigurationError

EXTRACTION_VERSION = 1
"""Raised whenever the text that some extractor gives for the same bytes changes."""

_SELECTION = re.compile(r"(?:(?P<first>\d+)(?:\+(?P<last>\d+))?|(?P<all>all))", re.ASCII)


@dataclass(frozen=True, slots=True)
class PageSelection:
    """The first ``first`` pages and the last ``last``; ``first`` None means every page.

    Written ``3+1`` (first three and the last), ``5`` (first five) or ``all``.
    """

    first: int | None = 3
    last: int = 1

    @classmethod
    def parse(cls, text: str) -> PageSelection:
        """Read the written form.

        Raises:
            ConfigurationError: the text is not of that form, or selects no page.
        """
        match = _SELECTION.fullmatch(text.strip().lower())
        if match and match["all"]:
            return cls(None, 0)
        if match:
            selection = cls(int(match["first"]), int(match["last"] or 0))
            if selection.first or selection.last:
                return selection
        raise ConfigurationError(
            f"pages must be 'all', a number such as '5', or first+last such as '3+1', got {text!r}"
        )

    def __str__(self) -> str:
        if self.first is None:
            return "all"
        return f"{self.first}+{self.last}" if self.last else str(self.first)

    def indices(self, count: int) -> Iterator[int]:
        """Zero-based indices selected out of ``count`` pages, ascending, each once."""
        if self.first is None or self.first + self.last >= count:
            yield from range(count)
            return
        yield from range(self.first)
        yield from range(count - self.last, count)


@dataclass(frozen=True, slots=True)
class ExtractionOptions:
    """Settings of extraction; all but the limits change the text, hence the fingerprint.

    Attributes:
        pages: which pages to read, where the format has pages.
        ocr: read scanned pages and images by OCR.
        ocr_languages: Tesseract language codes joined by ``+``.
        ocr_dpi: resolution at which scanned pages are rendered, dots per inch.
        attachments: also read the text of a mail's attached documents (their names always).
        max_characters: text beyond this many characters is left out and said to be.
        max_unpacked_bytes: decompressed size that one container may reach, in bytes.
        max_image_pixels: pixels an image may have to be read.
        max_depth: nesting of XML elements that is followed.
        max_cells: spreadsheet cells (rows x columns of the used range) that are read.
    """

    pages: PageSelection = PageSelection()
    ocr: bool = True
    ocr_languages: str = "eng"
    ocr_dpi: int = 200
    attachments: bool = False
    max_characters: int = 200_000
    max_unpacked_bytes: int = 200_000_000
    max_image_pixels: int = 100_000_000
    max_depth: int = 1_000
    max_cells: int = 2_000_000

    @property
    def key(self) -> str:
        """Hex digest under which extracted text is stored and found again."""
        values = self.to_dict() | {"version": EXTRACTION_VERSION}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, object]:
        """JSON-ready form; :meth:`from_dict` reads it back."""
        return asdict(self) | {"pages": str(self.pages)}

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> ExtractionOptions:
        """Undo :meth:`to_dict`."""
        pages = PageSelection.parse(str(values["pages"]))
        return cls(**(values | {"pages": pages}))  # type: ignore[arg-type]
