"""Workers that go on from chunk to chunk by themselves, as they do unless told otherwise."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
from tests.doubles.ollama import OllamaDouble
from tests.doubles.site import Site, oracle

from conftest import CeleryWorker

Start = Callable[..., CeleryWorker]
STRETCH = {"DOC_CLASSIFY_STRETCH_SECONDS": "20", "DOC_CLASSIFY_LEASE_SECONDS": "8"}


@pytest.fixture
def double() -> Iterator[OllamaDouble]:
    with OllamaDouble(oracle, latency=0.05, slots=16) as server:
        yield server


@pytest.mark.parametrize("classifier", ["embedded", "ollama"])
def test_every_document_is_done_once(site: Site, worker: Start, double, classifier: str):
    worker("one", environment={**STRETCH, "OLLAMA_HOST": double.url})
    run_id = site.submit(site.folder(60), classifier=classifier)
    progress = site.wait(run_id)
    info = site.settled(run_id, 60)
    assert info.stats.classified == 60
    assert progress["llm_calls"] == (60 if classifier == "ollama" else 0)


def test_requests_go_on_from_one_chunk_to_the_next(site: Site, worker: Start, double):
    """Chunks have five documents, and more than so many requests are in flight."""
    worker("one", environment={**STRETCH, "OLLAMA_HOST": double.url}, concurrency=1)
    run_id = site.submit(site.folder(100), classifier="ollama")
    site.wait(run_id)
    site.settled(run_id, 100)
    assert double.most_at_once > 5


def test_what_a_killed_process_held_is_done_by_others(site: Site, worker: Start):
    running = worker("one", environment={**STRETCH, "DOC_CLASSIFY_LEASE_SECONDS": "3"})
    run_id = site.submit(site.folder(40, slow=0.1))
    site.in_the_middle(run_id)
    victim = running.pool()[0]
    victim.send_signal(signal.SIGKILL)
    site.wait(run_id)
    site.settled(run_id, 40)
    running.wait_for_another(victim)


def test_two_workers_share_a_run(site: Site, worker: Start):
    for name in ("one", "two"):
        worker(name, environment=STRETCH)
    run_id = site.submit(site.folder(80, slow=0.02))
    site.wait(run_id)
    site.settled(run_id, 80)
