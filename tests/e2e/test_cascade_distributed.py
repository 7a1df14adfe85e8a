"""The cascade on several workers: listed by all, certified by one, decided by all."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.ollama import OllamaDouble
from tests.doubles.site import Site
from tests.e2e.cascade_site import NAMES, category_of, make_documents, oracle, questions

from doc_classify.errors import ConfigurationError
from doc_classify.records import uri_to_path
from doc_classify.storage.store import SqlStore

COUNT = 500


@pytest.fixture
def terms() -> dict[str, Any]:
    """With a category of its own: what the LLM has answered in other tests is of no use then."""
    return {
        "classifier": "cascade",
        "categories": ",".join((*NAMES, f"maps {time.monotonic_ns()}")),
        "agreement": 0.9,
        "assurance": 0.9,
        "distributed_chunk_size": 20,
    }


@pytest.fixture
def double() -> Iterator[OllamaDouble]:
    with OllamaDouble(oracle, slots=4, latency=0.02) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "documents"
    make_documents(place, COUNT, hard=0.1, seed=time.monotonic_ns())
    return place


def surroundings(double: OllamaDouble) -> dict[str, str]:
    return {
        "OLLAMA_HOST": double.url,
        "DOC_CLASSIFY_STRETCH_SECONDS": "1",
        "DOC_CLASSIFY_MAX_CONCURRENT": "8",
    }


def lots(site: Site, run_id: str) -> list[dict[str, Any]]:
    with contextlib.closing(SqlStore(site.database)) as store:
        return store.lots(run_id)


def agreement(rows: list[Any]) -> float:
    right = [row.category == category_of(Path(uri_to_path(row.uri)).read_text()) for row in rows]
    return sum(right) / len(right)


def test_workers_list_certify_in_one_place_and_decide(site, worker, folder, double, terms):
    for name in ("worker1", "worker2"):
        worker(name, environment=surroundings(double), concurrency=2)
    run_id = site.submit(folder, **terms)
    site.wait(run_id)
    info = site.settled(run_id, COUNT)
    rows = site.rows(run_id)
    by_student = [row for row in rows if row.classifier == "student"]
    assert len(by_student) > COUNT / 5
    assert {row.classifier for row in rows} == {"student", "ollama"}
    assert agreement(rows) >= 0.9
    [lot] = lots(site, run_id)
    assert lot["state"] == "finished" and lot["population"] == COUNT
    assert lot["outcome"]["student"] == len(by_student)
    assert lot["summary"]["certified_agreement"] >= 0.9
    repeated = lot["summary"]["asked_twice"]
    assert sum(number - 1 for number in questions(double).values()) == repeated
    assert info.stats.llm_calls + repeated == questions(double).total()
    # Again: nothing is left to do, and nothing is asked.
    before = questions(double).total()
    again = site.submit(folder, **terms)
    site.wait(again)
    site.settled(again, COUNT, already_done=COUNT)
    assert questions(double).total() == before


PHASES: dict[str, Callable[[list[dict[str, Any]], OllamaDouble], bool]] = {
    "sample": lambda _lots, double: questions(double).total() >= 20,
    "rest": lambda lots, _double: any(lot["certificate"] for lot in lots),
}


@pytest.mark.parametrize("phase", PHASES)
def test_killed_workers_are_taken_over_from(site, worker, folder, double, terms, phase):
    first = worker("worker1", environment=surroundings(double), concurrency=2)
    run_id = site.submit(folder, **terms)
    deadline = time.monotonic() + 60
    while not PHASES[phase](lots(site, run_id), double):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.kill()
    before = lots(site, run_id)
    worker("worker2", environment=surroundings(double), concurrency=2)
    site.wait(run_id)
    site.settled(run_id, COUNT)
    [lot] = lots(site, run_id)
    assert lot["lot"] == before[0]["lot"]
    if before[0]["certificate"]:
        decided = ("threshold", "drawn", "disagreed", "allowed")
        assert {name: lot["certificate"]["decision"][name] for name in decided} == {
            name: before[0]["certificate"]["decision"][name] for name in decided
        }
    assert agreement(site.rows(run_id)) >= 0.9
    repeated = lot["summary"]["asked_twice"]
    # What was under way, or had come within the last tenth of a second, is asked again.
    assert sum(number - 1 for number in questions(double).values()) - repeated <= 24


def test_a_hopeless_cascade_ends_the_run_where_that_is_wanted(site, worker, folder, terms):
    with OllamaDouble(lambda _system, _user: {"letters": 0.9, "reports": 0.1}) as double:
        worker("worker1", environment=surroundings(double), concurrency=2)
        run_id = site.submit(folder, **terms, if_hopeless="stop")
        found = site.wait(run_id)
        assert found["state"] == "failed" and "one category alone" in found["message"]


def test_what_needs_a_look_at_everything_first_is_refused(site, folder, terms):
    for change in ({"max_llm_calls": 100}, {"guarantee": "student"}):
        with pytest.raises(ConfigurationError, match="classify-parallel"):
            site.submit(folder, **terms, **change)
