"""Spreadsheets: XLSX through openpyxl, XLS through xlwt, CSV from the standard library."""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Iterator

from doc_classify.dataset.grammar import pick
from doc_classify.dataset.model import Content, Fields, Table, block_lines
from doc_classify.dataset.writers.zipped import with_fixed_times
from doc_classify.errors import MissingDependencyError

Cell = str | float

_MODIFIED = re.compile(rb"(<dcterms:modified[^>]*>)[^<]*")
_PLAIN_NUMBER = re.compile(r"-?\d{1,12}(\.\d+)?")


def grid(content: Content) -> Iterator[tuple[Cell, ...]]:
    """The document as rows of cells; what is plainly a number becomes one."""
    yield (content.title,)
    yield (content.organisation, content.author)
    yield ()
    for block in content.blocks:
        if isinstance(block, Table):
            yield block.header
            for row in block.rows:
                yield tuple(map(_value, row))
            yield ()
        elif isinstance(block, Fields):
            yield from block.pairs
        else:
            for line in block_lines(block):
                yield (line,)


def _value(text: str) -> Cell:
    plain = text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})*\.\d\d", text) else text
    return float(plain) if _PLAIN_NUMBER.fullmatch(plain) else text


def _sheet_name(content: Content) -> str:
    return re.sub(r"[^\w ]", "", content.title)[:28].strip() or "Sheet"


def write_xlsx(content: Content, rng: random.Random) -> tuple[bytes, int]:
    """An Excel workbook, and its number of sheets."""
    try:
        import openpyxl
    except ImportError as error:
        raise MissingDependencyError("openpyxl", "dataset", "write XLSX files") from error
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = _sheet_name(content)
    for row in grid(content):
        # A text that begins with "=" or "-" must not be taken for a formula.
        sheet.append([f"'{cell}" if str(cell).startswith("=") else cell for cell in row])
    sheet.column_dimensions["B"].width = 30
    if extra := rng.random() < 0.3:
        book.create_sheet("Info").append([content.reference, content.sender[1]])
    properties = book.properties
    properties.title, properties.creator = content.title, content.author
    properties.created = content.written
    out = io.BytesIO()
    book.save(out)
    stamp = f"{content.written:%Y-%m-%dT%H:%M:%SZ}".encode()

    def set_modified(name: str, part: bytes) -> bytes:
        # openpyxl writes the time of saving, whatever the properties say.
        return _MODIFIED.sub(rb"\g<1>" + stamp, part) if name == "docProps/core.xml" else part

    return with_fixed_times(out.getvalue(), set_modified), 1 + extra


def write_xls(content: Content, rng: random.Random) -> tuple[bytes, int]:
    """An Excel 97 workbook, and its number of sheets."""
    try:
        import xlwt
    except ImportError as error:
        raise MissingDependencyError("xlwt", "dataset", "write XLS files") from error
    book = xlwt.Workbook(encoding="utf-8")
    sheet = book.add_sheet(_sheet_name(content))
    for number, row in enumerate(grid(content)):
        for column, cell in enumerate(row):
            sheet.write(number, column, cell)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue(), 1


def write_csv(content: Content, rng: random.Random) -> tuple[bytes, None]:
    """Comma, semicolon or tab separated values in one of the usual encodings."""
    out = io.StringIO(newline="")
    separator = ";" if content.language != "en" else pick(rng, (",", ",", "\t", ";"))
    csv.writer(out, delimiter=separator, lineterminator="\r\n").writerows(grid(content))
    encoding = pick(rng, ("utf-8", "utf-8-sig", "cp1252"))
    return out.getvalue().encode(encoding, "replace"), None


def write_tsv(content: Content, rng: random.Random) -> tuple[bytes, None]:
    """Tab separated values in UTF-8."""
    out = io.StringIO(newline="")
    csv.writer(out, "excel-tab", lineterminator="\n").writerows(grid(content))
    return out.getvalue().encode(), None
