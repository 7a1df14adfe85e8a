"""Who works on which chunk: claims, leases, and what the ledger makes of repeats."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, select, update
from tests.doubles.site import READERS

from conftest import fresh_database, wait_until
from doc_classify.discovery import walk
from doc_classify.pipeline.chunk_worker import ChunkWorker
from doc_classify.records import (
    Classification,
    Failure,
    FileStatus,
    Outcome,
    Rejected,
    RunStats,
    Source,
)
from doc_classify.runners.distributed import CeleryDistributedProcessor
from doc_classify.settings import load_settings
from doc_classify.storage import chunks as module
from doc_classify.storage.base import Hashed, RunSpec, Task
from doc_classify.storage.chunks import (
    CANCELLED,
    FAILED,
    GIVEN_UP_AFTER,
    INCOMPLETE,
    ChunkCounts,
    ChunkLedger,
    Claim,
)
from doc_classify.storage.schema import attempts, runs
from doc_classify.storage.store import SqlStore

SPEC = RunSpec("/d", "distributed", "", "e" * 16, "auto", ("a", "b"), {"model": "m"})
BOUND = replace(SPEC, classifier="embedded", fingerprint="f" * 16, settings={"model": None})
LEASE = 60.0


class Clock:
    """The database's clock, set by hand."""

    now = 1_000.0

    def __call__(self, _connection: object) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "clock", made)
    return made


@pytest.fixture
def sql_store(store_url: str) -> Iterator[SqlStore]:
    with contextlib.closing(SqlStore(store_url)) as opened:
        yield opened


@pytest.fixture
def ledger(sql_store: SqlStore) -> ChunkLedger:
    return ChunkLedger(sql_store)


def source(number: int) -> Source:
    return Source(f"file:///d/{number}", number, number)


def a_run(ledger: ChunkLedger, chunks: int = 3, *, close: bool = True) -> str:
    """A bound run with chunks of two files."""
    run_id = ledger.begin(SPEC)
    parts = [[source(2 * number), source(2 * number + 1)] for number in range(chunks)]
    assert ledger.add(run_id, parts, 0) == list(range(chunks))
    ledger.sent(run_id, range(chunks))
    ledger.bind(run_id, BOUND)
    if close:
        ledger.submitted(run_id)
    return run_id


def state(store: SqlStore, run_id: str) -> str:
    info = store.progress(run_id)
    assert info is not None
    return info.state


def told(store: SqlStore, run_id: str) -> str | None:
    info = store.progress(run_id)
    assert info is not None
    return info.message


def hashed(one: Source) -> Hashed:
    return Hashed(one, f"{one.size:064x}")


def classified(task: Task) -> Outcome:
    return Outcome(task.document_id, task.file_id, Classification("a", 0.9))


# --- claims -------------------------------------------------------------------------------------


def test_of_many_who_want_a_chunk_one_gets_it(store_url: str, ledger: ChunkLedger):
    run_id = a_run(ledger, 6)
    found: list[Claim] = []
    barrier = threading.Barrier(6)

    def want() -> None:
        with contextlib.closing(SqlStore(store_url)) as store:
            mine = ChunkLedger(store)
            barrier.wait()
            for number in range(6):
                if claim := mine.claim(run_id, number, "me", LEASE):
                    found.append(claim)

    threads = [threading.Thread(target=want) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claim.number for claim in found) == list(range(6))
    assert len({claim.token for claim in found}) == 6
    assert ledger.counts(run_id) == ChunkCounts(claimed=6)


def test_a_claim_holds_what_was_submitted(ledger: ChunkLedger):
    run_id = a_run(ledger)
    claim = ledger.claim(run_id, 1, "me", LEASE)
    assert claim and claim.sources == (source(2), source(3))
    assert (claim.run_id, claim.number, claim.attempts) == (run_id, 1, 1)
    assert ledger.claim(run_id, 1, "me", LEASE) is None
    assert ledger.claim(run_id, 7, "me", LEASE) is None
    assert ledger.claim("no such run", 0, "me", LEASE) is None


