"""The part of the ledger that distributed workers share: who works on which chunk of files.

A run is cut into chunks of some dozens of files. A worker *claims* a chunk by a conditional update
and holds it by a *lease* that it renews; what cannot be claimed is somebody else's. The broker's
messages only say where there may be work: lost, doubled or late ones do no harm, and what nobody
holds is found here and sent again (:meth:`ChunkLedger.overdue`).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, case, func, insert, null, or_, select, text, update

from doc_classify.records import Source
from doc_classify.storage.base import RunSpec
from doc_classify.storage.engine import reading
from doc_classify.storage.rows import clean, clean_json, int64, now
from doc_classify.storage.schema import chunks, runs
from doc_classify.storage.store import SqlStore, spec_of

GIVEN_UP_AFTER = 5
"""Claims of a chunk that ended with neither a result nor a word, after which it is given up."""

INCOMPLETE = "not everything was submitted"
"""How the message of a run begins that does not hold all that it was to hold."""

SUBMITTING, RUNNING = "submitting", "running"
FINISHED, CANCELLED, FAILED = "finished", "cancelled", "failed"
OPEN = (SUBMITTING, RUNNING)
"""States of a run that is meant to go on."""

_PENDING, _CLAIMED, _DONE = "pending", "claimed", "done"

SAMPLE, REST, SETTLE = "sample", "rest", "settle"
"""Jobs of a cascade, one after the other, when all files are listed: one chunk draws, asks and
certifies; many decide about the rest; one closes the lots."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a chunk, until the lease ends.

    Attributes:
        attempts: times that the chunk was claimed, this one included.
        token: tells this claim from all others.
        sources: the chunk's files as they were when the run was submitted.
        job: what is to be done in place of files, None where these are what there is to do.
        part: which part of the job.
    """

    run_id: str
    number: int
    attempts: int
    token: str
    sources: tuple[Source, ...]
    job: str | None = None
    part: tuple[int, ...] = ()

    @property
    def is_last(self) -> bool:
        """The chunk was claimed too often: its files are to be recorded as failed."""
        return self.attempts > GIVEN_UP_AFTER


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    """Chunks of a run. ``expired``: held by workers that have not been heard of any more."""

    pending: int = 0
    claimed: int = 0
    expired: int = 0
    done: int = 0


class ChunkLedger:
    """Chunks in the database of a store. Every method raises what the store's methods raise."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    def begin(self, spec: RunSpec) -> str:
        """Record a run that is being submitted; returns its id."""
        return self._store.start_run(spec, state=SUBMITTING)

    def add(self, run_id: str, sources: Sequence[Sequence[Source]], rejected: int) -> list[int]:
        """Store chunks, all or none; returns their numbers.

        Args:
            run_id: the run, still being submitted.
            sources: the files of each chunk.
            rejected: files met that are in no chunk, since they were rejected; counted as well.
        """

        def work(connection: Connection) -> list[int]:
            row = connection.execute(
                select(runs.c.chunks).where(runs.c.id == run_id).with_for_update()
            ).one()
            numbers = list(range(row.chunks, row.chunks + len(sources)))
            if sources:
                connection.execute(
                    insert(chunks),
                    [
                        {
                            "run_id": run_id,
                            "number": number,
                            "entries": _encode(part),
                            "files": len(part),
                            "state": _PENDING,
                            "attempts": 0,
                        }
                        for number, part in zip(numbers, sources, strict=True)
                    ],
                )
            connection.execute(
                update(runs)
                .where(runs.c.id == run_id)
                .values(
                    chunks=runs.c.chunks + len(sources),
                    submitted=runs.c.submitted + sum(map(len, sources)) + rejected,
                    heartbeat=now(),
                )
            )
            return numbers

        return self._store.write(work)

    def add_jobs(self, run_id: str, job: str, parts: Sequence[tuple[int, ...]]) -> None:
        """Add chunks of a job, all or none; none where the run has that job already."""

        def work(connection: Connection) -> None:
            _lock(connection, run_id)
            if job not in _jobs(connection, run_id):
                _add_jobs(connection, run_id, job, parts)

        self._store.write(work)

    def sent(self, run_id: str, numbers: Sequence[int]) -> None:
        """Note that the broker was told of these chunks."""

        def work(connection: Connection) -> None:
            at = clock(connection)
            for start in range(0, len(numbers), 500):
                part = numbers[start : start + 500]
                connection.execute(
                    update(chunks)
                    .where(chunks.c.run_id == run_id, chunks.c.number.in_(part))
                    .values(sent_at=at)
                )

        self._store.write(work)

    def submitted(self, run_id: str, broken_off: str | None = None) -> None:
        """No more chunks will be added; ``broken_off`` says why, if not all of them are there."""
        message = None if broken_off is None else f"{INCOMPLETE}: {broken_off}"

        def work(connection: Connection) -> None:
            _lock(connection, run_id)
            connection.execute(
                update(runs)
                .where(runs.c.id == run_id, runs.c.state == SUBMITTING)
                .values(state=RUNNING, message=clean(message), heartbeat=now())
            )
            _finish_if_done(connection, run_id)

        self._store.write(work)

    def spec(self, run_id: str) -> tuple[RunSpec, str] | None:
        """How the run classifies, and its state; None where there is none of that id."""
        query = select(runs.c.spec, runs.c.state).where(runs.c.id == run_id)
        row = self._store.read(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else (spec_of(row.spec), row.state)

    def bind(self, run_id: str, spec: RunSpec) -> RunSpec:
        """Settle how the run classifies, by the first worker that can tell; returns what holds.

        Only a worker knows the model that its server has, hence the fingerprint.
        """

        def work(connection: Connection) -> RunSpec:
            _lock(connection, run_id)
            stored = spec_of(
                connection.execute(select(runs.c.spec).where(runs.c.id == run_id)).scalar_one()
            )
            if stored.fingerprint:
                return stored
            bound = replace(
                stored,
                classifier=spec.classifier,
                fingerprint=spec.fingerprint,
                teacher=spec.teacher,
                teacher_fingerprint=spec.teacher_fingerprint,
                settings=stored.settings | {"model": spec.settings.get("model")},
            )
            connection.execute(
                update(runs)
                .where(runs.c.id == run_id)
                .values(spec=clean_json(asdict(bound)), fingerprint=bound.fingerprint)
            )
            return bound

        bound = self._store.write(work)
        self._store.forget_spec(run_id)
        return bound

    def claim(self, run_id: str, number: int, holder: str, lease: float) -> Claim | None:
        """Take a chunk for ``lease`` seconds; None where it is held, done, or not wanted."""
        token = f"{holder} {secrets.token_hex(4)}"

        def work(connection: Connection) -> Claim | None:
            at = clock(connection)
            free = or_(
                chunks.c.state == _PENDING,
                and_(chunks.c.state == _CLAIMED, chunks.c.lease_until < at),
            )
            wanted = select(runs.c.id).where(runs.c.id == run_id, runs.c.state.in_(OPEN))
            taken = connection.execute(
                update(chunks)
                .where(
                    chunks.c.run_id == run_id,
                    chunks.c.number == number,
                    free,
                    chunks.c.run_id.in_(wanted),
                )
                .values(
                    state=_CLAIMED,
                    attempts=chunks.c.attempts + 1,
                    holder=token,
                    lease_until=at + lease,
                )
            )
            if not taken.rowcount:
                return None
            row = connection.execute(
                select(chunks.c.entries, chunks.c.attempts, chunks.c.job).where(
                    chunks.c.run_id == run_id, chunks.c.number == number
                )
            ).one()
            if row.job:
                part = tuple(json.loads(row.entries))
                return Claim(run_id, number, row.attempts, token, (), row.job, part)
            return Claim(run_id, number, row.attempts, token, _decode(row.entries))

        return self._store.write(work)

    def claim_another(
        self, run_id: str, holder: str, lease: float, job: str | None = None
    ) -> Claim | None:
        """Take a chunk of the run that nobody has begun, whatever messages are under way.

        The last ones first: messages come in the order of the numbers, and so meet these late.
        """

        def find(connection: Connection) -> int | None:
            query = (
                select(chunks.c.number)
                .where(
                    chunks.c.run_id == run_id,
                    chunks.c.state == _PENDING,
                    chunks.c.attempts == 0,
                    chunks.c.job == job if job else chunks.c.job.is_(None),
                )
                .order_by(chunks.c.number.desc())
                .limit(1)
            )
            return connection.execute(query).scalar_one_or_none()

        while (number := self._store.read(find)) is not None:
            if claim := self.claim(run_id, number, holder, lease):
                return claim
            found = self.spec(run_id)
            if found is None or found[1] not in OPEN:
                return None  # else somebody else was faster
        return None

    def renew(self, claim: Claim, lease: float) -> bool:
        """Hold the chunk for ``lease`` seconds from now; False where it is not ours any more."""

        def work(connection: Connection) -> bool:
            held = connection.execute(
                update(chunks).where(*_is(claim)).values(lease_until=clock(connection) + lease)
            )
            return bool(held.rowcount)

        return self._store.write(work)

    def finish(self, claim: Claim) -> bool:
        """The chunk is done; the run as well, if it was the last. False where it is not ours."""
        machine = claim.token.split(" pid ")[0]
        from_there = runs.c.message.startswith(f"{machine} pid ", autoescape=True)

        def work(connection: Connection) -> bool:
            _lock(connection, claim.run_id)
            ours = connection.execute(
                update(chunks).where(*_is(claim)).values(state=_DONE, holder=None, lease_until=None)
            )
            if not ours.rowcount:
                return False
            connection.execute(
                update(runs)
                .where(runs.c.id == claim.run_id)
                .values(
                    chunks_done=runs.c.chunks_done + 1,
                    heartbeat=now(),
                    # What was wrong on that machine is over.
                    message=case((from_there, null()), else_=runs.c.message),
                )
            )
            _finish_if_done(connection, claim.run_id)
            return True

        return self._store.write(work)

    def hand_back(self, claim: Claim, reason: str) -> None:
        """Give the chunk up for others, as if it had not been claimed; the run says why."""

        def work(connection: Connection) -> None:
            connection.execute(
                update(chunks)
                .where(*_is(claim))
                .values(
                    state=_PENDING,
                    attempts=chunks.c.attempts - 1,
                    holder=None,
                    lease_until=None,
                    sent_at=None,  # its message is used up: the next sweep sends another
                )
            )
            connection.execute(
                update(runs)
                .where(runs.c.id == claim.run_id, _may_be_told())
                .values(message=clean(reason))
            )

        self._store.write(work)

    def note(self, run_id: str, holder: str, text: str | None) -> None:
        """Say what a worker waits for; None when that is over."""
        if text is None:
            which = runs.c.message.startswith(f"{holder}: ", autoescape=True)
        else:
            which = _may_be_told()
        message = None if text is None else clean(f"{holder}: {text}")

        def work(connection: Connection) -> None:
            connection.execute(
                update(runs)
                .where(runs.c.id == run_id, runs.c.state.in_(OPEN), which)
                .values(message=message)
            )

        self._store.write(work)

    def overdue(
        self,
        *,
        unsent_for: float,
        limit: int,
        run_id: str | None = None,
        beyond: int = -1,
    ) -> list[tuple[str, int]]:
        """Chunks that the broker has to be told of again, marked as sent.

        Args:
            unsent_for: seconds since a chunk was sent, after which its message counts as lost; a
                chunk whose lease has ended after that is overdue in any case.
            limit: at most so many.
            run_id: of this run only.
            beyond: with greater numbers only.
        """

        def work(connection: Connection) -> list[tuple[str, int]]:
            at = clock(connection)
            unsent = or_(chunks.c.sent_at.is_(None), chunks.c.sent_at < at - unsent_for)
            lost = and_(chunks.c.state == _PENDING, unsent)
            expired = and_(
                chunks.c.state == _CLAIMED,
                chunks.c.lease_until < at,
                or_(unsent, chunks.c.sent_at < chunks.c.lease_until),
            )
            query = (
                select(chunks.c.run_id, chunks.c.number)
                .join(runs, runs.c.id == chunks.c.run_id)
                .where(runs.c.state.in_(OPEN), or_(lost, expired), chunks.c.number > beyond)
                .order_by(chunks.c.run_id, chunks.c.number)
                .limit(limit)
            )
            if run_id is not None:
                query = query.where(chunks.c.run_id == run_id)
            if connection.dialect.name == "postgresql":
                # Two sweepers at once share the work instead of doing it twice.
                query = query.with_for_update(skip_locked=True, of=chunks)
            found = [(row.run_id, row.number) for row in connection.execute(query)]
            for run, number in found:
                connection.execute(
                    update(chunks)
                    .where(chunks.c.run_id == run, chunks.c.number == number)
                    .values(sent_at=at)
                )
            return found

        return self._store.write(work)

    def counts(self, run_id: str) -> ChunkCounts:
        """How many chunks of the run are in which state."""
        with reading(self._store.engine) as connection:
            at = clock(connection)
            rows = connection.execute(
                select(chunks.c.state, func.count())
                .where(chunks.c.run_id == run_id)
                .group_by(chunks.c.state)
            ).all()
            expired = connection.execute(
                select(func.count()).where(
                    chunks.c.run_id == run_id,
                    chunks.c.state == _CLAIMED,
                    chunks.c.lease_until < at,
                )
            ).scalar_one()
        found = {row[0]: int(row[1]) for row in rows}
        return ChunkCounts(
            found.get(_PENDING, 0), found.get(_CLAIMED, 0), expired, found.get(_DONE, 0)
        )

    def reopen(self, run_id: str) -> bool:
        """Let a run that was cancelled, broken off or left half submitted go on."""

        def work(connection: Connection) -> bool:
            _lock(connection, run_id)
            mine = runs.c.id == run_id
            connection.execute(
                update(runs).where(mine, runs.c.state == SUBMITTING).values(message=INCOMPLETE)
            )
            connection.execute(update(runs).where(mine, _may_be_told()).values(message=None))
            found = connection.execute(
                update(runs)
                .where(mine, runs.c.state != FINISHED)
                .values(state=RUNNING, finished=None, heartbeat=now())
            )
            _finish_if_done(connection, run_id)
            return bool(found.rowcount)

        return self._store.write(work)

    def end(self, run_id: str, state: str, message: str | None) -> bool:
        """End a run that is open: no chunk of it is claimed any more. False where it was not."""

        def work(connection: Connection) -> bool:
            found = connection.execute(
                update(runs)
                .where(runs.c.id == run_id, runs.c.state.in_(OPEN))
                .values(state=state, message=clean(message), heartbeat=now(), finished=now())
            )
            return bool(found.rowcount)

        return self._store.write(work)


def _may_be_told() -> Any:
    """Whether the message of a run can make room for another: that it is incomplete must stay."""
    return or_(runs.c.message.is_(None), ~runs.c.message.startswith(INCOMPLETE))


def _is(claim: Claim) -> tuple[Any, ...]:
    return (
        chunks.c.run_id == claim.run_id,
        chunks.c.number == claim.number,
        chunks.c.state == _CLAIMED,
        chunks.c.holder == claim.token,
    )


def _lock(connection: Connection, run_id: str) -> None:
    connection.execute(select(runs.c.id).where(runs.c.id == run_id).with_for_update())


def _finish_if_done(connection: Connection, run_id: str) -> None:
    """Close the run when all of it was submitted and every chunk is done.

    Of a cascade, what comes next is one of its jobs, until there are no more.
    """
    row = connection.execute(select(runs).where(runs.c.id == run_id)).one()
    if row.state == RUNNING and row.chunks_done >= row.chunks:
        if row.spec.get("teacher") and row.chunks:
            there = _jobs(connection, run_id)
            for job in (SAMPLE, SETTLE):
                if job not in there:
                    _add_jobs(connection, run_id, job, [()])
                    return
        at = now()
        elapsed = datetime.fromisoformat(at) - datetime.fromisoformat(row.started)
        connection.execute(
            update(runs)
            .where(runs.c.id == run_id)
            .values(
                state=FINISHED,
                finished=at,
                seconds=max(0.0, elapsed.total_seconds()),
                submitted=row.seen,  # a file that was named twice is one file
            )
        )
        # What was wrong on the way is over.
        over = update(runs).where(runs.c.id == run_id, _may_be_told())
        connection.execute(over.values(message=None))


def _jobs(connection: Connection, run_id: str) -> set[str]:
    query = select(chunks.c.job).where(chunks.c.run_id == run_id, chunks.c.job.is_not(None))
    return set(connection.execute(query.distinct()).scalars())


def _add_jobs(
    connection: Connection, run_id: str, job: str, parts: Sequence[tuple[int, ...]]
) -> None:
    first = connection.execute(select(runs.c.chunks).where(runs.c.id == run_id)).scalar_one()
    rows = [
        {
            "run_id": run_id,
            "number": first + number,
            "entries": json.dumps(part),
            "files": 0,
            "job": job,
            "state": _PENDING,
            "attempts": 0,
        }
        for number, part in enumerate(parts)
    ]
    if rows:
        connection.execute(insert(chunks), rows)
        added = update(runs).where(runs.c.id == run_id)
        connection.execute(added.values(chunks=runs.c.chunks + len(rows), heartbeat=now()))


def clock(connection: Connection) -> float:
    """Seconds since the epoch by the database's clock; SQLite has that of its one machine."""
    if connection.dialect.name == "postgresql":
        query = text("SELECT extract(epoch FROM clock_timestamp())")
        return float(connection.execute(query).scalar_one())
    return time.time()


def _encode(sources: Sequence[Source]) -> str:
    rows = [[clean(one.uri), int64(one.size), int64(one.mtime_ns)] for one in sources]
    return json.dumps(rows, separators=(",", ":"))


def _decode(entries: str) -> tuple[Source, ...]:
    return tuple(Source(uri, size, mtime_ns) for uri, size, mtime_ns in json.loads(entries))
