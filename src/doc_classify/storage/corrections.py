"""What people have said about the category of documents: the labels of the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, select

from doc_classify.records import Extraction
from doc_classify.storage.base import RunInfo
from doc_classify.storage.correcting import holding, names_key, names_text
from doc_classify.storage.engine import reading
from doc_classify.storage.rows import (
    batches,
    clean,
    now,
    row_to_extraction,
    upsert,
    uri_digest,
)
from doc_classify.storage.schema import (
    corrections,
    documents,
    extractions,
    files,
    results,
    run_files,
    texts,
)
from doc_classify.storage.store import SqlStore
from doc_classify.taxonomy import Taxonomy

_TEXTS = 20
"""Stored texts held at a time."""


@dataclass(frozen=True, slots=True)
class Known:
    """A document of a run, and what the classifier said of it there (None: it failed)."""

    document_id: int
    category: str | None


@dataclass(frozen=True, slots=True)
class Correction:
    """A category that a person gave a document.

    Attributes:
        sha256: of the document, as lower-case hex.
        uri: where it was seen first, in the run in which it was corrected.
        category: the right one.
        previous: what the classifier had said when it was corrected; None if nothing.
        at: when, as ISO 8601 in UTC.
        author, note: who, and why; None where that is not known.
    """

    sha256: str
    uri: str
    category: str
    previous: str | None
    at: str
    author: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Corrected:
    """A corrected document with its stored text, to learn from.

    ``extraction`` is None where no text of it is stored.
    """

    sha256: str
    uri: str
    category: str
    extraction: Extraction | None


class CorrectionLedger:
    """Corrections in the database of a store. Every method raises what the store's methods raise.

    What holds for which categories is said in :mod:`doc_classify.storage.correcting`.
    """

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    def find_uris(self, info: RunInfo, uris: Sequence[str]) -> dict[str, Known]:
        """The documents that a run met at these places; places that it did not meet are left out.

        A place whose content has changed since stands for what the run saw there.
        """
        digests = {uri_digest(uri): uri for uri in uris}
        found: dict[str, Known] = {}
        with reading(self._store.engine) as connection:
            for part in batches(list(digests)):
                query = _known(info, files.c.uri_digest).where(files.c.uri_digest.in_(part))
                for row in connection.execute(query):
                    found[digests[bytes(row.uri_digest)]] = Known(row.document_id, row.category)
        return found

    def find_hashes(self, info: RunInfo, hashes: Sequence[str]) -> dict[str, Known]:
        """The same for documents by their SHA-256, in lower-case hex."""
        found: dict[str, Known] = {}
        with reading(self._store.engine) as connection:
            for part in batches([bytes.fromhex(sha256) for sha256 in hashes]):
                query = _known(info, documents.c.sha256).where(documents.c.sha256.in_(part))
                for row in connection.execute(query):
                    found[bytes(row.sha256).hex()] = Known(row.document_id, row.category)
        return found

    def put(
        self,
        info: RunInfo,
        chosen: Sequence[tuple[Known, str]],
        *,
        author: str | None = None,
        note: str | None = None,
    ) -> None:
        """Say that these documents belong to these categories, in one transaction.

        Takes the place of what was said of them before under the categories of the run. Nothing
        else than a correction, or :meth:`remove`, changes a correction.
        """
        names, at = info.spec.categories, now()
        rows = {
            known.document_id: {
                "document_id": known.document_id,
                "names_key": names_key(names),
                "names": names_text(names),
                "category": category,
                "previous": known.category,
                "run_id": info.run_id,
                "author": clean(author),
                "note": clean(note),
                "at": at,
            }
            for known, category in chosen
        }

        def work(connection: Connection) -> None:
            for part in batches(list(rows.values())):
                upsert(connection, corrections, part, key=("document_id", "names_key"))

        self._store.write(work)

    def remove(self, info: RunInfo, known: Sequence[Known]) -> int:
        """Take back what holds of these documents for the run; returns of how many it did."""
        ids = sorted({one.document_id for one in known})

        def work(connection: Connection) -> int:
            taken: set[int] = set()
            for part in batches(ids):
                held = holding(connection, info.spec.categories)
                query = select(held.c.document_id, held.c.names_key).where(
                    held.c.document_id.in_(part)
                )
                # What was said for a wider or narrower set would hold next.
                while found := connection.execute(query).all():
                    for document, key in found:
                        taken.add(document)
                        connection.execute(
                            delete(corrections).where(
                                corrections.c.document_id == document,
                                corrections.c.names_key == key,
                            )
                        )
            return len(taken)

        return self._store.write(work)

    def count(self, taxonomy: Taxonomy) -> int:
        """How many documents have a correction that holds for these categories."""
        return sum(self.counts(taxonomy).values())

    def counts(self, taxonomy: Taxonomy) -> dict[str, int]:
        """The same by category."""
        with reading(self._store.engine) as connection:
            held = holding(connection, taxonomy.names)
            query = select(held.c.category, func.count()).group_by(held.c.category)
            return {row[0]: row[1] for row in connection.execute(query)}

    def listed(self, names: Sequence[str] | None = None) -> Iterator[Correction]:
        """Corrections in the order of their documents, streamed.

        Args:
            names: only those that hold for these categories; None for all there are.
        """
        with reading(self._store.engine) as connection:
            held: Any = corrections if names is None else holding(connection, names)
            query = (
                select(held, documents.c.sha256, _uri(held).label("uri"))
                .join(documents, documents.c.id == held.c.document_id)
                .order_by(held.c.document_id, held.c.at)
            )
            for row in connection.execution_options(yield_per=500).execute(query):
                yield Correction(
                    sha256=bytes(row.sha256).hex(),
                    uri=row.uri or "",
                    category=row.category,
                    previous=row.previous,
                    at=row.at,
                    author=row.author,
                    note=row.note,
                )

    def corrected_documents(
        self, taxonomy: Taxonomy, extraction_key: str | None = None
    ) -> Iterator[Corrected]:
        """The documents whose correction holds for these categories, to learn from.

        In the order in which the documents were first seen, streamed: a few texts are in memory.

        Args:
            taxonomy: only its names matter.
            extraction_key: the text read under these settings is taken where there is one, else
                any other.
        """
        last = 0
        while True:
            with reading(self._store.engine) as connection:
                held = holding(connection, taxonomy.names)
                query = (
                    select(
                        held.c.document_id,
                        held.c.category,
                        documents.c.sha256,
                        _uri(held).label("uri"),
                    )
                    .join(documents, documents.c.id == held.c.document_id)
                    .where(held.c.document_id > last)
                    .order_by(held.c.document_id)
                    .limit(_TEXTS)
                )
                rows = connection.execute(query).all()
                read = _texts(connection, [row.document_id for row in rows], extraction_key)
            for row in rows:
                last = row.document_id
                yield Corrected(
                    bytes(row.sha256).hex(), row.uri or "", row.category, read.get(last)
                )
            if not rows:
                return


def _known(info: RunInfo, key: ColumnElement[Any]) -> Select[Any]:
    return (
        select(key, run_files.c.document_id, results.c.category)
        .select_from(run_files)
        .join(files, files.c.id == run_files.c.file_id)
        .join(documents, documents.c.id == run_files.c.document_id)
        .outerjoin(
            results,
            and_(
                results.c.document_id == run_files.c.document_id,
                results.c.fingerprint == info.spec.fingerprint,
            ),
        )
        .where(run_files.c.run_id == info.run_id)
    )


def _uri(held: Any) -> Any:
    """Where the run in which it was corrected had seen a document first."""
    return (
        select(files.c.uri)
        .join(run_files, run_files.c.file_id == files.c.id)
        .where(run_files.c.run_id == held.c.run_id, run_files.c.document_id == held.c.document_id)
        .order_by(files.c.id)
        .limit(1)
        .scalar_subquery()
    )


def _texts(
    connection: Connection, ids: Sequence[int], extraction_key: str | None
) -> dict[int, Extraction]:
    """One stored extraction of each document that has one."""
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
