"""PDF files, read with PDFium; pages without usable text are rendered and read by OCR.

PDFium is not thread-safe: a process reads one document at a time.
"""

from __future__ import annotations

import ctypes
import logging
import math
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

from doc_classify.errors import (
    ConfigurationError,
    DamagedError,
    EmptyDocumentError,
    EncryptedError,
    ExtractionError,
    LimitExceededError,
    NoTextError,
    SourceUnreadableError,
)
from doc_classify.extraction.base import Document
from doc_classify.extraction.ocr import ILLEGIBLE, Reading
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.extraction.pdf_survey import Survey
from doc_classify.extraction.pdf_xfa import form_text
from doc_classify.records import Extraction, Page, Problem

POINTS_PER_INCH = 72
_SCANNED_BELOW = 50
"""Visible characters under which a page that images cover is taken for a scan."""
_STAMPED_BELOW = 120
_STAMPED_COVER = 0.9
"""Courts, fax machines and scanning programs put a line of text on what is all image."""
_MAX_ATTACHMENTS = 1_000
_MAX_BAD_PAGES = 1_000
"""Pages that may fail before the rest of the file is given up."""
_SAMPLED_CHARACTERS = 20
_TAIL = 4_096

_UNMAPPED = re.compile("[\x00-\x08\x0e-\x1f\x7f\ue000-\uf8ff\ufffd\uffff]")
_HYPHEN = re.compile("\ufffe(?:\r?\n)?(?=(.?))")
_DATE = re.compile(
    r"(?:D:)?\s*(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?\s*(?:(Z)|([+-])(\d\d)'?(\d\d)?)?",
    re.ASCII,
)
_LANGUAGE = re.compile(r"([A-Za-z]{2})(?:[-_].*)?", re.ASCII | re.DOTALL)

# The library warns of forms it was not built for (XFA); their ordinary twin is read all the same.
logging.getLogger("pypdfium2").addHandler(logging.NullHandler())


class PdfExtractor:
    """Reads text, form values and metadata of PDF files, and scanned pages by OCR."""

    name: ClassVar[str] = "pdf"
    media_types: ClassVar[frozenset[str]] = frozenset({"application/pdf"})
    extra: ClassVar[str | None] = None

    def extract(self, document: Document, options: ExtractionOptions) -> Extraction:
        """Read the pages that the options select.

        Raises:
            EncryptedError: a password is needed.
            DamagedError: not one page can be read.
            EmptyDocumentError: the file has no bytes.
            ConfigurationError: a page needs OCR in a language that is not installed.
        """
        problems: list[Problem] = []
        if not _ends_properly(document.path):
            problems.append(Problem(DamagedError.kind, "the end of the file is missing"))
        with closing(_open(document.path)) as pdf:
            has_form = _init_forms(pdf)
            count = len(pdf)
            pages, truncated = _read_pages(pdf, count, has_form, options, problems)
            if not pages:
                reason = problems[-1].message if problems else "the file has none"
                raise DamagedError(f"no page can be read: {reason}")
            if form := form_text(pdf):
                pages[0] = replace(pages[0], text=f"{form}\n{pages[0].text}")
            return Extraction(
                media_type=document.media_type,
                pages=tuple(pages),
                engine=self.name,
                page_count=count,
                title=_metadata(pdf, "Title"),
                author=_metadata(pdf, "Author"),
                created=parse_date(_metadata(pdf, "CreationDate")),
                modified=parse_date(_metadata(pdf, "ModDate")),
                language=_language(pdf),
                attachments=tuple(_attachments(pdf)),
                problems=tuple(problems),
                truncated=truncated,
            )


