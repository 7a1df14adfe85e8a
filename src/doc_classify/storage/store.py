"""The ledger on SQLite or PostgreSQL."""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from doc_classify.errors import ConfigurationError
from doc_classify.records import FileStatus, Outcome, Rejected, RunStats, Source, Usage
from doc_classify.storage.base import (
    Hashed,
    Registration,
    ResultFilter,
    ResultRow,
    RunInfo,
    RunSpec,
)
from doc_classify.storage.engine import (
    connecting,
    make_engine,
    prepare_folder,
    reading,
    storage_error,
)
from doc_classify.storage.listing import add_breakdowns, list_results, list_sources
from doc_classify.storage.lot_listing import list_lots
from doc_classify.storage.recording import read_stats, record, stats_of, usage_row
from doc_classify.storage.registering import register, reject, status_of
from doc_classify.storage.rows import (
    batches,
    clean,
    clean_json,
    finite,
    int64,
    now,
    upsert,
    uri_digest,
)
from doc_classify.storage.schema import COUNTERS, attempts, documents, files, results, runs
from doc_classify.storage.upgrade import upgrade

_T = TypeVar("_T")

_TRIES = 5
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_LOCK_NOT_AVAILABLE = "55P03"
"""PostgreSQL's code for having waited too long for a lock."""


