"""The asynchronous Python interface, as a person's script or notebook uses it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.doubles.ollama import OllamaDouble

from doc_classify import AsyncBatchProcessor, RunStats
from doc_classify.errors import ConfigurationError
from doc_classify.settings import load_settings

ROOT = Path(__file__).parents[2]
COUNT = 40


@pytest.fixture
def double() -> Iterator[OllamaDouble]:
    """An Ollama whose model finds every document to be a letter, sixteen at a time."""
    with OllamaDouble(
        lambda _system, _user: {"correspondence": 0.8, "other": 0.2}, slots=16, latency=0.05
    ) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Documents, two of them the same, some of them in a subfolder."""
    place = tmp_path / "documents"
    (place / "sub").mkdir(parents=True)
    for number in range(COUNT):
        path = place / ("sub" if number % 2 else "") / f"{number:02}.txt"
        path.write_text(f"Dear Ms Young, thank you for letter number {number % (COUNT - 1)}.")
    return place


def environment(double: OllamaDouble, tmp_path: Path) -> dict[str, str]:
    """What is set outside of a script, here the address of the double."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": f"sqlite:///{tmp_path / 'results.db'}",
        "DOC_CLASSIFY_CLASSIFIER": "auto",
        "OLLAMA_HOST": double.url,
        "OLLAMA_MODEL": double.model,
    }


def test_a_script(folder, double, tmp_path):
    """Run from the repository's root, without a guard, twice: the second time all is done."""
    script = tmp_path / "script.py"
    out = tmp_path / "out" / "batch_results.json"
    script.write_text(
        f"""
import asyncio
from pathlib import Path
from src.async_batch_processor import AsyncBatchProcessor

print("started")


async def main():
    processor = AsyncBatchProcessor(
        max_concurrent=50, batch_size=100, use_database=True, deduplicate=True
    )
    stats = await processor.process_directory_async(
        Path({str(folder)!r}), recursive=True, include_reasoning=False
    )
    processor.export_results(Path({str(out)!r}))
    print(stats.successful, stats.failed, stats.skipped_duplicates)
    print(f"{{stats.total_processing_time:.2f}} s, {{stats.documents_per_second:.2f}} a second")


asyncio.run(main())
"""
    )
    told = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(script)],
            cwd=ROOT,
            env=environment(double, tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        started, counts, rates = done.stdout.splitlines()
        assert started == "started"
        seconds, rate = float(rates.split()[0]), float(rates.split()[2])
        told.append((counts, seconds > 0, rate > 0))
    assert told == [("39 0 1", True, True), ("0 0 40", True, False)]
    exported = json.loads(out.read_text("utf-8"))["results"]
    assert len(exported) == COUNT
    asked = sum("thank you" in chat["messages"][-1]["content"] for chat in double.chats)
    assert asked == COUNT - 1
    assert double.most_at_once > 1
    assert (tmp_path / "results.db").exists()


def test_the_cells_of_a_notebook(folder, double, tmp_path, monkeypatch):
    """A loop that runs all the time, and top-level awaits; other tasks go on meanwhile."""
    for name, value in environment(double, tmp_path).items():
        monkeypatch.setenv(name, value)
    double.latency = 0.2

    async def notebook() -> tuple[RunStats, int]:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.01)
                beats += 1

        beating = asyncio.create_task(beat())
        processor = AsyncBatchProcessor(max_concurrent=50, num_workers=1)
        stats = await processor.process_directory_async(folder)
        beating.cancel()
        assert processor.stats is stats
        processor.close()
        return stats, beats

    stats, beats = asyncio.run(notebook())
    assert (stats.successful, stats.failed, stats.skipped_duplicates) == (COUNT - 1, 0, 1)
    assert beats > 20 * stats.total_processing_time  # of about 100 a second
    assert not psutil.Process().children()


def test_a_generator_of_paths_is_taken_as_it_comes(folder, double, tmp_path):
    settings = load_settings(classifier="ollama", ollama_host=double.url, workers=1)
    taken = []

    def paths() -> Iterator[Path]:
        for path in sorted(folder.rglob("*.txt")):
            taken.append(path)
            yield path
        yield folder / "gone.txt"

    async def main() -> None:
        with AsyncBatchProcessor(use_database=False, settings=settings) as processor:
            assert (await processor.process_batch_async([])).seen == 0
            stats = await processor.process_batch_async(paths())
            assert (stats.seen, stats.successful) == (COUNT + 1, COUNT - 1)
            assert (stats.skipped_duplicates, stats.failed, stats.pending) == (1, 1, 0)
            assert stats.llm_calls == COUNT - 1
            rows = list(processor.store.results(stats.run_id))
            assert {row.category for row in rows} == {"correspondence", None}

    asyncio.run(main())
    assert len(taken) == COUNT


def test_two_runs_at_once_in_one_loop(folder, double, tmp_path):
    """Each with a processor of its own, as one would for two folders."""
    settings = load_settings(
        classifier="ollama",
        ollama_host=double.url,
        workers=1,
        database_url=f"sqlite:///{tmp_path / 'results.db'}",
    )

    async def main() -> list[RunStats]:
        with (
            AsyncBatchProcessor(settings=settings) as one,
            AsyncBatchProcessor(settings=settings) as other,
        ):
            return await asyncio.gather(
                one.process_batch_async(folder.glob("*.txt")),
                other.process_directory_async(folder / "sub"),
            )

    found = asyncio.run(main())
    assert [stats.seen for stats in found] == [COUNT // 2, COUNT // 2]
    assert all(stats.failed == stats.pending == 0 for stats in found)


def test_what_cannot_be_done_is_raised_where_it_is_awaited(folder, double):
    settings = load_settings(classifier="ollama", ollama_host=double.url)

    async def main() -> None:
        with AsyncBatchProcessor(use_database=False, settings=settings) as processor:
            with pytest.raises(ConfigurationError, match="nowhere"):
                await processor.process_directory_async(folder / "nowhere")
            with pytest.raises(ConfigurationError, match="nothing to export"):
                processor.export_results("out.json")
            assert (await processor.process_directory_async(folder)).failed == 0

    asyncio.run(main())
