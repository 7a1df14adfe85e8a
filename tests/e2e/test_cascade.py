"""Whole runs of the cascade through the command line, on a double of the LLM's server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.ollama import OllamaDouble
from tests.e2e.cascade_site import (
    category_of,
    drawn,
    finish,
    lots,
    make_documents,
    oracle,
    other,
    questions,
    run,
    start,
)

from doc_classify.records import uri_to_path
from doc_classify.storage import open_store

COUNT = 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cascade") / "documents"
    make_documents(place, COUNT, hard=0.1)
    return place


@pytest.fixture
def double() -> Iterator[OllamaDouble]:
    with OllamaDouble(oracle, slots=8, latency=0.01) as server:
        yield server


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(scope="module")
def certified(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The database of a finished run."""
    url = f"sqlite:///{tmp_path_factory.mktemp('certified') / 'ledger.db'}"
    with OllamaDouble(oracle, slots=8) as server:
        run(folder, url, server)
    return url


def rows(url: str) -> list[Any]:
    store = open_store(url)
    try:
        return list(store.results(store.run().run_id))
    finally:
        store.close()


def agreement(found: list[Any]) -> float:
    """Share of documents that carry the category that the double would have given."""
    right = [row.category == category_of(Path(uri_to_path(row.uri)).read_text()) for row in found]
    return sum(right) / len(right)


def asked_twice(url: str, lot: int, double: OllamaDouble) -> int:
    """Questions asked again without need: not counting those that measure consistency."""
    repeated = other("certificate", url=url)["lots"][0]["summary"]["asked_twice"]
    return sum(number - 1 for number in questions(double).values()) - repeated


def test_a_cascade_asks_less_and_keeps_its_promise(folder, double, url, tmp_path):
    export = tmp_path / "results"
    said = run(folder, url, double, "--export", "-o", str(export))
    assert (said["seen"], said["classified"], said["failed"]) == (COUNT, COUNT, 0)
    found = rows(url)
    by_student = [row for row in found if row.classifier == "student"]
    by_llm = [row for row in found if row.classifier == "ollama"]
    assert len(by_student) > COUNT / 4 and len(by_student) + len(by_llm) == COUNT
    assert agreement(found) >= 0.9 and agreement(by_llm) == 1
    assert all(row.score is not None and row.confidence is None for row in found)
    # The student's scores are of another kind: no mean is made of both.
    for name, item in said["categories"].items():
        own = [row.score for row in by_llm if row.category == name]
        assert item["mean_score"] == pytest.approx(sum(own) / len(own))
    [lot] = said["cascade"]["lots"]
    assert lot["outcome"] == {
        "student": len(by_student),
        "llm": len(by_llm),
        "failed": 0,
        "gone": 0,
    }
    assert lot["summary"]["certified_agreement"] >= 0.9
    assert questions(double).total() == said["llm_calls"] == lot["llm_requests"]
    assert asked_twice(url, lot["lot"], double) == 0

    data = json.loads(next(export.iterdir()).read_text())
    assert data["cascade"]["lots"][0]["certificate"] == lot["certificate"]
    assert {row["classifier"] for row in data["results"]} == {"student", "ollama"}

    # The same again: everything is done, and nothing is asked.
    before = questions(double).total()
    again = run(folder, url, double)
    assert (again["already_done"], again["llm_calls"]) == (COUNT, 0)
    assert again["cascade"]["lots"][0]["lot"] == lot["lot"]
    assert questions(double).total() == before

    # The LLM alone has to do what the student did, and nothing else.
    alone = run(folder, url, double, "--classifier", "ollama")
    assert (alone["already_done"], alone["classified"]) == (len(by_llm), len(by_student))
    assert all(number == 1 for number in (questions(double) - questions(double)).values())


def test_a_certificate_is_checked_and_audited(folder, double, url):
    run(folder, url, double)
    [lot] = other("certificate", url=url)["lots"]
    assert lot["faults"] == []
    [audit] = other("audit", "--more", "60", "--host", double.url, url=url)["lots"]
    assert audit["faults"] == [] and audit["audit"]["drawn"] == 60
    assert audit["audit"]["verdict"] in ("confirms", "undecided")
    before = rows(url)
    [more] = other("audit", "--more", "40", "--host", double.url, url=url)["lots"]
    assert more["audit"]["drawn"] == 100
    assert rows(url) == before  # an audit changes no result
    assert asked_twice(url, lot["lot"], double) == 0
    assert len(lots(url)[0]["audits"]) == 2


