"""Rows of lots: how they are filled, drawn from, and turned into tasks."""

from __future__ import annotations

import hashlib
import heapq
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    exists,
    func,
    insert,
    select,
    update,
)

from doc_classify.errors import LotTakenError, SourceChangedError
from doc_classify.records import STUDENT, Failure, FileStatus, Source
from doc_classify.storage.answers import answers_of
from doc_classify.storage.base import Hashed, RunSpec, Task
from doc_classify.storage.registering import tasks_for
from doc_classify.storage.rows import batches, clean_json
from doc_classify.storage.schema import (
    documents,
    files,
    lot_documents,
    lots,
    results,
    run_files,
)

KNOWN = "known"
"""The LLM had been asked about the document before the lot was made."""
TRAIN, CALIBRATE, AUDIT = "train", "calibrate", "audit"
"""What the LLM is asked about it for; drawn uniformly from all that was left."""
POOL, CHOSEN = "pool", "chosen"
"""Drawn for a choice, and chosen by the student of before to learn from."""
DRAWN = (TRAIN, CALIBRATE, AUDIT, CHOSEN)
"""The LLM is asked about these."""

BATCH = 500
_MAKING = 0x6C6F7473
"""Key of the lock for making lots; any number that nobody else takes."""


def pending(run_id: str, lot_id: int, *columns: Any) -> Any:
    """What the run has to do of the lot."""
    return (
        select(*columns)
        .select_from(run_files)
        .join(
            lot_documents,
            and_(
                lot_documents.c.lot_id == lot_id,
                lot_documents.c.document_id == run_files.c.document_id,
            ),
        )
        .where(run_files.c.run_id == run_id, run_files.c.status == FileStatus.PENDING.value)
    )


def undecided(lot_id: int, fingerprint: str) -> Any:
    """The number of documents of the lot that have no result of the cascade yet."""
    return (
        select(func.count())
        .select_from(lot_documents)
        .where(
            lot_documents.c.lot_id == lot_id,
            ~exists().where(
                results.c.document_id == lot_documents.c.document_id,
                results.c.fingerprint == fingerprint,
            ),
        )
    )


def fill(connection: Connection, lot_id: int, run_id: str, beside: Sequence[int]) -> int:
    """Put the documents into the lot; returns how many there are."""
    after = population = 0
    while True:
        query = (
            select(run_files.c.file_id, run_files.c.document_id)
            .where(
                run_files.c.run_id == run_id,
                run_files.c.status == FileStatus.PENDING.value,
                run_files.c.file_id > after,
            )
            .order_by(run_files.c.file_id)
            .limit(BATCH)
        )
        if beside:
            query = query.where(
                ~exists().where(
                    lot_documents.c.lot_id.in_(beside),
                    lot_documents.c.document_id == run_files.c.document_id,
                )
            )
        found = connection.execute(query).all()
        if not found:
            return population
        connection.execute(
            insert(lot_documents),
            [
                {
                    "lot_id": lot_id,
                    "document_id": row.document_id,
                    "file_id": row.file_id,
                }
                for row in found
            ],
        )
        population += len(found)
        after = found[-1].file_id


def place(seed: bytes, stage: int, sha256: bytes) -> bytes:
    """The place of a document in the random order of a draw.

    Each draw has an order of its own: what one has left over because of what it contains must
    not come first in the next.
    """
    return hmac.digest(seed, stage.to_bytes(8, "big") + sha256, hashlib.sha256)


def draw(connection: Connection, lot_id: int, stage: int, number: int, *where: Any) -> list[int]:
    """The documents of a lot that come first in the order of a draw, among those not drawn yet.

    Memory grows with ``number`` alone.
    """
    seed = connection.execute(select(lots.c.seed).where(lots.c.id == lot_id)).scalar_one()
    query = (
        select(lot_documents.c.document_id, documents.c.sha256)
        .join(documents, documents.c.id == lot_documents.c.document_id)
        .where(lot_documents.c.lot_id == lot_id, lot_documents.c.role.is_(None), *where)
    )
    with connection.execute(query.execution_options(yield_per=BATCH)) as rows:
        first = heapq.nsmallest(
            number, ((place(seed, stage, bytes(row.sha256)), row.document_id) for row in rows)
        )
    return [document_id for _, document_id in first]


def mark_known(connection: Connection, lot_id: int, spec: RunSpec) -> int:
    """Mark the documents that the LLM has answered before; returns how many there are."""
    said = select(results.c.category).where(
        results.c.document_id == lot_documents.c.document_id,
        results.c.fingerprint == spec.teacher_fingerprint,
        results.c.error_kind.is_(None),
    )
    marked = connection.execute(
        update(lot_documents)
        .where(lot_documents.c.lot_id == lot_id, said.exists())
        .values(role=KNOWN, stage=0, label=said.scalar_subquery())
    )
    return int(marked.rowcount)


def give_role(
    connection: Connection, lot_id: int, ids: Sequence[int], role: str, stage: int
) -> None:
    """Note why the LLM is asked about documents."""
    for part in batches(ids):
        connection.execute(
            update(lot_documents)
            .where(lot_documents.c.lot_id == lot_id, lot_documents.c.document_id.in_(part))
            .values(role=role, stage=stage)
        )