class SqlStore:
    """A :class:`~doc_classify.storage.base.Store` in a SQL database.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql://...``; created or migrated when opened.
        durable: False only for stores that nobody misses after a power cut.
        patience: seconds to wait for a server that is away, before every write and read of a
            worker; 0 gives up after a few tries.
        idle_limit: seconds after which a transaction of ours is broken off in which the server
            hears nothing: else a machine that froze or was lost would hold its locks for hours.

    Raises:
        ConfigurationError: the address is malformed, or the database too new for this program.
        StorageError: the database cannot be opened.
    """

    def __init__(
        self, url: str, *, durable: bool = True, patience: float = 0.0, idle_limit: float = 60.0
    ) -> None:
        self._patience = patience
        self._idle_limit = idle_limit
        self._engine: Engine = make_engine(url, durable=durable)
        prepare_folder(self._engine.url)
        upgrade(self._engine)
        self._specs: dict[str, RunSpec] = {}

    @property
    def engine(self) -> Engine:
        """The engine, for the other parts of the ledger."""
        return self._engine

    def start_run(self, spec: RunSpec, *, state: str = "running") -> str:
        """See :meth:`~doc_classify.storage.base.Store.start_run`."""
        run_id = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(3)
        at = now()
        row = {
            "id": run_id,
            "state": state,
            "spec": clean_json(asdict(spec)),
            "fingerprint": spec.fingerprint,
            "started": at,
            "heartbeat": at,
            **dict.fromkeys(("seconds", "extract_seconds", "classify_seconds"), 0.0),
            **dict.fromkeys((*COUNTERS, "submitted", "chunks", "chunks_done"), 0),
        }
        self.write(lambda connection: upsert(connection, runs, [row], key=("id",), replace=False))
        if spec.fingerprint:  # else a worker has yet to settle it
            self._specs[run_id] = spec
        return run_id

    def known_hashes(self, sources: Sequence[Source]) -> list[str | None]:
        """See :meth:`~doc_classify.storage.base.Store.known_hashes`."""
        found: dict[tuple[bytes, int, int], str] = {}
        digests = [uri_digest(source.uri) for source in sources]

        def work(connection: Connection) -> None:
            for part in batches(digests):
                query = (
                    select(files.c.uri_digest, files.c.size, files.c.mtime_ns, documents.c.sha256)
                    .join(documents, documents.c.id == files.c.document_id)
                    .where(files.c.uri_digest.in_(part))
                )
                for digest, size, mtime_ns, sha256 in connection.execute(query):
                    found[bytes(digest), size, mtime_ns] = bytes(sha256).hex()

        self.read(work)
        return [
            found.get((digest, int64(source.size), int64(source.mtime_ns)))
            for digest, source in zip(digests, sources, strict=True)
        ]

    def done_hashes(self, fingerprint: str, hashes: Sequence[str]) -> set[str]:
        """See :meth:`~doc_classify.storage.base.Store.done_hashes`."""
        found: set[str] = set()
        with reading(self._engine) as connection:
            for part in batches([bytes.fromhex(sha256) for sha256 in hashes]):
                query = (
                    select(documents.c.sha256, results.c.error_kind)
                    .join(results, results.c.document_id == documents.c.id)
                    .where(documents.c.sha256.in_(part), results.c.fingerprint == fingerprint)
                )
                found.update(
                    bytes(sha256).hex()
                    for sha256, kind in connection.execute(query)
                    if status_of(kind) is FileStatus.ALREADY_DONE
                )
        return found

    def register(
        self,
        run_id: str,
        seen: Sequence[Hashed],
        *,
        again: bool = False,
        only_listed: bool = False,
    ) -> Registration:
        """See :meth:`~doc_classify.storage.base.Store.register`."""
        spec = self._spec(run_id)
        return self.write(
            lambda connection: register(
                connection, run_id, spec, seen, again=again, only_listed=only_listed
            )
        )

    def reject(
        self, run_id: str, rejected: Sequence[Rejected], skipped: int = 0, *, again: bool = False
    ) -> int:
        """See :meth:`~doc_classify.storage.base.Store.reject`."""
        return self.write(
            lambda connection: reject(connection, run_id, rejected, skipped, again=again)
        )

    def record(self, run_id: str, outcomes: Sequence[Outcome], *, seconds: float = 0.0) -> RunStats:
        """See :meth:`~doc_classify.storage.base.Store.record`."""
        spec = self._spec(run_id)

        def work(connection: Connection) -> RunStats:
            record(connection, run_id, spec, outcomes, seconds)
            return read_stats(connection, run_id)

        return self.write(work)

    def crashed(self, run_id: str, document_id: int, worker: str, reason: str) -> None:
        """See :meth:`~doc_classify.storage.base.Store.crashed`."""
        row = {
            "document_id": document_id,
            "fingerprint": self._spec(run_id).fingerprint,
            "run_id": run_id,
            "worker": clean(worker),
            "reason": clean(reason),
            "at": now(),
        }
        self.write(lambda connection: connection.execute(insert(attempts), [row]))

    def finish_run(
        self,
        run_id: str,
        state: str,
        seconds: float,
        message: str | None = None,
        usage: Usage | None = None,
    ) -> RunStats:
        """See :meth:`~doc_classify.storage.base.Store.finish_run`."""
        spec = self._spec(run_id)

        def work(connection: Connection) -> RunStats:
            connection.execute(
                update(runs)
                .where(runs.c.id == run_id)
                .values(
                    state=state,
                    message=clean(message),
                    seconds=finite(seconds) or 0.0,
                    heartbeat=now(),
                    finished=now(),
                    **(usage_row(usage) if usage else {}),
                )
            )
            stats = read_stats(connection, run_id)
            add_breakdowns(connection, run_id, spec, stats)
            return stats

        return self.write(work)

    def run(self, run_id: str | None = None) -> RunInfo | None:
        """See :meth:`~doc_classify.storage.base.Store.run`.

        Raises:
            ConfigurationError: several runs begin with ``run_id``.
        """
        return self._found(run_id, breakdowns=True)

    def _found(self, run_id: str | None, *, breakdowns: bool) -> RunInfo | None:
        query = select(runs).order_by(runs.c.started.desc(), runs.c.id.desc())
        if run_id is not None:
            query = query.where(runs.c.id.startswith(run_id, autoescape=True))
        with reading(self._engine) as connection:
            found = connection.execute(query.limit(2)).all()
            exact = [row for row in found if row.id == run_id]
            if run_id is not None and len(found) > 1 and not exact:
                raise ConfigurationError(f"several runs begin with {run_id!r}: give more of the id")
            if not found:
                return None
            info = _run_info((exact or found)[0])
            if breakdowns:
                add_breakdowns(connection, info.run_id, info.spec, info.stats)
        return info

    def progress(self, run_id: str) -> RunInfo | None:
        """Like :meth:`run` without the breakdowns: one row, whatever the size of the run.

        Raises:
            ConfigurationError: several runs begin with ``run_id``.
        """
        return self._found(run_id, breakdowns=False)

    def runs(self, limit: int | None = None) -> Iterator[RunInfo]:
        """See :meth:`~doc_classify.storage.base.Store.runs`."""
        query = select(runs).order_by(runs.c.started.desc(), runs.c.id.desc()).limit(limit)
        with reading(self._engine) as connection:
            for row in connection.execution_options(yield_per=100).execute(query):
                yield _run_info(row)

    def results(self, run_id: str, only: ResultFilter | None = None) -> Iterator[ResultRow]:
        """See :meth:`~doc_classify.storage.base.Store.results`."""
        spec = self._spec(run_id)
        with reading(self._engine) as connection:
            yield from list_results(connection, run_id, spec, only or ResultFilter())

    def task_files(self, run_id: str, only: ResultFilter) -> Iterator[Source]:
        """See :meth:`~doc_classify.storage.base.Store.task_files`."""
        spec = self._spec(run_id)
        with reading(self._engine) as connection:
            yield from list_sources(connection, run_id, spec, only)

    def lots(self, run_id: str) -> list[dict[str, Any]]:
        """See :meth:`~doc_classify.storage.base.Store.lots`."""
        spec = self._spec(run_id)
        if not spec.teacher:
            return []
        with reading(self._engine) as connection:
            return list_lots(connection, run_id, spec.fingerprint, forced=spec.force)

    def close(self) -> None:
        """See :meth:`~doc_classify.storage.base.Store.close`."""
        self._engine.dispose()

    def _spec(self, run_id: str) -> RunSpec:
        if run_id not in self._specs:
            query = select(runs.c.spec).where(runs.c.id == run_id)
            stored = self.read(lambda connection: connection.execute(query).scalar_one_or_none())
            if stored is None:
                raise ConfigurationError(f"there is no run {run_id!r}")
            spec = spec_of(stored)
            if not spec.fingerprint:
                return spec
            self._specs[run_id] = spec
        return self._specs[run_id]

    def forget_spec(self, run_id: str) -> None:
        """Look at the stored run again when it is needed next: somebody has settled it."""
        self._specs.pop(run_id, None)

    def write(self, work: Callable[[Connection], _T]) -> _T:
        """Run ``work`` in a transaction; a lost connection or a deadlock is tried again.

        Safe to repeat, since every write is an upsert or is bound to a status it changes.
        """
        return self._tried(self._writing, work)

    def read(self, work: Callable[[Connection], _T]) -> _T:
        """Run ``work`` in a transaction that only reads, tried again likewise."""
        return self._tried(partial(connecting, self._engine), work)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                # For this transaction only: a pooler may give the session to others after it.
                limit = str(max(1, round(self._idle_limit * 1000)))
                connection.execute(
                    select(
                        func.set_config("idle_in_transaction_session_timeout", limit, True),
                        func.set_config("lock_timeout", limit, True),
                    )
                )
            yield connection

    def _break_off_silent(self) -> None:
        """End transactions of this program whose client has said nothing for too long.

        The server does so by itself between two statements, but not in the middle of several that
        were sent together: it waits for the rest, and holds its locks, as long as the connection
        stands.
        """
        query = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND usename = current_user "
            "AND application_name = 'doc-classify' AND pid <> pg_backend_pid() "
            "AND xact_start IS NOT NULL AND wait_event = 'ClientRead' "
            "AND state_change < clock_timestamp() - make_interval(secs => :limit)"
        )
        with contextlib.suppress(SQLAlchemyError), self._engine.begin() as connection:
            connection.execute(query, {"limit": self._idle_limit})

    def _tried(
        self,
        transaction: Callable[[], AbstractContextManager[Connection]],
        work: Callable[[Connection], _T],
    ) -> _T:
        began = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            try:
                with transaction() as connection:
                    return work(connection)
            except SQLAlchemyError as error:
                waited = time.monotonic() - began
                patient = waited < self._patience and _is_away(error)
                if _state(error) == _LOCK_NOT_AVAILABLE:
                    self._break_off_silent()
                if not patient and (attempt >= _TRIES or not _passing(error)):
                    raise storage_error(self._engine, error) from error
            pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 (jitter)