def parse_date(text: str | None) -> str | None:
    """A PDF date such as ``D:20240131235900+01'00'`` as ISO 8601; None where it is none."""
    match = _DATE.match(text.strip()) if text else None
    if not match:
        return None
    year, month, day, hour, minute, second = (int(group or 0) for group in match.groups()[:6])
    zone = None
    if match[7]:
        zone = UTC
    elif match[8] and int(match[9]) < 24:
        offset = timedelta(hours=int(match[9]), minutes=int(match[10] or 0) % 60)
        zone = timezone(-offset if match[8] == "-" else offset)
    try:
        if text and not match[2] and len(text.strip()) > len(match[0]):
            return datetime.fromisoformat(text.strip()).isoformat()
        moment = datetime(year, month or 1, day or 1, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None
    return moment.isoformat()


def clean(text: str) -> str:
    r"""PDFium's text with plain line ends and words joined that a line break had parted.

    PDFium puts U+FFFE for a hyphen at the end of a line. Before a small letter it only parted
    the word; before anything else ("Schwarz-Weiß") it belongs there.
    """
    if "\ufffe" in text:
        text = _HYPHEN.sub(lambda match: "" if match[1].islower() else "-", text)
    return text.replace("\r\n", "\n")


def _ends_properly(path: Path) -> bool:
    try:
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, 2)
            if not size:
                raise EmptyDocumentError("the file is empty")
            file.seek(max(0, size - _TAIL))
            return b"%%EOF" in (file.read(_TAIL) or b"")
    except OSError as error:
        raise SourceUnreadableError(f"cannot read the file: {error.strerror or error}") from error


def _open(path: Path) -> Any:
    """The opened document; the caller closes it."""
    import pypdfium2
    import pypdfium2.raw as raw

    try:
        try:
            return pypdfium2.PdfDocument(path)
        except UnicodeEncodeError:  # early versions want names in UTF-8
            return pypdfium2.PdfDocument(path.open("rb"), autoclose=True)
    except OSError as error:
        raise SourceUnreadableError(f"cannot read the file: {error.strerror or error}") from error
    except pypdfium2.PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            raise EncryptedError("the PDF file is protected by a password") from error
        if error.err_code == raw.FPDF_ERR_SECURITY:
            raise EncryptedError("the PDF file is encrypted in an unknown way") from error
        raise DamagedError("the PDF file is damaged beyond repair") from error


def _init_forms(pdf: Any) -> bool:
    """Prepare the fields of a form, if the document has one, to be read as text."""
    import pypdfium2

    try:
        pdf.init_forms()
    except pypdfium2.PdfiumError:
        return False
    return pdf.formenv is not None


def _read_pages(
    pdf: Any, count: int, has_form: bool, options: ExtractionOptions, problems: list[Problem]
) -> tuple[list[Page], bool]:
    """The selected pages that can be read; whether reading stopped at enough characters."""
    pages: list[Page] = []
    characters = bad = 0
    for index in options.pages.indices(count):
        if characters > options.max_characters:
            return pages, True
        try:
            page = _read_page(pdf, index, has_form, options, problems)
        except (ConfigurationError, MemoryError):
            raise
        except Exception as error:  # whatever a damaged page sets off costs that page alone
            kind = error.kind if isinstance(error, ExtractionError) else DamagedError.kind
            message = f"the page cannot be read: {error or type(error).__name__}"
            problems.append(Problem(kind, message, index + 1))
            bad += 1
            if bad == _MAX_BAD_PAGES:
                message = f"gave up after {bad} pages that cannot be read"
                problems.append(Problem(DamagedError.kind, message))
                break
            continue
        pages.append(page)
        characters += len(page.text)
    return pages, False


def _read_page(
    pdf: Any, index: int, has_form: bool, options: ExtractionOptions, problems: list[Problem]
) -> Page:
    with _page(pdf, index, has_form) as page:
        with closing(page.get_textpage()) as textpage:
            text = textpage.get_text_range()
            visible = _count_visible(text)
            unmapped = _is_unmapped(textpage, text, visible)
        text = clean(text)
        number = index + 1
        if not unmapped and visible >= _STAMPED_BELOW:
            return Page(number, text)
        survey = Survey(page)
        if not unmapped and not _is_scanned(visible, survey):
            return Page(number, text)
        if not options.ocr:
            reason = "its characters have no meaning" if unmapped else "it is a scan"
            message = f"the page needs OCR, which is switched off: {reason}"
            problems.append(Problem(NoTextError.kind, message, number))
            return Page(number, "" if unmapped else text)
        try:
            reading = _recognise(page, survey, options)
        except ExtractionError as error:
            problems.append(Problem(error.kind, str(error), number))
            return Page(number, text)
    if not reading.legible:
        problems.append(Problem(NoTextError.kind, ILLEGIBLE, number))
    if unmapped or len(reading.text) >= len(text.strip()):
        return Page(number, reading.text, ocr=True)
    return Page(number, text)


