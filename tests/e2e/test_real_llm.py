"""Whole runs with a real engine: llama.cpp on a small model that was trained for the purpose."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.engine.product import product_model
from tests.engine.server import Engine, engine

from doc_classify import AsyncBatchProcessor, ParallelDocumentProcessor, RunStats
from doc_classify.dataset import DatasetOptions, generate
from doc_classify.records import uri_to_path
from doc_classify.settings import Settings, load_settings
from doc_classify.storage import open_store
from doc_classify.storage.base import ResultRow

COUNT = 70
OPTIONS = DatasetOptions(
    count=COUNT, seed=77, formats=("pdf", "docx", "eml", "html", "txt"), hostile=0, duplicates=0
)


@pytest.fixture(scope="module")
def model() -> Path:
    return product_model()


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Engine]:
    with engine(model, parallel=4, context=8192) as running:
        yield running


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of documents, and the category of each by its file name."""
    folder = tmp_path_factory.mktemp("documents")
    labels = generate(folder, OPTIONS)
    return folder, {Path(label.path).name: label.category for label in labels}


def over_http(server: Engine, url: str, **changes: Any) -> Settings:
    given: dict[str, Any] = {
        "classifier": "openai",
        "openai_base_url": server.base_url,
        "openai_api_key": server.api_key,
        "database_url": url,
        "llm_context": 8192,
        "llm_document_tokens": 3000,
        "workers": 2,
    }
    return load_settings(**(given | changes))


def parallel(settings: Settings, folder: Path, *, reasoning: bool = False) -> RunStats:
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        return processor.process_directory(folder, include_reasoning=reasoning)


def asynchronous(settings: Settings, folder: Path) -> RunStats:
    with AsyncBatchProcessor(settings=settings) as processor:
        return asyncio.run(processor.process_directory_async(folder))


def rows(url: str, stats: RunStats) -> list[ResultRow]:
    with contextlib.closing(open_store(url)) as store:
        return list(store.results(stats.run_id))


def accuracy(found: list[ResultRow], truth: dict[str, str]) -> float:
    right = [row.category == truth[Path(uri_to_path(row.uri)).name] for row in found]
    return sum(right) / len(right)


def test_a_model_behind_a_server_classifies_a_folder(server, corpus, tmp_path):
    folder, truth = corpus
    url = f"sqlite:///{tmp_path / 'a.db'}"
    stats = parallel(over_http(server, url), folder)
    assert (stats.seen, stats.classified, stats.failed) == (COUNT, COUNT, 0)
    found = rows(url, stats)
    assert accuracy(found, truth) > 0.9
    assert all(row.score is not None and row.confidence is None for row in found)
    assert stats.llm_calls >= COUNT
    # The system message is the same every time, and the engine has it in its cache.
    assert stats.cached_tokens > 0.5 * COUNT * 200
    assert stats.cached_tokens < stats.prompt_tokens


def test_all_doors_and_back_ends_give_the_same_categories(server, corpus, model, tmp_path):
    """Over HTTP and in a process of our own, from blocking and from asynchronous code."""
    folder, _ = corpus
    own = {"classifier": "llamacpp", "llamacpp_model": model, "llamacpp_threads": 1}
    found = []
    for number, (door, changes) in enumerate(
        ((parallel, {}), (asynchronous, {}), (parallel, own), (asynchronous, own))
    ):
        url = f"sqlite:///{tmp_path / str(number)}.db"
        stats = door(over_http(server, url, **changes), folder)
        found.append([(row.uri, row.status, row.category, row.failure) for row in rows(url, stats)])
    assert found[0] == found[1] == found[2] == found[3]
    assert len(found[0]) == COUNT


def test_reasoning_comes_with_the_category(server, corpus, tmp_path):
    folder, truth = corpus
    url = f"sqlite:///{tmp_path / 'a.db'}"
    stats = parallel(over_http(server, url), folder, reasoning=True)
    found = rows(url, stats)
    assert stats.classified == COUNT
    assert accuracy(found, truth) > 0.9
    assert all(row.reasoning for row in found)


def test_a_context_too_small_is_met_by_showing_less(model, corpus, tmp_path):
    """Our estimate knows nothing of this model's odd tokenizer; the engine's refusals do."""
    folder, truth = corpus
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with engine(model, parallel=2, context=1024) as small:
        stats = parallel(over_http(small, url, llm_document_tokens=600, llm_context=1024), folder)
    assert (stats.classified, stats.failed) == (COUNT, 0)
    assert stats.llm_calls > COUNT
    assert accuracy(rows(url, stats), truth) > 0.8


def test_an_engine_that_is_killed_is_started_again(server, model, corpus, tmp_path):
    """In mid-run; it is a process of its own, so the run outlives it."""
    folder, _ = corpus
    url = f"sqlite:///{tmp_path / 'a.db'}"
    settings = load_settings(
        classifier="llamacpp",
        llamacpp_model=model,
        llamacpp_threads=1,
        llm_context=8192,
        database_url=url,
        workers=1,
    )
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    ours = child.pid != server.process.pid
                    if ours and "doc_classify.classification.llamacpp_server" in child.cmdline():
                        time.sleep(1.5)
                        child.kill()
                        killed.append(child.pid)
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    stats = parallel(settings, folder)
    thread.join()
    assert killed
    assert (stats.classified, stats.failed) == (COUNT, 0)
    assert not psutil.pid_exists(killed[0])
