"""What the LLM of a cascade has said before, and about which texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, select

from doc_classify.errors import is_of_extraction, is_permanent
from doc_classify.records import Classification, Failure, Outcome, freeze_scores
from doc_classify.storage.base import RunSpec
from doc_classify.storage.rows import batches, upsert
from doc_classify.storage.schema import answered_texts, results


def answers_of(
    connection: Connection, run_id: str, spec: RunSpec, ids: Sequence[int]
) -> dict[int, Classification | Failure]:
    """What the LLM has said of documents: a category, or why it has none for them.

    What may be otherwise another time is left out, and in a forced run what others have asked.
    """
    found: dict[int, Classification | Failure] = {}
    for part in batches(ids):
        query = _answers(run_id, spec).where(results.c.document_id.in_(part))
        for row in connection.execute(query):
            answer = _answer(row)
            if answer is not None:
                found[row.document_id] = answer
    return found


def answer_to_text(
    connection: Connection, run_id: str, spec: RunSpec, digest: bytes
) -> Classification | None:
    """The category that the LLM gave to a document with this text; None where there is none."""
    query = _answers(run_id, spec).join(
        answered_texts, answered_texts.c.document_id == results.c.document_id
    )
    query = query.where(
        answered_texts.c.fingerprint == spec.teacher_fingerprint,
        answered_texts.c.digest == digest,
    )
    row = connection.execute(query).one_or_none()
    answer = None if row is None else _answer(row)
    return answer if isinstance(answer, Classification) else None


def note_texts(connection: Connection, fingerprint: str, outcomes: Iterable[Outcome]) -> None:
    """Note which texts the LLM has given a category to."""
    upsert(
        connection,
        answered_texts,
        [
            {
                "fingerprint": fingerprint,
                "digest": outcome.text_digest,
                "document_id": outcome.document_id,
            }
            for outcome in outcomes
            if outcome.usage and outcome.classification and outcome.text_digest
        ],
        key=("fingerprint", "digest"),
    )


def _answers(run_id: str, spec: RunSpec) -> Select[Any]:
    query = select(results).where(results.c.fingerprint == spec.teacher_fingerprint)
    return query.where(results.c.run_id == run_id) if spec.force else query


def _answer(row: Any) -> Classification | Failure | None:
    if row.error_kind is not None:
        # What was wrong with reading it is told by the extraction.
        told = is_permanent(row.error_kind) and not is_of_extraction(row.error_kind)
        return Failure(row.error_kind, row.error_message or "") if told else None
    return Classification(
        category=row.category,
        score=row.score,
        confidence=row.confidence,
        scores=freeze_scores(dict(row.scores or ())),
        needs_review=bool(row.needs_review),
        reasoning=row.reasoning,
    )