def test_names_that_are_no_text_come_back_as_they_were(ledger: ChunkLedger):
    run_id = ledger.begin(SPEC)
    odd = Source("file:///d/%FF%00%22%5C-\u00e4\u6f22\U0001f600", 2**62, -1)
    ledger.add(run_id, [[odd]], 0)
    claim = ledger.claim(run_id, 0, "me", LEASE)
    assert claim and claim.sources == (odd,)


def test_a_lease_that_ends_frees_the_chunk(ledger: ChunkLedger, clock: Clock):
    run_id = a_run(ledger)
    first = ledger.claim(run_id, 0, "a", LEASE)
    assert first
    clock.now += LEASE
    assert ledger.claim(run_id, 0, "b", LEASE) is None
    assert ledger.counts(run_id) == ChunkCounts(pending=2, claimed=1)
    clock.now += 1
    assert ledger.counts(run_id) == ChunkCounts(pending=2, claimed=1, expired=1)
    second = ledger.claim(run_id, 0, "b", LEASE)
    assert second and second.attempts == 2
    # The first comes back: it may neither keep the chunk, nor finish it, nor give it away.
    assert not ledger.renew(first, LEASE)
    assert not ledger.finish(first)
    ledger.hand_back(first, "late")
    assert ledger.claim(run_id, 0, "c", LEASE) is None
    assert ledger.renew(second, LEASE) and ledger.finish(second)
    assert ledger.counts(run_id) == ChunkCounts(pending=2, done=1)


def test_a_lease_is_renewed_also_when_nobody_noticed_its_end(ledger: ChunkLedger, clock: Clock):
    run_id = a_run(ledger)
    claim = ledger.claim(run_id, 0, "a", LEASE)
    assert claim
    for _ in range(3):
        clock.now += LEASE - 1
        assert ledger.renew(claim, LEASE)
        assert ledger.claim(run_id, 0, "b", LEASE) is None
    clock.now += 10 * LEASE
    assert ledger.renew(claim, LEASE)
    assert ledger.counts(run_id).expired == 0


def test_a_chunk_that_is_handed_back_counts_as_never_claimed(
    sql_store: SqlStore, ledger: ChunkLedger
):
    run_id = a_run(ledger)
    for _ in range(2 * GIVEN_UP_AFTER):
        claim = ledger.claim(run_id, 0, "a", LEASE)
        assert claim and claim.attempts == 1
        ledger.hand_back(claim, "the server is away")
    assert told(sql_store, run_id) == "the server is away"
    assert not ledger.finish(claim) and not ledger.renew(claim, LEASE)
    # Its message is used up, those of the others are not.
    assert ledger.overdue(unsent_for=1000, limit=9) == [(run_id, 0)]


def test_claims_without_a_word_are_counted(ledger: ChunkLedger, clock: Clock):
    run_id = a_run(ledger)
    last = []
    for _ in range(GIVEN_UP_AFTER + 1):
        claim = ledger.claim(run_id, 0, "a", LEASE)
        assert claim
        last.append(claim.is_last)
        clock.now += 2 * LEASE
    assert last == [False] * GIVEN_UP_AFTER + [True]


# --- the end of a run ---------------------------------------------------------------------------