def test_an_audit_refutes_what_is_not_so(folder, double, url):
    """The same documents, but the LLM has another opinion than it had: all are letters now."""
    run(folder, url, double)
    double.answer = lambda _system, _user: {"letters": 0.9, "reports": 0.1}
    [found] = other("audit", "--more", "60", "--host", double.url, url=url, code=1)["lots"]
    assert found["audit"]["verdict"] == "refutes"


def test_a_certificate_that_does_not_follow_from_its_sample_is_told(folder, double, url):
    from sqlalchemy import update

    from doc_classify.storage.schema import lot_documents

    run(folder, url, double)
    store = open_store(url)
    with store.engine.begin() as connection:
        connection.execute(
            update(lot_documents).where(lot_documents.c.role == "calibrate").values(label="x")
        )
    store.close()
    [lot] = other("certificate", url=url, code=1)["lots"]
    assert lot["faults"]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("certificate", "lot", "population"), 10**6, "documents, not"),
        (("certificate", "decision", "threshold"), -1.0, "threshold is"),
        (("certificate", "decision", "most_wrong"), 0, "most_wrong is"),
        (("certificate", "looks", 0, "version"), "0" * 64, "step by step"),
        (("certificate", "looks", 0, "asked"), 1, "step by step"),
        (("certificate", "round"), 7, "damaged"),
        (("summary", "certified_agreement"), 0.999, "summary"),
        (("certificate",), "x", "damaged"),
        (("steps",), None, "damaged"),
    ],
)
def test_a_tampered_journal_is_told(certified, place, value, said):
    from sqlalchemy import update

    from doc_classify.pipeline.lot_audit import faults_of
    from doc_classify.storage.lots import LotLedger
    from doc_classify.storage.schema import lots as table

    store = open_store(certified)
    try:
        ledger = LotLedger(store)
        lot = ledger.lot(1)
        assert faults_of(ledger, lot) == []
        journal = json.loads(json.dumps(lot.journal))
        within = journal
        for key in place[:-1]:
            within = within[key]
        within[place[-1]] = value
        with store.engine.begin() as connection:
            connection.execute(update(table).values(journal=journal))
        try:
            assert any(said in fault for fault in faults_of(ledger, ledger.lot(1)))
        finally:
            with store.engine.begin() as connection:
                connection.execute(update(table).values(journal=lot.journal))
    finally:
        store.close()


def test_an_audit_by_another_llm_proves_nothing(folder, double, url):
    run(folder, url, double)
    with OllamaDouble(oracle, version="0.11.0") as elder:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "doc_classify", "audit", "--host", elder.url),
                *("--database-url", url),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2 and "proves nothing" in done.stderr


PHASES: dict[str, Callable[[str, OllamaDouble], bool]] = {
    "listing": lambda url, _double: bool(seen(url)),
    "learning": lambda _url, double: questions(double).total() >= 20,
    "training": lambda url, _double: any(
        step["drawn"] and not step["student"] for lot in lots(url) for step in lot["samples"]
    ),
    "calibrating": lambda url, _double: any(
        step["purpose"] == "calibrate" and step["drawn"]
        for lot in lots(url)
        for step in lot["samples"]
    ),
    "rest": lambda url, _double: any(lot["certificate"] for lot in lots(url)),
}


def seen(url: str) -> int:
    store = open_store(url)
    info = store.run()
    store.close()
    return info.stats.seen if info else 0