def _is_away(error: SQLAlchemyError) -> bool:
    """Whether the server cannot be reached, is starting, or is going down."""
    if not isinstance(error, OperationalError):
        return isinstance(error, DBAPIError) and error.connection_invalidated
    state = _state(error)
    # psycopg gives no state where there was no server to give one.
    return state is None or state[:2] in ("08", "57")


def _passing(error: SQLAlchemyError) -> bool:
    """Whether trying again soon can help: lost connections, deadlocks, a busy database."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError):
        return False
    state = _state(error)
    if state is not None:
        return state[:2] in ("08", "40", "57") or state == _LOCK_NOT_AVAILABLE
    return "database is locked" in str(error.orig)


def _state(error: SQLAlchemyError) -> str | None:
    """PostgreSQL's code for an error, None where it gave none."""
    return getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None


def spec_of(stored: dict[str, Any]) -> RunSpec:
    """A spec as stored in ``runs``."""
    return RunSpec(**(stored | {"categories": tuple(stored["categories"])}))


def _run_info(row: Any) -> RunInfo:
    return RunInfo(
        run_id=row.id,
        spec=spec_of(row.spec),
        state=row.state,
        started=row.started,
        heartbeat=row.heartbeat,
        finished=row.finished,
        stats=stats_of(row),
        message=row.message,
    )
