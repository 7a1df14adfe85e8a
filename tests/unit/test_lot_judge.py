"""Who decides about a document of a lot."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from doc_classify.classification.cascade import Lot, Promise, certify
from doc_classify.classification.cascade.promise import Judged
from doc_classify.pipeline.asking import ReadDocument
from doc_classify.pipeline.judging import LotJudge
from doc_classify.records import (
    STUDENT,
    Classification,
    Extraction,
    Failure,
    Outcome,
    Page,
    Source,
    Timings,
)
from doc_classify.storage.base import Task

TAKES_ALL = certify(Lot(1000, 2, Promise(0.9)), 0, [Judged(0.5, True, "letters")] * 100, 0.05)


def judge(**changes: Any) -> LotJudge:
    async def in_store(work: Any) -> Any:
        return work()

    ledger: Any = SimpleNamespace(answer_to=lambda *_: None)
    equipment: Any = SimpleNamespace(in_store=in_store)
    spec: Any = SimpleNamespace(teacher="ollama")
    return LotJudge(ledger, equipment, "run", spec, SimpleNamespace(), lambda: 0.0, **changes)  # type: ignore[arg-type]


def failed(kind: str) -> Outcome:
    return Outcome(1, 1, failure=Failure(kind, "why"))


@pytest.mark.parametrize("llm_only", [False, True])
def test_the_student_decides_nothing_that_is_the_llms(llm_only: bool) -> None:
    extraction = Extraction("text/plain", (Page(1, "some text"),), "text")
    task = Task(1, 1, Source("file:///a.txt", 1, 1), llm_only=llm_only)
    read = ReadDocument(task, extraction, True, Timings(), 0)
    said = Classification("letters", 0.9)
    found = asyncio.run(judge(decision=TAKES_ALL).before(read, said))
    assert (found is None) is llm_only
    if found:
        assert found[0].decided_by == STUDENT


@pytest.mark.parametrize(
    ("kind", "last", "held"),
    [
        ("server", False, 1),
        ("server", True, 1),
        ("unreadable", False, 1),
        ("unreadable", True, 0),
        ("changed", False, 0),
        ("damaged", False, 0),
        ("invalid_answer", False, 0),
    ],
)
def test_what_may_be_read_later_is_tried_again_in_a_sample(
    kind: str, last: bool, held: int
) -> None:
    judging = judge(is_sample=True, is_last=last)
    kept = asyncio.run(judging.after(failed(kind)))
    assert (judging.held, len(kept)) == (held, 1 - held)
