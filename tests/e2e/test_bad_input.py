"""One folder with everything that goes wrong, one with very many files, one disk that is full."""

from __future__ import annotations

import json
import os
import random
import resource
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from doc_classify.dataset.compose import compose
from doc_classify.dataset.hostile import make_hostile
from doc_classify.dataset.writers import WRITERS
from doc_classify.records import FileStatus, display_name
from doc_classify.storage import open_store

MEGABYTE = 1_000_000
COMMAND = [sys.executable, "-P", "-m", "doc_classify", "classify-parallel"]


@dataclass
class Done:
    """How a run ended, and the most memory that its processes had."""

    code: int
    out: str
    err: str
    parent: int
    worker: int

    @property
    def stats(self) -> dict:
        return json.loads(self.out)


def run(folder: Path, *options: str, **how) -> Done:
    process = subprocess.Popen(
        [*COMMAND, str(folder), "--use-database", "--json", "-w", "2", *options],
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )
    seen = psutil.Process(process.pid)
    parent = worker = 0
    while True:
        try:
            out, err = process.communicate(timeout=0.05)
        except subprocess.TimeoutExpired:
            with_children = [seen, *seen.children()]
            for member in with_children:
                try:
                    size = member.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
                if member is seen:
                    parent = max(parent, size)
                else:
                    worker = max(worker, size)
        else:
            return Done(process.returncode, out, err, parent, worker)


def document(extension: str, seed: int) -> bytes:
    return WRITERS[extension](compose(random.Random(seed), "invoices", "en", 1), random.Random(1))[
        0
    ]


def hostile(kind: str, extension: str) -> bytes:
    content = compose(random.Random(kind), "reports", "en", 1)
    return make_hostile(kind, extension, content, random.Random(1), first=True)


