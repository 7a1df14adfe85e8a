"""Reading results back, one row at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Subquery, and_, case, func, select

from doc_classify.records import (
    STUDENT,
    CategoryStats,
    Failure,
    FileStatus,
    RunStats,
    Source,
    freeze_scores,
)
from doc_classify.storage.base import ResultFilter, ResultRow, RunSpec
from doc_classify.storage.correcting import holding
from doc_classify.storage.rows import row_to_problems
from doc_classify.storage.schema import documents, extractions, files, results, run_files

_STREAMED = 1000
"""Rows fetched at a time."""

_first = files.alias("first_files")
_first_seen = run_files.alias("first_seen")

# A copy is what the first file of its document is. What failed is kept with the run, since the
# result may have been mended by a later one.
_own_status = func.coalesce(_first_seen.c.status, run_files.c.status)
_error_kind = func.coalesce(_first_seen.c.error_kind, run_files.c.error_kind)
_error_message = func.coalesce(_first_seen.c.error_message, run_files.c.error_message)


def list_results(
    connection: Connection, run_id: str, spec: RunSpec, only: ResultFilter
) -> Iterator[ResultRow]:
    """See :meth:`doc_classify.storage.base.Store.results`."""
    held = holding(connection, spec.categories)
    query = _query(
        run_id,
        spec.fingerprint,
        only,
        held,
        files.c.uri,
        run_files.c.status,
        _error_kind.label("error_kind"),
        _error_message.label("error_message"),
        documents.c.sha256,
        documents.c.size,
        _first.c.uri.label("first_uri"),
        _category(held).label("category"),
        results.c.category.label("predicted"),
        held.c.document_id.is_not(None).label("corrected"),
        results.c.score,
        results.c.confidence,
        results.c.scores,
        results.c.needs_review,
        results.c.reasoning,
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
    )
    query = query.order_by(_ordered(connection, files.c.uri)).limit(only.limit)
    for row in connection.execution_options(yield_per=_STREAMED).execute(query):
        yield _row(row)


def list_sources(
    connection: Connection, run_id: str, spec: RunSpec, only: ResultFilter
) -> Iterator[Source]:
    """See :meth:`doc_classify.storage.base.Store.task_files`."""
    target = files.alias("targets")
    uri = _ordered(connection, target.c.uri)
    held = holding(connection, spec.categories)
    query = (
        _query(run_id, spec.fingerprint, only, held, uri, target.c.size, target.c.mtime_ns)
        # A copy stands for the first file of its document.
        .join(target, target.c.id == func.coalesce(run_files.c.first_file_id, files.c.id))
        .distinct()
        .order_by(uri)
        .limit(only.limit)
    )
    for row in connection.execution_options(yield_per=_STREAMED).execute(query):
        yield Source(row[0], row[1] or 0, row[2] or 0)


def add_breakdowns(connection: Connection, run_id: str, spec: RunSpec, stats: RunStats) -> None:
    """Fill in the counts by category, kind of failure and unsupported type.

    Categories count every file of the run that has one, also those that an earlier run did.
    """
    held = holding(connection, spec.categories)
    category = _category(held)
    # The score is that of the category which the classifier had found.
    own: ColumnElement[bool] = held.c.document_id.is_(None)
    if spec.teacher:
        # The student's are of another kind: only the LLM's go into a mean.
        own = and_(own, results.c.classifier != STUDENT)
    score, confidence = (case((own, column)) for column in (results.c.score, results.c.confidence))
    query = (
        _query(
            run_id,
            spec.fingerprint,
            ResultFilter(),
            held,
            category,
            func.count(),
            func.coalesce(func.sum(score), 0.0),
            func.count(score),
            func.coalesce(func.sum(confidence), 0.0),
            func.count(confidence),
            func.count(held.c.document_id),
            described=False,
        )
        .where(_error_kind.is_(None), results.c.category.is_not(None))
        .group_by(category)
        .order_by(category)
    )
    stats.categories, stats.corrected = {}, 0
    for name, *sums, corrected in connection.execute(query):
        stats.categories[name] = CategoryStats(*sums)
        stats.corrected += corrected
    kinds = (
        select(run_files.c.status, run_files.c.error_kind, func.count())
        .where(
            run_files.c.run_id == run_id,
            run_files.c.status.in_([FileStatus.FAILED.value, FileStatus.UNSUPPORTED.value]),
        )
        .group_by(run_files.c.status, run_files.c.error_kind)
        .order_by(func.count().desc(), run_files.c.error_kind)
    )
    for status, name, number in connection.execute(kinds):
        failed = status == FileStatus.FAILED.value
        (stats.failures if failed else stats.unsupported_types)[name] = number


def _ordered(connection: Connection, uri: ColumnElement[str]) -> ColumnElement[str]:
    """A URI to sort by: byte by byte, whatever language the server sorts in."""
    return uri.collate("C") if connection.dialect.name == "postgresql" else uri


def _query(
    run_id: str,
    fingerprint: str,
    only: ResultFilter,
    held: Subquery,
    *columns: Any,
    described: bool = True,
) -> Select[Any]:
    """Files of a run with their result and the correction that holds.

    ``described``: also with what was read of them.
    """
    query = (
        select(*columns)
        .select_from(run_files)
        .outerjoin(
            _first_seen,
            and_(
                _first_seen.c.run_id == run_files.c.run_id,
                _first_seen.c.file_id == run_files.c.first_file_id,
            ),
        )
        .outerjoin(
            results,
            and_(
                results.c.document_id == run_files.c.document_id,
                results.c.fingerprint == fingerprint,
                # A forced run shows what it stored itself, not what was there before.
                _own_status != FileStatus.PENDING.value,
            ),
        )
        .outerjoin(held, held.c.document_id == run_files.c.document_id)
        .where(run_files.c.run_id == run_id)
    )
    if described:
        query = (
            query.join(files, files.c.id == run_files.c.file_id)
            .outerjoin(documents, documents.c.id == run_files.c.document_id)
            .outerjoin(
                extractions,
                and_(
                    extractions.c.document_id == results.c.document_id,
                    extractions.c.extraction_key == results.c.extraction_key,
                ),
            )
            .outerjoin(_first, _first.c.id == run_files.c.first_file_id)
        )
    if only.statuses:
        query = query.where(run_files.c.status.in_([status.value for status in only.statuses]))
    if only.category is not None:
        query = query.where(_category(held) == only.category, _error_kind.is_(None))
    if only.failed:
        query = query.where(_error_kind.is_not(None), _own_status != FileStatus.UNSUPPORTED.value)
    if only.error_kind is not None:
        query = query.where(_error_kind == only.error_kind)
    if only.needs_review:
        query = query.where(
            results.c.needs_review.is_(True),
            _error_kind.is_(None),
            held.c.document_id.is_(None),
        )
    return query


def _category(held: Subquery) -> ColumnElement[str]:
    """What a person said, else what the classifier said; nothing where it has said nothing."""
    return case(
        (results.c.category.is_not(None), func.coalesce(held.c.category, results.c.category))
    )


def _row(row: Any) -> ResultRow:
    failure = None
    if row.error_kind is not None:
        failure = Failure(row.error_kind, row.error_message or "")
    corrected = not failure and row.category is not None and bool(row.corrected)
    return ResultRow(
        uri=row.uri,
        status=FileStatus(row.status),
        sha256=None if row.sha256 is None else bytes(row.sha256).hex(),
        size=row.size,
        media_type=row.media_type,
        category=None if failure else row.category,
        corrected=corrected,
        predicted_category=None if failure else row.predicted,
        score=None if failure else row.score,
        confidence=None if failure else row.confidence,
        scores=() if failure else freeze_scores(dict(row.scores or ())),
        needs_review=not failure and not corrected and bool(row.needs_review),
        reasoning=None if failure else row.reasoning,
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
