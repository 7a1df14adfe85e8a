import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

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
)
from doc_classify.storage import mask_url, open_store, temporary_store
from doc_classify.storage.base import Hashed, ResultFilter, RunSpec, Store

SPEC = RunSpec(
    source="/documents",
    door="test",
    fingerprint="f" * 16,
    extraction_key="e" * 16,
    classifier="embedded",
    categories=("a", "b"),
    settings={"workers": 2},
)


def seen(name: str, content: int | None = None, *, mtime: int = 1) -> Hashed:
    number = abs(hash(name)) % 10**6 if content is None else content
    return Hashed(Source(f"file:///d/{name}", 10, mtime), f"{number:064x}")


def extraction(text: str = "some text", **changes) -> Extraction:
    return Extraction("text/plain", (Page(1, text),), "text", **changes)


def classified(task, category: str = "a", **changes) -> Outcome:
    found = Classification(category, 0.75, 0.9, (("a", 0.75), ("b", 0.25)))
    values = {"classification": found, "extraction": extraction()} | changes
    return Outcome(task.document_id, task.file_id, **values)


def failed(task, kind: str = "damaged") -> Outcome:
    return Outcome(task.document_id, task.file_id, failure=Failure(kind, f"it is {kind}"))


def rows(store: Store, run: str, **only) -> dict[str, object]:
    return {row.uri[len("file:///d/") :]: row for row in store.results(run, ResultFilter(**only))}


def check(store: Store, run: str) -> None:
    """The counters are a recount of the rows, and nothing is counted twice."""
    info = store.run(run)
    assert info is not None
    statuses = Counter(row.status for row in store.results(run))
    stats = info.stats
    assert stats.seen == statuses.total()
    assert stats.pending == statuses[FileStatus.PENDING]
    assert stats.classified == statuses[FileStatus.CLASSIFIED]
    assert stats.failed == statuses[FileStatus.FAILED]
    assert stats.duplicates == statuses[FileStatus.DUPLICATE]
    assert stats.already_done == statuses[FileStatus.ALREADY_DONE]
    assert stats.unsupported == statuses[FileStatus.UNSUPPORTED]


def test_a_run_from_start_to_end(store):
    run = store.start_run(SPEC)
    files = [seen("one", 1), seen("two", 2), seen("copy of one", 1)]
    registration = store.register(run, files)
    assert [task.source.uri for task in registration.tasks] == ["file:///d/one", "file:///d/two"]
    assert registration.statuses == {FileStatus.PENDING: 2, FileStatus.DUPLICATE: 1}
    check(store, run)

    one, two = registration.tasks
    stats = store.record(run, [classified(one), failed(two)], seconds=2.0)
    assert (stats.seen, stats.classified, stats.failed, stats.duplicates) == (3, 1, 1, 1)
    assert stats.documents_per_second == 1.0
    check(store, run)

    final = store.finish_run(run, "finished", 4.0)
    assert final.categories["a"].files == 2  # the copy has the category of its original
    assert final.categories["a"].mean_confidence == pytest.approx(0.9)
    assert final.failures == {"damaged": 1}
    found = rows(store, run)
    assert found["one"].category == "a"
    assert found["one"].scores == (("a", 0.75), ("b", 0.25))
    assert found["copy of one"].duplicate_of == "file:///d/one"
    assert found["copy of one"].category == "a"
    assert found["two"].failure == Failure("damaged", "it is damaged")
    assert store.run().run_id == run
    assert store.run(run[:18]).state == "finished"
    assert [info.run_id for info in store.runs()] == [run]


def test_a_second_run_has_nothing_to_do_and_says_what_failed_before(store):
    first = store.start_run(SPEC)
    files = [seen(name) for name in ("good", "damaged", "locked", "strange")]
    tasks = store.register(first, files).tasks
    kinds = [failed(tasks[1]), failed(tasks[2], "unreadable"), failed(tasks[3], "unsupported")]
    store.record(first, [classified(tasks[0]), *kinds])
    assert store.run(first).stats.unsupported == 1

    second = store.start_run(SPEC)
    assert store.known_hashes([item.source for item in files]) == [item.sha256 for item in files]
    registration = store.register(second, files)
    # What a retry may mend is tried again; what it cannot is not.
    assert [task.source.uri for task in registration.tasks] == ["file:///d/locked"]
    assert registration.statuses[FileStatus.ALREADY_DONE] == 2
    assert registration.statuses[FileStatus.UNSUPPORTED] == 1
    assert registration.already_failed == 1
    check(store, second)
    assert set(rows(store, second, failed=True)) == {"damaged"}


