"""The first half of the ledger: what a file that a run has seen means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from doc_classify.errors import UnsupportedTypeError, is_permanent
from doc_classify.records import Extraction, Failure, FileStatus, Rejected
from doc_classify.storage.base import Hashed, Registration, RunSpec, Task
from doc_classify.storage.rows import (
    batches,
    clean,
    int64,
    now,
    row_to_extraction,
    upsert,
    uri_digest,
)
from doc_classify.storage.schema import (
    attempts,
    documents,
    extractions,
    files,
    results,
    run_files,
    runs,
    texts,
)

COUNTER_OF = {
    FileStatus.CLASSIFIED: "classified",
    FileStatus.FAILED: "failed",
    FileStatus.DUPLICATE: "duplicates",
    FileStatus.ALREADY_DONE: "already_done",
    FileStatus.UNSUPPORTED: "unsupported",
}
"""The counter of a run that a file's status moves; ``pending`` is the rest of ``seen``."""

_FAILED_REJECTIONS = frozenset({"unreadable", "vanished", "changed", "given_up"})
"""Kinds of rejection that are a failure to read; the others are things we never take."""


def register(
    connection: Connection,
    run_id: str,
    spec: RunSpec,
    seen: Sequence[Hashed],
    *,
    again: bool,
    only_listed: bool = False,
) -> Registration:
    """See :meth:`doc_classify.storage.base.Store.register`."""
    lock_run(connection, run_id)
    by_uri = {hashed.source.uri: hashed for hashed in seen}
    document_of = _document_ids(connection, list(by_uri.values()))
    file_of = _file_ids(connection, by_uri, document_of)
    known = _registered(connection, run_id, list(file_of.values()))
    left: list[Hashed] = []
    if again:
        pending = [hashed for uri, hashed in by_uri.items() if _is_pending(known.get(file_of[uri]))]
        left = [
            hashed
            for hashed in pending
            if known[file_of[hashed.source.uri]][1] == document_of[hashed.sha256]
        ]
        # The others have changed since: they are what they are now.
        changed = [file_of[hashed.source.uri] for hashed in pending if hashed not in left]
        _forget(connection, run_id, changed)
        known = {file: found for file, found in known.items() if file not in set(changed)}
    fresh = [hashed for uri, hashed in by_uri.items() if file_of[uri] not in known]
    ids = sorted({document_of[hashed.sha256] for hashed in fresh})
    first_file = _first_files(connection, run_id, ids)
    found = {} if spec.force else _results(connection, spec.fingerprint, ids)
    failures = _failures(connection, spec.fingerprint, [id_ for id_ in ids if found.get(id_)])

    rows: list[dict[str, Any]] = []
    work: list[Hashed] = []
    statuses: Counter[FileStatus] = Counter()
    already_failed = 0
    for hashed in fresh:
        document, file = document_of[hashed.sha256], file_of[hashed.source.uri]
        first = first_file.setdefault(document, file)
        failure = None
        if first != file:
            status = FileStatus.DUPLICATE
        else:
            status = status_of(found.get(document, _UNKNOWN))
            if status is not FileStatus.PENDING:
                # Kept with the run, which goes on saying so when a later one mends it.
                failure = failures.get(document)
            already_failed += status is FileStatus.ALREADY_DONE and found[document] is not None
        if status is FileStatus.PENDING:
            work.append(hashed)
        statuses[status] += 1
        rows.append(
            {
                "run_id": run_id,
                "file_id": file,
                "status": status.value,
                "document_id": document,
                "first_file_id": first if first != file else None,
                "error_kind": failure.kind if failure else None,
                "error_message": failure.message if failure else None,
            }
        )
    upsert(connection, run_files, rows, key=("run_id", "file_id"), replace=False)
    add_to_counters(
        connection,
        run_id,
        seen=len(rows),
        already_failed=already_failed,
        bytes=sum(hashed.source.size for hashed in work),
        **{COUNTER_OF[s]: n for s, n in statuses.items() if s in COUNTER_OF},
    )
    due = [] if only_listed else work + left
    tasks = tasks_for(connection, spec, due, document_of, file_of)
    return Registration(tasks, dict(statuses), already_failed)


