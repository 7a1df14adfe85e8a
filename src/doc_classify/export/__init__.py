"""Results as files for other programs: JSON, JSON Lines, CSV and Parquet.

Rows are written one by one as the store yields them, so memory stays flat however many there are.
The fields are those of :data:`FIELDS`, in every format; ``docs/export.md`` describes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from doc_classify.errors import ConfigurationError
from doc_classify.export.files import closing, replacing
from doc_classify.export.formats import Format, format_of, writer_for
from doc_classify.export.rows import FIELDS, filter_to_dict, row_to_dict, run_to_dict, to_json
from doc_classify.storage.base import ResultFilter, ResultRow, Store

__all__ = [
    "FIELDS",
    "Format",
    "export_results",
    "format_of",
    "row_to_dict",
    "run_to_dict",
    "to_json",
    "write_rows",
]


def export_results(store: Store, run_id: str, path: Path, only: ResultFilter | None = None) -> Path:
    """Write the results of a run to a file; its ending says how.

    ``.json`` is one document with the run and its results, ``.jsonl`` (or ``.ndjson``) one object
    per line, ``.csv`` a table as in RFC 4180, ``.parquet`` a typed table. The file appears whole
    or not at all: what was there before stays until the new one is safely on disk.

    Args:
        store: where the run is.
        run_id: the run, or an unambiguous beginning of its id.
        path: the file to write; folders on the way are made.
        only: leave out the rows that do not match.

    Returns:
        The path.

    Raises:
        ConfigurationError: there is no such run, the ending is not known, or the path is that of
            something other than a file.
        MissingDependencyError: Parquet is asked for and pyarrow is not installed.
        StorageError: the results cannot be read, or the file cannot be written.
    """
    path = Path(path)
    kind = format_of(path)
    info = store.run(run_id)
    if info is None:
        raise ConfigurationError(f"there is no run {run_id!r}")
    header = {"run": run_to_dict(info), "filter": filter_to_dict(only)}
    if info.spec.teacher:
        header["cascade"] = {"lots": store.lots(info.run_id)}
    writer = writer_for(kind, header)
    with replacing(path) as stream, closing(store.results(info.run_id, only)) as rows:
        writer.write(rows, stream)
    return path


def write_rows(rows: Iterable[ResultRow], stream: BinaryIO, form: Format | str) -> int:
    """Write rows to an open binary stream, such as ``sys.stdout.buffer``; returns how many.

    Nothing is sought in the stream, so it may be a pipe. It is flushed and stays open. Errors of
    the stream are passed on as they are (``BrokenPipeError`` where nobody reads any more).

    Raises:
        ConfigurationError: there is no such format.
        MissingDependencyError: Parquet is asked for and pyarrow is not installed.
    """
    try:
        kind = Format(form)
    except ValueError:
        known = ", ".join(Format)
        raise ConfigurationError(f"there is no format {form!r}; there are {known}") from None
    count = writer_for(kind).write(rows, stream)
    stream.flush()
    return count