def test_force_takes_everything_again_and_reads_it_again(store):
    first = store.start_run(SPEC)
    store.record(first, [classified(store.register(first, [seen("x")]).tasks[0])])
    forced = store.start_run(replace(SPEC, force=True))
    (task,) = store.register(forced, [seen("x")]).tasks
    assert task.extraction is None
    store.record(forced, [classified(task, "b")])
    assert rows(store, forced)["x"].category == "b"


def test_another_taxonomy_uses_the_stored_text(store):
    first = store.start_run(SPEC)
    tasks = store.register(first, [seen("x"), seen("y")]).tasks
    store.record(first, [classified(tasks[0]), failed(tasks[1], "encrypted")])
    other = store.start_run(replace(SPEC, fingerprint="0" * 16))
    x, y = store.register(other, [seen("x"), seen("y")]).tasks
    assert x.extraction == extraction()
    assert y.extraction == Failure("encrypted", "it is encrypted")
    store.record(other, [classified(x, "b", extraction=None), failed(y, "encrypted")])
    assert rows(store, other)["x"].category == "b"
    assert rows(store, other)["x"].media_type == "text/plain"
    assert rows(store, first)["x"].category == "a"


def test_repeats_change_nothing(store):
    run = store.start_run(SPEC)
    tasks = store.register(run, [seen("x"), seen("y")]).tasks
    assert store.register(run, [seen("x"), seen("y")]).tasks == []
    for _ in range(3):
        store.record(run, [classified(tasks[0])])
    store.record(run, [failed(tasks[0])])  # too late: it has an outcome
    assert rows(store, run)["x"].category == "a"
    for _ in range(2):
        store.reject(run, [Rejected("file:///d/pipe", "not_a_file", "a pipe")])
    check(store, run)
    assert store.run(run).stats.seen == 3


def test_rejections_are_failures_or_unsupported(store):
    run = store.start_run(SPEC)
    rejected = [
        Rejected("file:///d/secret", "unreadable", "permission denied"),
        Rejected("file:///d/gone", "vanished", "it is gone"),
        Rejected("file:///d/pipe", "not_a_file", "it is a pipe"),
    ]
    assert store.reject(run, rejected, skipped=5) == 3
    stats = store.finish_run(run, "finished", 1.0)
    assert (stats.seen, stats.failed, stats.unsupported, stats.skipped) == (3, 2, 1, 5)
    assert stats.unsupported_types == {"not_a_file": 1}
    assert rows(store, run, error_kind="vanished")["gone"].failure.message == "it is gone"
    check(store, run)


def test_a_file_with_new_content_is_a_new_document(store):
    first = store.start_run(SPEC)
    store.record(first, [classified(store.register(first, [seen("x", 1)]).tasks[0])])
    changed = seen("x", 2, mtime=2)
    assert store.known_hashes([changed.source]) == [None]
    second = store.start_run(SPEC)
    assert len(store.register(second, [changed]).tasks) == 1
    check(store, second)


def test_crashes_are_counted_over_runs(store):
    run = store.start_run(SPEC)
    (task,) = store.register(run, [seen("killer")]).tasks
    store.crashed(run, task.document_id, "pid 1", "died\0 of \ud800 it")
    store.crashed(run, task.document_id, "pid 2", "again")
    (again,) = store.register(store.start_run(SPEC), [seen("killer")]).tasks
    assert again.crashes == 2


def test_filters_and_retry(store):
    run = store.start_run(SPEC)
    files = [seen(name) for name in ("a1", "b1", "bad")] + [
        seen("copy", seen("bad").__hash__() % 7)
    ]
    tasks = store.register(run, files).tasks
    store.record(run, [classified(tasks[0]), classified(tasks[1], "b"), failed(tasks[2])])
    assert set(rows(store, run, category="b")) == {"b1"}
    assert set(rows(store, run, statuses=frozenset({FileStatus.CLASSIFIED}))) == {"a1", "b1"}
    assert len(rows(store, run, limit=2)) == 2
    assert [s.uri for s in store.task_files(run, ResultFilter(failed=True))] == ["file:///d/bad"]


