"""Distributed runs whose workers are killed, ended, of no use, or replaced by others.

After each, every document has exactly one result or one recorded failure.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from tests.doubles.ollama import OllamaDouble
from tests.doubles.site import Site, oracle

from conftest import CeleryWorker, RedisServer, wait_until
from doc_classify.celery_tasks import queue_length
from doc_classify.discovery import walk

Start = Callable[..., CeleryWorker]


@pytest.fixture
def double() -> Iterator[OllamaDouble]:
    with OllamaDouble(oracle, latency=0.02) as server:
        yield server


def test_processes_are_replaced_and_leave_no_reader(site: Site, worker: Start):
    running = worker("replaced", "--max-tasks-per-child=2")
    before = {one.pid for one in running.pool()}
    run_id = site.submit(site.folder(20))
    site.wait(run_id)
    site.settled(run_id, 20)
    wait_until(lambda: not before & {one.pid for one in running.pool()}, "both are replaced")
    wait_until(lambda: len(running.pool()) == 2, "the pool is full again")
    wait_until(lambda: len(running.readers()) <= 2, "one reader for each process")


def test_kill_of_a_whole_worker_which_another_finishes(site: Site, worker: Start):
    first = worker("killed")
    run_id = site.submit(site.folder(30, slow=0.1))
    site.in_the_middle(run_id)
    first.kill()
    with site.processor() as processor:
        assert processor._ledger.counts(run_id).claimed
    worker("second")
    site.wait(run_id)
    site.settled(run_id, 30)


def test_kill_of_the_main_process_only(site: Site, worker: Start):
    """Its children finish what they are doing, and end."""
    first = worker("orphaned")
    run_id = site.submit(site.folder(30, slow=0.05))
    site.in_the_middle(run_id)
    first.processes()
    first.process.send_signal(signal.SIGKILL)
    first.wait(20)
    worker("heir")
    site.wait(run_id)
    site.settled(run_id, 30)


def test_an_orderly_end_finishes_the_chunks_in_work(site: Site, worker: Start):
    first = worker("ended")
    run_id = site.submit(site.folder(30, slow=0.1))
    site.in_the_middle(run_id)
    asked = time.monotonic()
    first.terminate()
    assert first.wait() == 0
    assert time.monotonic() - asked < 10
    with site.processor() as processor:
        counts = processor._ledger.counts(run_id)
    assert counts.claimed == 0 and 0 < counts.pending < 6
    assert site.completed(run_id) == 5 * counts.done
    worker("next")
    site.wait(run_id)
    site.settled(run_id, 30)


def test_a_hasty_end_loses_nothing(site: Site, worker: Start):
    """SIGQUIT does not wait for chunks: those are another's, when their lease has ended."""
    first = worker("hasty")
    run_id = site.submit(site.folder(30, slow=0.1))
    site.in_the_middle(run_id)
    first.processes()
    first.process.send_signal(signal.SIGQUIT)
    first.wait()
    worker("patient")
    site.wait(run_id)
    site.settled(run_id, 30)


def test_an_emptied_broker_is_told_again_by_resume(
    site: Site, worker: Start, redis_server: RedisServer
):
    run_id = site.submit(site.folder(20))
    redis_server.flush()
    with site.processor() as processor:
        assert processor.check_progress(run_id)["total_tasks"] == 20
        assert processor.resume(run_id) == 4 == queue_length(site.settings())
        worker("resumed")
        processor.wait_for_completion(run_id, 0.1)
    site.settled(run_id, 20)


def test_the_llm_server_stays_away_longer_than_workers_wait(
    site: Site, worker: Start, double: OllamaDouble
):
    """They hand back what they have, with files of it registered already."""
    running = worker(
        "giving-up", environment={"OLLAMA_HOST": double.url, "DOC_CLASSIFY_LLM_GIVE_UP": "0.5"}
    )
    run_id = site.submit(site.folder(40), classifier="ollama")
    wait_until(lambda: len(double.chats) > 10, "some were asked")
    double.go_away()
    wait_until(
        lambda: running.said().count("for 0 s") + running.said().count("for 1 s"), "gives up"
    )
    with site.processor() as processor:
        assert "pid" in str(processor.check_progress(run_id)["message"])
    double.come_back()
    site.wait(run_id)
    info = site.settled(run_id, 40)
    assert info.message is None


def test_a_worker_that_cannot_see_the_documents_takes_no_more(site: Site, worker: Start):
    """As on a machine where their file system is not mounted."""
    folder = site.folder(40)
    # Named so that processes in one folder see them, and those in another do not.
    found = (
        replace(one, uri=one.uri.replace(str(site.root), "/proc/self/cwd")) for one in walk(folder)
    )
    elsewhere = site.root / "elsewhere"
    elsewhere.mkdir()
    blind = worker("blind", directory=elsewhere)
    with site.processor() as processor:
        run_id = processor.submit_found(found, "a share")
        wait_until(lambda: "takes no more" in blind.said(), "it stops")
        assert "cannot be seen" in str(processor.check_progress(run_id)["message"])
    assert site.completed(run_id) == 0
    worker("seeing", directory=site.root)
    site.wait(run_id)
    assert site.settled(run_id, 40).message is None
    # It is of use again for what it can see.
    wait_until(lambda: "Started consuming" in blind.said(), "it goes on")


def test_a_worker_with_another_model_refuses(site: Site, worker: Start, double: OllamaDouble):
    right = worker("right", environment={"OLLAMA_HOST": double.url})
    run_id = site.submit(site.folder(30, slow=0.1), classifier="ollama")
    site.in_the_middle(run_id)
    right.end()
    done = site.completed(run_id)
    with OllamaDouble(oracle) as other:
        other.digests[other.model] = "f" * 64
        wrong = worker("wrong", environment={"OLLAMA_HOST": other.url})
        wait_until(lambda: "takes no more" in wrong.said(), "it refuses")
        assert "in another way" in wrong.said() and site.completed(run_id) == done < 30
        worker("right-again", environment={"OLLAMA_HOST": double.url})
        site.wait(run_id)
    site.settled(run_id, 30)