@pytest.mark.parametrize("phase", PHASES)
def test_killed_in_any_phase_nothing_is_asked_again(folder, url, phase):
    with OllamaDouble(oracle, slots=4, latency=0.03) as double:
        process = start(folder, url, double, "--max-concurrent", "4")
        deadline = time.monotonic() + 60
        while not PHASES[phase](url, double) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.communicate()
        assert process.returncode == -9
        there = lots(url)
        sample = drawn(url, there[0]["lot"]) if there else {}
        certificate = there[0]["certificate"] if there else None
        said = run(folder, url, double)
        assert said["classified"] + said["already_done"] == COUNT
        [lot] = lots(url)
        if there:
            assert lot["lot"] == there[0]["lot"]
        kept = drawn(url, lot["lot"])
        for stage, found in sample.items():
            assert [one.document_id for one in kept[stage]] == [one.document_id for one in found]
            for before, after in zip(found, kept[stage], strict=True):
                assert before.label in (None, after.label)
        if certificate:
            assert (
                lot["certificate"]["decision"]["threshold"]
                == (certificate["decision"]["threshold"])
            )
        found = other("certificate", url=url)["lots"][0]
        assert found["faults"] == []
        # What was under way, or had come within the last tenth of a second, is asked again.
        assert asked_twice(url, lot["lot"], double) <= 4 + 4 * 10
        results = rows(url)
        assert len(results) == COUNT and all(row.category for row in results)
        assert agreement(results) >= 0.9


def test_two_runs_at_once_over_one_folder_make_one_valid_certificate(folder, double, url):
    """The second takes the first one's lot for that of a run that was killed."""
    first = start(folder, url, double)
    deadline = time.monotonic() + 60
    while not lots(url):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    second = start(folder, url, double)
    ended = [process.communicate(timeout=120) for process in (first, second)]
    codes = sorted(process.returncode for process in (first, second))
    assert codes in ([0, 0], [0, 3]), ended
    said = run(folder, url, double)
    assert said["classified"] + said["already_done"] == COUNT
    for lot in other("certificate", url=url)["lots"]:
        assert lot["faults"] in ([], None)
    assert agreement(rows(url)) >= 0.9


def test_new_documents_are_a_lot_of_their_own_and_begin_with_a_student(double, url, tmp_path):
    place = tmp_path / "growing"
    make_documents(place, COUNT)
    run(place, url, double)
    before = questions(double).total()
    make_documents(place, COUNT, seed=2)
    said = run(place, url, double)
    assert (said["already_done"], said["classified"]) == (COUNT, COUNT)
    first, second = said["cascade"]["lots"]
    assert second["population"] == COUNT and second["samples"][0]["drawn"] == 0
    assert second["samples"][0]["purpose"] == "train" and second["certificate"]
    assert questions(double).total() - before < first["llm_requests"]
    assert agreement(rows(url)) >= 0.9
    # A handful more is not worth a sample.
    make_documents(place, 12, seed=3)
    said = run(place, url, double)
    third = said["cascade"]["lots"][2]
    assert third["hopeless"]["reason"] == "too_few_documents"
    assert third["outcome"] == {"student": 0, "llm": 12, "failed": 0, "gone": 0}


def test_earlier_answers_of_the_llm_are_used(folder, double, url, tmp_path):
    """Of a part of the folder; they are what the student learns from."""
    part = tmp_path / "part"
    part.mkdir()
    for file in sorted(folder.iterdir())[::3]:
        (part / file.name).write_text(file.read_text())
    run(part, url, double, "--classifier", "ollama")
    said = run(folder, url, double)
    [lot] = said["cascade"]["lots"]
    assert lot["known"] == 200 and lot["samples"][0]["drawn"] == 0
    assert all(number == 1 for number in questions(double).values())
    assert agreement(rows(url)) >= 0.9


def test_a_dry_run_says_what_would_be_drawn(folder, double, url):
    found = run(folder, url, double, "--dry-run")
    assert found["take"] == COUNT and "asked about 37 of these first" in found["cascade"]
    assert questions(double).total() == 0 and lots(url) == []


def test_near_empty_folders_and_empty_ones(double, url, tmp_path):
    place = tmp_path / "few"
    place.mkdir()
    assert run(place, url, double)["seen"] == 0
    make_documents(place, 3)
    said = run(place, url, double)
    assert (said["classified"], said["llm_calls"]) == (3, 3)
    assert said["cascade"]["lots"][0]["hopeless"]["reason"] == "too_few_documents"


