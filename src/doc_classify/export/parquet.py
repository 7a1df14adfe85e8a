"""Results as a Parquet file, written group by group."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO

from doc_classify.errors import MissingDependencyError
from doc_classify.export.rows import FIELDS, Kind, row_to_dict, to_json
from doc_classify.storage.base import ResultRow

_GROUP_ROWS = 5_000
_GROUP_CHARACTERS = 16 * 1024 * 1024
"""Text that is held before a group is written, however few rows it is."""


class ParquetWriter:
    """Writes row groups of some thousand rows, with typed columns.

    Args:
        header: what is known of the run; stored in the metadata of the file.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(self, header: dict[str, Any]) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise MissingDependencyError("pyarrow", "parquet", "write Parquet files") from error
        self._arrow: Any = pyarrow
        metadata = {f"doc_classify.{name}": to_json(value) for name, value in header.items()}
        self._schema = pyarrow.schema(
            [(name, self._type(kind)) for name, kind in FIELDS.items()], metadata=metadata
        )

    def write(self, rows: Iterable[ResultRow], stream: BinaryIO) -> int:
        """Write all rows; returns how many there were."""
        count = 0
        file = self._arrow.parquet.ParquetWriter(stream, self._schema, compression="zstd")
        try:
            for group in _groups(rows):
                count += len(group)
                file.write_table(self._arrow.Table.from_pylist(group, self._schema))
        except BaseException:
            # Its footer is of no use any more; the error that counts is the first.
            with contextlib.suppress(Exception):
                file.close()
            raise
        file.close()
        return count

    def _type(self, kind: Kind) -> Any:
        arrow = self._arrow
        if kind is Kind.FLAG:
            return arrow.bool_()
        if kind is Kind.COUNT:
            return arrow.int64()
        if kind is Kind.NUMBER:
            return arrow.float64()
        if kind is Kind.TIME:
            return arrow.timestamp("us", tz="UTC")
        if kind is Kind.SCORES:
            return arrow.map_(arrow.string(), arrow.float64())
        if kind is Kind.NAMES:
            return arrow.list_(arrow.string())
        if kind is Kind.PROBLEMS:
            text, number = arrow.string(), arrow.int64()
            fields = [("kind", text), ("message", text), ("page", number)]
            return arrow.list_(arrow.struct(fields))
        return arrow.string()


def _groups(rows: Iterable[ResultRow]) -> Iterator[list[dict[str, Any]]]:
    """Rows in groups, bounded in number and in size."""
    group: list[dict[str, Any]] = []
    characters = 0
    for row in rows:
        values = row_to_dict(row)
        characters += _characters(values)
        values["scores"] = list(values["scores"].items())
        values["processed_at"] = _time(values["processed_at"])
        group.append(values)
        if len(group) == _GROUP_ROWS or characters >= _GROUP_CHARACTERS:
            yield group
            group = []
            characters = 0
    if group:
        yield group


def _characters(values: dict[str, Any]) -> int:
    """About how much text a row holds."""
    lists = values["attachments"], *(problem.values() for problem in values["problems"])
    texts = values.values(), values["scores"], *lists
    return sum(len(text) for part in texts for text in part if isinstance(text, str))


def _time(text: str | None) -> datetime | None:
    """A stored time, None if it is none; without an offset it is UTC."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
