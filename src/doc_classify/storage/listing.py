"""Reading results back, one row at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Select, and_, func, or_, select

from doc_classify.records import Failure, FileStatus, Source, freeze_scores
from doc_classify.storage.base import ResultFilter, ResultRow
from doc_classify.storage.rows import row_to_problems
from doc_classify.storage.schema import documents, extractions, files, results, run_files

_STREAMED = 1000
"""Rows fetched at a time."""

_first = files.alias("first_files")


def list_results(
    connection: Connection, run_id: str, fingerprint: str, only: ResultFilter
) -> Iterator[ResultRow]:
    """See :meth:`doc_classify.storage.base.Store.results`."""
    query = _query(
        run_id,
        fingerprint,
        only,
        files.c.uri,
        run_files.c.status,
        run_files.c.error_kind.label("file_error_kind"),
        run_files.c.error_message.label("file_error_message"),
        documents.c.sha256,
        documents.c.size,
        _first.c.uri.label("first_uri"),
        results.c.category,
        results.c.score,
        results.c.confidence,
        results.c.scores,
        results.c.needs_review,
        results.c.reasoning,
        results.c.error_kind,
        results.c.error_message,
        results.c.classifier,
        results.c.run_id.label("result_run_id"),
        results.c.processed_at,
        extractions.c.media_type,
        extractions.c.page_count,
        extractions.c.pages_read,
        extractions.c.ocr_pages,
        extractions.c.title,
        extractions.c.author,
        extractions.c.created,
        extractions.c.modified,
        extractions.c.language,
        extractions.c.attachments,
        extractions.c.problems,
        extractions.c.truncated,
    ).order_by(files.c.uri)
    if only.limit is not None:
        query = query.limit(only.limit)
    for row in connection.execution_options(yield_per=_STREAMED).execute(query):
        yield _row(row)


def list_sources(
    connection: Connection, run_id: str, fingerprint: str, only: ResultFilter
) -> Iterator[Source]:
    """See :meth:`doc_classify.storage.base.Store.task_files`."""
    query = _query(run_id, fingerprint, only, files.c.uri, files.c.size, files.c.mtime_ns).where(
        run_files.c.status != FileStatus.DUPLICATE.value
    )
    for uri, size, mtime_ns in connection.execution_options(yield_per=_STREAMED).execute(
        query.order_by(files.c.uri)
    ):
        yield Source(uri, size or 0, mtime_ns or 0)


def _query(run_id: str, fingerprint: str, only: ResultFilter, *columns: Any) -> Select[Any]:
    query = (
        select(*columns)
        .select_from(run_files)
        .join(files, files.c.id == run_files.c.file_id)
        .outerjoin(documents, documents.c.id == run_files.c.document_id)
        .outerjoin(
            results,
            and_(
                results.c.document_id == run_files.c.document_id,
                results.c.fingerprint == fingerprint,
                # A forced run shows what it stored itself, not what was there before.
                run_files.c.status != FileStatus.PENDING.value,
            ),
        )
        .outerjoin(
            extractions,
            and_(
                extractions.c.document_id == results.c.document_id,
                extractions.c.extraction_key == results.c.extraction_key,
            ),
        )
        .outerjoin(_first, _first.c.id == run_files.c.first_file_id)
        .where(run_files.c.run_id == run_id)
    )
    kind = func.coalesce(run_files.c.error_kind, results.c.error_kind)
    if only.statuses:
        query = query.where(run_files.c.status.in_([status.value for status in only.statuses]))
    if only.category is not None:
        query = query.where(results.c.category == only.category)
    if only.failed:
        query = query.where(
            or_(run_files.c.status == FileStatus.FAILED.value, results.c.error_kind.is_not(None)),
            run_files.c.status != FileStatus.UNSUPPORTED.value,
        )
    if only.error_kind is not None:
        query = query.where(kind == only.error_kind)
    if only.needs_review:
        query = query.where(results.c.needs_review.is_(True))
    return query


def _row(row: Any) -> ResultRow:
    kind = row.file_error_kind or row.error_kind
    failure = Failure(kind, row.file_error_message or row.error_message or "") if kind else None
    return ResultRow(
        uri=row.uri,
        status=FileStatus(row.status),
        sha256=None if row.sha256 is None else bytes(row.sha256).hex(),
        size=row.size,
        media_type=row.media_type,
        category=row.category,
        score=row.score,
        confidence=row.confidence,
        scores=freeze_scores(dict(row.scores or ())),
        needs_review=bool(row.needs_review),
        reasoning=row.reasoning,
        failure=failure,
        duplicate_of=row.first_uri,
        page_count=row.page_count,
        pages_read=row.pages_read,
        ocr_pages=row.ocr_pages,
        title=row.title,
        author=row.author,
        created=row.created,
        modified=row.modified,
        language=row.language,
        attachments=tuple(row.attachments or ()),
        problems=row_to_problems(row.problems),
        truncated=bool(row.truncated),
        classifier=row.classifier,
        run_id=row.result_run_id,
        processed_at=row.processed_at,
    )
