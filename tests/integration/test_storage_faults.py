"""What surroundings do to a store: killed writers, rivals, lost servers, disks that refuse."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from doc_classify.errors import ConfigurationError, StorageError
from doc_classify.records import (
    Classification,
    Extraction,
    Failure,
    FileStatus,
    Outcome,
    Page,
    Problem,
    Rejected,
    Source,
    Timings,
)
from doc_classify.storage import mask_url, open_store
from doc_classify.storage.base import Hashed, ResultFilter, RunSpec, Store, Task
from doc_classify.storage.engine import make_engine, reading
from doc_classify.storage.schema import metadata
from doc_classify.storage.upgrade import HEAD, current_revision

SPEC = RunSpec("/d", "test", "f" * 16, "e" * 16, "embedded", ("a", "b"), {"workers": 1})
NASTY = "n\0 \ud800"


def files(numbers: range, prefix: str = "") -> list[Hashed]:
    return [Hashed(Source(f"file:///d/{prefix}{n:06}", 10, 1), f"{n:064x}") for n in numbers]


def done(task: Task, text: str = "some text") -> Outcome:
    extraction = Extraction("text/plain", (Page(1, text),), "text")
    return Outcome(task.document_id, task.file_id, Classification("a", 0.5), extraction=extraction)


def failed(task: Task, kind: str) -> Outcome:
    return Outcome(task.document_id, task.file_id, failure=Failure(kind, f"it is {kind}"))


def check(store: Store, run: str) -> Counter[FileStatus]:
    """Compare the counters of a run with a recount; returns that."""
    info = store.run(run)
    assert info is not None
    count = Counter(row.status for row in store.results(run))
    stats = info.stats
    assert stats.seen == count.total()
    assert stats.pending == count[FileStatus.PENDING]
    assert stats.classified == count[FileStatus.CLASSIFIED]
    assert stats.duplicates == count[FileStatus.DUPLICATE]
    assert stats.already_done == count[FileStatus.ALREADY_DONE]
    return count


def together(*works) -> None:
    """Run in threads that start at the same moment; their errors are raised here."""
    barrier = threading.Barrier(len(works))
    errors: list[BaseException] = []

    def start(work) -> None:
        try:
            barrier.wait()
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def python(code: str, *arguments: str, **options) -> subprocess.Popen[str]:
    """A Python process that can use this module's helpers."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", "from test_storage_faults import *\n" + code, *arguments],
        env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


# --- rivals -----------------------------------------------------------------------------------


def test_two_writers_of_one_outcome_count_it_once(store):
    for turn in range(3):
        run = store.start_run(SPEC)
        tasks = store.register(run, files(range(turn * 100, turn * 100 + 100))).tasks
        batch = [done(task) for task in tasks]
        together(*[lambda run=run, batch=batch: store.record(run, batch)] * 3)
        assert check(store, run) == {FileStatus.CLASSIFIED: 100}


def test_two_writers_make_one_task_of_a_document(store):
    store.register(store.start_run(SPEC), files(range(100)))
    run = store.start_run(SPEC)
    tasks: list[Task] = []
    together(
        *(
            lambda prefix=prefix: tasks.extend(store.register(run, files(range(100), prefix)).tasks)
            for prefix in "xyz"
        )
    )
    assert len(tasks) == 100
    assert check(store, run) == {FileStatus.PENDING: 100, FileStatus.DUPLICATE: 200}


def test_many_open_a_fresh_database_at_once(store_url):
    code = "open_store(sys.argv[1]).close()"
    processes = [python(code, store_url) for _ in range(6)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, outputs


def test_a_listing_holds_up_no_writer(store):
    run = store.start_run(SPEC)
    tasks = store.register(run, files(range(3000))).tasks
    listing = store.results(run)
    next(listing)
    store.record(run, [done(task) for task in tasks[:10]])
    # It goes on with what was there when it began.
    assert {row.status for row in listing} == {FileStatus.PENDING}
    assert check(store, run)[FileStatus.CLASSIFIED] == 10


# --- kills ------------------------------------------------------------------------------------


def test_a_killed_writer_leaves_a_ledger_that_agrees(store_url):
    store = open_store(store_url)
    code = """
store = open_store(sys.argv[1])
run = store.start_run(SPEC)
print(run, flush=True)
for n in range(0, 10**6, 50):
    tasks = store.register(run, files(range(n, n + 50))).tasks
    store.record(run, [done(task, "text " * 2000) for task in tasks])
    print(n, flush=True)
"""
    runs = []
    for delay in (0.05, 0.11, 0.17):
        process = python(code, store_url)
        assert process.stdout
        runs.append(process.stdout.readline().strip())
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0]
        committed = int((rest.split() or ["0"])[-1]) + 50
        # Where something was recorded once, it is there.
        assert check(store, runs[-1]).total() >= committed
    store.close()
    again = open_store(store_url)
    for run in runs:
        check(again, run)
        pending = Counter(row.status for row in again.results(run))[FileStatus.PENDING]
        assert pending in (0, 50)
    if store_url.startswith("sqlite"):
        with sqlite3.connect(store_url.removeprefix("sqlite:///")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
    again.close()


def test_a_lost_connection_is_made_again(postgres_url):
    import psycopg

    from conftest import fresh_database

    url = fresh_database(postgres_url)
    store = open_store(url)
    run = store.start_run(SPEC)
    stop = threading.Event()
    killed = []

    def kill() -> None:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            while not stop.wait(0.3):
                found = connection.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE datname = %s",
                    [url.rsplit("/", 1)[1]],
                ).fetchone()
                killed.append(found[0])

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for n in range(0, 2000, 50):
            tasks = store.register(run, files(range(n, n + 50))).tasks
            store.record(run, [done(task) for task in tasks])
            time.sleep(0.03)
    finally:
        stop.set()
        killer.join()
    assert sum(killed) > 3
    assert check(store, run) == {FileStatus.CLASSIFIED: 2000}
    store.close()