def lay_out(folder: Path) -> dict[str, str]:
    """Make the files; returns what is to become of each: a status or a kind of failure."""
    folder.mkdir()
    expected: dict[str, str] = {}

    def put(name: str | bytes, data: bytes, outcome: str) -> None:
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        with open(path, "wb") as file:
            file.write(data)
        expected[display_name(os.fsdecode(path)).rpartition("/")[2]] = outcome

    for number, extension in enumerate(["pdf", "docx", "xlsx", "eml", "html", "txt"]):
        put(f"good.{extension}", document(extension, number), "classified")
    put("misnamed.pdf", document("docx", 10), "classified")
    put("no extension", document("pdf", 11), "classified")
    put("two\nlines.txt", document("txt", 12), "classified")
    put(b"latin-\xe4.txt", document("txt", 13), "classified")
    put("n" * 246 + ".txt", document("txt", 14), "classified")
    put("; rm -rf ~ $(x) [red].txt", document("txt", 15), "classified")
    put("copy of good.txt", document("txt", 5), "duplicate")

    put("empty.txt", b"", "empty")
    put("zero.pdf", b"", "duplicate")  # the same bytes: none
    put("blank.txt", b" \n" * 1000, "no_text")
    put("encrypted.pdf", hostile("encrypted_pdf", "pdf"), "encrypted")
    put("truncated.docx", hostile("truncated", "docx"), "damaged")
    put("truncated.xlsx", hostile("truncated", "xlsx"), "damaged")
    put("garbage.pdf", hostile("garbage", "pdf"), "damaged")
    put("garbage.docx", hostile("garbage", "docx"), "unsupported")  # of the name alone
    put("bomb.docx", hostile("zip_bomb", "docx"), "limit_exceeded")
    put("bomb.xml", hostile("xml_bomb", "xml"), "damaged|limit_exceeded")
    put("deep.xml", hostile("deep_xml", "xml"), "damaged|limit_exceeded")
    put("sparse.xlsx", hostile("sparse_sheet", "xlsx"), "limit_exceeded|classified")
    put("program", b"\x7fELF\x02\x01\x01" + bytes(500), "unsupported")
    put(".hidden.txt", b"hidden", "skipped")
    put("~$lock.docx", b"lock", "skipped")

    os.mkfifo(folder / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(folder)  # a socket's address is at most 108 bytes long
        listener.bind("socket.txt")
        os.chdir(here)
    outside = folder.parent / "outside.txt"
    outside.write_bytes(document("txt", 16))
    (folder / "away.txt").symlink_to(outside)
    (folder / "loop.txt").symlink_to("loop.txt")
    (folder / "nothing.txt").symlink_to("gone.txt")
    (folder / "inside.txt").symlink_to("good.txt")
    return expected | {
        "pipe.txt": "not_a_file",
        "socket.txt": "not_a_file",
        "away.txt": "link_outside",
        "loop.txt": "link_broken",
        "nothing.txt": "link_broken",
        "inside.txt": "duplicate",
    }


def test_every_file_of_a_bad_folder_is_accounted_for(tmp_path):
    expected = lay_out(tmp_path / "documents")
    done = run(tmp_path / "documents")
    assert done.code == 1, done.err
    assert "Traceback" not in done.err
    stats = done.stats

    store = open_store(f"sqlite:///{tmp_path / 'doc-classify.db'}")
    rows = {display_name(row.uri).rpartition("/")[2]: row for row in store.results(stats["run_id"])}
    state = store.run().state
    store.close()
    assert state == "finished"
    skipped = {name for name, outcome in expected.items() if outcome == "skipped"}
    assert set(rows) == set(expected) - skipped
    assert stats["skipped"] == len(skipped)
    assert stats["seen"] == len(rows)
    assert stats["pending"] == 0
    parts = ("classified", "failed", "duplicates", "already_done", "unsupported")
    assert stats["seen"] == sum(stats[part] for part in parts)

    wrong = {}
    for name, row in rows.items():
        found = row.status.value
        if row.status is FileStatus.DUPLICATE:
            assert row.duplicate_of
        elif row.failure:
            found = row.failure.kind
            assert row.failure.message
            assert row.failure.message.isprintable()
            assert "Error(" not in row.failure.message
        else:
            assert row.category
        # Which of several copies is the first depends on their names only.
        if found not in expected[name].split("|"):
            wrong[name] = (found, row.failure and row.failure.message)
    copies = {name for name, (found, _) in wrong.items() if found in ("duplicate", "classified")}
    assert not {name: what for name, what in wrong.items() if name not in copies}
    assert copies <= {"good.txt", "copy of good.txt", "inside.txt"}

    assert done.worker < 500 * MEGABYTE
    assert done.parent < 200 * MEGABYTE

    second = run(tmp_path / "documents")
    assert second.code == 1
    assert second.stats["classified"] == second.stats["failed"] == second.stats["pages"] == 0
    assert second.stats["seen"] == stats["seen"]
    assert second.stats["already_failed"] == stats["failed"]


def test_very_many_small_files(tmp_path):
    number = 20_000
    for folder in range(20):
        (tmp_path / "documents" / f"{folder:02}").mkdir(parents=True)
    for file in range(number):
        path = tmp_path / "documents" / f"{file % 20:02}" / f"{file:06}.txt"
        path.write_bytes(b"Invoice %06d: amount due" % file)
    done = run(tmp_path / "documents", "--chunk-size", "200")
    assert done.code == 0, done.err
    assert done.stats["classified"] == number
    assert done.parent < 200 * MEGABYTE
    assert done.worker < 500 * MEGABYTE


def test_a_full_disk_ends_the_run_and_loses_nothing_that_was_stored(tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(300):
        text = f"Invoice {number}: amount due to the customer " * 100
        (folder / f"{number:03}.txt").write_text(text)

    def full() -> None:
        limit = 400_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = run(folder, preexec_fn=full)
    assert done.code == 3
    assert done.stats["classified"] < 300
    assert done.stats["error"]
    (line,) = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert "doc-classify.db" in line
    assert "Traceback" not in done.err

    later = run(folder)
    assert later.code == 0
    stats = later.stats
    assert stats["classified"] + stats["already_done"] == stats["seen"] == 300


@pytest.mark.parametrize("name", ["two\nlines", os.fsdecode(b"latin-\xe4"), "d" * 250])
def test_a_folder_with_a_strange_name(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "good.txt").write_bytes(document("txt", 1))
    done = run(folder)
    assert done.code == 0, done.err
    assert done.stats["classified"] == 1