def test_hostile_values_are_stored(store):
    run = store.start_run(SPEC)
    long = seen("x" * 4000)
    (task,) = store.register(run, [long]).tasks
    nasty = "NUL \0, surrogate \ud800, 'quote\", \N{GRINNING FACE}"
    outcome = Outcome(
        task.document_id,
        task.file_id,
        classification=Classification(
            "a", float("nan"), float("inf"), (("a", float("nan")),), reasoning=nasty
        ),
        extraction=extraction(
            nasty * 1000, title=nasty, attachments=(nasty,), problems=(Problem("k", nasty, 3),)
        ),
    )
    store.record(run, [outcome])
    (row,) = store.results(run)
    assert row.score is None
    assert row.confidence is None
    assert "\0" not in row.title
    assert row.problems[0].page == 3
    other = store.start_run(replace(SPEC, fingerprint="1" * 16))
    (task,) = store.register(other, [long]).tasks
    assert task.extraction.text.count("\N{GRINNING FACE}") == 1000


def test_an_opened_database_keeps_everything(store_url):
    store = open_store(store_url)
    run = store.start_run(SPEC)
    tasks = store.register(run, [seen("x"), seen("y")]).tasks
    store.record(run, [classified(tasks[0])])
    store.close()
    again = open_store(store_url)
    check(again, run)
    assert again.run(run).stats.pending == 1
    assert again.run(run).state == "running"
    again.close()


def test_opening_an_up_to_date_database_does_not_load_the_migrations(tmp_path):
    url = f"sqlite:///{tmp_path / 'x.db'}"
    open_store(url).close()
    code = (
        "import sys; from doc_classify.storage import open_store; "
        f"open_store({url!r}).close(); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_database_of_a_newer_program_is_refused(tmp_path):
    import sqlite3

    path = tmp_path / "x.db"
    open_store(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(ConfigurationError, match="newer version"):
        open_store(f"sqlite:///{path}")


def test_eight_processes_write_at_once(store_url):
    open_store(store_url).close()
    code = """
import sys
sys.path.insert(0, sys.argv[3])
from test_storage import SPEC, seen, classified
from doc_classify.storage import open_store
store = open_store(sys.argv[1])
run = store.start_run(SPEC)
for i in range(20):
    tasks = store.register(run, [seen(f"{n}", n) for n in range(i * 10, i * 10 + 15)]).tasks
    store.record(run, [classified(task) for task in tasks])
print(run)
store.close()
"""
    folder = str(__import__("pathlib").Path(__file__).parent)
    command = [sys.executable, "-c", code, store_url]
    processes = [
        subprocess.Popen([*command, str(n), folder], stdout=subprocess.PIPE, text=True)
        for n in range(8)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    store = open_store(store_url)
    for output in outputs:
        check(store, output.strip())
        assert store.run(output.strip()).stats.pending == 0
    store.close()


def test_a_full_disk_is_a_storage_error(tmp_path):
    code = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from test_storage import SPEC, seen, classified, extraction
from doc_classify.errors import StorageError
from doc_classify.storage import open_store
store = open_store(sys.argv[1])
run = store.start_run(SPEC)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    for i in range(100):
        tasks = store.register(run, [seen(f"{i}", i)]).tasks
        store.record(run, [classified(t, extraction=extraction("x" * 50_000)) for t in tasks])
except StorageError as error:
    print(error)
"""
    folder = str(__import__("pathlib").Path(__file__).parent)
    url = f"sqlite:///{tmp_path / 'x.db'}"
    done = subprocess.run(
        [sys.executable, "-c", code, url, folder], capture_output=True, text=True, check=True
    )
    assert "x.db cannot be used" in done.stdout
    store = open_store(url)
    check(store, store.run().run_id)
    store.close()


def test_unusable_databases_have_clear_errors(tmp_path):
    with pytest.raises(ConfigurationError, match="mysql"):
        open_store("mysql://x/y")
    with pytest.raises(ConfigurationError, match="not valid"):
        open_store("nonsense")
    with pytest.raises(ConfigurationError, match="needs a file"):
        open_store("sqlite://")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make the folder"):
        open_store(f"sqlite:///{tmp_path / 'file' / 'x.db'}")
    (tmp_path / "not-a-db").write_text("this is a text, not a database" * 100)
    with pytest.raises(StorageError, match="not a database"):
        open_store(f"sqlite:///{tmp_path / 'not-a-db'}")
    with pytest.raises(StorageError) as caught:
        open_store("postgresql://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(caught.value)
    assert mask_url("postgresql://me:secret@host/x") == "postgresql://me:***@host/x"


def test_a_temporary_store_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_store() as store:
        store.start_run(SPEC)
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
