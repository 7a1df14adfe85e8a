"""Spreadsheets: Excel (new, binary and old) and OpenDocument; a sheet is a page."""

from __future__ import annotations

import posixpath
import re
from datetime import date, datetime, time, timedelta
from typing import Any, ClassVar

from doc_classify.errors import DamagedError, EncryptedError, LimitExceededError
from doc_classify.extraction.archive import Archive
from doc_classify.extraction.base import Document
from doc_classify.extraction.compound import check_compound
from doc_classify.extraction.markup import parse_tree
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.extraction.used_range import check_ods, check_xls, check_xlsb, check_xlsx
from doc_classify.extraction.zipped import opendocument
from doc_classify.extraction.zipped.parts import Found, main_part
from doc_classify.records import Extraction, Page, Problem

_OPENXML = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_XLS = "application/vnd.ms-excel"
_ODS = "application/vnd.oasis.opendocument.spreadsheet"
_XLSB = "application/vnd.ms-excel.sheet.binary.macroEnabled.12"
_SHEET = re.compile(r"xl/(?:work|chart|dialog|macro)?sheets/[^/]+\.bin", re.IGNORECASE)
_BELIEVED = frozenset((".xls", ".xla", ".xlsx", ".xlsm", ".xlam", ".xlsb", ".ods"))
_OLE = b"\xd0\xcf\x11\xe0"


class SpreadsheetExtractor:
    """Reads values, tabs between cells, one line a row; formulas give their results."""

    name: ClassVar[str] = "spreadsheet"
    media_types: ClassVar[frozenset[str]] = frozenset(
        {
            f"{_OPENXML}.sheet",
            f"{_OPENXML}.template",
            "application/vnd.ms-excel.sheet.macroEnabled.12",
            "application/vnd.ms-excel.template.macroEnabled.12",
            _XLSB,
            _XLS,
            _ODS,
            f"{_ODS}-template",
        }
    )
    extra: ClassVar[str | None] = None

    def extract(self, document: Document, options: ExtractionOptions) -> Extraction:
        """Check the used range of every sheet, then read the selected sheets."""
        found = Found(options)
        if document.media_type == _XLS:
            _check_old(document, options)
        else:
            with Archive(document.path, options.max_unpacked_bytes) as archive:
                archive.check_markup()
                _check_zipped(archive, found, document.media_type == _XLSB)
        problems: list[Problem] = []
        _read(document, found, problems)
        if problems and not found.pages:
            raise DamagedError(problems[0].message)
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
            problems=tuple(problems),
            truncated=found.truncated,
        )


def _check_old(document: Document, options: ExtractionOptions) -> None:
    import olefile

    if len(document.data) > options.max_unpacked_bytes:
        raise LimitExceededError(f"over {options.max_unpacked_bytes // 10**6} MB")
    check_compound(document.data)
    with olefile.OleFileIO(document.data) as ole:
        for name in ("Workbook", "Book"):
            if ole.exists(name):
                check_xls(ole.openstream(name).read(), options.max_cells)


def _check_zipped(archive: Archive, found: Found, binary: bool) -> None:
    limit = found.options.max_cells
    if "content.xml" in archive:
        opendocument.prepare(archive, found)
        check_ods(archive.chunks("content.xml"), limit)
        return
    found.read_metadata(archive, "docProps/core.xml")
    # Any part may be declared to be a sheet, whatever it is called.
    named = _named(archive)
    for name in archive.names():
        base = _base(name)
        if base.endswith(".xml"):
            check_xlsx(archive.chunks(name), limit)
        elif base in named or _SHEET.fullmatch(name.replace("\\", "/").lstrip("/")):
            data = archive.read(name, found.options.max_unpacked_bytes)
            check_xlsx([data], limit)
            if binary and not data.startswith(_OLE):
                check_xlsb(data, limit)


def _named(archive: Archive) -> set[str]:
    """Bare names of the parts that a workbook refers to."""
    main = posixpath.basename(main_part(archive, "xl/workbook.xml")).lower()
    bases = {f"{base}.rels" for base in (main, "workbook.xml", "workbook.bin")}
    return {
        _base(element.get("Target", ""))
        for name in archive.names()
        if _base(name) in bases
        for element in parse_tree(archive.read(name)).iter("{*}Relationship")
    }


def _base(name: str) -> str:
    return posixpath.basename(name.replace("\\", "/")).lower()


def _read(document: Document, found: Found, problems: list[Problem]) -> None:
    import python_calamine as calamine

    try:
        if document.path.suffix.lower() in _BELIEVED:
            # The engine would believe the name: a new workbook that is called .xls is common.
            with document.path.open("rb") as file:
                book = calamine.CalamineWorkbook.from_filelike(file)
        else:
            book = calamine.CalamineWorkbook.from_path(str(document.path))
    except calamine.PasswordError as error:
        raise EncryptedError("protected by a password") from error
    except (calamine.CalamineError, calamine.ZipError, calamine.XmlError) as error:
        raise DamagedError(f"not a readable workbook: {error}") from error
    names = book.sheet_names
    found.page_count = len(names)
    for index in found.options.pages.indices(len(names)):
        if not found.left:
            found.truncated = True
            break
        try:
            text = _sheet(book.get_sheet_by_index(index), found)
        except Exception as error:  # one bad sheet must not cost the others
            message = f"sheet {names[index]!r} cannot be read: {error}"
            problems.append(Problem("damaged", message, index + 1))
            continue
        found.pages.append((index + 1, f"{names[index]}\n{text}" if text else ""))


def _sheet(sheet: Any, found: Found) -> str:
    lines: list[str] = []
    size, left = 0, found.left
    for row in sheet.iter_rows():
        line = "\t".join(map(_value, row)).rstrip("\t")
        if not line and lines and not lines[-1]:
            continue
        lines.append(line)
        size += len(line) + 1
        if size > left:
            found.truncated = True
            break
    found.took(size)
    return "\n".join(lines).strip("\n")


def _value(value: object) -> str:
    """A cell as a person would write it, numbers and dates alike in every language."""
    if isinstance(value, str):
        return value.replace("\n", " ").replace("\t", " ")
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    if isinstance(value, datetime):
        return value.isoformat(" ", "minutes")
    if isinstance(value, date | time | timedelta):
        return str(value)
    return "" if value is None else str(value)
