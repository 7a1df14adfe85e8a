"""The part of the ledger that a cascade needs: lots of documents, and what comes of them.

A *lot* is what a cascade makes one promise for: the documents of a run that nobody had decided
when the lot was made. The order in which a draw takes them is that of an HMAC of each document's
hash under a secret seed, so that the first ``n`` are a uniform sample without replacement, whatever
order the folders have, and the same after a kill at any moment (:mod:`.samples`).

What was drawn and what was found of it is written before it is acted on; the certificate can be
computed again from these rows alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, and_, func, insert, select, update

from doc_classify.records import STUDENT, Classification, Outcome, RunStats
from doc_classify.storage import lot_rows
from doc_classify.storage.answers import answer_to_text, note_texts
from doc_classify.storage.base import RunSpec, Task
from doc_classify.storage.lot_listing import lots_query
from doc_classify.storage.lot_rows import AUDIT, BATCH
from doc_classify.storage.recording import read_stats, record, store_read
from doc_classify.storage.rows import clean, finite, now
from doc_classify.storage.samples import Samples, is_gone
from doc_classify.storage.schema import (
    documents,
    files,
    lot_documents,
    lots,
    results,
    run_files,
)
from doc_classify.storage.store import SqlStore
from doc_classify.storage.students import Students

OPEN, FINISHED = "open", "finished"
SUPERSEDED = "superseded"
"""Some of its documents went into a later lot before it was finished: it promises nothing."""

_COVERED = 0.5
"""Share of what a lot has left that a run has to have in order to go on with it."""


@dataclass(frozen=True, slots=True)
class Lot:
    """Documents for which one promise is made.

    Attributes:
        fingerprint: of the cascade.
        run_id: the run that worked on it last.
        forced: made by a run that does again what is done.
        population: documents in it.
        known: those that the LLM had answered before.
        calls: requests to the LLM about its documents, as far as they are recorded.
        journal: what was decided so far, JSON-ready.
        revision: of the journal.
    """

    id: int
    fingerprint: str
    run_id: str
    source: str
    forced: bool
    state: str
    population: int
    known: int
    calls: int
    journal: dict[str, Any]
    revision: int


class LotLedger:
    """Lots in the database of a store. Every method raises what the store's methods raise."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.samples = Samples(store)
        self.students = Students(store)

    def unfinished(self, run_id: str, spec: RunSpec) -> list[Lot]:
        """Lots of earlier runs over the same source that this run has to go on with, oldest first.

        A lot is left alone of which this run has less than half of what is undone: it is another
        one's, or most of its files are gone.
        """

        def work(connection: Connection) -> list[Lot]:
            query = (
                select(lots)
                .where(
                    lots.c.fingerprint == spec.fingerprint,
                    lots.c.source == clean(spec.source),
                    lots.c.state == OPEN,
                    # What is done anew goes on with nothing but what it has begun itself.
                    lots.c.run_id == run_id if spec.force else lots.c.forced.is_(False),
                )
                .order_by(lots.c.id)
            )
            found = []
            for row in connection.execute(query).all():
                counted = lot_rows.pending(run_id, row.id, func.count())
                here = connection.execute(counted).scalar_one()
                left = connection.execute(lot_rows.undecided(row.id, spec.fingerprint)).scalar_one()
                if here and here >= _COVERED * left:
                    found.append(_lot(row))
            for lot in found:
                connection.execute(update(lots).where(lots.c.id == lot.id).values(run_id=run_id))
            return [replace(lot, run_id=run_id) for lot in found]

        return self._store.write(work)

    def make(self, run_id: str, spec: RunSpec, beside: Sequence[Lot] = ()) -> Lot | None:
        """A lot of all that the run has pending and that is in none of the others; None if none.

        It exists whole or not at all, since everything is one transaction. An open lot that shares
        documents with it is superseded: with what another student decides of them, its certificate
        would say too much.
        """

        def work(connection: Connection) -> Lot | None:
            lot_rows.one_at_a_time(connection)
            lot_id = connection.execute(
                insert(lots)
                .values(
                    fingerprint=spec.fingerprint,
                    teacher_fingerprint=spec.teacher_fingerprint,
                    run_id=run_id,
                    source=clean(spec.source),
                    forced=spec.force,
                    seed=secrets.token_bytes(32),
                    state=OPEN,
                    population=0,
                    known=0,
                    calls=0,
                    journal={},
                    revision=0,
                    created=now(),
                )
                .returning(lots.c.id)
            ).scalar_one()
            beside_ids = [lot.id for lot in beside]
            population = lot_rows.fill(connection, lot_id, run_id, beside_ids)
            if not population:
                connection.execute(lots.delete().where(lots.c.id == lot_id))
                return None
            lot_rows.supersede(connection, spec.fingerprint, lot_id, beside_ids, OPEN, SUPERSEDED)
            known = 0 if spec.force else lot_rows.mark_known(connection, lot_id, spec)
            connection.execute(
                update(lots).where(lots.c.id == lot_id).values(population=population, known=known)
            )
            return _lot(connection.execute(select(lots).where(lots.c.id == lot_id)).one())

        return self._store.write(work)

    def lot(self, lot_id: int) -> Lot:
        """A lot as it is stored now."""
        query = select(lots).where(lots.c.id == lot_id)
        return self._store.read(lambda connection: _lot(connection.execute(query).one()))

    def lots_of(self, run_id: str, spec: RunSpec) -> list[Lot]:
        """The lots that a run is made of, oldest first."""
        query = lots_query(run_id, spec.fingerprint, forced=spec.force)
        return self._store.read(lambda connection: [_lot(row) for row in connection.execute(query)])

    def write_journal(
        self, lot_id: int, revision: int, journal: Mapping[str, Any], state: str | None = None
    ) -> None:
        """Store what was decided, which makes it the next revision.

        Raises:
            LotTakenError: somebody else has written since.
        """
        self._store.write(
            lambda connection: lot_rows.write_journal(connection, lot_id, revision, journal, state)
        )

    def open_lots(self, run_id: str) -> list[Lot]:
        """The lots that a run works on and has not closed."""
        query = select(lots).where(lots.c.run_id == run_id, lots.c.state == OPEN)
        return self._store.read(
            lambda connection: [_lot(row) for row in connection.execute(query.order_by(lots.c.id))]
        )

    def parts(self, run_id: str, lot_id: int, size: int) -> list[tuple[int, int, int]]:
        """What the run has to do of the lot in parts of about ``size`` documents.

        Each is the lot, and the ids of files beyond which and up to which it goes.
        """
        query = lot_rows.pending(run_id, lot_id, run_files.c.file_id)
        query = query.order_by(run_files.c.file_id).execution_options(yield_per=BATCH)

        def work(connection: Connection) -> list[int]:
            with connection.execute(query) as rows:
                ends = [row.file_id for number, row in enumerate(rows, 1) if number % size == 0]
            return [0, *ends, 2**63 - 1]

        ends = self._store.read(work)
        return [(lot_id, after, to) for after, to in pairwise(ends)]

    def pending(
        self,
        run_id: str,
        lot_id: int,
        spec: RunSpec,
        *,
        unscored: bool = False,
        between: tuple[int, int] = (0, 2**63 - 1),
    ) -> Iterator[list[Task]]:
        """What the run has to do of the lot, batch by batch, in the order of its files.

        The LLM alone may decide about what was drawn, which counts as the LLM's, and about what has
        another file than it had in the lot: the student would judge by another name.

        Args:
            run_id: the run.
            lot_id: the lot.
            spec: of the run.
            unscored: only what the student has given no score yet.
            between: ids of files: beyond the first, up to the second.
        """
        after, to = between
        while True:
            query = (
                lot_rows.pending(
                    run_id,
                    lot_id,
                    run_files.c.file_id,
                    run_files.c.document_id,
                    documents.c.sha256,
                    files.c.uri,
                    files.c.size,
                    files.c.mtime_ns,
                    files.c.document_id.label("now"),
                    lot_documents.c.role,
                    lot_documents.c.file_id.label("first"),
                )
                .join(files, files.c.id == run_files.c.file_id)
                .join(documents, documents.c.id == run_files.c.document_id)
                .where(run_files.c.file_id > after, run_files.c.file_id <= to)
                .order_by(run_files.c.file_id)
                .limit(BATCH)
            )
            if unscored:
                query = query.where(lot_documents.c.score.is_(None))

            def work(connection: Connection, query: Any = query) -> tuple[list[Task], int]:
                rows = connection.execute(query).all()
                last = rows[-1].file_id if len(rows) == BATCH else 0
                made = lot_rows.tasks(connection, run_id, spec, rows)
                return [
                    replace(task, llm_only=row.role is not None or row.first != row.file_id)
                    for task, row in zip(made, rows, strict=True)
                ], last

            found, after = self._store.read(work)
            if found:
                yield found
            if not after:
                return

    def record(
        self,
        run_id: str,
        lot_id: int,
        spec: RunSpec,
        outcomes: Sequence[Outcome],
        seconds: float,
        *,
        keep_text: bool = False,
    ) -> RunStats:
        """Store outcomes as :meth:`.Store.record` does, and in the sample what was drawn."""

        def work(connection: Connection) -> RunStats:
            _record(connection, run_id, lot_id, spec, outcomes, seconds, keep_text=keep_text)
            return read_stats(connection, run_id)

        return self._store.write(work)

    def record_scores(
        self,
        run_id: str,
        lot_id: int,
        spec: RunSpec,
        outcomes: Sequence[Outcome],
        seconds: float,
    ) -> RunStats:
        """Store what the student says, without taking it for decided; all else as it is.

        The text is kept, whatever the run does otherwise: it is needed once more, soon.
        """
        scored = [one for one in outcomes if one.decided_by == STUDENT and one.classification]
        others = [one for one in outcomes if one not in scored]
        rows = [
            {"document": one.document_id, "guess": clean(found.category), "score": found.score}
            for one in scored
            if (found := one.classification) and finite(found.score) is not None
        ]

        def work(connection: Connection) -> RunStats:
            _record(connection, run_id, lot_id, spec, others, seconds)
            store_read(connection, spec, scored, keep_text=True)
            lot_rows.set_columns(connection, lot_id, rows)
            return read_stats(connection, run_id)

        return self._store.write(work)

    def answer_to(self, run_id: str, spec: RunSpec, digest: bytes) -> Classification | None:
        """What the LLM has said of this very text before; None where it was not asked."""
        return self._store.read(lambda connection: answer_to_text(connection, run_id, spec, digest))

    def outcome(self, lot_id: int, spec: RunSpec) -> dict[str, int]:
        """Documents of a lot by who decided them; "failed" and "gone" among the names."""
        columns = results.c
        query = (
            select(columns.classifier, columns.error_kind.is_(None), func.count())
            .select_from(_with_results(spec))
            .where(lot_documents.c.lot_id == lot_id)
            .group_by(columns.classifier, columns.error_kind.is_(None))
        )

        def work(connection: Connection) -> dict[str, int]:
            found = {"student": 0, "llm": 0, "failed": 0, "gone": 0}
            for classifier, fine, number in connection.execute(query):
                if classifier is None:
                    name = "gone"
                elif not fine:
                    name = "failed"
                else:
                    name = "student" if classifier == STUDENT else "llm"
                found[name] += number
            return found

        return self._store.read(work)

    def answered(self, lot_id: int, spec: RunSpec) -> dict[str, int]:
        """Documents that the student has decided, by category."""
        columns = results.c
        query = (
            select(columns.category, func.count())
            .select_from(_with_results(spec))
            .where(lot_documents.c.lot_id == lot_id, columns.classifier == STUDENT)
            .group_by(columns.category)
        )
        return self._store.read(
            lambda connection: {name: int(count) for name, count in connection.execute(query)}
        )

    def audited(self, lot_id: int, stages: Sequence[int], spec: RunSpec) -> tuple[int, int, int]:
        """Of the documents of audits: judged, disagreeing with the LLM, gone since.

        One that the LLM has no category for counts as disagreeing.
        """
        columns = lot_documents.c
        query = (
            select(columns.label, columns.failure, results.c.category)
            .select_from(_with_results(spec))
            .where(columns.lot_id == lot_id, columns.stage.in_(stages), columns.role == AUDIT)
        )

        def work(connection: Connection) -> tuple[int, int, int]:
            judged = disagreed = gone = 0
            for label, failure, category in connection.execute(query):
                if failure is not None and is_gone(failure):
                    gone += 1
                    continue
                judged += 1
                disagreed += label != category
            return judged, disagreed, gone

        return self._store.read(work)


