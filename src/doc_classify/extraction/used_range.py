"""The used range of spreadsheets, found before they are opened.

The engine lays out a sheet as one dense block from the first used cell to the last: two cells in
opposite corners would have it ask for more memory than there is, and abort the process. What a
file itself states as its dimension is not believed; the cells are looked at.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from doc_classify.errors import EncryptedError, LimitExceededError


@dataclass
class UsedRange:
    """Grows with every used cell, zero-based; refuses to grow beyond ``limit`` cells."""

    limit: int
    first_row: int = -1
    last_row: int = -1
    first_column: int = -1
    last_column: int = -1

    def add(self, row: int, column: int) -> None:
        """Take in a cell.

        Raises:
            LimitExceededError: the range would have more than ``limit`` cells.
        """
        if self.first_row < 0:
            self.first_row = self.last_row = row
            self.first_column = self.last_column = column
        elif (
            self.first_row <= row <= self.last_row
            and self.first_column <= column <= self.last_column
        ):
            return
        self.first_row = min(self.first_row, row)
        self.last_row = max(self.last_row, row)
        self.first_column = min(self.first_column, column)
        self.last_column = max(self.last_column, column)
        rows = self.last_row - self.first_row + 1
        columns = self.last_column - self.first_column + 1
        if rows * columns > self.limit:
            raise LimitExceededError(
                f"a sheet spans {rows:,} x {columns:,} cells, more than {self.limit:,}"
            )


_TAG = re.compile(rb"<(?:\w{1,30}:)?(c|row)((?:\s[^<>]*)?)>(</)?")
_REFERENCE = re.compile(rb"\br\s*=\s*[\"']([A-Za-z]{0,4})(\d{1,9})[\"']")


def check_xlsx(chunks: Iterable[bytes], limit: int) -> None:
    """Look at the cells of a worksheet part."""
    used = UsedRange(limit)
    row, column = -1, -1
    for match in _matches(chunks, _TAG):
        kind, attributes, closed = match.groups()
        reference = _REFERENCE.search(attributes)
        if kind == b"row":
            row = int(reference[2]) - 1 if reference else row + 1
            column = -1
            continue
        if reference:
            row, column = int(reference[2]) - 1, _column(reference[1])
        else:
            column += 1
        if not closed and not attributes.endswith(b"/"):  # formatting alone is no content
            used.add(max(row, 0), column)


_ODS_TAG = re.compile(rb"<table:(table|table-row|table-cell|covered-table-cell)((?:\s[^<>]*)?)>")
_ROWS = re.compile(rb"number-rows-repeated\s*=\s*[\"'](\d{1,9})")
_COLUMNS = re.compile(rb"number-columns-repeated\s*=\s*[\"'](\d{1,9})")


def check_ods(chunks: Iterable[bytes], limit: int) -> None:
    """Look at the cells of the content of an OpenDocument spreadsheet, repetitions included."""
    used = UsedRange(limit)
    row = column = 0
    repeat = 1
    for match in _matches(chunks, _ODS_TAG):
        kind, attributes = match.groups()
        if kind == b"table":
            used, row, repeat = UsedRange(limit), 0, 0
        elif kind == b"table-row":
            row += repeat
            column = 0
            found = _ROWS.search(attributes)
            repeat = int(found[1]) if found else 1
        else:
            found = _COLUMNS.search(attributes)
            width = int(found[1]) if found else 1
            if not attributes.endswith(b"/") or b"value-type" in attributes:
                used.add(row, 0)
                used.add(row + max(0, repeat - 1), column + max(0, width - 1))
            column += width


def check_xlsb(data: bytes, limit: int) -> None:
    """Look at the cells of a binary worksheet part."""
    used = UsedRange(limit)
    row = 0
    at = 0
    while at < len(data):
        kind, at = _variable(data, at, 2)
        size, at = _variable(data, at, 4)
        if kind == 0 and at + 4 <= len(data):
            (row,) = struct.unpack_from("<I", data, at)
        elif 2 <= kind <= 11 and at + 4 <= len(data):
            used.add(row, struct.unpack_from("<I", data, at)[0])
        at += size


_BIFF_CELLS = frozenset({0x0006, 0x0203, 0x0204, 0x0205, 0x027E, 0x00FD, 0x00D6, 0x00BD})
_BIFF_BEGIN = 0x0809
_BIFF_PASSWORD = 0x002F


def check_xls(stream: bytes, limit: int) -> None:
    """Look at the cells of all sheets in the stream of an Excel 97-2003 workbook.

    Raises:
        EncryptedError: the workbook needs a password.
        LimitExceededError: a sheet is too large.
    """
    used = UsedRange(limit)
    at = 0
    while at + 4 <= len(stream):
        kind, size = struct.unpack_from("<HH", stream, at)
        at += 4
        if kind == _BIFF_BEGIN:
            used = UsedRange(limit)
        elif kind == _BIFF_PASSWORD:
            raise EncryptedError("protected by a password")
        elif kind in _BIFF_CELLS and size >= 4 and at + 4 <= len(stream):
            row, column = struct.unpack_from("<HH", stream, at)
            used.add(row, column)
        at += size


def _matches(chunks: Iterable[bytes], pattern: re.Pattern[bytes]) -> Iterator[re.Match[bytes]]:
    """Tags that match, also where they lie across two pieces."""
    rest = b""
    for chunk in chunks:
        data = rest + chunk
        cut = data.rfind(b"<", 0, len(data) - 1)
        if cut < 0 or len(data) - cut > 100_000:
            cut = len(data)
        yield from pattern.finditer(data, 0, cut + 2)  # up to what tells a closing tag
        rest = data[cut:]
    yield from pattern.finditer(rest)


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - 64
    return max(0, number - 1)


def _variable(data: bytes, at: int, most: int) -> tuple[int, int]:
    """A number in groups of seven bits, and where it ends."""
    value = 0
    for index in range(most):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            break
    return value, at
