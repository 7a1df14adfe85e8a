"""The Python interface, as scripts use it that know nothing of processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import doc_classify
from doc_classify import ParallelDocumentProcessor, Settings, Taxonomy
from doc_classify.errors import ConfigurationError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two documents, one of them in a subfolder; the working directory is beside them."""
    folder = tmp_path / "documents"
    (folder / "sub").mkdir(parents=True)
    (folder / "invoice.txt").write_text("Invoice no. 17\nAmount due: 17.00 EUR\nVAT 19%\n")
    (folder / "sub" / "letter.txt").write_text("Dear Sir, thank you for your letter. Regards")
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "CATEGORIES"):
        monkeypatch.delenv(name, raising=False)
    return folder


def test_a_script_without_a_main_guard(documents, tmp_path):
    """Run from the repository's root, everything at the top level of the script."""
    script = tmp_path / "script.py"
    script.write_text(
        f"""
from pathlib import Path
from src.parallel_processor import ParallelDocumentProcessor

print("started")
processor = ParallelDocumentProcessor(num_workers=2, use_database=True, chunk_size=10)
stats = processor.process_directory(
    Path({str(documents)!r}), recursive=True, include_reasoning=False
)
processor.print_summary()
processor.export_results(Path({str(tmp_path / "out" / "parallel_results.json")!r}))
print(stats.successful, stats.failed, stats.total_processing_time > 0)
"""
    )
    url = f"sqlite:///{tmp_path / 'results.db'}"
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("started") == 1
    assert "2 files seen = 2 classified" in done.stdout
    assert done.stdout.endswith("2 0 True\n")
    exported = json.loads((tmp_path / "out" / "parallel_results.json").read_text("utf-8"))
    assert len(exported["results"]) == 2
    assert (tmp_path / "results.db").exists()


def test_the_same_typed_into_an_interpreter(documents):
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        input="from src.parallel_processor import ParallelDocumentProcessor\n"
        f"stats = ParallelDocumentProcessor(num_workers=1).process_directory({str(documents)!r})\n"
        "print('classified', stats.classified)\n",
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "classified 2" in done.stdout


def test_a_batch_of_paths(documents):
    with ParallelDocumentProcessor(num_workers=1) as processor:
        stats = processor.process_batch(path for path in [documents / "invoice.txt"])
        assert (stats.seen, stats.classified) == (1, 1)
        assert processor.stats is stats
        (row,) = processor.store.results(stats.run_id)
        assert row.category == "invoices"
        stats = processor.process_batch([documents / "gone.txt", documents, "/dev/null"])
        assert (stats.seen, stats.classified) == (3, 0)
        assert processor.process_batch([]).seen == 0
    assert not psutil.Process().children()


def test_without_a_database_no_file_stays(documents):
    before = sorted(documents.parent.rglob("*"))
    with ParallelDocumentProcessor(num_workers=1) as processor:
        processor.process_directory(documents)
    assert sorted(documents.parent.rglob("*")) == before


def test_inside_a_running_event_loop(documents):
    async def notebook() -> int:
        with ParallelDocumentProcessor(num_workers=1) as processor:
            stats = processor.process_directory(documents)
            return stats.classified

    assert asyncio.run(notebook()) == 2


def test_an_error_inside_a_running_event_loop(documents):
    async def notebook() -> None:
        with ParallelDocumentProcessor(num_workers=1) as processor:
            processor.process_directory(documents / "nowhere")

    with pytest.raises(ConfigurationError, match="nowhere"):
        asyncio.run(notebook())


def test_an_interrupt_inside_a_running_event_loop_ends_the_run(documents):
    """A notebook's: there Ctrl-C reaches the cell, and the run is in another thread."""
    for number in range(200):
        (documents / f"{number}.txt").write_text(f"Invoice {number}, amount due")
    interrupted = []

    def interrupt(stats: object) -> None:
        if not interrupted:
            interrupted.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    async def notebook() -> None:
        processor.process_directory(documents)

    loop = asyncio.new_event_loop()  # not asyncio.run: that takes the signal to itself
    with ParallelDocumentProcessor(num_workers=1, on_progress=interrupt) as processor:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(notebook())
        assert processor.store.run().state == "interrupted"
        assert processor.stats.pending > 0
    loop.close()
    assert not psutil.Process().children()


def test_categories_by_name_and_as_a_taxonomy(documents):
    for categories in (["invoices", "letters"], Taxonomy.from_names(["invoices", "letters"])):
        with ParallelDocumentProcessor(num_workers=1, categories=categories) as processor:
            stats = processor.process_directory(documents)
        assert set(stats.categories) <= {"invoices", "letters"}


def test_not_recursive(documents):
    with ParallelDocumentProcessor(num_workers=1) as processor:
        assert processor.process_directory(documents, recursive=False).seen == 1


def test_a_database_is_kept_between_processors(documents):
    settings = Settings(database_url=f"sqlite:///{documents.parent / 'kept.db'}")
    for done in (0, 2):
        with ParallelDocumentProcessor(1, True, settings=settings) as processor:
            stats = processor.process_directory(str(documents))
        assert (stats.already_done, stats.classified) == (done, 2 - done)


def test_progress_is_reported(documents):
    seen = []
    with ParallelDocumentProcessor(
        1, on_progress=lambda stats: seen.append(stats.classified)
    ) as processor:
        processor.process_directory(documents)
    assert seen[-1] == 2


def test_an_error_of_the_caller_ends_the_run_and_its_workers(documents):
    def fail(stats: object) -> None:
        raise ZeroDivisionError("of the caller")

    with (
        ParallelDocumentProcessor(1, on_progress=fail) as processor,
        pytest.raises(ZeroDivisionError, match="of the caller"),
    ):
        processor.process_directory(documents)
    assert not psutil.Process().children()


def test_nothing_to_export(documents):
    with (
        ParallelDocumentProcessor(1) as processor,
        pytest.raises(ConfigurationError, match="nothing to export"),
    ):
        processor.export_results("out.json")


def test_the_public_names():
    for name in doc_classify.__all__:
        assert getattr(doc_classify, name).__name__ == name
    assert set(doc_classify.__all__) <= set(dir(doc_classify))
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = doc_classify.nonesuch


def test_importing_the_package_costs_next_to_nothing():
    script = "import doc_classify, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not {"sqlalchemy", "pydantic", "rich", "asyncio", "numpy"} & set(done.stdout.split())