def reject(
    connection: Connection, run_id: str, rejected: Sequence[Rejected], skipped: int, *, again: bool
) -> int:
    """See :meth:`doc_classify.storage.base.Store.reject`."""
    lock_run(connection, run_id)
    by_uri = {item.uri: item for item in rejected}
    upsert(
        connection,
        files,
        [{"uri_digest": uri_digest(uri), "uri": clean(uri)} for uri in by_uri],
        key=("uri_digest",),
        replace=False,
    )
    file_of = {uri: row.id for uri, row in _file_rows(connection, list(by_uri)).items()}
    known = _registered(connection, run_id, list(file_of.values()))
    statuses: Counter[FileStatus] = Counter()
    rows = []
    seen = 0
    for uri, item in by_uri.items():
        found = known.get(file_of[uri])
        if found and not (again and _is_pending(found)):
            continue
        seen += found is None
        failed = item.kind in _FAILED_REJECTIONS
        status = FileStatus.FAILED if failed else FileStatus.UNSUPPORTED
        statuses[status] += 1
        rows.append(
            {
                "run_id": run_id,
                "file_id": file_of[uri],
                "status": status.value,
                "error_kind": clean(item.kind),
                "error_message": clean(item.message),
            }
        )
    upsert(connection, run_files, rows, key=("run_id", "file_id"), replace=again)
    add_to_counters(
        connection,
        run_id,
        seen=seen,
        skipped=skipped,
        **{COUNTER_OF[status]: number for status, number in statuses.items()},
    )
    return seen


def lock_run(connection: Connection, run_id: str) -> None:
    """Wait until no other transaction writes to the run (SQLite has one writer anyhow).

    What a batch means depends on what is stored; two at once would count or do a thing twice.
    """
    connection.execute(select(runs.c.id).where(runs.c.id == run_id).with_for_update())


def add_to_counters(connection: Connection, run_id: str, **changes: float) -> None:
    """Add to columns of ``runs``, and say that the run is alive."""
    connection.execute(
        update(runs)
        .where(runs.c.id == run_id)
        .values(heartbeat=now(), **{name: runs.c[name] + by for name, by in changes.items() if by})
    )


class _Unknown:
    """No result is stored."""


_UNKNOWN = _Unknown()


def status_of(found: str | _Unknown | None) -> FileStatus:
    """What a stored result (None: classified, else the kind of failure) makes of a file."""
    if isinstance(found, _Unknown):
        return FileStatus.PENDING
    if found == UnsupportedTypeError.kind:
        return FileStatus.UNSUPPORTED
    if found is None or is_permanent(found):
        return FileStatus.ALREADY_DONE
    return FileStatus.PENDING


def _document_ids(connection: Connection, seen: Sequence[Hashed]) -> dict[str, int]:
    size_of = {hashed.sha256: hashed.source.size for hashed in seen}
    found = _ids_of_hashes(connection, list(size_of))
    new = [sha256 for sha256 in size_of if sha256 not in found]
    upsert(
        connection,
        documents,
        [{"sha256": bytes.fromhex(sha256), "size": int64(size_of[sha256])} for sha256 in new],
        key=("sha256",),
        replace=False,
    )
    return found | _ids_of_hashes(connection, new)


