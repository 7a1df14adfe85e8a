"""The used range of spreadsheets, found before they are opened.

The engine lays out a sheet as one dense block from the first used cell to the last: two cells in
opposite corners would have it ask for more memory than there is, and abort the process. What a
file itself states as its dimension is not believed; the cells are looked at.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from doc_classify.errors import DamagedError, EncryptedError, LimitExceededError


@dataclass
class UsedRange:
    """Grows with every used cell, zero-based; refuses to grow beyond ``limit`` cells."""

    limit: int
    first_row: int = -1
    last_row: int = -1
    first_column: int = -1
    last_column: int = -1

    @property
    def size(self) -> int:
        """Cells in the range."""
        if self.first_row < 0:
            return 0
        return (self.last_row - self.first_row + 1) * (self.last_column - self.first_column + 1)

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
        if self.size > self.limit:
            rows = self.last_row - self.first_row + 1
            columns = self.last_column - self.first_column + 1
            raise LimitExceededError(
                f"a sheet spans {rows:,} x {columns:,} cells, more than {self.limit:,}"
            )


_REFERENCE = re.compile(r"([A-Za-z]{1,3})(\d{1,7})", re.ASCII)
_CONTENT = frozenset(("v", "is", "f", "t"))
_VALUES = frozenset(("office:value-type", "table:formula"))
_LONGEST_TAG = 4_000_000


def check_xlsx(chunks: Iterable[bytes], limit: int) -> None:
    """Look at the cells of a part that may be a worksheet (ECMA-376, 18.3.1.80 ``sheetData``).

    Raises:
        DamagedError: a worksheet that is not well-formed, or with cells outside of any sheet.
        LimitExceededError: the sheet is too large.
    """
    used = UsedRange(limit)
    row, cell_row, column = -1, 0, -1
    waiting = False  # for something inside the cell: formatting alone is no content

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal row, cell_row, column, waiting
        if ":" in name:
            name = name.partition(":")[2]
        if name == "c":
            waiting = True
            reference = attributes.get("r")
            if reference is None:
                cell_row = max(row, 0)
                column += 1
            else:
                cell_row, column = _position(reference)
        elif name == "row":
            waiting = False
            number = attributes.get("r")
            row = row + 1 if number is None else _position("A" + number)[0]
            column = -1
        elif waiting and name in _CONTENT:
            waiting = False
            used.add(cell_row, column)

    _scan(chunks, start, b"sheetData")


def check_ods(chunks: Iterable[bytes], limit: int) -> None:
    """Look at the cells of the content of an OpenDocument spreadsheet, repetitions included.

    The engine reads all tables at once, so the limit is one for all of them.

    Raises:
        DamagedError: not well-formed.
        LimitExceededError: the tables are too large.
    """
    used = UsedRange(limit)
    row = column = width = 0
    repeat = 0
    waiting = False

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal used, row, column, width, repeat, waiting
        if name in ("table:table-cell", "table:covered-table-cell"):
            column += width
            width = _times(attributes, "table:number-columns-repeated")
            waiting = True
            if not attributes.keys() & _VALUES:
                return
        elif name == "table:table-row":
            waiting = False
            row += repeat
            repeat = _times(attributes, "table:number-rows-repeated")
            column = width = 0
            return
        elif name == "table:table":
            waiting = False
            used = UsedRange(used.limit - used.size)
            row = column = width = repeat = 0
            return
        elif name != "text:p":
            return
        if waiting:
            waiting = False
            used.add(row, 0)
            used.add(row + max(0, repeat - 1), column + max(0, width - 1))

    _scan(chunks, start, b"table:table")


def _scan(
    chunks: Iterable[bytes], start: Callable[[str, dict[str, str]], None], awaited: bytes
) -> None:
    """Hand every element that starts to ``start``, once ``awaited`` has been seen in the bytes.

    A pattern would be led astray by comments, by quotes and by ``>`` in values; and what is
    well-formed to this parser is read by the engine in the same way.
    """
    from xml.parsers import expat  # no entity is expanded: a definition of types ends it

    def refuse(*_: object) -> None:
        raise DamagedError("a document type definition where none belongs")

    parser = expat.ParserCreate("utf-8")
    parser.StartDoctypeDeclHandler = refuse
    seen, tail, size = False, b"", 0
    damage: Exception | None = None
    for chunk in chunks:
        tail += chunk
        if not seen and awaited in tail:
            seen = True
            parser.StartElementHandler = start
        tail = tail[-len(awaited) :]
        size += len(chunk)
        if damage is None:
            try:
                parser.Parse(chunk, False)
            except (expat.ExpatError, DamagedError) as error:
                damage = error
            else:  # a tag without end would be looked through anew with every piece
                if size - parser.CurrentByteIndex > _LONGEST_TAG:
                    raise LimitExceededError("a tag or comment of several megabytes")
        if damage and seen:  # any other part may be what it likes
            raise DamagedError(f"the sheets cannot be read: {damage}") from damage
    if seen:
        try:
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise DamagedError(f"the sheets cannot be read: {error}") from error


def _position(reference: str) -> tuple[int, int]:
    """Row and column of a reference such as ``XFD1048576``, zero-based."""
    match = _REFERENCE.fullmatch(reference)
    row, column = (int(match[2]), _column(match[1])) if match else (0, 0)
    if not 1 <= row <= 1_048_576 or column >= 16_384:
        raise DamagedError(f"a cell outside of any sheet: {reference[:20]!r}")
    return row - 1, column


def _times(attributes: dict[str, str], name: str) -> int:
    value = attributes.get(name, "1")
    if not value.isdecimal() or len(value) > 9:
        raise DamagedError(f"a repetition that is no number: {value[:20]!r}")
    return int(value)


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
_BIFF_SEVERAL = 0x00BD
_BIFF_BEGIN = 0x0809
_BIFF_END = 0x000A
_BIFF_PASSWORD = 0x002F
_BIFF_DIMENSIONS = 0x0200
_BIFF_STRINGS = 0x00FC
_BIFF_MOST = 65_536 * 256


def check_xls(stream: bytes, limit: int) -> None:
    """Look at the cells of all sheets in the stream of an Excel 97-2003 workbook ([MS-XLS]).

    Raises:
        DamagedError: a stated size or number is impossible; the engine would provide for it.
        EncryptedError: the workbook needs a password.
        LimitExceededError: a sheet is too large.
    """
    used = UsedRange(limit)
    depth = 0  # charts begin and end inside of sheets
    at = 0
    while at + 4 <= len(stream):
        kind, size = struct.unpack_from("<HH", stream, at)
        at += 4
        if kind == _BIFF_BEGIN:
            if depth == 0:
                used = UsedRange(limit)
            depth += 1
        elif kind == _BIFF_END:
            depth = max(0, depth - 1)
        elif kind == _BIFF_PASSWORD:
            raise EncryptedError("protected by a password")
        elif kind == _BIFF_DIMENSIONS:
            _check_dimensions(stream[at : at + size])
        elif kind == _BIFF_STRINGS and at + 8 <= len(stream):
            if struct.unpack_from("<4xI", stream, at)[0] > len(stream) // 3:
                raise DamagedError("a table of more strings than the file can hold")
        elif kind in _BIFF_CELLS and size >= 4 and at + 4 <= len(stream):
            row, column = struct.unpack_from("<HH", stream, at)
            used.add(row, column)
            if kind == _BIFF_SEVERAL and size >= 6 and at + size <= len(stream):
                used.add(row, struct.unpack_from("<H", stream, at + size - 2)[0])
        at += size


def _check_dimensions(record: bytes) -> None:
    if len(record) in (10, 14):
        form = "<4H" if len(record) == 10 else "<IIHH"
        first_row, last_row, first_column, last_column = struct.unpack_from(form, record)
        rows, columns = last_row - first_row, last_column - first_column
        empty = not last_row or not last_column
        if not empty and (rows < 0 or columns < 0 or rows * columns > _BIFF_MOST):
            raise DamagedError("a sheet that states to be larger than any can be")


def _column(letters: str) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - 64
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
