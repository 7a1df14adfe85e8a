"""Distributed runs in foul weather, borne by one worker.

Parts of it are killed or frozen, and what it needs is stopped, emptied or away for a while.

After each, every document has exactly one result or one recorded failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from tests.doubles.ollama import OllamaDouble
from tests.doubles.site import Site, oracle

from conftest import CeleryWorker, PostgresServer, RedisServer, wait_until

Start = Callable[..., CeleryWorker]


@pytest.fixture(scope="module")
def double() -> Iterator[OllamaDouble]:
    with OllamaDouble(oracle, latency=0.02) as server:
        yield server


@pytest.fixture(scope="module")
def running(module_worker: Start, double: OllamaDouble) -> CeleryWorker:
    """The one worker that has to bear all of this."""
    return module_worker("lasting", environment={"OLLAMA_HOST": double.url})


def test_kill_of_a_pool_process_in_mid_document(site: Site, running: CeleryWorker):
    run_id = site.submit(site.folder(30, slow=0.1))
    site.in_the_middle(run_id)
    victim = running.pool()[0]
    readers = victim.children()
    assert readers
    victim.kill()
    wait_until(lambda: not any(one.is_running() for one in readers), "its reader is gone", 5)
    site.wait(run_id)
    site.settled(run_id, 30)
    # Whoever swept first has sent its chunk again, the worker or who waited.
    running.wait_for_another(victim)


def test_a_process_that_was_frozen_comes_back_too_late(site: Site, running: CeleryWorker):
    """Its chunk was done by another; what it does now changes nothing."""
    before = under_way(running)
    run_id = site.submit(site.folder(30, slow=0.1))
    site.in_the_middle(run_id)
    frozen = running.pool()[0]
    frozen.suspend()
    try:
        site.wait(run_id)
        site.settled(run_id, 30)
    finally:
        frozen.resume()
    wait_until(lambda: under_way(running) == before, "it has done what it was doing")
    site.settled(run_id, 30)


def under_way(worker: CeleryWorker) -> int:
    """Chunks that it was told of, and has not said that it is through with."""
    return worker.said().count("] received") - worker.said().count("] succeeded in")


@pytest.mark.parametrize("forget", [False, True], ids=["with its data", "emptied"])
def test_the_broker_restarts_in_mid_run(
    site: Site, running: CeleryWorker, redis_server: RedisServer, forget: bool
):
    run_id = site.submit(site.folder(40, slow=0.1))
    site.in_the_middle(run_id)
    redis_server.stop(forget=forget)
    time.sleep(0.5)
    redis_server.start()
    # Nobody waits for the run: what was lost is found by the worker.
    wait_until(lambda: site.is_over(run_id), "the run is over")
    site.settled(run_id, 40)
    # And the worker goes on listening.
    again = site.submit(site.folder(10))
    site.wait(again)
    site.settled(again, 10)


def test_a_waiting_client_outlives_restarts(
    site: Site, running: CeleryWorker, redis_server: RedisServer, own_database: PostgresServer
):
    """And so do workers: the database is away for a moment, in mid-run."""
    run_id = site.submit(site.folder(40, slow=0.1))
    site.in_the_middle(run_id)
    own_database.stop()
    time.sleep(1)
    own_database.start()
    site.wait(run_id)
    site.settled(run_id, 40)


def test_the_llm_server_is_away_for_a_while(
    site: Site, running: CeleryWorker, double: OllamaDouble
):
    run_id = site.submit(site.folder(40), classifier="ollama")
    wait_until(lambda: len(double.chats) > 10, "some were asked")
    double.go_away()
    time.sleep(1.5)
    double.come_back()
    site.wait(run_id)
    site.settled(run_id, 40)
