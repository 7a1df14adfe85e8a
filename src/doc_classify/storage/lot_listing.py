"""What can be told of the lots of a run: samples, certificate, outcome, audits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, and_, exists, select

from doc_classify.storage.schema import lot_documents, lots, run_files


def lots_query(run_id: str, fingerprint: str, *, forced: bool) -> Select[Any]:
    """Every lot of the cascade that has documents of the run, oldest first.

    Of a forced run, which has decided everything anew, the lots that it has made alone.
    """
    query = select(lots).where(lots.c.fingerprint == fingerprint).order_by(lots.c.id)
    if forced:
        return query.where(lots.c.run_id == run_id)
    there = exists(
        select(run_files.c.file_id)
        .join(
            lot_documents,
            and_(
                lot_documents.c.lot_id == lots.c.id,
                lot_documents.c.document_id == run_files.c.document_id,
            ),
        )
        .where(run_files.c.run_id == run_id)
    )
    return query.where(there)


def list_lots(
    connection: Connection, run_id: str, fingerprint: str, *, forced: bool
) -> list[dict[str, Any]]:
    """See :meth:`doc_classify.storage.base.Store.lots`."""
    return [
        {
            "lot": row.id,
            "state": row.state,
            "created": row.created,
            "population": row.population,
            "known": row.known,
            "llm_requests": row.calls,
            "samples": [
                {
                    "purpose": step["kind"],
                    "drawn": step.get("drawn", 0),
                    "asked": min(step.get("documents", 0), step.get("drawn", 0)),
                    "student": step.get("version"),
                }
                for step in row.journal.get("steps", [])
            ],
            "summary": row.journal.get("summary"),
            "certificate": row.journal.get("certificate"),
            "hopeless": row.journal.get("hopeless"),
            "outcome": row.journal.get("outcome"),
            "audits": row.journal.get("audits", []),
        }
        for row in connection.execute(lots_query(run_id, fingerprint, forced=forced))
    ]