def test_nothing_is_prepared_on_the_server(postgres_url):
    """A pooler that hands out connections per transaction (PgBouncer) could not keep it."""
    from conftest import fresh_database

    url = fresh_database(postgres_url)
    store = open_store(url)
    run = store.start_run(SPEC)
    for n in range(0, 200, 10):
        tasks = store.register(run, files(range(n, n + 10))).tasks
        store.record(run, [done(task) for task in tasks])
    with reading(store._engine) as connection:
        found = connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar()
    assert found == 0
    store.close()


# --- history ----------------------------------------------------------------------------------


def test_a_run_keeps_the_failures_that_a_later_one_mended(store):
    first = store.start_run(SPEC)
    pair = [*files(range(1)), *files(range(1), "copy")]
    (task,) = store.register(first, pair).tasks
    store.record(first, [failed(task, "unreadable")])
    second = store.start_run(SPEC)
    (task,) = store.register(second, pair).tasks
    store.record(second, [done(task)])
    for row in store.results(first):
        assert (row.category, row.failure) == (None, Failure("unreadable", "it is unreadable"))
    stats = store.run(first).stats
    assert (stats.failures, stats.categories) == ({"unreadable": 1}, {})
    assert {row.category for row in store.results(second)} == {"a"}
    # The copy stands for its document, which is retried once.
    wanted = ResultFilter(error_kind="unreadable")
    assert [source.uri for source in store.task_files(first, wanted)] == [pair[0].source.uri]
    copies = ResultFilter(statuses=frozenset({FileStatus.DUPLICATE}))
    assert [source.uri for source in store.task_files(first, copies)] == [pair[0].source.uri]


@pytest.mark.parametrize("kind", ["unreadable", "timeout"])
def test_a_failure_takes_no_classification_away(store, kind):
    first = store.start_run(SPEC)
    store.record(first, [done(task) for task in store.register(first, files(range(1))).tasks])
    forced = store.start_run(replace(SPEC, force=True))
    (task,) = store.register(forced, files(range(1))).tasks
    store.record(forced, [failed(task, kind)])
    assert [row.category for row in store.results(first)] == ["a"]
    (row,) = store.results(forced)
    assert (row.category, row.failure) == (None, Failure(kind, f"it is {kind}"))
    registration = store.register(store.start_run(SPEC), files(range(1)))
    assert (registration.tasks, registration.already_failed) == ([], 0)


def test_a_crash_of_the_classifier_costs_no_stored_text(store):
    first = store.start_run(SPEC)
    store.record(first, [done(task) for task in store.register(first, files(range(1))).tasks])
    second = store.start_run(replace(SPEC, fingerprint="2" * 16))
    (task,) = store.register(second, files(range(1))).tasks
    store.record(second, [failed(task, "crash")])
    third = store.start_run(replace(SPEC, fingerprint="3" * 16))
    (task,) = store.register(third, files(range(1))).tasks
    assert isinstance(task.extraction, Extraction)


# --- values -----------------------------------------------------------------------------------


def test_rows_come_in_the_order_of_their_bytes(store):
    names = ["b/a", "B/a", "a-b", "a/b", "a.b", "ab", "a%20b", "A", "Z", "_"]
    run = store.start_run(SPEC)
    seen = [
        Hashed(Source(f"file:///{name}", 1, 1), f"{number:064x}")
        for number, name in enumerate(names)
    ]
    store.register(run, seen)
    found = [row.uri for row in store.results(run)]
    assert found == sorted(found)
    assert [source.uri for source in store.task_files(run, ResultFilter(limit=3))] == found[:3]


