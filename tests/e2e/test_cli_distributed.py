"""The commands for Celery workers, as processes of their own, with a real broker and databases."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import CeleryWorker, RedisServer, fresh_database, wait_until
from doc_classify.queue_status import Standing, Worker, bottleneck, troubles
from doc_classify.records import RunStats
from doc_classify.storage.chunks import ChunkCounts
from doc_classify.storage.monitoring import Connections

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-P", "-m", "doc_classify"]
SCRIPT = [sys.executable, str(ROOT / "scripts" / "submit_distributed_batch.py")]
NUMBER = 30


class Place:
    """A folder with documents, a database, and the commands called there."""

    def __init__(self, root: Path, database: str, broker: str) -> None:
        self.root = root
        self.documents = root / "documents"
        self.documents.mkdir()
        for number in range(NUMBER):
            text = f"Invoice no. {number}\nBill to: Customer {number}\nAmount due: {number} EUR\n"
            (self.documents / f"{number:03}.txt").write_text(text)
        self.environment = {
            "DATABASE_URL": database,
            "CELERY_BROKER_URL": broker,
            "DOC_CLASSIFY_DISTRIBUTED_CHUNK_SIZE": "5",
            "DOC_CLASSIFY_LEASE_SECONDS": "4",
        }

    def start(self, *arguments: str, command: list[str] = COMMAND, **how: object):
        return subprocess.Popen(
            [*command, *arguments],
            cwd=self.root,
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=how.pop("stderr", subprocess.PIPE),
            text=True,
            **how,
        )

    def run(self, *arguments: str, code: int = 0, command: list[str] = COMMAND) -> tuple[str, str]:
        """Standard output and standard error of a command that ends with ``code``."""
        process = self.start(*arguments, command=command)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, out + err
        assert "Traceback" not in err
        return out, err

    def json(self, *arguments: str, code: int = 0) -> dict:
        return json.loads(self.run(*arguments, "--json", code=code)[0])

    def submit(self, *options: str) -> str:
        out, _ = self.run("submit", "documents", *options)
        assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}\n", out)
        return out.strip()

    def troubles(self) -> list[str]:
        return self.json("status")["distributed"]["troubles"]


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path: Path, redis_server: RedisServer) -> Place:
    redis_server.flush()
    if request.param == "sqlite":
        database = f"sqlite:///{tmp_path / 'ledger.db'}"
    else:
        database = fresh_database(request.getfixturevalue("postgres_url"))
    return Place(tmp_path, database, redis_server.url)


@pytest.fixture
def start_worker(place: Place) -> Iterator[Callable[..., CeleryWorker]]:
    with contextlib.ExitStack() as stack:

        def start(name: str = "worker1") -> CeleryWorker:
            worker = CeleryWorker(name, place.environment, place.root / f"{name}.log")
            stack.callback(worker.end)
            return worker.wait_until_ready()

        yield start


on_sqlite = pytest.mark.parametrize("place", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("place", ["postgresql"], indirect=True)


def test_from_submitting_to_retrying(place: Place, start_worker):
    (place.documents / "empty.txt").write_bytes(b"")
    out, err = place.run("submit", "documents")
    run_id = out.strip()
    assert "No worker is connected yet" in err and f"{NUMBER + 1} files submitted" in err
    assert ("only workers of this machine" in err) == place.environment["DATABASE_URL"].startswith(
        "sqlite"
    )

    out, _ = place.run("status", run_id)
    assert f"0 of {NUMBER + 1} documents done" in out
    assert "7 waiting, 0 held" in out and "Queue: 7 messages" in out
    assert "! No worker is connected to the broker. Start one" in out
    found = place.json("status")
    assert found["run_id"] == run_id and found["state"] == "running"
    assert found["distributed"]["depth"] == 7 and found["distributed"]["workers"] == []
    _, err = place.run("wait", "--timeout", "0.3", "--poll-interval", "0.1", code=3)
    assert f"Time is up; run {run_id} goes on" in err

    start_worker()
    out, err = place.run("wait", run_id, "--poll-interval", "0.1", code=1)
    assert f"{NUMBER} classified" in out and "1 failed" in out and "failed: empty" in out
    assert "documents/s" in err
    found = place.json("wait", code=1)
    assert found["state"] == "finished" and found["stats"]["classified"] == NUMBER
    assert not found["interrupted"]
    assert "distributed" not in place.json("status")
    assert "with 0 workers" not in place.run("status")[0]

    again, err = place.run("retry", "--failed")
    assert again.strip() != run_id and "Submitted again" in err
    found = place.json("wait", again.strip(), "--poll-interval", "0.1", code=1)
    assert found["stats"]["seen"] == found["stats"]["failed"] == 1
    (place.documents / "empty.txt").unlink()
    done = json.loads(
        place.run("submit", "documents", "--wait", "--poll-interval", "0.1", "--json")[0]
    )
    assert done["stats"]["already_done"] == NUMBER and done["stats"]["failed"] == 0
    assert place.json("submit", "documents")["submitted"] == NUMBER
    assert "Nothing in run" in place.run("retry", done["run_id"], "--failed")[0]


@on_sqlite
def test_an_emptied_queue_is_noticed_and_resumed(place: Place, start_worker, redis_server):
    run_id = place.submit()
    redis_server.flush()
    wait_until(
        lambda: any("The queue is empty although 6 chunks wait" in t for t in place.troubles()),
        "the loss is noticed",
    )
    assert f"Run {run_id} goes on: 6 chunks were sent again." in place.run("resume", run_id)[0]
    assert place.json("status")["distributed"]["depth"] == 6
    start_worker()
    place.run("wait", "--poll-interval", "0.1")
    assert "nothing to resume" in place.run("resume", run_id)[0]
    assert place.json("resume", run_id)["chunks_sent"] == 0


def test_a_cancelled_run_goes_on_when_it_is_resumed(place: Place, start_worker):
    run_id = place.submit()
    assert f"Run {run_id} is cancelled" in place.run("cancel", run_id)[0]
    assert place.json("cancel", run_id) == {"run_id": run_id, "cancelled": False}
    _, err = place.run("wait", "--poll-interval", "0.1", code=3)
    assert "cancelled by the user" in err and f"'doc-classify resume {run_id}'" in err
    assert "'doc-classify resume" in place.run("status")[0]
    start_worker()
    time.sleep(0.5)
    assert place.json("status")["stats"]["seen"] == 0
    assert place.json("resume", run_id)["chunks_sent"] == 6
    place.run("wait", "--poll-interval", "0.1")


@on_sqlite
@pytest.mark.parametrize("arguments", [["wait"], ["submit", "documents", "--wait"]])
def test_ctrl_c_ends_only_the_looking_on(place: Place, start_worker, arguments: list[str]):
    place.submit()
    process = place.start(*arguments, "--poll-interval", "0.1")
    assert process.stderr
    for line in process.stderr:
        if "done" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Stopped looking on" in err and "goes on without" in err
    assert place.json("status")["state"] == "running"
    start_worker()
    place.run("wait", "--poll-interval", "0.1")


@on_sqlite
def test_a_person_sees_a_bar(place: Place, start_worker):
    start_worker()
    place.submit()
    master, slave = pty.openpty()
    process = place.start("wait", "--poll-interval", "0.1", stderr=slave)
    os.close(slave)
    process.communicate(timeout=30)
    assert process.returncode == 0
    seen = b""
    with contextlib.suppress(OSError):  # the end of it
        while part := os.read(master, 65536):
            seen += part
    os.close(master)
    assert b"Classifying" in seen and f"{NUMBER}/{NUMBER}".encode() in seen


@on_sqlite
def test_a_broker_that_is_away(place: Place):
    run_id = place.submit()
    place.environment["CELERY_BROKER_URL"] = "redis://someone:secret@127.0.0.1:1/0"
    _, err = place.run("submit", "documents", code=3)
    assert "message broker redis://someone:**@127.0.0.1:1/0 cannot be used" in err
    assert len(place.run("runs")[0].splitlines()) == 1
    out, _ = place.run("status", run_id)
    assert "Queue: unknown" in out and "correct CELERY_BROKER_URL" in out
    assert "secret" not in out


@on_sqlite
def test_workers_that_cannot_see_the_documents(place: Place, start_worker):
    place.submit()
    place.documents.rename(place.root / "elsewhere")
    start_worker()
    wait_until(
        lambda: any("none takes chunks at present" in trouble for trouble in place.troubles()),
        "the worker has given up",
    )
    (trouble,) = [text for text in place.troubles() if "none takes" in text]
    assert "1 worker is connected" in trouble and "cannot be seen from" in trouble
    assert "takes no chunks" in place.run("status")[0]
    assert place.json("status")["stats"]["failed"] == 0


def test_an_llm_server_that_is_away(place: Place, start_worker):
    place.environment |= {
        "OLLAMA_HOST": "http://127.0.0.1:9",
        "DOC_CLASSIFY_CLASSIFIER": "ollama",
        "DOC_CLASSIFY_LLM_GIVE_UP": "2",
    }
    place.submit()
    start_worker()
    wait_until(
        lambda: any(
            "A worker waits" in trouble and "127.0.0.1:9" in trouble for trouble in place.troubles()
        ),
        "the run says what its workers wait for",
    )
    found = place.json("status")
    assert found["stats"]["failed"] == 0 and found["distributed"]["workers"][0]["listening"]


@on_postgresql
def test_connections_of_a_run_at_work(place: Place, start_worker):
    start_worker()
    for number in range(1500):
        (place.documents / f"more-{number}.txt").write_text(f"Report {number}\n" * 3000)
    place.submit()
    found = place.json("status")["distributed"]
    assert found["connections_needed"] == 7  # 2 processes x 3, and one that sweeps
    assert found["connections"]["ours"] >= 1
    assert found["connections"]["allowed"] >= found["connections"]["used"]
    (worker,) = found["workers"]
    assert worker["processes"] == 2 and worker["listening"]
    assert worker["name"].startswith("worker1@")
    place.run("wait", "--poll-interval", "0.1")


@on_sqlite
def test_the_script(place: Place, start_worker):
    start_worker()
    folder = str(place.documents)
    options = ["--batch-size", "10", "--wait", "--poll-interval", "0.1", "--reasoning"]
    options += ["--categories", "invoices,letters,other", "--no-database"]
    out, err = place.run(folder, *options, command=SCRIPT)
    assert f"{NUMBER} classified" in out and f"{NUMBER} files submitted" in err
    run_id = out.split()[0]
    found = place.json("status", run_id)
    assert found["categories"] == ["invoices", "letters", "other"]
    rows = [json.loads(line) for line in place.run("results", run_id, "--json")[0].splitlines()]
    assert len(rows) == NUMBER and all(row["reasoning"] for row in rows)


@on_sqlite
def test_requests_that_make_no_sense(place: Place):
    for command in (["wait"], ["cancel", "x"], ["resume", "x"]):
        _, err = place.run(*command, code=2)
        assert "there is no database" in err
    place.run("classify-parallel", "documents", "--use-database", "--no-progress")
    local = place.json("status")["run_id"]
    for command in ("wait", "cancel", "resume"):
        _, err = place.run(command, local, code=2)
        assert "is not one of workers" in err
    assert "no run was submitted" in place.run("wait", code=2)[1]
    _, err = place.run("submit", "nowhere", code=2)
    assert "nowhere" in err
    assert len(place.run("runs")[0].splitlines()) == 1


@on_sqlite
def test_without_celery(place: Place):
    run_id = place.submit()
    hide = "import sys; sys.modules['celery'] = None; from doc_classify.cli import main; main()"
    for command in (["submit", "documents"], ["wait"], ["cancel", run_id], ["resume", run_id]):
        _, err = place.run(*command, code=2, command=[sys.executable, "-c", hide])
        assert "pip install 'doc-classify[distributed]'" in err
    _, err = place.run("retry", run_id, "--error", "x", command=[sys.executable, "-c", hide])
    out, _ = place.run("status", run_id, command=[sys.executable, "-c", hide])
    assert "pip install 'doc-classify[distributed]'" in out


# --- what is seen, and what it means -------------------------------------------------------------

AT_WORK = Standing(
    run_id="r",
    state="running",
    message=None,
    classifier="embedded",
    model=None,
    stats=RunStats(
        seen=1000, classified=1000, submitted=5000, extract_seconds=300.0, classify_seconds=60.0
    ),
    silent=1.0,
    elapsed=100.0,
    lease=120.0,
    chunks=ChunkCounts(pending=150, claimed=4, done=40),
    oldest_waiting=80.0,
    most_attempts=1,
    depth=146,
    broker_error=None,
    workers=(Worker("w@one", "0.1.0", 4, True, 4, 4),),
    crashes=(),
    connections=Connections(ours=9, used=12, allowed=97),
    load=0.5,
)


@pytest.fixture(autouse=True)
def _same_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doc_classify.queue_status.version", lambda _name: "0.1.0")


def test_nothing_is_the_matter():
    assert troubles(AT_WORK) == []
    assert AT_WORK.rate == 10.0 and AT_WORK.remaining == 400.0
    assert troubles(replace(AT_WORK, state="finished", workers=())) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"workers": ()}, "No worker is connected"),
        ({"depth": None, "broker_error": "the message broker x"}, "The message broker x"),
        ({"workers": (Worker("w@one", "0.0.9", 4, True, 4, 0),)}, "has doc-classify 0.0.9"),
        ({"connections": Connections(ours=9, used=12, allowed=12)}, "raise max_connections"),
        ({"silent": 400.0, "classifier": "ollama"}, "the LLM server is away or very slow"),
        ({"silent": 400.0}, "a document takes long"),
        ({"chunks": ChunkCounts(claimed=4, expired=2)}, "not heard of any more"),
        ({"depth": 0}, "The queue is empty although 150 chunks wait"),
        ({"state": "submitting", "silent": 70.0}, "whoever submitted it seems to be gone"),
        ({"message": "vm pid 7: no LLM"}, "A worker waits, or has handed back what it had: vm"),
        ({"message": "not everything was submitted: x"}, "Not everything was submitted: x. Submit"),
        ({"state": "failed", "message": "no money"}, "ended (no money) before all was done"),
        (
            {"workers": (*AT_WORK.workers, Worker("w@two", "0.1.0", 4, False, 0, 0))},
            "w@two takes no chunks at present",
        ),
    ],
)
def test_what_is_the_matter(changes, expected):
    (said,) = troubles(replace(AT_WORK, **changes))
    assert expected in said


def test_messages_on_their_way_are_not_lost():
    few = ChunkCounts(pending=4, claimed=4)
    assert troubles(replace(AT_WORK, depth=0, chunks=few)) == []  # fetched by the worker
    assert troubles(replace(AT_WORK, depth=0, oldest_waiting=5.0)) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "Reading documents is the limit: 90%"),
        ({"load": 3.5}, "The database is the limit: on average 3.5 of 4 processes"),
        ({"elapsed": 1000.0}, "Nothing is used up: 9%"),
        (
            {
                "classifier": "ollama",
                "stats": replace(AT_WORK.stats, extract_seconds=20.0, classify_seconds=4000.0),
            },
            "The LLM is the limit: on average 40.0 documents wait for its answer, 4.0 s each; 5%",
        ),
        ({"state": "cancelled"}, None),
        ({"workers": ()}, None),
    ],
)
def test_what_the_limit_is(changes, expected):
    said = bottleneck(replace(AT_WORK, **changes))
    assert said is None if expected is None else said and expected in said