@contextmanager
def _page(pdf: Any, index: int, has_form: bool) -> Iterator[Any]:
    page = pdf.get_page(index)
    try:
        if has_form and _flatten(page):
            page.close()  # what was flattened shows only on a page loaded anew
            page = pdf.get_page(index)
        yield page
    finally:
        page.close()


def _flatten(page: Any) -> bool:
    """Make form values part of the page; whether it changed."""
    import pypdfium2
    import pypdfium2.raw as raw

    try:
        return bool(page.flatten() == raw.FLATTEN_SUCCESS)
    except pypdfium2.PdfiumError:
        return False


def _is_unmapped(textpage: Any, text: str, visible: int) -> bool:
    """Whether most characters are glyph numbers that the file maps to no letter."""
    import pypdfium2.raw as raw

    count = textpage.count_chars()
    if not count:
        return False
    if visible and 2 * len(_UNMAPPED.findall(text)) > visible:
        return True
    # PDFium gives the number itself as the letter, which reads like a simple cipher.
    sample = range(0, count, max(1, count // _SAMPLED_CHARACTERS))
    failed = sum(raw.FPDFText_HasUnicodeMapError(textpage, index) == 1 for index in sample)
    return bool(2 * failed > len(sample))


def _count_visible(text: str) -> int:
    return sum(map(len, text.split()))


def _is_scanned(visible: int, survey: Survey) -> bool:
    if visible < _SCANNED_BELOW:
        return survey.is_picture
    return survey.cover >= _STAMPED_COVER


def _recognise(page: Any, survey: Survey, options: ExtractionOptions) -> Reading:
    """The text of the rendered page, read by OCR."""
    from doc_classify.extraction import ocr

    image_width, image_height = survey.largest_image
    if image_width * image_height > options.max_image_pixels:
        raise LimitExceededError(
            f"the page was not read by OCR: its image has {image_width} x {image_height} pixels, "
            f"more than the {options.max_image_pixels:,} allowed"
        )
    width, height = page.get_width(), page.get_height()
    scale = min(
        options.ocr_dpi / POINTS_PER_INCH,
        0.999 * math.sqrt(min(options.max_image_pixels, ocr.MAX_PIXELS) / (width * height)),
        0.999 * ocr.MAX_SIDE / max(width, height),
    )
    with closing(page.render(scale=scale, grayscale=True)) as bitmap:
        dpi = round(scale * POINTS_PER_INCH)
        return ocr.read(bitmap.to_pil(), options.ocr_languages, dpi)


def _metadata(pdf: Any, key: str) -> str | None:
    try:
        value = pdf.get_metadata_value(key)
    except UnicodeError:
        return None
    return value.replace("\x00", "").strip() or None


def _language(pdf: Any) -> str | None:
    import pypdfium2.raw as raw

    if not hasattr(raw, "FPDFCatalog_GetLanguage"):  # PDFium of before 2025
        return None
    size = raw.FPDFCatalog_GetLanguage(pdf, None, 0)  # in bytes, with the closing zero
    if not 2 < size <= _TAIL:
        return None
    buffer = (raw.FPDF_WCHAR * (size // 2))()
    raw.FPDFCatalog_GetLanguage(pdf, buffer, size)
    text = bytes(ctypes.string_at(buffer, size - 2)).decode("utf-16-le", "replace")
    match = _LANGUAGE.fullmatch(text.strip())
    return match[1].lower() if match else None


def _attachments(pdf: Any) -> Iterator[str]:
    import pypdfium2

    for index in range(min(pdf.count_attachments(), _MAX_ATTACHMENTS)):
        try:
            name = pdf.get_attachment(index).get_name()
        except (pypdfium2.PdfiumError, UnicodeError):
            continue
        if name:
            yield name
