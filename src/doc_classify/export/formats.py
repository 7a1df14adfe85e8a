"""The text formats, and the choice among all of them."""

from __future__ import annotations

import csv
import enum
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from doc_classify.errors import ConfigurationError
from doc_classify.export.rows import FIELDS, Kind, row_to_dict, to_json
from doc_classify.records import display_name
from doc_classify.storage.base import ResultRow

DOCUMENT_FORMAT = "doc-classify-results/1"
"""What a JSON document says it is. The number grows when a field changes its meaning or goes."""


class Format(enum.StrEnum):
    """The formats that results can be written in."""

    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class Writer(Protocol):
    """Writes rows in one format."""

    def write(self, rows: Iterable[ResultRow], stream: BinaryIO) -> int:
        """Write all rows; returns how many there were."""
        ...


_ENDINGS = {f".{kind}": kind for kind in Format} | {".ndjson": Format.JSONL}


def format_of(path: Path) -> Format:
    """The format that the ending of a file's name asks for.

    Raises:
        ConfigurationError: no format has this ending.
    """
    kind = _ENDINGS.get(path.suffix.lower())
    if kind is None:
        raise ConfigurationError(
            f"cannot tell the format of {display_name(str(path))}: "
            f"its name must end in one of {', '.join(_ENDINGS)}"
        )
    return kind


def writer_for(kind: Format, header: dict[str, Any] | None = None) -> Writer:
    """The writer of a format; ``header`` is what it says of the run, where it can.

    Raises:
        MissingDependencyError: the format needs a package that is not installed.
    """
    if kind is Format.JSON:
        return JsonWriter(header or {})
    if kind is Format.JSONL:
        return JsonLinesWriter()
    if kind is Format.CSV:
        return CsvWriter()
    from doc_classify.export.parquet import ParquetWriter

    return ParquetWriter(header or {})


class JsonWriter:
    """One document: the header's members, then ``results``, with one row on each line."""

    def __init__(self, header: dict[str, Any]) -> None:
        self._header = {"format": DOCUMENT_FORMAT} | header

    def write(self, rows: Iterable[ResultRow], stream: BinaryIO) -> int:
        """See :meth:`Writer.write`."""
        members = to_json(self._header)[1:-1]
        stream.write(f'{{{members},\n"results":['.encode())
        count = 0
        for row in rows:
            stream.write(b",\n" if count else b"\n")
            count += 1
            stream.write(to_json(row_to_dict(row)).encode())
        stream.write(b"\n]}\n")
        return count


class JsonLinesWriter:
    """One object per line."""

    def write(self, rows: Iterable[ResultRow], stream: BinaryIO) -> int:
        """See :meth:`Writer.write`."""
        count = 0
        for row in rows:
            count += 1
            stream.write(to_json(row_to_dict(row)).encode())
            stream.write(b"\n")
        return count


class CsvWriter:
    """RFC 4180 with a header, in UTF-8; scores and lists are JSON text."""

    def write(self, rows: Iterable[ResultRow], stream: BinaryIO) -> int:
        """See :meth:`Writer.write`."""
        table = csv.writer(_Encoder(stream), lineterminator="\r\n")
        table.writerow(FIELDS)
        count = 0
        for row in rows:
            count += 1
            values = row_to_dict(row)
            table.writerow([_cell(values[name], kind) for name, kind in FIELDS.items()])
        return count


class _Encoder:
    """Lets the csv module write to a binary stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(text.encode())


def _cell(value: Any, kind: Kind) -> Any:
    if value is None:
        return ""
    if kind is Kind.FLAG:
        return "true" if value else "false"
    if kind is Kind.COUNT or kind is Kind.NUMBER:
        return value
    if kind is Kind.TEXT or kind is Kind.TIME:
        return neutralise(value)
    return neutralise(to_json(value))


_PLAIN_START = re.compile(r"[A-Za-z0-9/\[{]")
_FORMULA_STARTS = frozenset("=+-@\u2212\t\r\n")
_QUOTES = frozenset("'\"`\u00b4\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f")


def neutralise(text: str) -> str:
    """The text with an apostrophe before it if a spreadsheet could take it for a formula.

    Such a text begins, spaces, quotes and invisible characters aside, with ``=``, ``+``, ``-``,
    ``@`` in any width, a tab or a line end. An apostrophe changes nothing of that, so those that
    were added can be told from all others and taken away again (see ``docs/export.md``).
    """
    return "'" + text if _is_formula(text) else text


def restored(text: str) -> str:
    """The text that :func:`neutralise` was given."""
    return text[1:] if text.startswith("'") and _is_formula(text) else text


def _is_formula(text: str) -> bool:
    if _PLAIN_START.match(text):
        return False
    for character in text:
        if unicodedata.normalize("NFKC", character)[0] in _FORMULA_STARTS:
            return True
        # Separators (Z) and controls, formats, unassigned (C) are invisible.
        if character not in _QUOTES and unicodedata.category(character)[0] not in "ZC":
            return False
    return False
