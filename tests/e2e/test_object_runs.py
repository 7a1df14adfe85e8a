"""Whole runs over documents in an object store."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.doubles.object_store import ObjectStore

from doc_classify import ParallelDocumentProcessor, Settings
from doc_classify.dataset import DatasetOptions, generate
from doc_classify.discovery import walk
from doc_classify.errors import ConfigurationError, SourceUnreadableError
from doc_classify.export import row_to_dict
from doc_classify.pipeline import copies
from doc_classify.preview import preview
from doc_classify.records import FileStatus, Source, document_name, uri_to_path
from doc_classify.storage import open_store
from doc_classify.storage.base import ResultFilter

INVOICE = "Invoice no. {0}\nBill to: Customer {0}\nAmount due: {0}.00 EUR\nVAT 19%\n"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are made, by us and by child processes."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def bucket(s3: ObjectStore, temporary: Path, request: pytest.FixtureRequest) -> str:
    name = "r" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    s3.put(name, {})
    return name


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(database_url=f"sqlite:///{tmp_path / 'ledger.db'}", workers=2)


def invoices(number: int) -> dict[str, bytes]:
    return {f"in/{n:03}.txt": INVOICE.format(n).encode() for n in range(number)}


def once(work: Callable[[], None]) -> Callable[[], None]:
    """``work``, done by the first call alone, from whichever thread."""
    lock, to_do = threading.Lock(), [work]

    def run() -> None:
        with lock:
            if to_do:
                to_do.pop()()

    return run


def left_behind(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name != "ledger.db"]


def test_the_same_rows_as_from_a_folder(s3, bucket, tmp_path, temporary):
    folder = tmp_path / "documents"
    generate(folder, DatasetOptions(count=60, seed=7))
    content = {}
    for found in walk(folder):
        if isinstance(found, Source):
            path = Path(uri_to_path(found.uri))
            content[f"in/{path.relative_to(folder)}"] = path.read_bytes()
    s3.put(bucket, content)

    def rows(where: str | Path) -> dict[str, dict]:
        with ParallelDocumentProcessor(num_workers=2) as processor:
            processor.process_directory(where)
            rows = [row_to_dict(row) for row in processor.store.results(processor.stats.run_id)]
        assert all(row["path"] == row["uri"] for row in rows if row["uri"].startswith("s3://"))
        for row in rows:
            for place in ("path", "uri", "duplicate_of", "run_id", "processed_at"):
                if place != "uri":
                    row[place] = None
        return {document_name(row.pop("uri")): row for row in rows}

    from_folder, from_bucket = rows(folder), rows(f"s3://{bucket}/in")
    assert len(from_folder) == len(content)
    assert from_bucket.keys() == from_folder.keys()
    for name, row in from_folder.items():
        other = from_bucket[name]
        # The order of keys is not that of a folder's files: another copy may come first.
        if FileStatus.DUPLICATE.value in (row["status"], other["status"]):
            continue
        assert other == row, name
    assert left_behind(temporary) == []


def test_a_second_run_asks_for_no_object(s3, bucket, settings, temporary):
    s3.put(bucket, invoices(30))
    url = f"s3://{bucket}/in"
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        assert processor.process_directory(url).classified == 30
        assert len(s3.gets()) == 30
        s3.requests.clear()
        assert processor.process_directory(url).already_done == 30
        assert s3.gets() == []
        # Other categories are decided by the stored text.
        other = settings.changed(categories="letters,invoices,other")
    with ParallelDocumentProcessor(use_database=True, settings=other) as processor:
        assert processor.process_directory(url).classified == 30
    assert s3.gets() == []
    assert left_behind(temporary) == []


def test_text_that_is_not_stored_is_fetched_again_when_its_turn_comes(s3, bucket, settings):
    s3.put(bucket, invoices(30))
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        processor.process_directory(f"s3://{bucket}/in")
        s3.requests.clear()
        stats = processor.process_directory(f"s3://{bucket}/in", force=True)
    assert stats.classified == 30
    assert len(s3.gets()) == 30


def test_duplicates_across_a_folder_and_a_bucket(s3, bucket, settings, tmp_path):
    s3.put(bucket, invoices(3))
    (tmp_path / "same.txt").write_text(INVOICE.format(1))
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        paths = [tmp_path / "same.txt", *(f"s3://{bucket}/in/{n:03}.txt" for n in range(3))]
        stats = processor.process_batch(paths)
        assert (stats.classified, stats.duplicates) == (3, 1)
        [copy] = [row for row in processor.store.results(stats.run_id) if row.status == "duplicate"]
        assert copy.uri == f"s3://{bucket}/in/001.txt"
        assert copy.duplicate_of == f"file://{tmp_path}/same.txt"


def test_more_than_may_be_kept_is_fetched_twice(s3, bucket, settings, monkeypatch, temporary):
    s3.put(bucket, invoices(40))
    size = len(INVOICE.format("000"))
    monkeypatch.setattr(copies, "KEPT_BYTES", 5 * size)
    monkeypatch.setattr(copies, "_CHUNK_BYTES", 2 * size)
    most = 0

    def look(_method: str, _path: str) -> None:
        nonlocal most
        most = max(most, len([p for p in temporary.rglob("*") if p.is_file()]))

    s3.before = look
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        assert processor.process_directory(f"s3://{bucket}/in").classified == 40
    assert 40 < len(s3.gets()) <= 80
    assert most <= 5 + 2 * 3 + 16 + 1  # kept, with each worker, being hashed, the lock
    assert left_behind(temporary) == []


def test_an_object_that_changes_between_listing_and_reading(s3, bucket, settings):
    s3.put(bucket, invoices(3))
    changed = once(
        lambda: s3.put(bucket, {"in/001.txt": b"Dear Sir, thank you for your letter. Regards"})
    )
    s3.before = lambda method, path: changed() if path.endswith("/001.txt") else None
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        stats = processor.process_directory(f"s3://{bucket}/in")
        assert stats.classified == 3
        # What it is now was taken.
        again = processor.process_directory(f"s3://{bucket}/in")
        assert (again.already_done, again.failed) == (3, 0)


def test_an_object_whose_bytes_are_not_those_that_were_registered(s3, bucket, settings):
    """Same size and same second: only the hash can tell."""
    s3.put(bucket, {"in/a.txt": b"Invoice 1, amount due"})
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        processor.process_directory(f"s3://{bucket}/in")
        [key] = s3.client.list_objects_v2(Bucket=bucket)["Contents"]
        s3.put(bucket, {"in/a.txt": b"Invoice 2, amount due"})
        s3.touch(bucket, "in/a.txt", key["LastModified"])
        stats = processor.process_directory(f"s3://{bucket}/in", force=True)
        [row] = processor.store.results(stats.run_id)
    assert row.failure is not None
    assert row.failure.kind == "changed"


def test_faults_of_the_store_are_failures_of_their_documents(s3, bucket, settings, temporary):
    s3.put(bucket, invoices(6))

    def fault(method: str, path: str) -> tuple[int, str] | None:
        if path.endswith("/001.txt"):
            return 403, "AccessDenied"
        if path.endswith("/002.txt"):
            return 503, "SlowDown"
        if path.endswith("/003.txt"):
            return 404, "NoSuchKey"
        return None

    s3.fault = fault
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        stats = processor.process_directory(f"s3://{bucket}/in")
        assert (stats.classified, stats.failed) == (3, 3)
        assert stats.failures == {"unreadable": 2, "vanished": 1}
        s3.reset()
        retried = processor.retry(stats.run_id, ResultFilter(failed=True))
        assert (retried.classified, retried.failed) == (3, 0)
        rows = [row_to_dict(row) for row in processor.store.results(stats.run_id)]
    assert "not-to-be-seen" not in json.dumps(rows)
    assert "AKIDEXAMPLE" not in json.dumps(rows)
    assert (
        b"not-to-be-seen" not in Path(settings.database_url.removeprefix("sqlite:///")).read_bytes()
    )
    assert left_behind(temporary) == []


def test_a_store_that_goes_away_ends_the_run_and_what_is_done_is_stored(
    s3, bucket, settings, temporary
):
    s3.put(bucket, {f"in/{n:04}.txt": INVOICE.format(n).encode() for n in range(1300)})
    pages = iter(range(100))
    s3.fault = lambda _method, path: (
        (503, "SlowDown") if path == bucket and next(pages) > 0 else None
    )
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        with pytest.raises(SourceUnreadableError, match="cannot list"):
            processor.process_directory(f"s3://{bucket}/in")
        assert 200 <= processor.stats.classified <= 1000
        assert processor.store.run(processor.stats.run_id).state == "failed"
        s3.reset()
        stats = processor.process_directory(f"s3://{bucket}/in")
        assert stats.classified + stats.already_done == 1300
    assert left_behind(temporary) == []


def test_a_preview_fetches_and_keeps_nothing(s3, bucket, settings, temporary):
    s3.put(bucket, invoices(4) | {"in/copy.txt": INVOICE.format(0).encode(), "in/x.bin": b"\0\1"})
    found = preview(f"s3://{bucket}/in", settings)
    assert (found.seen, found.take, found.duplicates, found.unsupported) == (6, 4, 1, 1)
    assert left_behind(temporary) == []


# --- by command, with processes that are killed ---------------------------------------------------


COMMAND = [sys.executable, "-P", "-m", "doc_classify", "classify-parallel"]


def start(url: str, folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, url, "--use-database", "--json", "-w", "2", *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_copies(folder: Path, process: subprocess.Popen[str], at_least: int = 1) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if len([path for path in folder.rglob("*") if len(path.name) == 32]) >= at_least:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    raise AssertionError("nothing was fetched")


def test_the_command_takes_a_url(s3, bucket, tmp_path, temporary):
    s3.put(bucket, invoices(5))
    process = start(f"s3://{bucket}/in", tmp_path, "--export", "--export-format", "jsonl")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"Classifying s3://{bucket}/in with 2 workers" in err
    stats = json.loads(out)
    assert stats["classified"] == 5
    lines = Path(tmp_path / stats["export"]).read_text().splitlines()
    paths = {json.loads(line).get("path") for line in lines} - {None}
    assert paths == {f"s3://{bucket}/in/{n:03}.txt" for n in range(5)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "doc_classify", "classify", f"s3://{bucket}/in/001.txt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"s3://{bucket}/in/001.txt: invoices" in done.stdout
    assert left_behind(temporary) == []


def test_urls_that_cannot_be_read_are_wrong_usage(s3, bucket, tmp_path):
    for url in (f"s3://{bucket}/nothing", "s3://id:secret@bucket/x"):
        process = start(url, tmp_path)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "Error: " in err
        assert ":secret" not in err


def test_killed_workers_leave_no_copies(s3, bucket, tmp_path, temporary):
    s3.put(bucket, {name: text * 100 for name, text in invoices(300).items()})
    process = start(f"s3://{bucket}/in", tmp_path, "--no-progress")
    wait_for_copies(temporary, process)
    killed = 0
    while killed < 3 and process.poll() is None:
        for worker in psutil.Process(process.pid).children():
            if killed < 3:
                worker.kill()
                killed += 1
        time.sleep(0.3)
    out, err = process.communicate(timeout=120)
    assert out, err
    stats = json.loads(out)
    assert stats["seen"] == stats["classified"] + stats["failed"] == 300
    assert stats["failed"] <= 1
    assert left_behind(temporary) == []


def test_an_interrupted_run_leaves_no_copies(s3, bucket, tmp_path, temporary):
    s3.put(bucket, {name: text * 100 for name, text in invoices(600).items()})
    process = start(f"s3://{bucket}/in", tmp_path)
    wait_for_copies(temporary, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert json.loads(out)["interrupted"]
    assert left_behind(temporary) == []


def test_what_a_killed_run_left_is_deleted_by_the_next(s3, bucket, tmp_path, temporary):
    s3.put(bucket, {name: text * 100 for name, text in invoices(600).items()})
    process = start(f"s3://{bucket}/in", tmp_path)
    wait_for_copies(temporary, process, at_least=2)
    [alive] = temporary.iterdir()
    process.kill()
    process.communicate()
    assert left_behind(temporary)
    hour_ago = time.time() - 3600
    os.utime(alive / "lock", (hour_ago, hour_ago))
    process = start(f"s3://{bucket}/in", tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    store = open_store(f"sqlite:///{tmp_path / 'doc-classify.db'}")
    try:
        assert json.loads(out)["seen"] == 600
        [row] = [r for r in store.results(json.loads(out)["run_id"]) if r.uri.endswith("/000.txt")]
        assert row.category == "invoices"
    finally:
        store.close()
    assert left_behind(temporary) == []


def test_the_folder_of_a_living_run_is_left_alone(temporary, monkeypatch):
    monkeypatch.setattr(copies, "_YOUNG_SECONDS", -1.0)
    one, other = copies.Copies(threading.Event()), copies.Copies(threading.Event())
    first, second = one._place(), other._place()
    assert first.is_dir()
    assert second.is_dir()
    one.close()
    other.close()
    assert left_behind(temporary) == []


def test_a_url_must_not_be_made_a_path(settings):
    with (
        ParallelDocumentProcessor(settings=settings) as processor,
        pytest.raises(ConfigurationError, match="as text, not as a Path"),
    ):
        processor.process_directory(Path("s3://bucket/in"))


def test_a_missing_bucket_is_said_before_a_run_is_made(s3, settings):
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        with pytest.raises(ConfigurationError, match="there is no bucket"):
            processor.process_directory("s3://not-there")
        assert [*processor.store.runs(10)] == []


def test_an_export_can_go_into_the_store(bucket: str, s3: ObjectStore, settings: Settings):
    s3.put(bucket, invoices(3))
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        processor.process_directory(f"s3://{bucket}/in")
    command = [sys.executable, "-m", "doc_classify", "export", "--database-url"]
    command += [settings.database_url, "-o"]
    url = f"s3://{bucket}/results/all.jsonl"
    done = subprocess.run([*command, url], check=True, capture_output=True, text=True)
    assert done.stdout == f"{url}\n"
    body = s3.client.get_object(Bucket=bucket, Key="results/all.jsonl")["Body"].read()
    assert len([json.loads(line) for line in body.splitlines()]) == 3
    s3.fault = lambda method, _path: (403, "AccessDenied") if method == "PUT" else None
    for wrong, says in (
        (f"s3://{bucket}/results/more.csv", "access denied (AccessDenied)"),
        (f"s3://{bucket}/results/", "must end in"),
        (f"s3://{bucket}/results/all.exe", "must end in"),
    ):
        done = subprocess.run([*command, wrong], check=False, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert says in done.stderr and "AKIDEXAMPLE" not in done.stderr