def test_a_run_is_finished_once(store_url: str, sql_store: SqlStore, ledger: ChunkLedger):
    run_id = a_run(ledger, 8)
    claims = [ledger.claim(run_id, number, "me", LEASE) for number in range(8)]
    results: list[bool] = []

    def end(part: list[Claim]) -> None:
        with contextlib.closing(SqlStore(store_url)) as store:
            results.extend(ChunkLedger(store).finish(claim) for claim in part)

    # Each chunk is finished by two at once.
    threads = [threading.Thread(target=end, args=(claims[n::2],)) for n in (0, 1, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 8 + [True] * 8
    info = sql_store.progress(run_id)
    assert info and info.state == "finished" and info.finished
    assert ledger.counts(run_id) == ChunkCounts(done=8)
    assert not ledger.reopen(run_id) and not ledger.end(run_id, CANCELLED, None)


def test_a_run_whose_submission_goes_on_is_not_finished(sql_store: SqlStore, ledger: ChunkLedger):
    run_id = a_run(ledger, 1, close=False)
    claim = ledger.claim(run_id, 0, "me", LEASE)
    assert claim and ledger.finish(claim)
    assert state(sql_store, run_id) == "submitting"
    assert ledger.add(run_id, [[source(9)]], 2) == [1]
    ledger.submitted(run_id)
    assert state(sql_store, run_id) == "running"
    info = sql_store.progress(run_id)
    assert info and info.stats.submitted == 2 + 1 + 2
    claim = ledger.claim(run_id, 1, "me", LEASE)
    assert claim and ledger.finish(claim)
    assert state(sql_store, run_id) == "finished"


def test_an_empty_run_is_finished_at_once(sql_store: SqlStore, ledger: ChunkLedger):
    run_id = ledger.begin(SPEC)
    assert ledger.add(run_id, [], 0) == []
    ledger.submitted(run_id)
    assert state(sql_store, run_id) == "finished"


def test_a_finished_run_tells_its_time_from_start_to_end(sql_store: SqlStore, ledger: ChunkLedger):
    run_id = a_run(ledger, 1)
    time.sleep(0.05)
    claim = ledger.claim(run_id, 0, "me", LEASE)
    assert claim
    registration = sql_store.register(run_id, [hashed(one) for one in claim.sources], again=True)
    sql_store.record(run_id, [classified(task) for task in registration.tasks], seconds=0.001)
    assert ledger.finish(claim)
    info = sql_store.progress(run_id)
    assert info and info.stats.total_processing_time >= 0.04


def test_a_cancelled_run_gives_no_more_chunks(sql_store: SqlStore, ledger: ChunkLedger):
    run_id = a_run(ledger)
    claim = ledger.claim(run_id, 0, "me", LEASE)
    assert claim
    assert ledger.end(run_id, CANCELLED, "enough")
    assert not ledger.end(run_id, FAILED, "too late")
    assert (state(sql_store, run_id), told(sql_store, run_id)) == (CANCELLED, "enough")
    assert ledger.claim(run_id, 1, "me", LEASE) is None
    assert ledger.overdue(unsent_for=-1, limit=9) == []
    assert ledger.finish(claim)  # what is being done counts
    assert state(sql_store, run_id) == CANCELLED
    assert ledger.reopen(run_id)
    assert (state(sql_store, run_id), told(sql_store, run_id)) == ("running", None)
    for number in (1, 2):
        claim = ledger.claim(run_id, number, "me", LEASE)
        assert claim and ledger.finish(claim)
    assert state(sql_store, run_id) == "finished"


def test_a_run_that_was_done_while_cancelled_is_finished_when_reopened(
    sql_store: SqlStore, ledger: ChunkLedger
):
    run_id = a_run(ledger, 1)
    claim = ledger.claim(run_id, 0, "me", LEASE)
    assert claim and ledger.end(run_id, CANCELLED, None) and ledger.finish(claim)
    ledger.reopen(run_id)
    assert state(sql_store, run_id) == "finished"


def test_that_a_run_is_incomplete_is_never_forgotten(sql_store: SqlStore, ledger: ChunkLedger):
    run_id = a_run(ledger, 1, close=False)
    ledger.submitted(run_id, "stopped by the user")
    claim = ledger.claim(run_id, 0, "me", LEASE)
    assert claim
    ledger.hand_back(claim, "the server is away")
    ledger.reopen(run_id)
    claim = ledger.claim(run_id, 0, "me", LEASE)
    assert claim and ledger.finish(claim)
    assert told(sql_store, run_id) == f"{INCOMPLETE}: stopped by the user"


def test_a_run_whose_submitter_was_killed_can_go_on(sql_store: SqlStore, ledger: ChunkLedger):
    run_id = a_run(ledger, 1, close=False)
    assert ledger.reopen(run_id)
    claim = ledger.claim(run_id, 0, "me", LEASE)
    assert claim and ledger.finish(claim)
    assert (state(sql_store, run_id), told(sql_store, run_id)) == ("finished", INCOMPLETE)


def test_messages_of_the_way_are_gone_at_the_end(sql_store: SqlStore, ledger: ChunkLedger):
    run_id = a_run(ledger, 1)
    claim = ledger.claim(run_id, 0, "me", LEASE)
    assert claim
    ledger.hand_back(claim, "the server is away")
    claim = ledger.claim(run_id, 0, "me", LEASE)
    assert claim and ledger.finish(claim)
    assert told(sql_store, run_id) is None


# --- what was lost ------------------------------------------------------------------------------


def test_chunks_whose_message_was_lost_are_overdue(ledger: ChunkLedger, clock: Clock):
    run_id = a_run(ledger)
    assert ledger.overdue(unsent_for=30, limit=9) == []
    ledger.add(run_id, [[source(50)]], 0)  # its submitter was killed before it was sent
    assert ledger.overdue(unsent_for=30, limit=9) == [(run_id, 3)]
    assert ledger.overdue(unsent_for=30, limit=9) == []
    clock.now += 31
    assert ledger.overdue(unsent_for=30, limit=2) == [(run_id, 0), (run_id, 1)]
    assert ledger.overdue(unsent_for=30, limit=9) == [(run_id, 2), (run_id, 3)]
    assert ledger.overdue(unsent_for=30, limit=9) == []
    assert ledger.overdue(unsent_for=-1, limit=9, beyond=1) == [(run_id, 2), (run_id, 3)]
    assert ledger.overdue(unsent_for=-1, limit=9, run_id="another") == []


def test_chunks_whose_worker_died_are_overdue_however_often(ledger: ChunkLedger, clock: Clock):
    run_id = a_run(ledger, 1)
    assert ledger.claim(run_id, 0, "me", LEASE)
    clock.now += LEASE / 2
    assert ledger.overdue(unsent_for=1, limit=9) == []
    clock.now += LEASE
    assert ledger.overdue(unsent_for=1000, limit=9) == [(run_id, 0)]
    assert ledger.overdue(unsent_for=1000, limit=9) == []
    # That message is lost as well.
    clock.now += 31
    assert ledger.overdue(unsent_for=30, limit=9) == [(run_id, 0)]
    assert ledger.overdue(unsent_for=-1, limit=9) == [(run_id, 0)]


def test_sweepers_at_once_do_not_send_twice(store_url: str, ledger: ChunkLedger):
    run_id = a_run(ledger, 0, close=False)
    ledger.add(run_id, [[source(number)] for number in range(40)], 0)
    found: list[tuple[str, int]] = []

    def look() -> None:
        with contextlib.closing(SqlStore(store_url)) as store:
            while part := ChunkLedger(store).overdue(unsent_for=1000, limit=7):
                found.extend(part)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(run_id, number) for number in range(40)]


def test_the_first_worker_settles_how_a_run_classifies(store_url: str, ledger: ChunkLedger):
    run_id = ledger.begin(SPEC)
    others = [replace(BOUND, fingerprint=letter * 16) for letter in "abcdef"]
    found: list[RunSpec] = []

    def bind(spec: RunSpec) -> None:
        with contextlib.closing(SqlStore(store_url)) as store:
            found.append(ChunkLedger(store).bind(run_id, spec))

    threads = [threading.Thread(target=bind, args=(spec,)) for spec in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (holds,) = {one.fingerprint for one in found}
    assert ledger.bind(run_id, BOUND).fingerprint == holds
    stored = ledger.spec(run_id)
    assert stored and stored[0].fingerprint == holds and stored[0].classifier == "embedded"
    assert stored[0].settings["model"] is None
    assert ledger.spec("no such run") is None


def test_a_worker_that_freezes_in_a_transaction_holds_up_nobody(postgres_url: str):
    url = fresh_database(postgres_url)
    with (
        contextlib.closing(SqlStore(url, idle_limit=0.3)) as frozen,
        contextlib.closing(SqlStore(url)) as other,
    ):
        ledger = ChunkLedger(other)
        run_id = a_run(ledger, 1)
        begun, go_on = threading.Event(), threading.Event()
        tries = []

        def work(connection: Connection) -> None:
            tries.append(1)
            connection.execute(select(runs.c.id).where(runs.c.id == run_id).with_for_update())
            begun.set()
            go_on.wait(20)
            connection.execute(update(runs).where(runs.c.id == run_id).values(message="mine"))

        thread = threading.Thread(target=frozen.write, args=(work,))
        thread.start()
        assert begun.wait(20)
        claim = ledger.claim(run_id, 0, "other", LEASE)
        assert claim and ledger.finish(claim)
        go_on.set()
        thread.join()
        assert len(tries) == 2  # broken off, and tried again
        assert told(other, run_id) == "mine"


def test_a_worker_that_freezes_between_statements_sent_together(postgres_url: str):
    """The server waits for the rest of them, and has no time limit for that."""
    url = fresh_database(postgres_url)
    with contextlib.closing(SqlStore(url, idle_limit=0.5)) as store:
        ledger = ChunkLedger(store)
        run_id = a_run(ledger, 1)
        with (
            psycopg.connect(url, application_name="doc-classify") as frozen,
            contextlib.suppress(psycopg.Error),
            frozen.pipeline(),
        ):
            cursor = frozen.execute("SELECT id FROM runs FOR UPDATE")
            assert cursor.fetchone() == (run_id,)
            began = time.monotonic()
            ledger.submitted(run_id)
            assert time.monotonic() - began < 15
            claim = ledger.claim(run_id, 0, "other", LEASE)
            assert claim and ledger.finish(claim)


# --- files that a chunk has registered before ---------------------------------------------------


def test_files_left_pending_are_tasks_again_and_counted_once(
    sql_store: SqlStore, ledger: ChunkLedger
):
    run_id = a_run(ledger, 1)
    files = [hashed(source(0)), hashed(source(1))]
    first = sql_store.register(run_id, files, again=True)
    sql_store.record(run_id, [classified(first.tasks[0])])
    assert sql_store.register(run_id, files).tasks == []
    second = sql_store.register(run_id, files, again=True)
    assert [task.file_id for task in second.tasks] == [first.tasks[1].file_id]
    assert second.statuses == {}
    stats = sql_store.record(run_id, [classified(task) for task in first.tasks])
    assert (stats.seen, stats.classified, stats.pending) == (2, 2, 0)
    assert sql_store.register(run_id, files, again=True).tasks == []


def test_a_file_that_changed_between_attempts_is_what_it_is_now(
    sql_store: SqlStore, ledger: ChunkLedger
):
    run_id = a_run(ledger, 1)
    sql_store.register(run_id, [hashed(source(0)), hashed(source(1))], again=True)
    now = [Hashed(source(0), "9" * 64), hashed(source(1))]
    registration = sql_store.register(run_id, now, again=True)
    assert len(registration.tasks) == 2
    stats = sql_store.record(run_id, [classified(task) for task in registration.tasks])
    assert (stats.seen, stats.classified, stats.pending) == (2, 2, 0)
    rows = list(sql_store.results(run_id))
    assert [row.sha256 for row in rows] == ["9" * 64, f"{1:064x}"]


def test_files_that_went_between_attempts_are_failures(sql_store: SqlStore, ledger: ChunkLedger):
    run_id = a_run(ledger, 1)
    registration = sql_store.register(run_id, [hashed(source(0)), hashed(source(1))], again=True)
    sql_store.record(run_id, [classified(registration.tasks[0])])
    gone = [Rejected(source(number).uri, "vanished", "gone") for number in (0, 1, 2)]
    assert sql_store.reject(run_id, gone[1:], again=False) == 1  # the third, which is new
    assert sql_store.reject(run_id, gone, again=True) == 0
    info = sql_store.run(run_id)
    assert info and info.stats.failures == {"vanished": 2}
    stats = info.stats
    assert (stats.seen, stats.classified, stats.failed, stats.pending) == (3, 1, 2, 0)


# --- a process that works on chunks ---------------------------------------------------------------


class TimeUp(Exception):
    """As Celery's SoftTimeLimitExceeded: raised from a signal handler, wherever that strikes."""


def test_what_a_time_limit_broke_off_goes_on_and_blames_no_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", str(READERS))
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.txt").write_text(f"SLOW 0.4 Invoice {number}\n")
    chosen = load_settings(database_url=f"sqlite:///{tmp_path / 'x.db'}", lease_seconds=1)

    def strike(_number: int, _frame: object) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, strike)
    others = set(psutil.Process().children())
    store = SqlStore(chosen.database_url)
    worker = ChunkWorker(chosen, store)
    try:
        with CeleryDistributedProcessor(settings=chosen) as processor:
            spec = processor._spec("documents", False, False)
        ledger = ChunkLedger(store)
        run_id = ledger.begin(spec)
        ledger.add(run_id, [list(walk(folder))], 0)
        ledger.submitted(run_id)
        wait_for_first = threading.Thread(target=_strike_later, args=(store, run_id))
        wait_for_first.start()
        with pytest.raises(TimeUp):
            worker.work(run_id, 0)
        wait_for_first.join()
        assert set(psutil.Process().children()) == others
        assert 0 < store.run(run_id).stats.classified < 5
        assert not worker.work(run_id, 0)  # its lease has not ended
        time.sleep(1)
        assert worker.work(run_id, 0)
        info = store.run(run_id)
        assert (info.state, info.stats.classified, info.stats.pending) == ("finished", 5, 0)
        with store.engine.connect() as connection:
            assert connection.execute(select(attempts)).all() == []
    finally:
        signal.signal(signal.SIGALRM, before)
        worker.close()
        store.close()
    assert set(psutil.Process().children()) == others


def _strike_later(store: SqlStore, run_id: str) -> None:
    """When something is stored; the signal reaches the main thread."""
    wait_until(lambda: store.progress(run_id).stats.classified, "a document is done")
    os.kill(os.getpid(), signal.SIGALRM)


# --- any order of events ------------------------------------------------------------------------


class Chunks(RuleBasedStateMachine):
    """Workers that die, sleep, come back and repeat themselves, over one run."""

    database: str

    @initialize()
    def open(self) -> None:
        self.store = SqlStore(self.database)
        self.ledger = ChunkLedger(self.store)
        self.clock = Clock()
        module.clock, self.real_clock = self.clock, module.clock
        self.run_id = self.ledger.begin(SPEC)
        self.ledger.bind(self.run_id, BOUND)
        self.open_claims: list[Claim] = []  # by workers that are alive, or will be again
        self.submitted: dict[str, int] = {}  # URI -> content
        self.chunks = 0
        self.finished: set[int] = set()
        self.closed = False

    def teardown(self) -> None:
        if hasattr(self, "store"):
            try:
                self.finish_everything()
            finally:
                module.clock = self.real_clock
                self.store.close()

    @precondition(lambda self: not self.closed)
    @rule(sizes=st.lists(st.integers(1, 3), max_size=3), data=st.data())
    def submit(self, sizes: list[int], data: st.DataObject) -> None:
        parts = []
        for size in sizes:
            part = []
            for _ in range(size):
                uri = f"file:///d/{len(self.submitted):03}"
                self.submitted[uri] = data.draw(st.integers(1, 5))
                part.append(Source(uri, self.submitted[uri], 1))
            parts.append(part)
        numbers = self.ledger.add(self.run_id, parts, 0)
        assert numbers == list(range(self.chunks, self.chunks + len(parts)))
        self.chunks += len(parts)

    @rule(broken=st.booleans())
    def close(self, broken: bool) -> None:
        self.ledger.submitted(self.run_id, "broken off" if broken else None)
        self.closed = True

    @precondition(lambda self: self.chunks)
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, self.chunks - 1))
        if claim := self.ledger.claim(self.run_id, number, "worker", LEASE):
            assert number not in self.finished
            self.open_claims.append(claim)

    @precondition(lambda self: self.open_claims)
    @rule(
        data=st.data(),
        stored=st.integers(0, 3),
        ends=st.lists(st.sampled_from(["a", "damaged", "unreadable", "gone"]), min_size=3),
    )
    def process(self, data: st.DataObject, stored: int, ends: list[str]) -> None:
        """A worker gets some way, and may be killed then."""
        self.work(data.draw(st.sampled_from(self.open_claims)), stored, ends)

    def work(self, claim: Claim, stored: int, ends: list[str]) -> None:
        if claim.is_last:
            given_up = [Rejected(one.uri, "given_up", "") for one in claim.sources]
            self.store.reject(self.run_id, given_up, again=True)
            return
        seen, gone = [], []
        for one, end in zip(claim.sources, ends, strict=False):
            if end == "gone":
                gone.append(Rejected(one.uri, "vanished", "gone"))
            else:
                seen.append(hashed(one))
        self.store.reject(self.run_id, gone, again=True)
        tasks = self.store.register(self.run_id, seen, again=True).tasks
        outcomes = [
            classified(task)
            if end == "a"
            else Outcome(task.document_id, task.file_id, failure=Failure(end, end))
            for task, end in zip(tasks, ends, strict=False)
        ]
        self.store.record(self.run_id, outcomes[:stored])

    @precondition(lambda self: self.open_claims)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A worker does what is left of its chunk and says so."""
        claim = data.draw(st.sampled_from(self.open_claims))
        self.complete(claim)

    def complete(self, claim: Claim) -> None:
        self.work(claim, 9, ["a"] * 9)
        if self.ledger.finish(claim):
            assert claim.number not in self.finished
            self.finished.add(claim.number)
        assert not self.ledger.finish(claim) and not self.ledger.renew(claim, LEASE)

    @precondition(lambda self: self.open_claims)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self.open_claims.remove(data.draw(st.sampled_from(self.open_claims)))

    @precondition(lambda self: self.open_claims)
    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        self.ledger.hand_back(data.draw(st.sampled_from(self.open_claims)), "away")

    @precondition(lambda self: self.open_claims)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        self.ledger.renew(data.draw(st.sampled_from(self.open_claims)), LEASE)

    @rule(seconds=st.sampled_from([LEASE / 2, LEASE + 1]))
    def expire(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def cancel(self) -> None:
        self.ledger.end(self.run_id, CANCELLED, "cancelled")

    @precondition(lambda self: self.closed)
    @rule()
    def reopen(self) -> None:
        self.ledger.reopen(self.run_id)

    @invariant()
    def counters_are_a_recount(self) -> None:
        if hasattr(self, "store"):
            self.recount()

    def recount(self) -> RunStats:
        info = self.store.run(self.run_id)
        assert info is not None
        stats = info.stats
        found = Counter(row.status for row in self.store.results(self.run_id))
        assert stats.seen == found.total()
        assert stats.pending == found[FileStatus.PENDING]
        assert stats.classified == found[FileStatus.CLASSIFIED]
        assert stats.failed == found[FileStatus.FAILED]
        assert stats.duplicates == found[FileStatus.DUPLICATE]
        assert stats.already_done == found[FileStatus.ALREADY_DONE]
        counts = self.ledger.counts(self.run_id)
        assert counts.done == len(self.finished)
        assert counts.pending + counts.claimed + counts.done == self.chunks
        assert info.state != "finished" or counts.done == self.chunks
        return stats

    def finish_everything(self) -> None:
        """Whatever happened, resuming and working brings the run to its end."""
        self.ledger.submitted(self.run_id)
        self.ledger.reopen(self.run_id)
        self.clock.now += 2 * LEASE
        told = self.ledger.overdue(unsent_for=-1, limit=1000, run_id=self.run_id)
        assert [number for _, number in told] == [
            number for number in range(self.chunks) if number not in self.finished
        ]
        for run_id, number in told:
            claim = self.ledger.claim(run_id, number, "worker", LEASE)
            assert claim
            self.complete(claim)
        stats = self.recount()
        info = self.store.run(self.run_id)
        assert info and info.state == "finished"
        assert stats.pending == 0
        assert stats.seen == stats.submitted == len(self.submitted)
        rows = list(self.store.results(self.run_id))
        assert [row.uri for row in rows] == sorted(self.submitted)


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def test_any_order_of_events_on_sqlite():
    with contextlib.ExitStack() as stack:

        class Machine(Chunks):
            @initialize()
            def open(self) -> None:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                self.database = f"sqlite:///{Path(folder) / 'x.db'}"
                super().open()

        run_state_machine_as_test(Machine, settings=_settings(25))


def test_any_order_of_events_on_postgresql(postgres_url: str):
    class Machine(Chunks):
        @initialize()
        def open(self) -> None:
            self.database = fresh_database(postgres_url)
            super().open()

    run_state_machine_as_test(Machine, settings=_settings(8))