def decided_by_student(spec: RunSpec) -> Any:
    """Condition on documents of lots: their result is the student's."""
    return exists().where(
        results.c.document_id == lot_documents.c.document_id,
        results.c.fingerprint == spec.fingerprint,
        results.c.classifier == STUDENT,
    )


def drawn_files(run_id: str) -> Any:
    """Documents of lots with the run's file of each, else that through which it came in."""
    file_id = func.coalesce(run_files.c.file_id, lot_documents.c.file_id)
    return (
        select(
            file_id.label("file_id"),
            lot_documents.c.document_id,
            documents.c.sha256,
            files.c.uri,
            files.c.size,
            files.c.mtime_ns,
            files.c.document_id.label("now"),
        )
        .select_from(lot_documents)
        .outerjoin(
            run_files,
            and_(
                run_files.c.run_id == run_id,
                run_files.c.document_id == lot_documents.c.document_id,
                run_files.c.status == FileStatus.PENDING.value,
            ),
        )
        .join(files, files.c.id == file_id)
        .join(documents, documents.c.id == lot_documents.c.document_id)
    )


def tasks(connection: Connection, run_id: str, spec: RunSpec, rows: Sequence[Any]) -> list[Task]:
    """Tasks for documents and files, with what the LLM has said of them before."""
    work = [
        Hashed(Source(row.uri, row.size or 0, row.mtime_ns or 0), bytes(row.sha256).hex())
        for row in rows
    ]
    made = tasks_for(
        connection,
        spec,
        work,
        {hashed.sha256: row.document_id for hashed, row in zip(work, rows, strict=True)},
        {row.uri: row.file_id for row in rows},
    )
    ids = [task.document_id for task in made]
    answers = answers_of(connection, run_id, spec, ids)
    found = []
    for task, row in zip(made, rows, strict=True):
        changes: dict[str, Any] = {"answer": answers.get(task.document_id)}
        if row.now != row.document_id and task.extraction is None:
            # It is another document now, of which the run knows by itself.
            changes["file_id"] = -task.document_id
            changes["extraction"] = Failure(SourceChangedError.kind, "the file has changed since")
        found.append(replace(task, **changes))
    return found


def set_columns(
    connection: Connection,
    lot_id: int,
    rows: Sequence[Mapping[str, Any]],
    *,
    drawn_only: bool = False,
) -> None:
    """Set columns of documents of a lot; the keys besides ``document`` are columns."""
    if not rows:
        return
    names = [name for name in rows[0] if name != "document"]
    statement = update(lot_documents).where(
        lot_documents.c.lot_id == lot_id, lot_documents.c.document_id == bindparam("document")
    )
    if drawn_only:
        statement = statement.where(lot_documents.c.role != KNOWN, lot_documents.c.label.is_(None))
    statement = statement.values({name: bindparam(f"new_{name}") for name in names})
    ordered = sorted(rows, key=lambda row: row["document"])
    connection.execute(
        statement,
        [
            {"document": row["document"]} | {f"new_{name}": row[name] for name in names}
            for row in ordered
        ],
    )


def add_calls(connection: Connection, lot_id: int, calls: int) -> None:
    """Count requests to the LLM."""
    if calls:
        connection.execute(
            update(lots).where(lots.c.id == lot_id).values(calls=lots.c.calls + calls)
        )


def write_journal(
    connection: Connection,
    lot_id: int,
    revision: int,
    journal: Mapping[str, Any],
    state: str | None = None,
) -> None:
    """Store what was decided, and the state of the lot where that changes.

    Raises:
        LotTakenError: it is not as it was when the writer saw it last.
    """
    written = connection.execute(
        update(lots)
        .where(lots.c.id == lot_id, lots.c.revision == revision)
        .values(
            journal=clean_json(dict(journal)),
            revision=revision + 1,
            **({"state": state} if state else {}),
        )
    )
    if not written.rowcount:
        raise taken(lot_id)


def taken(lot_id: int) -> LotTakenError:
    """The error where somebody else has gone on with a lot, or has taken documents of it."""
    return LotTakenError(
        f"another process works on lot {lot_id} of the cascade; what was done is stored, and "
        "the same command goes on when that has ended"
    )


def one_at_a_time(connection: Connection) -> None:
    """Wait until nobody else makes a lot (SQLite has one writer anyhow)."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_MAKING)))


def supersede(
    connection: Connection, fingerprint: str, lot_id: int, beside: Sequence[int], old: str, new: str
) -> None:
    """Give the state ``new`` to lots of state ``old`` that share documents with this one."""
    others = select(lots.c.id).where(
        lots.c.fingerprint == fingerprint,
        lots.c.state == old,
        lots.c.id.not_in([lot_id, *beside]),
    )
    mine, theirs = lot_documents.alias(), lot_documents.alias()
    for other in connection.execute(others).scalars().all():
        shared = (
            select(mine.c.document_id)
            .join(
                theirs,
                and_(theirs.c.lot_id == other, theirs.c.document_id == mine.c.document_id),
            )
            .where(mine.c.lot_id == lot_id)
            .limit(1)
        )
        if connection.execute(shared).first():
            # As another revision, so that nobody closes it who has not seen this.
            connection.execute(
                update(lots)
                .where(lots.c.id == other, lots.c.state == old)
                .values(state=new, revision=lots.c.revision + 1)
            )
