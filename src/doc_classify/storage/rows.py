"""Small things that every statement needs: upserts, time, and values that databases take."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, or_
from sqlalchemy.dialects import postgresql, sqlite

from doc_classify.records import Extraction, Page, Problem

_T = TypeVar("_T")

LOOKUP = 500
"""Values in one ``IN`` list; well inside the limits of both databases."""


def now() -> str:
    """The time as ISO 8601 in UTC, to the millisecond; sorts as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def uri_digest(uri: str) -> bytes:
    """The 16 bytes under which a URI is found, whatever characters it has."""
    return hashlib.blake2b(uri.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def batches(values: Sequence[_T], size: int = LOOKUP) -> Iterator[Sequence[_T]]:
    """The values in slices of at most ``size``."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[dict[str, Any]],
    *,
    key: Iterable[str],
    replace: bool = True,
    keep_success: bool = False,
) -> None:
    """Insert rows; where one with the same key exists, replace it or leave it as it is.

    ``keep_success``: a row that has an ``error_kind`` does not replace one that has none.

    Rows are written in the order of their keys, so that two writers never wait for each other.
    """
    if not rows:
        return
    key = list(key)
    ordered = sorted(rows, key=lambda row: [row[name] for name in key])
    insert: Any = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table)
    changed = [name for name in rows[0] if name not in key] if replace else []
    if changed:
        statement = statement.on_conflict_do_update(
            index_elements=key,
            set_={name: statement.excluded[name] for name in changed},
            where=or_(statement.excluded.error_kind.is_(None), table.c.error_kind.is_not(None))
            if keep_success
            else None,
        )
    else:
        statement = statement.on_conflict_do_nothing(index_elements=key)
    connection.execute(statement, ordered)


def clean(text: str | None) -> str | None:
    """Text that both databases take: no NUL, no lone surrogates."""
    if text is None:
        return None
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    return text


def clean_json(value: Any) -> Any:
    """A JSON-ready value that both databases take: clean text, no NaN and no infinity."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, dict):
        return {clean(str(key)): clean_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(item) for item in value]
    return value


def int32(value: int | None) -> int | None:
    """A count that a document claims, within what the column holds."""
    return None if value is None else max(-(2**31), min(value, 2**31 - 1))


def int64(value: int) -> int:
    """A size or time, within what the column holds (file systems know times after 2262)."""
    return max(-(2**63), min(value, 2**63 - 1))


def finite(value: float | None) -> float | None:
    """A number, or None where it is none (NaN, infinite)."""
    return value if value is not None and math.isfinite(value) else None


def pages_to_text(pages: Iterable[Page]) -> str:
    """The stored form of pages: JSON ``[[number, text, ocr], ...]``."""
    stored = [[page.number, clean(page.text), page.ocr] for page in pages]
    return json.dumps(stored, ensure_ascii=False, separators=(",", ":"))


def extraction_row(extraction: Extraction) -> dict[str, Any]:
    """Columns of ``extractions`` for an extraction that succeeded, without the key."""
    return {
        "media_type": clean(extraction.media_type),
        "engine": clean(extraction.engine),
        "page_count": int32(extraction.page_count),
        "pages_read": len(extraction.pages),
        "ocr_pages": extraction.ocr_pages,
        "title": clean(extraction.title),
        "author": clean(extraction.author),
        "created": clean(extraction.created),
        "modified": clean(extraction.modified),
        "language": clean(extraction.language),
        "attachments": [clean(name) for name in extraction.attachments],
        "problems": [
            [clean(problem.kind), clean(problem.message), problem.page]
            for problem in extraction.problems
        ],
        "truncated": extraction.truncated,
        "error_kind": None,
        "error_message": None,
    }


FAILED_EXTRACTION: dict[str, Any] = dict.fromkeys(
    extraction_row(Extraction(media_type="", pages=(), engine=""))
)
"""The same columns for an extraction that failed, all empty."""


def row_to_problems(stored: Iterable[Sequence[Any]] | None) -> tuple[Problem, ...]:
    """Problems as stored by :func:`extraction_row`."""
    return tuple(Problem(kind, message, page) for kind, message, page in stored or ())


def row_to_extraction(row: Any, pages: str) -> Extraction:
    """An extraction from a row of ``extractions`` and the stored pages."""
    return Extraction(
        media_type=row.media_type or "",
        pages=tuple(Page(number, text, ocr) for number, text, ocr in json.loads(pages)),
        engine=row.engine or "",
        page_count=row.page_count,
        title=row.title,
        author=row.author,
        created=row.created,
        modified=row.modified,
        language=row.language,
        attachments=tuple(row.attachments or ()),
        problems=row_to_problems(row.problems),
        truncated=bool(row.truncated),
    )