def _ids_of_hashes(connection: Connection, hashes: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in batches([bytes.fromhex(sha256) for sha256 in hashes]):
        query = select(documents.c.sha256, documents.c.id).where(documents.c.sha256.in_(part))
        found.update((bytes(sha256).hex(), id_) for sha256, id_ in connection.execute(query))
    return found


def _file_ids(
    connection: Connection, by_uri: dict[str, Hashed], document_of: dict[str, int]
) -> dict[str, int]:
    stored = _file_rows(connection, list(by_uri))
    changed: dict[str, dict[str, Any]] = {}
    for uri, hashed in by_uri.items():
        values = {
            "size": int64(hashed.source.size),
            "mtime_ns": int64(hashed.source.mtime_ns),
            "document_id": document_of[hashed.sha256],
        }
        row = stored.get(uri)
        # Most files of a repeated run are as they were: nothing to write.
        if row is None or values != {name: getattr(row, name) for name in values}:
            changed[uri] = {"uri_digest": uri_digest(uri), "uri": clean(uri)} | values
    upsert(connection, files, list(changed.values()), key=("uri_digest",))
    new = [uri for uri in changed if uri not in stored]
    return {uri: row.id for uri, row in (stored | _file_rows(connection, new)).items()}


def _file_rows(connection: Connection, uris: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    uri_of = {uri_digest(uri): uri for uri in uris}
    for part in batches(list(uri_of)):
        query = select(
            files.c.uri_digest, files.c.id, files.c.size, files.c.mtime_ns, files.c.document_id
        ).where(files.c.uri_digest.in_(part))
        found.update((uri_of[bytes(row.uri_digest)], row) for row in connection.execute(query))
    return found


def _is_pending(found: tuple[FileStatus, int | None] | None) -> bool:
    return found is not None and found[0] is FileStatus.PENDING


def _forget(connection: Connection, run_id: str, file_ids: Sequence[int]) -> None:
    for part in batches(file_ids):
        connection.execute(
            delete(run_files).where(run_files.c.run_id == run_id, run_files.c.file_id.in_(part))
        )
    add_to_counters(connection, run_id, seen=-len(file_ids))


def _registered(
    connection: Connection, run_id: str, file_ids: Sequence[int]
) -> dict[int, tuple[FileStatus, int | None]]:
    """Status and document of the files that the run has already."""
    found: dict[int, tuple[FileStatus, int | None]] = {}
    for part in batches(file_ids):
        query = select(run_files.c.file_id, run_files.c.status, run_files.c.document_id).where(
            run_files.c.run_id == run_id, run_files.c.file_id.in_(part)
        )
        for file_id, status, document in connection.execute(query):
            found[file_id] = FileStatus(status), document
    return found


def _first_files(connection: Connection, run_id: str, ids: Sequence[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for part in batches(ids):
        query = select(run_files.c.document_id, run_files.c.file_id).where(
            run_files.c.run_id == run_id,
            run_files.c.document_id.in_(part),
            run_files.c.status != FileStatus.DUPLICATE.value,
        )
        found.update((document, file) for document, file in connection.execute(query))
    return found


def _results(connection: Connection, fingerprint: str, ids: Sequence[int]) -> dict[int, str | None]:
    found: dict[int, str | None] = {}
    for part in batches(ids):
        query = select(results.c.document_id, results.c.error_kind).where(
            results.c.fingerprint == fingerprint, results.c.document_id.in_(part)
        )
        found.update((document, kind) for document, kind in connection.execute(query))
    return found


def _failures(connection: Connection, fingerprint: str, ids: Sequence[int]) -> dict[int, Failure]:
    found: dict[int, Failure] = {}
    for part in batches(ids):
        query = select(results.c.document_id, results.c.error_kind, results.c.error_message).where(
            results.c.fingerprint == fingerprint, results.c.document_id.in_(part)
        )
        for document, kind, message in connection.execute(query):
            found[document] = Failure(kind, message or "")
    return found


def tasks_for(
    connection: Connection,
    spec: RunSpec,
    work: Sequence[Hashed],
    document_of: Mapping[str, int],
    file_of: Mapping[str, int],
) -> list[Task]:
    """What there is to do for documents, with what is stored of them already.

    Args:
        connection: of a transaction.
        spec: of the run.
        work: a file of each document.
        document_of: id of a document by its hash.
        file_of: id of a file by its URI.
    """
    ids = [document_of[hashed.sha256] for hashed in work]
    stored: dict[int, Extraction | Failure] = {}
    crashes: dict[int, int] = {}
    for part in batches(ids):
        if not spec.force:
            stored |= _stored_extractions(connection, spec.extraction_key, part)
        query = (
            select(attempts.c.document_id, func.count())
            .where(attempts.c.document_id.in_(part), attempts.c.fingerprint == spec.fingerprint)
            .group_by(attempts.c.document_id)
        )
        crashes.update((document, number) for document, number in connection.execute(query))
    return [
        Task(
            document_id=id_,
            file_id=file_of[hashed.source.uri],
            source=hashed.source,
            extraction=stored.get(id_),
            crashes=crashes.get(id_, 0),
            sha256=hashed.sha256,
        )
        for id_, hashed in zip(ids, work, strict=True)
    ]


def _stored_extractions(
    connection: Connection, extraction_key: str, ids: Sequence[int]
) -> dict[int, Extraction | Failure]:
    query = (
        select(extractions, texts.c.pages)
        .outerjoin(
            texts,
            (texts.c.document_id == extractions.c.document_id)
            & (texts.c.extraction_key == extractions.c.extraction_key),
        )
        .where(extractions.c.extraction_key == extraction_key, extractions.c.document_id.in_(ids))
    )
    found: dict[int, Extraction | Failure] = {}
    for row in connection.execute(query):
        if row.error_kind:
            found[row.document_id] = Failure(row.error_kind, row.error_message or "")
        elif row.pages is not None:
            found[row.document_id] = row_to_extraction(row, row.pages)
    return found
