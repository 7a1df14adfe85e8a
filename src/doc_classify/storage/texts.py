"""Stored texts with what is known of their documents, to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Subquery, and_, select

from doc_classify.records import Extraction
from doc_classify.storage.base import RunInfo
from doc_classify.storage.correcting import holding
from doc_classify.storage.engine import reading
from doc_classify.storage.rows import row_to_extraction
from doc_classify.storage.schema import documents, extractions, files, results, run_files, texts
from doc_classify.storage.store import SqlStore

_AT_A_TIME = 20
"""Stored texts held at a time."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document that a run has classified.

    Attributes:
        sha256: of its bytes, as lower-case hex.
        uri: where the run saw it first.
        category: what a person said, else what the classifier said.
        corrected: whether a person said it.
        decided_by: which classifier said it, where no person did.
        scores: the classifier's, by category; empty where it gives none.
        extraction: what was read of it; None where no text is stored.
    """

    sha256: str
    uri: str
    category: str
    corrected: bool
    decided_by: str | None
    scores: tuple[tuple[str, float], ...]
    extraction: Extraction | None


def classified_documents(store: SqlStore, info: RunInfo) -> Iterator[StoredDocument]:
    """The documents of a run that have a category, each once, streamed: few texts are in memory.

    In the order in which they were first seen, by whatever run.

    Raises:
        StorageError: the database cannot give them.
    """
    with reading(store.engine) as connection:
        held = holding(connection, info.spec.categories)
    last = 0
    while True:
        with reading(store.engine) as connection:
            rows = _classified(connection, info, held, last)
            ids = [row.document_id for row in rows]
            read = stored_texts(connection, ids, info.spec.extraction_key)
        for row in rows:
            last = row.document_id
            yield StoredDocument(
                sha256=bytes(row.sha256).hex(),
                uri=row.uri or "",
                category=row.said or row.category,
                corrected=row.said is not None,
                decided_by=row.classifier if row.said is None else None,
                scores=tuple((name, score) for name, score in row.scores or ()),
                extraction=read.get(last),
            )
        if not rows:
            return


def _classified(connection: Connection, info: RunInfo, held: Subquery, last: int) -> Sequence[Any]:
    met = (
        select(run_files.c.file_id)
        .where(
            run_files.c.run_id == info.run_id,
            run_files.c.document_id == results.c.document_id,
        )
        .order_by(run_files.c.file_id)
        .limit(1)
        .correlate(results)  # two levels up, where SQLAlchemy does not look by itself
    )
    query = (
        select(
            results.c.document_id,
            results.c.category,
            results.c.classifier,
            results.c.scores,
            documents.c.sha256,
            held.c.category.label("said"),
            select(files.c.uri)
            .where(files.c.id == met.scalar_subquery())
            .scalar_subquery()
            .label("uri"),
        )
        .join(documents, documents.c.id == results.c.document_id)
        .outerjoin(held, held.c.document_id == results.c.document_id)
        .where(
            results.c.fingerprint == info.spec.fingerprint,
            results.c.category.is_not(None),
            results.c.document_id > last,
            met.exists(),
        )
        .order_by(results.c.document_id)
        .limit(_AT_A_TIME)
    )
    return connection.execute(query).all()


def stored_texts(
    connection: Connection, ids: Sequence[int], extraction_key: str | None
) -> dict[int, Extraction]:
    """One stored extraction of each document that has one, that of the key where there is one."""
    query = (
        select(extractions, texts.c.pages)
        .join(
            texts,
            and_(
                texts.c.document_id == extractions.c.document_id,
                texts.c.extraction_key == extractions.c.extraction_key,
            ),
        )
        .where(extractions.c.document_id.in_(ids), extractions.c.error_kind.is_(None))
        .order_by(extractions.c.document_id, extractions.c.extraction_key)
    )
    found: dict[int, Extraction] = {}
    for row in connection.execute(query):
        if row.document_id not in found or row.extraction_key == extraction_key:
            found[row.document_id] = row_to_extraction(row, row.pages)
    return found
