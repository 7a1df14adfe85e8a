"""Runs that are killed for real, and finished by the next one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from doc_classify.records import FileStatus
from doc_classify.storage import open_store

COMMAND = [sys.executable, "-P", "-m", "doc_classify", "classify-parallel"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Enough documents that a run can be caught in the middle."""
    documents = tmp_path / "documents"
    documents.mkdir()
    for number in range(600):
        text = f"Invoice no. {number}\nBill to: Customer {number}\nAmount due: {number}.00 EUR\n"
        (documents / f"{number:03}.txt").write_text(text * 100)
    return documents


def start(folder: Path, *options: str, url: str | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, str(folder), "--use-database", "--json", "-w", "2", *options],
        cwd=folder.parent,
        env=os.environ | ({"DATABASE_URL": url} if url else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict:
    out, err = process.communicate(timeout=120)
    assert out, err
    return json.loads(out) | {"code": process.returncode}


def workers(process: subprocess.Popen[str], at_least: int = 1) -> list[psutil.Process]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = psutil.Process(process.pid).children()
        if len(found) >= at_least:
            return found
        time.sleep(0.01)
    raise AssertionError("no worker processes appeared")


def wait_for_results(url: str, number: int) -> None:
    """Until so many results of the newest run are reported as stored."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        store = open_store(url)
        info = store.run()
        store.close()
        if info and info.stats.classified >= number:
            return
        time.sleep(0.02)
    raise AssertionError("the run did not come that far")


def check_complete(url: str, expected: int) -> None:
    """Every document has exactly one result over all runs, and every run's counts agree."""
    store = open_store(url)
    by_run = Counter[str]()
    for info in store.runs():
        statuses = Counter(row.status for row in store.results(info.run_id))
        assert info.stats.seen == statuses.total()
        assert info.stats.classified == statuses[FileStatus.CLASSIFIED]
        by_run[info.run_id] = statuses[FileStatus.CLASSIFIED]
    newest = store.run()
    rows = list(store.results(newest.run_id))
    assert len(rows) == expected
    assert all(row.category for row in rows)
    store.close()
    assert by_run.total() == expected


def test_kill_of_the_parent_loses_nothing_that_was_stored(folder, store_url):
    process = start(folder, url=store_url)
    children = workers(process, 2)
    wait_for_results(store_url, 1)
    process.kill()
    process.communicate()
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, "workers outlived their parent"
    store = open_store(store_url)
    stored = store.run().stats.classified
    assert store.run().state == "running"
    store.close()

    result = finish(start(folder, url=store_url))
    assert result["code"] == 0
    assert result["already_done"] == stored
    assert result["classified"] == 600 - stored
    check_complete(store_url, 600)


def test_killed_workers_are_replaced(folder, store_url):
    process = start(folder, url=store_url)
    killed = 0
    while process.poll() is None and killed < 6:
        for child in psutil.Process(process.pid).children():
            child.kill()
            killed += 1
        time.sleep(0.4)
    result = finish(process)
    assert killed
    # A worker killed twice over the same document counts against it: then it is a failure that
    # is recorded, and never a document that is lost.
    assert result["classified"] + result["failed"] == 600
    assert set(result["failures"]) <= {"crash"}
    store = open_store(store_url)
    assert sum(1 for _ in store.results(store.run().run_id)) == 600
    store.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_in_order_and_is_finished_by_the_next(folder, number):
    url = f"sqlite:///{folder.parent / 'doc-classify.db'}"
    process = start(folder, "--chunk-size", "2")
    workers(process, 2)
    wait_for_results(url, 1)
    sent = time.monotonic()
    process.send_signal(number)
    result = finish(process)
    assert time.monotonic() - sent < 10
    if not result["interrupted"]:
        pytest.skip("the run was over before the signal")
    assert result["code"] == 130
    store = open_store(url)
    assert store.run().state == "interrupted"
    assert store.run().stats.classified == result["classified"]
    store.close()

    second = finish(start(folder))
    assert second["code"] == 0
    assert second["already_done"] == result["classified"]
    check_complete(url, 600)
