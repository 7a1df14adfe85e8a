"""A row of results as plain values, under field names that stay as they are."""

from __future__ import annotations

import enum
import json
import math
import re
from dataclasses import asdict
from typing import Any

from doc_classify.records import CategoryStats, RunStats, display_name
from doc_classify.storage.base import ResultFilter, ResultRow, RunInfo


class Kind(enum.Enum):
    """What the values of a field are; each may also be None."""

    TEXT = "text"
    FLAG = "flag"
    COUNT = "count"
    NUMBER = "number"
    TIME = "time"
    SCORES = "scores"
    NAMES = "names"
    PROBLEMS = "problems"


FIELDS: dict[str, Kind] = {
    "path": Kind.TEXT,
    "uri": Kind.TEXT,
    "status": Kind.TEXT,
    "category": Kind.TEXT,
    "corrected": Kind.FLAG,
    "predicted_category": Kind.TEXT,
    "score": Kind.NUMBER,
    "confidence": Kind.NUMBER,
    "needs_review": Kind.FLAG,
    "scores": Kind.SCORES,
    "reasoning": Kind.TEXT,
    "error_kind": Kind.TEXT,
    "error_message": Kind.TEXT,
    "duplicate_of": Kind.TEXT,
    "sha256": Kind.TEXT,
    "size": Kind.COUNT,
    "media_type": Kind.TEXT,
    "page_count": Kind.COUNT,
    "pages_read": Kind.COUNT,
    "ocr_pages": Kind.COUNT,
    "title": Kind.TEXT,
    "author": Kind.TEXT,
    "created": Kind.TEXT,
    "modified": Kind.TEXT,
    "language": Kind.TEXT,
    "attachments": Kind.NAMES,
    "problems": Kind.PROBLEMS,
    "truncated": Kind.FLAG,
    "classifier": Kind.TEXT,
    "run_id": Kind.TEXT,
    "processed_at": Kind.TIME,
}
"""The fields of a result, in the order of the columns. Programs of others rely on the names."""


def row_to_dict(row: ResultRow) -> dict[str, Any]:
    """A result as values that JSON has, with the names and in the order of :data:`FIELDS`.

    Text holds neither NUL nor lone surrogates; numbers that are none (NaN, infinite) are None.
    """
    uri = _text(row.uri)
    failure = row.failure
    return {
        "path": display_name(uri),
        "uri": uri,
        "status": row.status.value,
        "category": _optional(row.category),
        "corrected": row.corrected,
        "predicted_category": _optional(row.predicted_category),
        "score": _finite(row.score),
        "confidence": _finite(row.confidence),
        "needs_review": row.needs_review,
        "scores": {_text(name): _finite(score) for name, score in row.scores},
        "reasoning": _optional(row.reasoning),
        "error_kind": None if failure is None else _text(failure.kind),
        "error_message": None if failure is None else _text(failure.message),
        "duplicate_of": _optional(row.duplicate_of),
        "sha256": row.sha256,
        "size": row.size,
        "media_type": _optional(row.media_type),
        "page_count": row.page_count,
        "pages_read": row.pages_read,
        "ocr_pages": row.ocr_pages,
        "title": _optional(row.title),
        "author": _optional(row.author),
        "created": _optional(row.created),
        "modified": _optional(row.modified),
        "language": _optional(row.language),
        "attachments": [_text(name) for name in row.attachments],
        "problems": [
            {"kind": _text(item.kind), "message": _text(item.message), "page": item.page}
            for item in row.problems
        ],
        "truncated": row.truncated,
        "classifier": _optional(row.classifier),
        "run_id": row.run_id,
        "processed_at": row.processed_at,
    }


def run_to_dict(info: RunInfo) -> dict[str, Any]:
    """A run as values that JSON has."""
    spec = info.spec
    return {
        "run_id": info.run_id,
        "state": info.state,
        "message": _optional(info.message),
        "started": info.started,
        "heartbeat": info.heartbeat,
        "finished": info.finished,
        "source": _text(spec.source),
        "door": _text(spec.door),
        "classifier": _text(spec.classifier),
        "categories": [_text(name) for name in spec.categories],
        "force": spec.force,
        "fingerprint": _text(spec.fingerprint),
        "settings": _plain(spec.settings),
        "stats": _stats_to_dict(info.stats),
    }


def filter_to_dict(only: ResultFilter | None) -> dict[str, Any] | None:
    """The restrictions in force; None if every row is listed."""
    if only is None:
        return None
    statuses = [status.value for status in sorted(only.statuses)]
    given = asdict(only) | {"statuses": statuses or None}
    kept = {name: value for name, value in given.items() if value is not None}
    return {name: _plain(value) for name, value in kept.items() if value is not False} or None


def to_json(value: object) -> str:
    """One line of JSON in readable Unicode, safe to show on a terminal and to split at line ends.

    Control characters, the line ends of Unicode and what turns the direction of writing around
    are written as escapes; a reader of JSON gets them back as they were.
    """
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", _encode(value))


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_UNSAFE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def _stats_to_dict(stats: RunStats) -> dict[str, Any]:
    values = asdict(stats)
    del values["run_id"]
    values["pending"] = stats.pending
    values["categories"] = {
        name: _category_to_dict(category) for name, category in stats.categories.items()
    }
    plain: dict[str, Any] = _plain(values)
    return plain


def _category_to_dict(category: CategoryStats) -> dict[str, Any]:
    return {
        "files": category.files,
        "mean_score": category.mean_score,
        "mean_confidence": category.mean_confidence,
    }


def _plain(value: object) -> Any:
    """The nearest thing that JSON has."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return _finite(value)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, dict):
        return {_text(str(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _text(str(value))


def _optional(text: str | None) -> str | None:
    return None if text is None else _text(text)


def _text(text: str) -> str:
    """Text that every format takes: no NUL; surrogates joined where they pair, else replaced."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