def _with_results(spec: RunSpec) -> Any:
    return lot_documents.outerjoin(
        results,
        and_(
            results.c.document_id == lot_documents.c.document_id,
            results.c.fingerprint == spec.fingerprint,
        ),
    )


def _record(
    connection: Connection,
    run_id: str,
    lot_id: int,
    spec: RunSpec,
    outcomes: Sequence[Outcome],
    seconds: float,
    *,
    keep_text: bool = False,
) -> None:
    answered = [outcome for outcome in outcomes if outcome.decided_by != STUDENT]
    if len(answered) < len(outcomes):
        state = connection.execute(select(lots.c.state).where(lots.c.id == lot_id)).scalar_one()
        if state == SUPERSEDED:
            raise lot_rows.taken(lot_id)
    record(connection, run_id, spec, outcomes, seconds, keep_text=keep_text)
    note_texts(connection, spec.teacher_fingerprint, answered)
    rows = [
        {
            "document": outcome.document_id,
            "label": clean(outcome.classification.category) if outcome.classification else None,
            "failure": clean(outcome.failure.kind) if outcome.failure else None,
        }
        for outcome in answered
    ]
    lot_rows.set_columns(connection, lot_id, rows, drawn_only=True)
    lot_rows.add_calls(
        connection, lot_id, sum(outcome.usage.calls for outcome in outcomes if outcome.usage)
    )


def _lot(row: Any) -> Lot:
    return Lot(
        row.id,
        row.fingerprint,
        row.run_id,
        row.source,
        row.forced,
        row.state,
        row.population,
        row.known,
        row.calls,
        dict(row.journal),
        row.revision,
    )