def test_a_student_that_learns_nothing_is_given_up_or_the_run_stops(folder, url):
    """The LLM answers by the number of the file: nothing in the text tells."""
    answers = ["invoices", "contracts", "reports", "letters"]

    def arbitrary(_system: str, user: str) -> dict[str, float]:
        return {answers[sum(map(ord, user)) % 4]: 0.9, "letters": 0.01, "reports": 0.01}

    with OllamaDouble(arbitrary, slots=8) as double:
        much = ("--agreement", "0.97")
        run(folder, url, double, *much, "--if-hopeless", "stop", code=3)
        [lot] = lots(url)
        # How soon that is clear depends on what is drawn.
        assert lot["hopeless"]["reason"] in ("student_too_weak", "too_many_categories")
        assert not lot["certificate"]
        asked = questions(double).total()
        assert asked < COUNT
        said = run(folder, url, double, *much)
        assert said["classified"] + said["already_done"] == COUNT
        assert {row.classifier for row in rows(url)} == {"ollama"}
        assert said["cascade"]["lots"][0]["outcome"]["llm"] == COUNT


def test_an_inconsistent_llm_is_found_out(folder, url):
    turns: dict[str, int] = {}

    def fickle(_system: str, user: str) -> dict[str, float]:
        turns[user] = turns.get(user, 0) + 1
        best = category_of(user)
        if turns[user] > 1 and sum(map(ord, user)) % 2:
            best = "letters" if best != "letters" else "reports"
        return {best: 0.9, "other": 0.01}

    with OllamaDouble(fickle, slots=8) as double:
        said = run(folder, url, double)
    [lot] = said["cascade"]["lots"]
    assert lot["summary"]["asked_twice"] == 30 and lot["summary"]["differed"] > 5
    assert lot["summary"]["teacher_ceiling"] < 0.9
    assert said["classified"] == COUNT


def test_one_category_alone_leaves_nothing_to_learn(folder, url):
    with OllamaDouble(lambda _system, _user: {"letters": 0.9, "reports": 0.1}) as double:
        said = run(folder, url, double)
    assert said["cascade"]["lots"][0]["hopeless"]["reason"] == "one_category"
    assert said["classified"] == COUNT


def test_a_server_that_goes_away_in_the_sample_is_waited_for(folder, double, url):
    process = start(folder, url, double)
    deadline = time.monotonic() + 60
    while questions(double).total() < 10:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    double.go_away()
    time.sleep(1)
    double.come_back()
    said = finish(process)
    assert (said["classified"], said["failed"]) == (COUNT, 0)
    assert other("certificate", url=url)["lots"][0]["faults"] == []


def test_a_sample_that_the_server_fails_over_is_not_certified(folder, url):
    """A tenth of the documents kills the server's request each time, until it is mended."""
    broken = True

    def fragile(system: str, user: str) -> dict[str, float]:
        if broken and "<document>" in user and sum(map(ord, user)) % 10 == 0:
            raise RuntimeError("out of memory")
        return oracle(system, user)

    with OllamaDouble(fragile, slots=8) as double:
        process = start(folder, url, double)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 3 and "sample" in said, said
        [lot] = lots(url)
        assert lot["state"] == "open" and not lot["certificate"]
        before = drawn(url, lot["lot"])
        assert not any(one.failure for found in before.values() for one in found)
        broken = False
        said = run(folder, url, double)
    assert (said["classified"] + said["already_done"], said["failed"]) == (COUNT, 0)
    [lot] = other("certificate", url=url)["lots"]
    assert lot["faults"] == []
    after = drawn(url, lot["lot"])
    for stage, found in before.items():
        assert [one.document_id for one in after[stage]] == [one.document_id for one in found]


def test_no_more_is_asked_than_the_limit_allows(folder, double, url):
    said = run(folder, url, double, "--max-llm-calls", "200")
    assert said["llm_calls"] <= 200 and said["classified"] == COUNT
    assert questions(double).total() <= 200
    [lot] = other("certificate", url=url)["lots"]
    assert lot["faults"] == [] and lot["summary"]["wanted_agreement"] is None
    assert 0.5 < lot["summary"]["certified_agreement"] < 1
    assert agreement(rows(url)) >= lot["summary"]["certified_agreement"]