def test_values_that_databases_refuse_are_made_fit(store):
    run = store.start_run(
        replace(SPEC, source=NASTY, settings={"workers": 1, NASTY: [NASTY, float("nan")]})
    )
    far = Source(f"s3://b/{NASTY}", 10, 2**70)
    lone = Hashed(Source("s3://\udcff", 1, 1), "8" * 64)
    one, two = store.register(run, [Hashed(far, "7" * 64), lone]).tasks
    assert store.known_hashes([far]) == ["7" * 64]
    for new in (1, 0):
        assert store.reject(run, [Rejected(f"s3://r/{NASTY}", NASTY, NASTY)]) == new
    store.crashed(run, one.document_id, NASTY, NASTY)
    extraction = Extraction(
        NASTY,
        (Page(2**40, NASTY),),
        NASTY,
        page_count=2**40,
        title=NASTY,
        attachments=(NASTY,),
        problems=(Problem(NASTY, NASTY, 2**40),),
    )
    found = Classification(NASTY, float("-inf"), None, ((NASTY, float("nan")), ("x", 0.5)))
    timings = Timings(float("nan"), float("inf"))
    store.record(
        run,
        [
            Outcome(one.document_id, one.file_id, found, None, extraction, timings),
            Outcome(two.document_id, two.file_id, failure=Failure(NASTY, NASTY), timings=timings),
        ],
    )
    store.finish_run(run, "finished", float("nan"), NASTY)
    for row in store.results(run):
        for name in row.__slots__:
            assert "\0" not in repr(getattr(row, name))
            repr(getattr(row, name)).encode()
    info = store.run(run)
    info.spec.source.encode()
    info.message.encode()
    assert info.stats.extract_seconds == 0
    assert len(info.stats.categories) == 1
    check(store, run)


# --- addresses, disks, versions ---------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x.db",
        "sqlite:///a.db?foo=1",
        "sqlite:///\0x",
        "postgresql://u:pw@h:abc/x",
        "postgresql://u:pw@h:99999/x",
        "postgresql://u:pw@127.0.0.1:1/x?foo=bar",
        "postgresql://127.0.0.1:1/\0",
    ],
)
def test_an_address_that_cannot_be_right_is_a_wrong_setting(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    assert "pw" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    ["postgres://u:pw@127.0.0.1:1/x", "postgresql+asyncpg://u@127.0.0.1:1/x?password=pw"],
)
def test_a_server_that_is_away_is_named_without_its_password(url):
    assert "pw" not in mask_url(url)
    with pytest.raises(StorageError, match=r"postgres\w*://u.*127\.0\.0\.1:1/x.*refused") as caught:
        open_store(url)
    assert "pw" not in str(caught.value)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_folder_or_file_that_may_not_be_written(tmp_path):
    # pytest's own folders are closed to others; this test's user must come through.
    folder = Path("/tmp") / f"doc-classify-{os.getpid()}-read-only"
    folder.mkdir(mode=0o755)
    try:
        url = f"sqlite:///{folder / 'x.db'}"
        open_store(url).close()
        code = """
import alembic.command, alembic.config, alembic.script, doc_classify.storage.store
import sqlalchemy.dialects.sqlite.pysqlite
os.setgid(65534); os.setuid(65534)
for url in sys.argv[1:]:
    try:
        store = open_store(url)
        store.start_run(SPEC)
    except StorageError as error:
        print(error)
"""
        process = python(code, url, f"sqlite:///{folder / 'new.db'}")
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 0, output
        assert len(output.splitlines()) == 2, output
        assert "x.db cannot be used" in output
        assert "new.db cannot be used: unable to open database file" in output
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def test_a_read_only_file_is_a_storage_error(tmp_path):
    path = tmp_path / "x.db"
    open_store(f"sqlite:///{path}").close()
    path.chmod(stat.S_IRUSR)
    if os.access(path, os.W_OK):
        pytest.skip("this user may write everything")
    with pytest.raises(StorageError, match=r"x\.db cannot be used"):
        open_store(f"sqlite:///{path}").start_run(SPEC)


def test_the_revisions_make_the_tables_of_the_schema(store_url):
    open_store(store_url).close()
    engine = make_engine(store_url)
    with reading(engine) as connection:
        assert current_revision(connection) == HEAD
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_a_database_that_cannot_hold_every_text_is_refused(postgres_url):
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' "
            "TEMPLATE template0"
        )
    url = postgres_url.rsplit("/", 1)[0] + "/ascii"
    with pytest.raises(ConfigurationError, match="encoding SQL_ASCII"):
        open_store(url)
