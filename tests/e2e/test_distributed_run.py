"""Distributed runs with a real broker, a real database and a real worker, in fair weather."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from tests.doubles.ollama import OllamaDouble
from tests.doubles.site import Site, oracle

from conftest import CeleryWorker, RedisServer, wait_until
from doc_classify import ParallelDocumentProcessor
from doc_classify.celery_tasks import QUEUE, send
from doc_classify.storage import open_store
from doc_classify.storage.base import ResultFilter, ResultRow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def double() -> Iterator[OllamaDouble]:
    with OllamaDouble(oracle) as server:
        yield server


@pytest.fixture(scope="module")
def running(module_worker: Callable[..., CeleryWorker], double: OllamaDouble) -> CeleryWorker:
    """A worker that serves most tests."""
    return module_worker("common", environment={"OLLAMA_HOST": double.url})


def test_messages_are_small_and_hold_ids_only(site: Site, redis_server: RedisServer):
    """Before any worker of this module is started."""
    folder = site.folder(20)
    with site.processor() as processor, redis_server.client() as client:
        run_id = processor.submit_directory(folder)
        messages = client.lrange(QUEUE, 0, -1)
        everything = b"".join(messages)
        assert len(messages) == 4
        assert all(len(message) < 1500 for message in messages)
        assert run_id.encode() in everything
        assert folder.name.encode() not in everything and b"postgresql" not in everything
        assert processor.check_progress(run_id)["state"] == "running"
        assert processor.cancel(run_id) and not processor.cancel(run_id)
    assert site.completed(run_id) == 0


def compared(rows: list[ResultRow]) -> list[tuple]:
    """Without what differs from run to run."""
    plain = [replace(row, run_id=None, processed_at=None) for row in rows]
    return [astuple(row) for row in plain]


def mixed(site: Site) -> Path:
    """A folder with all that may be met: copies, in other chunks too, and what cannot be read."""
    folder = site.folder(40)
    (folder / "000-copy.txt").write_bytes((folder / "000.txt").read_bytes())
    (folder / "zzz-copy.txt").write_bytes((folder / "000.txt").read_bytes())
    (folder / "empty.txt").write_bytes(b"")
    (folder / "noise.bin").write_bytes(bytes(range(256)) * 4)
    (folder / ".hidden").write_text("not a document")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing of the kind")
    return folder


@pytest.mark.parametrize("classifier", ["embedded", "ollama"])
def test_the_rows_are_those_of_one_machine(site, running, double, classifier, tmp_path):
    folder = mixed(site)
    with site.processor(classifier=classifier) as processor:
        run_id = processor.submit_directory(folder, include_reasoning=classifier == "embedded")
        progress = processor.wait_for_completion(run_id, poll_interval=0.1)
        results = list(processor.get_results(run_id, poll_interval=0.1))
    assert progress["state"] == "finished" and progress["progress_percent"] == 100.0
    assert progress["total_tasks"] == progress["completed"] == 45
    url = f"sqlite:///{tmp_path / 'one.db'}"
    settings = site.settings(
        database_url=url, classifier=classifier, ollama_host=double.url, workers=2
    )
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        stats = processor.process_directory(folder, include_reasoning=classifier == "embedded")
    with contextlib.closing(open_store(url)) as store:
        rows = list(store.results(stats.run_id))
    # Which of several copies is the first is up to the workers.
    copies = ("000.txt", "000-copy.txt", "zzz-copy.txt")

    def others(rows: list[ResultRow]) -> list[tuple]:
        return compared([row for row in rows if not row.uri.endswith(copies)])

    assert others(site.rows(run_id)) == others(rows)
    assert len(others(rows)) == 42 == len(results) - 3
    assert progress["skipped"] == stats.skipped == 1
    assert progress["llm_calls"] == stats.llm_calls
    site.settled(run_id, 45, **Counter(row.status.value for row in rows))


def test_the_snippet_of_the_guide(site: Site, running: CeleryWorker):
    script = f"""
from pathlib import Path
from src.celery_tasks import CeleryDistributedProcessor

