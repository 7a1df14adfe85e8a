"""What is told of a distributed run while others work on it."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import text

from doc_classify.records import Source
from doc_classify.storage import monitoring
from doc_classify.storage.base import RunSpec
from doc_classify.storage.chunks import CANCELLED, INCOMPLETE, ChunkCounts, ChunkLedger

SPEC = RunSpec("/d", "distributed", "f" * 16, "e" * 16, "embedded", ("a", "b"), {"model": None})
ONE, OTHER = "one pid 7", "other pid 8"


@pytest.fixture
def ledger(store) -> ChunkLedger:
    return ChunkLedger(store)


@pytest.fixture
def run_id(ledger: ChunkLedger) -> str:
    run_id = ledger.begin(SPEC)
    numbers = ledger.add(run_id, [[Source(f"file:///d/{n}", 1, 1)] for n in range(4)], 0)
    ledger.sent(run_id, numbers)
    ledger.submitted(run_id)
    return run_id


def message(store, run_id: str) -> str | None:
    return store.progress(run_id).message


def test_what_waits(store, ledger: ChunkLedger, run_id: str):
    time.sleep(0.1)
    claim = ledger.claim(run_id, 1, ONE, 60)
    ledger.claim(run_id, 2, ONE, -1)
    ledger.finish(ledger.claim(run_id, 3, ONE, 60))
    found = monitoring.waiting(store, run_id)
    assert found.counts == ChunkCounts(pending=1, claimed=2, expired=1, done=1)
    assert found.oldest and 0.05 < found.oldest < 30
    assert found.attempts == 1
    for number in (0, 2):
        ledger.finish(ledger.claim(run_id, number, ONE, 60))
    ledger.finish(claim)
    found = monitoring.waiting(store, run_id)
    assert (found.counts, found.oldest, found.attempts) == (ChunkCounts(done=4), None, 0)


def test_a_note_is_dropped_by_its_worker_or_by_a_chunk_done_on_its_machine(
    store, ledger: ChunkLedger, run_id: str
):
    ledger.note(run_id, ONE, "waits")
    assert message(store, run_id) == "one pid 7: waits"
    ledger.note(run_id, OTHER, None)
    assert message(store, run_id) == "one pid 7: waits"
    ledger.note(run_id, ONE, None)
    assert message(store, run_id) is None
    ledger.hand_back(ledger.claim(run_id, 0, ONE, 60), f"{ONE}: cannot")
    ledger.finish(ledger.claim(run_id, 1, OTHER, 60))
    assert message(store, run_id) == "one pid 7: cannot"
    ledger.finish(ledger.claim(run_id, 2, "one pid 9", 60))
    assert message(store, run_id) is None


def test_a_note_says_nothing_over_what_must_stay(store, ledger: ChunkLedger):
    run_id = ledger.begin(SPEC)
    ledger.add(run_id, [[Source("file:///d/0", 1, 1)]], 0)
    ledger.submitted(run_id, broken_off="power cut")
    ledger.note(run_id, ONE, "waits")
    assert message(store, run_id) == f"{INCOMPLETE}: power cut"
    other = ledger.begin(SPEC)
    ledger.end(other, CANCELLED, "cancelled")
    ledger.note(other, ONE, "waits")
    assert message(store, other) == "cancelled"


def test_connections_and_load(store):
    if store.engine.dialect.name == "sqlite":
        assert monitoring.connections(store) is None and monitoring.load(store, 0.1) is None
        return
    found = monitoring.connections(store)
    assert found and 1 <= found.ours <= found.used <= found.allowed
    assert monitoring.load(store, 0.1) == 0.0

    def work() -> None:
        with store.engine.connect() as connection:
            connection.execute(text("SELECT pg_sleep(1.5)"))

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    load = monitoring.load(store, 0.5)
    thread.join()
    assert load and 0.8 <= load <= 1.0


def test_the_backlog_is_that_of_all_open_runs(store, ledger: ChunkLedger, run_id: str):
    other = ledger.begin(SPEC)  # still being submitted
    ledger.add(other, [[Source(f"file:///o/{n}", 1, 1) for n in range(3)]], 0)
    ended = ledger.begin(SPEC)
    ledger.add(ended, [[Source("file:///e/1", 1, 1)]], 0)
    ledger.submitted(ended)
    ledger.end(ended, CANCELLED, None)
    ledger.claim(run_id, 0, ONE, 60)
    ledger.finish(ledger.claim(run_id, 1, ONE, 60))
    found = monitoring.backlog(store)
    assert found == monitoring.Backlog(runs=2, waiting=3, held=1, documents=6)
    assert found.unfinished == 4


def test_nothing_is_the_backlog_of_an_empty_ledger(store):
    assert monitoring.backlog(store) == monitoring.Backlog()
