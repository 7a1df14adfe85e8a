"""Runs of the real command under adverse conditions: signals, terminals, names, full stops."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest

from doc_classify.records import path_to_uri

COMMAND = [sys.executable, "-P", "-m", "doc_classify"]
ROOT = os.geteuid() == 0
HOSTILE_NAMES = [
    b"line\nbreak.txt",
    b"\x1b[2Jclear.txt",
    b"caf\xe9.txt",
    b"[bold]markup[red].txt",
    "\u202egpj.exe.txt".encode(),
    b"-v",
]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "documents").mkdir()
    return tmp_path


def environment(**changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DOC_CLASSIFY_")}
    for name in ("DATABASE_URL", "CATEGORIES", "OLLAMA_HOST", "OLLAMA_MODEL"):
        kept.pop(name, None)
    return kept | changes


def run(
    here: Path, *arguments: str | bytes, code: int = 0, **changes: str
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=here,
        env=environment(**changes),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def many(here: Path, number: int = 800) -> None:
    for name in range(number):
        text = f"Invoice no. {name}\nBill to: Customer {name}\nAmount due: {name}.00 EUR\n"
        (here / "documents" / f"{name:04}.txt").write_text(text * 100)


def wait_for_workers(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if psutil.Process(process.pid).children():
            return
        time.sleep(0.01)
    raise AssertionError("no worker appeared")


def wait_for_results(here: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with sqlite3.connect(f"file:{here}/doc-classify.db?mode=ro", uri=True) as database:
                if database.execute("SELECT max(classified) FROM runs").fetchone()[0]:
                    return
        except sqlite3.Error:
            pass
        time.sleep(0.02)
    raise AssertionError("no result was stored")


# --- Names ----------------------------------------------------------------------------------------


def test_no_name_reaches_the_terminal_raw(here):
    for number, name in enumerate(HOSTILE_NAMES, 1):
        path = Path(os.fsdecode(os.fsencode(here / "documents") + b"/" + name))
        path.write_text("\n" * number)  # no text, and no copy of another
    first = run(here, "classify-parallel", "documents", "--use-database", "-v", code=1)
    outputs = [first.stdout, first.stderr]
    for command in (
        ["results"],
        ["results", "--failed"],
        ["status"],
        ["runs"],
        ["classify-parallel", "documents", "--use-database", "--dry-run"],
    ):
        outputs.append(run(here, *command).stdout)
    path = b"documents/" + HOSTILE_NAMES[1]
    outputs.append(run(here, "classify", path, code=1).stdout)
    outputs.append(run(here, "classify-parallel", path + b".none", code=2).stderr)
    outputs.append(run(here, "classify", path + b".none", code=2).stderr)
    for output in outputs:
        text = output.decode("utf-8")
        assert all(c.isprintable() or c == "\n" for c in text), text
    assert len(run(here, "results").stdout.splitlines()) == len(HOSTILE_NAMES)
    assert b"[bold]markup[red].txt: no_text" in first.stdout
    rows = [json.loads(line) for line in run(here, "results", "--json").stdout.splitlines()]
    assert {row["uri"] for row in rows} == {
        path_to_uri(os.fsencode(here / "documents") + b"/" + name) for name in HOSTILE_NAMES
    }


def test_a_terminal_that_is_not_utf8(here):
    (here / "documents" / "Größe.txt").touch()
    done = run(here, "classify-parallel", "documents", code=1, PYTHONIOENCODING="ascii")
    assert b"Gr\\xf6\\xdfe.txt: empty" in done.stdout


def test_a_hidden_file_that_is_named_is_taken(here):
    (here / "documents" / ".hidden.txt").write_text("Invoice no. 1, amount due: 10.00 EUR")
    assert b".hidden.txt: invoices" in run(here, "classify", "documents/.hidden.txt").stdout
    assert b"nothing to classify" in run(here, "classify", "documents").stderr


# --- Endings --------------------------------------------------------------------------------------


def test_an_empty_folder(here):
    done = run(here, "classify-parallel", "documents", "--use-database", "--export")
    assert b"0 files seen" in done.stdout
    assert b"nothing to classify" in done.stdout
    assert b"500,000" not in done.stdout


def test_interrupted_runs_print_their_summary(here):
    many(here)
    process = subprocess.Popen(
        [*COMMAND, "classify-parallel", "documents", "--use-database", "-w", "2"],
        cwd=here,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for_results(here)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - sent < 8
    assert process.returncode == 130, err
    assert b"not reached" in out
    assert b"Interrupted. What is classified is stored; the same command does the rest." in out
    assert b"Traceback" not in err
    status = run(here, "status").stdout
    assert b": interrupted, documents" in status
    assert b"What was not reached is done by the same command" in status


def test_sigterm_ends_a_background_job_in_order(here):
    many(here)
    # As a shell starts background jobs: SIGINT is ignored, and stays so.
    process = subprocess.Popen(
        [*COMMAND, "classify-parallel", "documents", "--use-database", "--json", "-w", "2"],
        cwd=here,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    wait_for_results(here)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    result = json.loads(out)
    assert result["interrupted"] is True
    assert result["classified"] > 0
    assert result["categories"]


def test_a_run_that_was_killed_is_said_to_be(here):
    (here / "documents" / "a.txt").write_text("Invoice no. 1")
    run(here, "classify-parallel", "documents", "--use-database")
    with sqlite3.connect(here / "doc-classify.db") as database:
        database.execute(
            "UPDATE runs SET state = 'running', finished = NULL, "
            "heartbeat = '2020-01-01T00:00:00.000+00:00'"
        )
    assert b"killed?" in run(here, "runs").stdout
    assert json.loads(run(here, "status", "--json").stdout)["state"] == "killed?"


def test_a_database_that_breaks_during_the_run_leaves_a_report(here):
    many(here)
    process = subprocess.Popen(
        [*COMMAND, "classify-parallel", "documents", "--use-database", "--json", "--export"],
        cwd=here,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for_results(here)
    with sqlite3.connect(here / "doc-classify.db", timeout=30) as database:
        database.execute("DROP TABLE results")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, out + err
    result = json.loads(out)
    assert result["classified"] > 0
    assert "doc-classify.db" in result["error"]
    assert result["export"] is None
    assert err.decode().splitlines()[-1] == f"Error: {result['error']}"
    assert not (here / "results").exists()


def test_an_export_is_refused_before_the_run_where_it_can_be(here):
    (here / "documents" / "a.txt").write_text("Invoice no. 1")
    (here / "file").touch()
    done = run(here, "classify-parallel", "documents", "--export", "-o", "file/x", code=2)
    assert b"nothing can be exported into" in done.stderr
    assert done.stdout == b""


def test_an_export_that_fails_after_the_run_leaves_the_report(here):
    (here / "documents" / "a.txt").write_text("Invoice no. 1")
    folder = "/proc/nowhere"  # no one can make a folder there, root included
    options = ["--export", "-o", folder]
    done = run(here, "classify-parallel", "documents", *options, code=(3 if ROOT else 2))
    if ROOT:
        assert b"1 files seen = 1 classified" in done.stdout
        assert b"Error: " in done.stderr


@pytest.mark.parametrize("option", ["--category", "--error"])
def test_results_that_are_not_there(here, option):
    (here / "documents" / "a.txt").write_text("Invoice no. 1")
    run(here, "classify-parallel", "documents", "--use-database")
    code = 2 if option == "--category" else 0
    done = run(here, "results", option, "nonesuch", code=code)
    assert done.stdout == b""
    assert b"it has invoices, contracts" in done.stderr or b"Nothing in run" in done.stderr


def test_commands_that_only_look_make_no_tables(here, store_url):
    (here / "documents" / "a.txt").write_text("Invoice no. 1")
    for _ in range(2):
        done = run(here, "runs", code=2, DATABASE_URL=store_url)
        assert b"there is no database" in done.stderr
        found = run(
            here,
            *("classify-parallel", "documents", "--use-database", "--dry-run", "--json"),
            DATABASE_URL=store_url,
        )
        assert json.loads(found.stdout)["rate"] is None
        run(here, "check", DATABASE_URL=store_url)
    run(here, "classify-parallel", "documents", "--use-database", DATABASE_URL=store_url)
    assert b"finished" in run(here, "runs", DATABASE_URL=store_url).stdout
    done = run(here, "classify-parallel", "documents", "--dry-run", DATABASE_URL=store_url)
    assert b"1 would be classified, 0 are done already" in done.stdout  # no database was asked for
    assert b"documents/s of an earlier run" in done.stdout


# --- On a terminal --------------------------------------------------------------------------------


def test_a_terminal_gets_a_bar_that_counts(here):
    many(here, 300)
    (here / "documents" / "empty.pdf").touch()
    code, shown = on_a_terminal(here, "classify-parallel", "documents", "--use-database", "-w", "2")
    assert code == 1
    assert "Classifying documents with 2 workers" in shown
    assert "301/301" in shown
    assert "1 failed" in shown
    assert "/s" in shown


def test_no_bar_where_none_is_wanted(here):
    many(here, 3)
    for option in ("--no-progress", "--json"):
        code, shown = on_a_terminal(here, "classify-parallel", "documents", option)
        assert code == 0
        assert "\x1b" not in shown.split("\n", 1)[1]


def on_a_terminal(here: Path, *arguments: str) -> tuple[int, str]:
    """Run the command with standard error on a terminal; returns exit code and what it showed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=here,
        env=environment(TERM="xterm"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 1.0)[0]:
                part = os.read(ours, 65536)
                if not part:
                    break
                shown += part
    except OSError:
        pass  # Linux says so when the other end is closed
    finally:
        os.close(ours)
    return process.wait(30), shown.decode("utf-8", "replace")
