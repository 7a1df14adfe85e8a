"""Samples of lots: what is drawn, and what was found of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, case, func, select, update

from doc_classify.errors import is_of_extraction, is_permanent
from doc_classify.records import Extraction, document_name, freeze_scores
from doc_classify.storage import lot_rows
from doc_classify.storage.base import RunSpec, Task
from doc_classify.storage.engine import reading
from doc_classify.storage.lot_rows import AUDIT, BATCH, CALIBRATE, CHOSEN, DRAWN, POOL, TRAIN
from doc_classify.storage.rows import batches, clean, finite, row_to_extraction
from doc_classify.storage.schema import (
    documents,
    extractions,
    files,
    lot_documents,
    lots,
    results,
    texts,
)
from doc_classify.storage.store import SqlStore

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Drawn:
    """A document of a sample, with what is known of it.

    Attributes:
        label: the category that the LLM gave; None where it gave none.
        failure: why it did not, or why nobody could read the document.
        guess: the student's category; None where it has none.
        score: how sure the student was.
    """

    document_id: int
    label: str | None
    failure: str | None
    guess: str | None
    score: float | None

    @property
    def unreadable(self) -> bool:
        """Nobody gets to see the text: neither the student nor the LLM decides anything."""
        return self.failure is not None and is_gone(self.failure)


@dataclass(frozen=True, slots=True)
class Example:
    """A document that was read, with the LLM's answer where it has one.

    ``scores``: the LLM's score for each category, empty where it gave none. ``uniform``: drawn
    uniformly from its lot, and not for what it contains.
    """

    document_id: int
    name: str
    extraction: Extraction
    label: str | None = None
    scores: tuple[tuple[str, float], ...] = ()
    uniform: bool = True


def is_gone(failure: str) -> bool:
    """Whether a kind of failure means that nobody gets to see the text."""
    return is_of_extraction(failure) or not is_permanent(failure)


class Samples:
    """Samples in the database of a store. Every method raises what the store's methods raise."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    def draw(
        self, lot_id: int, stage: int, role: str, number: int, *, decided: RunSpec | None = None
    ) -> int:
        """Draw documents for a stage, uniformly from those not drawn yet.

        Does nothing where the stage was drawn before. Returns how many there were, which is fewer
        where there are no more.

        Args:
            lot_id: the lot.
            stage: number of the draw.
            role: what they are drawn for.
            number: how many.
            decided: of those alone that the student has decided in this cascade.
        """
        columns = lot_documents.c
        there = select(func.count()).where(columns.lot_id == lot_id, columns.stage == stage)
        where = [lot_rows.decided_by_student(decided)] if decided else []

        def work(connection: Connection) -> int:
            if not (number_of := int(connection.execute(there).scalar_one())):
                ids = lot_rows.draw(connection, lot_id, stage, number, *where)
                lot_rows.give_role(connection, lot_id, ids, role, stage)
                return len(ids)
            return number_of

        return self._store.write(work)

    def choose(self, lot_id: int, stage: int, number: int) -> None:
        """Keep of a pool those of which the student is least sure; the others are as before.

        Does nothing where the choice was made before.
        """
        columns = lot_documents.c
        pool = and_(columns.lot_id == lot_id, columns.stage == stage, columns.role == POOL)

        def work(connection: Connection) -> None:
            query = (
                select(columns.document_id)
                .where(pool, columns.failure.is_(None))
                .order_by(columns.score.is_not(None), columns.score, columns.document_id)
                .limit(number)
            )
            ids = list(connection.execute(query).scalars())
            lot_rows.give_role(connection, lot_id, ids, CHOSEN, stage)
            connection.execute(
                update(lot_documents)
                .where(pool)
                .values(role=None, stage=None, guess=None, score=None)
            )

        self._store.write(work)

    def in_pool(self, run_id: str, lot_id: int, spec: RunSpec, stage: int) -> Iterator[list[Task]]:
        """Tasks for the documents of a pool that the student has not looked at yet."""
        columns = lot_documents.c
        return self._drawn_tasks(
            run_id,
            spec,
            columns.lot_id == lot_id,
            columns.stage == stage,
            columns.role == POOL,
            columns.score.is_(None),
            columns.failure.is_(None),
        )

    def drawn(self, lot_id: int) -> int:
        """Documents that the LLM was or is asked about before the student is, known ones too."""
        columns = lot_documents.c
        query = select(func.count()).where(
            columns.lot_id == lot_id, columns.role.not_in([AUDIT, POOL])
        )
        return self._store.read(lambda connection: int(connection.execute(query).scalar_one()))

    def stage(self, lot_id: int, stage: int) -> list[Drawn]:
        """What was drawn for a stage."""
        columns = lot_documents.c
        query = (
            select(
                columns.document_id, columns.label, columns.failure, columns.guess, columns.score
            )
            .where(columns.lot_id == lot_id, columns.stage == stage, columns.role.in_(DRAWN))
            .order_by(columns.document_id)
        )
        return self._store.read(
            lambda connection: [Drawn(*row) for row in connection.execute(query)]
        )

    def unanswered(
        self, run_id: str, lot_id: int, spec: RunSpec, stage: int
    ) -> Iterator[list[Task]]:
        """Tasks for what was drawn for a stage and has neither answer nor failure yet.

        Also documents that the run does not have itself, since they were drawn.
        """
        columns = lot_documents.c
        return self._drawn_tasks(
            run_id,
            spec,
            columns.lot_id == lot_id,
            columns.stage == stage,
            columns.role.in_(DRAWN),
            columns.label.is_(None),
            columns.failure.is_(None),
        )

    def _drawn_tasks(self, run_id: str, spec: RunSpec, *where: Any) -> Iterator[list[Task]]:
        query = lot_rows.drawn_files(run_id).where(*where)
        rows = self._store.read(lambda connection: connection.execute(query).all())
        for part in batches(sorted(rows, key=lambda row: row.file_id), BATCH):
            yield self._store.read(partial(lot_rows.tasks, run_id=run_id, spec=spec, rows=part))

    def to_repeat(
        self, run_id: str, lot_id: int, spec: RunSpec, stage: int, number: int
    ) -> list[Task]:
        """The first ``number`` answered documents of a stage, less those asked again already."""
        columns = lot_documents.c
        first = (
            select(columns.document_id)
            .where(columns.lot_id == lot_id, columns.stage == stage, columns.label.is_not(None))
            .order_by(columns.document_id)
            .limit(number)
        )
        query = lot_rows.drawn_files(run_id).where(
            columns.lot_id == lot_id, columns.document_id.in_(first), columns.again.is_(None)
        )

        def work(connection: Connection) -> list[Task]:
            return lot_rows.tasks(connection, run_id, spec, connection.execute(query).all())

        return self._store.read(work)

    def asked_again(self, lot_id: int, document_id: int, said: str, calls: int) -> None:
        """Store a second answer; "" where there was none this time."""

        def work(connection: Connection) -> None:
            rows = [{"document": document_id, "again": clean(said)}]
            lot_rows.set_columns(connection, lot_id, rows)
            lot_rows.add_calls(connection, lot_id, calls)

        self._store.write(work)

    def consistency(self, teacher_fingerprint: str) -> tuple[int, int]:
        """Documents that the LLM was asked about twice, and those that it put elsewhere then."""
        columns = lot_documents.c
        query = (
            select(
                func.count(),
                func.coalesce(func.sum(case((columns.again != columns.label, 1), else_=0)), 0),
            )
            .join(lots, lots.c.id == columns.lot_id)
            .where(
                lots.c.teacher_fingerprint == teacher_fingerprint,
                columns.again.is_not(None),
                columns.label.is_not(None),
            )
        )

        def work(connection: Connection) -> tuple[int, int]:
            asked, differed = connection.execute(query).one()
            return int(asked), int(differed)

        return self._store.read(work)

    def examples(self, lot_id: int, spec: RunSpec, most: int) -> Iterator[Example]:
        """Documents that the LLM has answered, with their texts: of this lot first, then others.

        Only such as were drawn, or answered before a lot was made: what the LLM was left with
        after a student are the hard ones alone.
        """
        columns = lot_documents.c
        query = (
            self._read_documents(spec)
            .add_columns(columns.label, columns.role, results.c.scores)
            .join(documents, documents.c.id == columns.document_id)
            .join(lots, lots.c.id == columns.lot_id)
            .outerjoin(
                results,
                and_(
                    results.c.document_id == columns.document_id,
                    results.c.fingerprint == spec.teacher_fingerprint,
                    results.c.category == columns.label,
                ),
            )
            .where(
                lots.c.teacher_fingerprint == spec.teacher_fingerprint,
                columns.label.is_not(None),
            )
            .order_by(
                case((columns.lot_id == lot_id, 0), else_=1),
                columns.lot_id.desc(),
                documents.c.sha256,  # an order that has nothing to do with folders
            )
        )
        if spec.force:
            query = query.where(columns.lot_id == lot_id)
        met: set[int] = set()
        for row in self._streamed(query):
            if row.document_id not in met:  # it may have been in several lots
                met.add(row.document_id)
                yield _example(row, row.label, row.scores, row.role in (TRAIN, CALIBRATE))
            if len(met) >= most:
                return

    def count_examples(self, lot_id: int, spec: RunSpec) -> int:
        """How many documents :meth:`examples` has at most."""
        query = (
            select(func.count())
            .select_from(lot_documents)
            .join(lots, lots.c.id == lot_documents.c.lot_id)
            .where(
                lots.c.teacher_fingerprint == spec.teacher_fingerprint,
                lot_documents.c.label.is_not(None),
            )
        )
        if spec.force:
            query = query.where(lot_documents.c.lot_id == lot_id)
        return self._store.read(lambda connection: int(connection.execute(query).scalar_one()))

    def texts(self, lot_id: int, spec: RunSpec, stage: int) -> Iterator[Example]:
        """The documents of a stage with their texts, of which some could not be read."""
        columns = lot_documents.c
        query = (
            self._read_documents(spec)
            .where(columns.lot_id == lot_id, columns.stage == stage, columns.role.in_(DRAWN))
            .order_by(columns.document_id)
        )
        for row in self._streamed(query):
            yield _example(row)

    def scored(
        self,
        lot_id: int,
        found: Mapping[int, tuple[str, float | None]],
        revision: int,
        journal: Mapping[str, Any],
    ) -> None:
        """Store what the student says of documents, and the journal, in one transaction.

        Raises:
            LotTakenError: somebody else has written the journal since.
        """
        rows = [
            {"document": id_, "guess": clean(guess), "score": finite(score)}
            for id_, (guess, score) in found.items()
        ]

        def work(connection: Connection) -> None:
            lot_rows.set_columns(connection, lot_id, rows)
            lot_rows.write_journal(connection, lot_id, revision, journal)

        self._store.write(work)

    def forget_scores(self, lot_id: int) -> None:
        """Forget what a student said of all that was not drawn: another one is asked."""
        columns = lot_documents.c
        self._store.write(
            lambda connection: connection.execute(
                update(lot_documents)
                .where(columns.lot_id == lot_id, columns.role.is_(None))
                .values(guess=None, score=None)
            )
        )

    def scores_left(self, lot_id: int) -> npt.NDArray[np.float64]:
        """The student's scores of all that was not drawn, NaN where it gave none."""
        import numpy as np

        columns = lot_documents.c
        query = select(columns.score).where(columns.lot_id == lot_id, columns.role.is_(None))

        def work(connection: Connection) -> npt.NDArray[np.float64]:
            scores = connection.execute(query.execution_options(yield_per=BATCH)).scalars()
            return np.fromiter((np.nan if one is None else one for one in scores), np.float64)

        return self._store.read(work)

    def _read_documents(self, spec: RunSpec) -> Any:
        """Documents of lots with what was read of them, and a file of each."""
        columns = lot_documents.c
        return (
            select(columns.document_id, files.c.uri, extractions, texts.c.pages)
            .join(files, files.c.id == columns.file_id)
            .join(
                extractions,
                and_(
                    extractions.c.document_id == columns.document_id,
                    extractions.c.extraction_key == spec.extraction_key,
                ),
            )
            .join(
                texts,
                and_(
                    texts.c.document_id == columns.document_id,
                    texts.c.extraction_key == spec.extraction_key,
                ),
            )
        )

    def _streamed(self, query: Any) -> Iterator[Any]:
        # Closed in order, also when whoever reads has had enough: it is a cursor of the server.
        with (
            reading(self._store.engine) as connection,
            connection.execute(query.execution_options(yield_per=BATCH)) as rows,
        ):
            yield from rows


def _example(
    row: Any, label: str | None = None, scores: Any = None, uniform: bool = True
) -> Example:
    return Example(
        row.document_id,
        document_name(row.uri),
        row_to_extraction(row, row.pages),
        label,
        freeze_scores(dict(scores or ())),
        uniform,
    )
