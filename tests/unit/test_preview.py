"""What a dry run announces is what a run then does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from doc_classify.preview import Preview, preview
from doc_classify.records import Failure, Outcome, Source
from doc_classify.runners.parallel import ParallelDocumentProcessor
from doc_classify.settings import Settings
from doc_classify.storage.base import Hashed, RunSpec, Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = tmp_path / "documents"
    (documents / "sub").mkdir(parents=True)
    for number in range(3):
        (documents / f"{number}.txt").write_text(f"Invoice no. {number}, amount due: 7.00 EUR")
    (documents / "sub" / "copy.txt").write_bytes((documents / "1.txt").read_bytes())
    (documents / "program.txt").write_bytes(b"\x7fELF" + bytes(range(256)) * 8)
    (documents / "empty.pdf").touch()
    (documents / ".hidden").touch()
    (documents / "elsewhere").symlink_to("/etc/hostname")
    os.mkfifo(documents / "pipe")
    return documents


def settings(folder: Path, **changes) -> Settings:
    url = f"sqlite:///{folder.parent / 'runs.db'}"
    return Settings(database_url=url, workers=1, **changes)


def test_a_dry_run_announces_what_a_run_does(folder):
    how = settings(folder)
    announced = preview(folder, how)
    with ParallelDocumentProcessor(use_database=True, settings=how) as processor:
        stats = processor.process_directory(folder)
    assert announced.seen == stats.seen == 8
    assert announced.take == stats.classified + stats.failed == 4
    assert announced.duplicates == stats.duplicates == 1
    assert announced.unsupported == stats.unsupported == 3
    assert announced.skipped == stats.skipped == 1
    assert announced.failed == announced.already_done == 0
    assert announced.types == {"plain text": 3, "empty file": 1}
    assert announced.rejected == {"link_outside": 1, "not_a_file": 1, "program": 1}
    assert announced.rate is None
    assert "No finished run" in announced.lines()[-1]

    later = preview(folder, how)
    with ParallelDocumentProcessor(use_database=True, settings=how) as processor:
        stats = processor.process_directory(folder)
    assert (later.take, stats.classified + stats.failed) == (0, 0)
    assert later.already_done + later.duplicates == stats.already_done + stats.duplicates == 5
    assert later.unsupported == stats.unsupported == 3
    assert later.rate

    (folder / "new.txt").write_text("Dear Sir, thank you for your letter.")
    announced = preview(folder, how)
    assert announced.take == 1
    assert "documents/s of an earlier run" in announced.lines()[-1]
    assert preview(folder, how, force=True).take == 5
    assert preview(folder, settings(folder, categories="letters,other")).take == 5
    assert preview(folder, settings(folder, recursive=False), force=True).duplicates == 0


def test_done_is_what_a_run_would_leave_alone(store: Store):
    spec = RunSpec("here", "test", "f" * 16, "e" * 16, "embedded", ("a", "b"), {})
    run = store.start_run(spec)
    kinds = ["damaged", "unreadable", "unsupported", "missing_dependency", "crash"]
    files = [
        Hashed(Source(f"file:///{kind}", 1, 1), f"{number:064x}")
        for number, kind in enumerate(kinds)
    ]
    tasks = store.register(run, files).tasks
    store.record(
        run,
        [
            Outcome(task.document_id, task.file_id, failure=Failure(kind, "so"))
            for task, kind in zip(tasks, kinds, strict=True)
        ],
    )
    done = store.done_hashes(spec.fingerprint, [file.sha256 for file in files])
    again = store.register(store.start_run(spec), files)
    assert len(done) == again.statuses["already_done"] == 2
    assert done == {files[0].sha256, files[4].sha256}
    assert store.done_hashes("0" * 16, list(done)) == set()


def test_what_is_printed():
    lines = Preview(seen=10, take=8, duplicates=2, types={"a": 5, "b": 3}, rate=2.0).lines()
    assert lines[0].startswith("10 files: 8 would be classified, 0 are done already, 2 are")
    assert lines[1:] == [
        "          5  a",
        "          3  b",
        "About 4 s at the 2.0 documents/s of an earlier run",
    ]