def test_what_the_llm_has_answered_before_costs_nothing_of_the_limit(folder, double, url, tmp_path):
    some = tmp_path / "some"
    some.mkdir()
    for file in sorted(folder.iterdir())[::2]:
        (some / file.name).write_bytes(file.read_bytes())
    run(some, url, double, "--classifier", "ollama")
    said = run(folder, url, double, "--max-llm-calls", "150")
    assert said["llm_calls"] <= 150 and said["classified"] == COUNT
    [lot] = other("certificate", url=url)["lots"]
    assert lot["known"] == COUNT / 2 and lot["faults"] == []
    assert agreement(rows(url)) >= lot["summary"]["certified_agreement"]


def test_what_the_student_said_is_nothing_to_learn_from(certified, tmp_path):
    """A model learns from the LLM's answers of a cascade, and from what people say of any."""
    found = rows(certified)
    mine = [row for row in found if row.classifier == "student"]
    wrong = mine[0]
    arguments = ["correct", uri_to_path(wrong.uri), "letters", "--database-url", certified]
    subprocess.run([sys.executable, "-m", "doc_classify", *arguments], check=True)
    [lot] = lots(certified)
    model = str(tmp_path / "model.safetensors")
    newest = other("status", url=certified)["run_id"]
    said = other("train", "--from-run", newest, "-o", model, url=certified)
    assert said["documents"] == lot["outcome"]["llm"] + 1


def test_the_promise_can_be_for_the_students_share(folder, double, url):
    said = run(folder, url, double, "--guarantee", "student", "--agreement", "0.8")
    [lot] = said["cascade"]["lots"]
    assert said["classified"] == COUNT
    if lot["outcome"]["student"]:
        assert lot["summary"]["student_agreement"] >= 0.8
        own = [row for row in rows(url) if row.classifier == "student"]
        assert agreement(own) >= 0.8


def test_copies_and_texts_that_are_alike_are_asked_about_once(double, url, tmp_path):
    place = tmp_path / "alike"
    make_documents(place, 40)
    for file in sorted(place.iterdir())[:10]:
        text = file.read_text()
        (place / f"copy-{file.name}").write_text(text)
        (place / f"spaced-{file.name}").write_text(text.replace(" ", "  ").upper())
    said = run(place, url, double)
    assert (said["seen"], said["duplicates"], said["classified"]) == (60, 10, 50)
    assert said["llm_calls"] <= 40 + 2  # two to see how consistent the LLM is


def test_force_and_retry_and_another_taxonomy(folder, double, url):
    run(folder, url, double)
    before = questions(double).total()
    forced = run(folder, url, double, "--force")
    assert forced["classified"] == COUNT and forced["llm_calls"] > 0
    assert questions(double).total() - before == forced["llm_calls"]
    renamed = run(folder, url, double, "-c", "invoices,contracts,reports,letters,maps")
    assert renamed["classified"] == COUNT and renamed["llm_calls"] > 0
    again = other("retry", "--category", "letters", "--host", double.url, url=url)
    assert again["failed"] == 0 and again["classified"] > 0
    [lot] = again["cascade"]["lots"]
    assert lot["population"] == again["classified"]


def test_what_cannot_be_read_is_a_failure_and_counts_for_nothing(double, url, tmp_path):
    place = tmp_path / "some"
    make_documents(place, COUNT, hard=0.1)
    for number in range(60):
        (place / f"0-{number}.pdf").write_bytes(b"%PDF-1.4\nnothing of use " + bytes([number]))
    said = run(place, url, double, code=1)
    assert (said["classified"], said["failed"]) == (COUNT, 60)
    [lot] = said["cascade"]["lots"]
    assert lot["outcome"]["failed"] == 60
    assert other("certificate", url=url)["lots"][0]["faults"] == []


def test_without_a_database_it_works_as_well(folder, double, tmp_path):
    from tests.e2e.cascade_site import command

    arguments = command(folder, "sqlite:///unused.db", double)
    arguments[arguments.index("--use-database")] = "--no-database"
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    said = json.loads(done.stdout)
    assert done.returncode == 0 and said["classified"] == COUNT
    assert 0 < said["llm_calls"] < COUNT