processor = CeleryDistributedProcessor(use_database=True, batch_size=1000)
batch_id = processor.submit_directory(
    Path({str(site.folder(30))!r}), recursive=True, include_reasoning=False
)
processor.wait_for_completion(batch_id, poll_interval=0.2, show_progress=True)
progress = processor.check_progress(batch_id)
print(f"{{progress['progress_percent']:.1f}}%")
print(f"{{progress['completed']}}/{{progress['total_tasks']}}")
for result in processor.get_results(batch_id):
    print(result["category"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | site.environment | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    percent, files, *categories = done.stdout.splitlines()
    assert (percent, files) == ("100.0%", "30/30")
    assert len(categories) == 30 and all(categories)
    assert "30 of 30 documents (100.0 %), 0 failed, finished" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_submissions_of_one_folder_at_once(site: Site, running: CeleryWorker):
    folder = site.folder(40)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(site.submit(folder))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for run_id in found:
        assert site.wait(run_id)["state"] == "finished"
        statuses = Counter(row.status.value for row in site.rows(run_id))
        assert set(statuses) <= {"classified", "already_done"}
        site.settled(run_id, 40, **statuses)
    again = site.submit(folder)
    site.wait(again)
    site.settled(again, 40, already_done=40)


def test_a_chunk_that_is_sent_many_times_is_done_once(site: Site, running: CeleryWorker, double):
    double.chats.clear()
    asked = len(double.chats)
    folder = site.folder(20)
    with site.processor(classifier="ollama") as processor:
        run_id = processor.submit_directory(folder)
        send([(run_id, number) for number in range(4)] * 3, processor._settings)
        assert processor.wait_for_completion(run_id, 0.1)["llm_calls"] == 20
        send([(run_id, number) for number in range(4)] + [("no such run", 7)], processor._settings)
    site.settled(run_id, 20)
    mine = [one for one in double.chats[asked:] if folder_mark(folder) in str(one)]
    assert len(mine) == 20


def folder_mark(folder: Path) -> str:
    return (folder / "000.txt").read_text().split()[-1]


def test_files_named_twice_are_counted_once(site: Site, running: CeleryWorker):
    folder = site.folder(12)
    paths = sorted(folder.iterdir())
    with site.processor() as processor:
        run_id = processor.submit_batch([*paths, *reversed(paths), folder / "missing.txt"])
        progress = processor.wait_for_completion(run_id, 0.1)
    assert (progress["progress_percent"], progress["pending"]) == (100.0, 0)
    site.settled(run_id, 13, classified=12, failed=1)


def test_nothing_to_do_is_finished_at_once(site: Site):
    empty = site.root / "empty"
    empty.mkdir()
    progress = site.wait(site.submit(empty))
    assert (progress["state"], progress["total_tasks"]) == ("finished", 0)
    assert progress["progress_percent"] == 100.0


def test_documents_that_kill_or_hang_their_reader_harm_no_other(site, running):
    folder = site.folder(20, first=["KILL", "", "HANG", "", "", "KILL"])
    run_id = site.submit(folder)
    site.wait(run_id)
    info = site.settled(run_id, 20, classified=17, failed=3)
    assert info.stats.failures == {"crash": 2, "timeout": 1}
    # Three readers in all, then it is not read again, until somebody asks for it.
    with site.processor() as processor:
        retried = processor.retry(run_id, ResultFilter(error_kind="crash"))
        processor.wait_for_completion(retried, 0.1)
    site.settled(retried, 2, failed=2)
    (folder / "000.txt").write_text("Subject: reports\nMended.\n")
    again = site.submit(folder)
    site.wait(again)
    site.settled(again, 20, classified=1, already_done=19)


def test_an_interrupted_submission_is_done_by_the_next(site: Site, running: CeleryWorker):
    folder = site.folder(60)
    script = """
import sys, time
from doc_classify.runners.distributed import CeleryDistributedProcessor

def slowly(number):
    print(number, flush=True)
    time.sleep(30 if number == 40 else 0)

with CeleryDistributedProcessor(batch_size=20) as processor:
    processor.submit_directory(sys.argv[1], on_submitted=slowly)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        env=os.environ | site.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() and process.stdout.readline() == "40\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in error
    with contextlib.closing(open_store(site.database)) as store:
        broken = store.run().run_id
    progress = site.wait(broken)
    assert "not everything was submitted" in progress["message"]
    site.settled(broken, 40)
    again = site.submit(folder)
    site.wait(again)
    site.settled(again, 60, classified=20, already_done=40)


def test_a_cancelled_run_can_go_on(site: Site, running: CeleryWorker):
    with site.processor() as processor:
        run_id = processor.submit_directory(site.folder(40, slow=0.2))
        wait_until(lambda: processor.check_progress(run_id)["completed"], "some are done")
        assert processor.cancel(run_id)
        assert processor.wait_for_completion(run_id, 0.1)["state"] == "cancelled"
        wait_until(lambda: processor._ledger.counts(run_id).claimed == 0, "chunks in work are done")
        done = processor.check_progress(run_id)["completed"]
        assert 0 < done < 40
        # A message that still lay in Redis may be taken before its chunk is sent again.
        assert 0 <= processor.resume(run_id) <= (40 - done) / 5
        assert processor.wait_for_completion(run_id, 0.1)["state"] == "finished"
        assert processor.resume(run_id) == 0
    site.settled(run_id, 40)
