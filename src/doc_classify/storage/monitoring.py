"""What can be told of a distributed run and its database while others work on it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select, text

from doc_classify.storage.chunks import OPEN, ChunkCounts, ChunkLedger, clock
from doc_classify.storage.engine import reading
from doc_classify.storage.schema import attempts, chunks, runs
from doc_classify.storage.store import SqlStore

_SAMPLES = 20

_OURS = "datname = current_database() AND application_name = 'doc-classify'"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Chunks of a run that nobody holds.

    Attributes:
        counts: chunks in every state.
        oldest: seconds since the broker was told of the one that waits longest; None where none
            waits, or where the broker was told of none.
        attempts: the most claims that one unfinished chunk has seen.
    """

    counts: ChunkCounts
    oldest: float | None
    attempts: int


@dataclass(frozen=True, slots=True)
class Crash:
    """A worker process that died on a document."""

    worker: str
    reason: str
    at: str


@dataclass(frozen=True, slots=True)
class Connections:
    """Connections to a PostgreSQL server.

    Attributes:
        ours: of this program, whichever machine they come from; this one included.
        used: of all.
        allowed: that the server lets ordinary users have.
    """

    ours: int
    used: int
    allowed: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is left of all runs that are meant to go on; what workers are scaled by.

    Attributes:
        runs: those runs.
        waiting, held: their chunks that nobody works on, and that somebody does.
        documents: files in those chunks; some of a held chunk may be done already.
    """

    runs: int = 0
    waiting: int = 0
    held: int = 0
    documents: int = 0

    @property
    def unfinished(self) -> int:
        """Chunks of both kinds: the queue alone is empty while the last ones are worked on."""
        return self.waiting + self.held


def backlog(store: SqlStore) -> Backlog:
    """What all workers together have left to do.

    Raises:
        StorageError: the database does not answer.
    """
    left = (
        select(
            func.count(func.distinct(chunks.c.run_id)).label("runs"),
            func.count().filter(chunks.c.state == "pending").label("waiting"),
            func.count().filter(chunks.c.state == "claimed").label("held"),
            func.coalesce(func.sum(chunks.c.files), 0).label("documents"),
        )
        .select_from(chunks.join(runs, runs.c.id == chunks.c.run_id))
        .where(runs.c.state.in_(OPEN), chunks.c.state != "done")
    )
    with reading(store.engine) as connection:
        row = connection.execute(left).one()
    return Backlog(row.runs, row.waiting, row.held, int(row.documents))


def waiting(store: SqlStore, run_id: str) -> Waiting:
    """How a run's chunks stand.

    Raises:
        StorageError: the database does not answer.
    """
    counts = ChunkLedger(store).counts(run_id)
    with reading(store.engine) as connection:
        at = clock(connection)
        row = connection.execute(
            select(func.min(chunks.c.sent_at)).where(
                chunks.c.run_id == run_id, chunks.c.state == "pending"
            )
        ).scalar_one()
        most = connection.execute(
            select(func.max(chunks.c.attempts)).where(
                chunks.c.run_id == run_id, chunks.c.state != "done"
            )
        ).scalar_one()
    return Waiting(counts, None if row is None else max(0.0, at - row), int(most or 0))


def crashes(store: SqlStore, run_id: str, limit: int) -> list[Crash]:
    """The last worker processes that died on a document of the run, newest first."""
    query = (
        select(attempts.c.worker, attempts.c.reason, attempts.c.at)
        .where(attempts.c.run_id == run_id)
        .order_by(attempts.c.id.desc())
        .limit(limit)
    )
    with reading(store.engine) as connection:
        return [Crash(row.worker, row.reason, row.at) for row in connection.execute(query)]


def connections(store: SqlStore) -> Connections | None:
    """Connections to the server; None where the database is a file."""
    return connections_to(store.engine)


def connections_to(engine: Engine) -> Connections | None:
    """The same of a database that may have no tables yet.

    Raises:
        StorageError: the database does not answer.
    """
    if engine.dialect.name != "postgresql":
        return None
    with reading(engine) as connection:
        row = connection.execute(
            text(
                f"SELECT count(*) AS used, count(*) FILTER (WHERE {_OURS}) AS ours,"  # noqa: S608
                " current_setting('max_connections')::int"
                " - current_setting('superuser_reserved_connections')::int AS allowed"
                " FROM pg_stat_activity WHERE backend_type = 'client backend'"
            )
        ).one()
    return Connections(ours=row.ours, used=row.used, allowed=row.allowed)


def load(store: SqlStore, seconds: float) -> float | None:
    """How many of our sessions the server works for, on average while ``seconds`` pass.

    Sessions that wait for a lock or a disk count as well: their processes wait for the database.
    None where the database is a file.
    """
    if store.engine.dialect.name != "postgresql":
        return None
    query = text(
        f"SELECT count(*) FROM pg_stat_activity WHERE {_OURS}"  # noqa: S608 (a constant)
        " AND state IN ('active', 'fastpath function call') AND pid <> pg_backend_pid()"
    )
    with reading(store.engine) as connection:
        found = [_sampled(connection, query, seconds / _SAMPLES) for _ in range(_SAMPLES)]
    return sum(found) / len(found)


def _sampled(connection: Connection, query: object, pause: float) -> int:
    # A transaction sees the statistics as they were when it first looked.
    connection.rollback()
    time.sleep(pause)
    return int(connection.execute(query).scalar_one())  # type: ignore[call-overload]
