"""The second half of the ledger: what came of the documents, and the counts of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from doc_classify.errors import UnsupportedTypeError, is_of_extraction
from doc_classify.records import FileStatus, Outcome, Prices, RunStats, Usage
from doc_classify.storage.base import RunSpec
from doc_classify.storage.registering import COUNTER_OF, add_to_counters, lock_run
from doc_classify.storage.rows import (
    FAILED_EXTRACTION,
    batches,
    clean,
    extraction_row,
    finite,
    now,
    pages_to_text,
    upsert,
)
from doc_classify.storage.schema import COUNTERS, extractions, results, run_files, runs, texts


def record(
    connection: Connection,
    run_id: str,
    spec: RunSpec,
    outcomes: Sequence[Outcome],
    seconds: float,
    *,
    keep_text: bool = False,
) -> None:
    """See :meth:`doc_classify.storage.base.Store.record`.

    What the LLM of a cascade was asked is stored under its own key as well, also about documents
    that are no work of this run. ``keep_text``: keep it, whatever the run does otherwise.
    """
    lock_run(connection, run_id)
    by_file = {outcome.file_id: outcome for outcome in outcomes}
    pending = _pending(connection, run_id, list(by_file))
    new = [outcome for outcome in by_file.values() if outcome.file_id in pending]
    kept = list(by_file.values()) if spec.teacher_fingerprint else new
    at = now()
    upsert(
        connection,
        results,
        [_result_row(run_id, spec, outcome, at) for outcome in new]
        + [
            _result_row(run_id, spec, outcome, at) | {"fingerprint": spec.teacher_fingerprint}
            for outcome in kept
            if spec.teacher_fingerprint and outcome.usage
        ],
        key=("document_id", "fingerprint"),
        keep_success=True,
    )
    store_read(connection, spec, kept, keep_text=keep_text)
    _set_statuses(connection, run_id, new)
    statuses = Counter(_status(outcome) for outcome in new)
    extracted = [outcome.extraction for outcome in new if outcome.extraction]
    usage = sum((outcome.usage for outcome in new if outcome.usage), Usage())
    add_to_counters(
        connection,
        run_id,
        with_problems=sum(
            bool(outcome.extraction and outcome.extraction.problems)
            for outcome in new
            if outcome.classification
        ),
        needs_review=sum(
            bool(outcome.classification and outcome.classification.needs_review) for outcome in new
        ),
        pages=sum(len(extraction.pages) for extraction in extracted),
        ocr_pages=sum(extraction.ocr_pages for extraction in extracted),
        extract_seconds=sum(finite(outcome.timings.extract) or 0.0 for outcome in new),
        classify_seconds=sum(finite(outcome.timings.classify) or 0.0 for outcome in new),
        **usage_row(usage),
        **{COUNTER_OF[status]: number for status, number in statuses.items()},
    )
    connection.execute(
        update(runs).where(runs.c.id == run_id).values(seconds=finite(seconds) or 0.0)
    )


def store_read(
    connection: Connection, spec: RunSpec, outcomes: Sequence[Outcome], *, keep_text: bool
) -> None:
    """Keep what was read of documents, and their text where the run keeps it or it is needed."""
    upsert(
        connection,
        extractions,
        [row for outcome in outcomes if (row := _extraction_row(spec, outcome))],
        key=("document_id", "extraction_key"),
        keep_success=True,
    )
    if spec.store_text or keep_text:
        rows = [
            {
                "document_id": outcome.document_id,
                "extraction_key": spec.extraction_key,
                "pages": pages_to_text(outcome.extraction.pages),
            }
            for outcome in outcomes
            if outcome.extraction
        ]
        upsert(connection, texts, rows, key=("document_id", "extraction_key"))


def read_stats(connection: Connection, run_id: str) -> RunStats:
    """The counters of a run, without breakdowns."""
    row = connection.execute(select(runs).where(runs.c.id == run_id)).one()
    return stats_of(row)


def stats_of(row: Any) -> RunStats:
    """Stats from a row of ``runs``."""
    usage = Usage(row.llm_calls, row.prompt_tokens, row.cached_tokens, row.completion_tokens)
    prices = row.spec["settings"].get("prices")
    return RunStats(
        run_id=row.id,
        total_processing_time=_seconds(row),
        extract_seconds=row.extract_seconds,
        classify_seconds=row.classify_seconds,
        submitted=row.submitted,
        workers=int(row.spec["settings"].get("workers", 0)),
        cost=Prices(**prices).cost(usage) if prices and any(prices.values()) else None,
        **{name: getattr(row, name) for name in COUNTERS},
    )


def _seconds(row: Any) -> float:
    if not row.chunks:
        return float(row.seconds)
    # Each of many machines knows only its own time.
    began, ended = map(datetime.fromisoformat, (row.started, row.finished or row.heartbeat))
    return max(0.0, (ended - began).total_seconds())


def _pending(connection: Connection, run_id: str, file_ids: Sequence[int]) -> set[int]:
    found: set[int] = set()
    for part in batches(file_ids):
        query = select(run_files.c.file_id).where(
            run_files.c.run_id == run_id,
            run_files.c.file_id.in_(part),
            run_files.c.status == FileStatus.PENDING.value,
        )
        found.update(connection.execute(query).scalars())
    return found


def _set_statuses(connection: Connection, run_id: str, new: Sequence[Outcome]) -> None:
    for part in batches([outcome.file_id for outcome in new if not outcome.failure]):
        connection.execute(
            update(run_files)
            .where(run_files.c.run_id == run_id, run_files.c.file_id.in_(part))
            .values(status=FileStatus.CLASSIFIED.value)
        )
    # A failure stays with the run that met it, also when a later run mends the document.
    failed: list[dict[str, Any]] = [
        {
            "file": outcome.file_id,
            "status": _status(outcome).value,
            "error_kind": clean(outcome.failure.kind),
            "error_message": clean(outcome.failure.message),
        }
        for outcome in new
        if outcome.failure
    ]
    if failed:
        statement = update(run_files).where(
            run_files.c.run_id == run_id, run_files.c.file_id == bindparam("file")
        )
        connection.execute(statement, sorted(failed, key=lambda row: row["file"]))


def _status(outcome: Outcome) -> FileStatus:
    if outcome.failure is None:
        return FileStatus.CLASSIFIED
    if outcome.failure.kind == UnsupportedTypeError.kind:
        return FileStatus.UNSUPPORTED
    return FileStatus.FAILED


def _result_row(run_id: str, spec: RunSpec, outcome: Outcome, at: str) -> dict[str, Any]:
    classification, failure = outcome.classification, outcome.failure
    scores = classification.scores if classification else ()
    return {
        "document_id": outcome.document_id,
        "fingerprint": spec.fingerprint,
        "run_id": run_id,
        "classifier": outcome.decided_by or spec.teacher or spec.classifier,
        "extraction_key": spec.extraction_key,
        "category": classification and clean(classification.category),
        "score": finite(classification.score) if classification else None,
        "confidence": finite(classification.confidence) if classification else None,
        "scores": [[clean(name), score] for name, score in scores if finite(score) is not None],
        "needs_review": bool(classification and classification.needs_review),
        "reasoning": clean(classification.reasoning) if classification else None,
        "error_kind": failure and clean(failure.kind),
        "error_message": clean(failure.message) if failure else None,
        "crashes": outcome.crashes,
        "extract_seconds": finite(outcome.timings.extract),
        "classify_seconds": finite(outcome.timings.classify),
        **usage_row(outcome.usage),
        "processed_at": at,
    }


def usage_row(usage: Usage | None) -> dict[str, Any]:
    """The columns that ``results`` and ``runs`` have for it."""
    if usage is None:
        return dict.fromkeys(asdict(Usage()).keys() - {"calls"} | {"llm_calls"})
    values = asdict(usage)
    return {"llm_calls": values.pop("calls")} | values


def _extraction_row(spec: RunSpec, outcome: Outcome) -> dict[str, Any] | None:
    """What to keep of the extraction; None where nothing new is known of it."""
    key = {"document_id": outcome.document_id, "extraction_key": spec.extraction_key}
    if outcome.extraction:
        return key | extraction_row(outcome.extraction)
    if outcome.failure and is_of_extraction(outcome.failure.kind):
        # Another taxonomy would meet the same failure: it is told without reading again.
        return (
            key
            | FAILED_EXTRACTION
            | {
                "error_kind": outcome.failure.kind,
                "error_message": clean(outcome.failure.message),
            }
        )
    return None
