"""Whole runs with an LLM, on a double of its server: every document accounted for, once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.doubles.ollama import Behaviour, OllamaDouble, Raw, failing, html, slow

from doc_classify import AsyncBatchProcessor, ParallelDocumentProcessor, RunStats, Settings
from doc_classify.errors import (
    BudgetReachedError,
    ServerError,
    ServerSetupError,
    StorageError,
)
from doc_classify.records import FileStatus
from doc_classify.settings import load_settings
from doc_classify.storage import open_store
from doc_classify.storage.base import ResultRow, Store
from doc_classify.storage.store import SqlStore

NAMES = ["invoices", "contracts", "reports", "correspondence", "research", "compliance"]


def kind_of(user: str) -> str:
    """The category that the document names in its first line."""
    found = re.search(r"Subject: (\w+)", user)
    return found[1] if found else "other"


def oracle(_system: str, user: str) -> dict[str, float]:
    """What the double's model knows: it reads the first line."""
    kind = kind_of(user)
    return {kind: 0.9} | dict.fromkeys([name for name in NAMES if name != kind][:2], 0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty documents, ten of each kind."""
    place = tmp_path / "documents"
    place.mkdir()
    for number, kind in zip(range(60), itertools.cycle(NAMES), strict=False):
        (place / f"{number:02}.txt").write_text(f"Subject: {kind}\nNumber {number} of many.\n")
    return place


@pytest.fixture
def double() -> Iterator[OllamaDouble]:
    with OllamaDouble(oracle) as server:
        yield server


def settings_for(double: OllamaDouble, url: str, **changes: object) -> Settings:
    return load_settings(
        classifier="ollama",
        ollama_host=double.url,
        database_url=url,
        workers=2,
        llm_timeout=20,
        llm_give_up=20,
        **changes,
    )


def parallel(settings: Settings, folder: Path, **how: bool) -> RunStats:
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        return processor.process_directory(folder, **how)


def asynchronous(settings: Settings, folder: Path, **how: bool) -> RunStats:
    with AsyncBatchProcessor(max_concurrent=16, batch_size=7, settings=settings) as processor:
        return asyncio.run(processor.process_directory_async(folder, **how))


DOORS = {"parallel": parallel, "async": asynchronous}
Door = Callable[..., RunStats]


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Door:
    return DOORS[request.param]


def rows(store: Store, stats: RunStats) -> list[ResultRow]:
    return list(store.results(stats.run_id))


def accounted(stats: RunStats, files: int) -> None:
    assert stats.seen == files and stats.pending == 0
    assert stats.classified + stats.failed + stats.already_done + stats.duplicates == files


def test_every_document_gets_the_category_of_the_llm(door, folder, double, store_url):
    stats = door(settings_for(double, store_url), folder, include_reasoning=False)
    accounted(stats, 60)
    assert (stats.successful, stats.failed) == (60, 0)
    assert stats.documents_per_second > 0
    with contextlib.closing(open_store(store_url)) as store:
        found = rows(store, stats)
    for row in found:
        text = (folder / row.uri.rsplit("/", 1)[1]).read_text()
        assert row.category == kind_of(text) and row.score == 0.9
        assert row.confidence is None and row.classifier == "ollama"
    assert stats.llm_calls == 60 == len(double.chats) - 2  # two questions found out what it can
    assert stats.prompt_tokens > 60 * 100 and stats.completion_tokens >= 60


def test_the_doors_give_the_same_rows(folder, double, tmp_path):
    found = []
    for name, door in DOORS.items():
        url = f"sqlite:///{tmp_path / name}.db"
        stats = door(settings_for(double, url), folder)
        with contextlib.closing(open_store(url)) as store:
            found.append(
                [
                    (row.uri, row.status, row.category, row.score, row.scores, row.media_type)
                    for row in rows(store, stats)
                ]
            )
    assert found[0] == found[1] and len(found[0]) == 60


def test_what_is_done_is_not_asked_again(door, folder, double, tmp_path):
    settings = settings_for(double, f"sqlite:///{tmp_path / 'a.db'}")
    door(settings, folder)
    asked = len(double.chats)
    stats = door(settings, folder)
    assert (stats.already_done, stats.llm_calls) == (60, 0)
    assert len(double.chats) == asked + 2
    (folder / "00.txt").write_text("Subject: research\nchanged\n")
    assert door(settings, folder).llm_calls == 1


def test_without_deduplication_everything_is_asked_again(folder, double, tmp_path):
    settings = settings_for(double, f"sqlite:///{tmp_path / 'a.db'}")
    asynchronous(settings, folder)
    with AsyncBatchProcessor(deduplicate=False, settings=settings) as processor:
        stats = asyncio.run(processor.process_directory_async(folder))
    assert (stats.classified, stats.llm_calls, stats.skipped_duplicates) == (60, 60, 0)


def test_text_that_is_stored_is_not_read_again(door, folder, double, tmp_path):
    settings = settings_for(double, f"sqlite:///{tmp_path / 'a.db'}")
    parallel(settings.changed(classifier="embedded"), folder)
    stats = door(settings, folder)
    assert stats.classified == 60 and stats.pages == 0 and stats.extract_seconds == 0


def test_reasoning_is_asked_for_stored_and_exported(folder, double, tmp_path):
    double.answer = lambda system, user: Raw(
        json.dumps({"reasoning": f"It says {kind_of(user)}.", "category": kind_of(user)})
    )
    settings = settings_for(double, f"sqlite:///{tmp_path / 'a.db'}")
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        processor.process_directory(folder, include_reasoning=True)
        path = processor.export_results(tmp_path / "all.json")
    exported = json.loads(path.read_text("utf-8"))["results"]
    assert all(row["reasoning"] == f"It says {row['category']}." for row in exported)
    assert len(exported) == 60


def test_answers_that_are_no_category_are_failures_of_their_documents(
    door, folder, double, tmp_path
):
    double.answer = lambda system, user: (
        oracle(system, user) if "Number 7 " not in user else "I would rather not say"
    )
    double.follows_schema = False
    url = f"sqlite:///{tmp_path / 'a.db'}"
    settings = settings_for(double, url)
    stats = door(settings, folder)
    accounted(stats, 60)
    assert stats.failures == {"invalid_answer": 1}
    # The same question would get the same answer: it is done, until somebody asks for a retry.
    again = door(settings, folder)
    assert (again.already_done, again.already_failed, again.llm_calls) == (60, 1, 0)
    double.answer = oracle
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        from doc_classify.storage.base import ResultFilter

        mended = processor.retry(stats.run_id, ResultFilter(failed=True))
    assert (mended.classified, mended.llm_calls) == (1, 1)


def test_a_model_that_answers_nonsense_to_everything_stops_the_run(folder, double, tmp_path):
    """Half a million failures would be of no use to anybody."""
    double.answer = lambda _system, _user: "Sure! Here is a poem."
    double.follows_schema = False
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with pytest.raises(ServerSetupError, match=r"last 50 documents .* Here is a poem"):
        parallel(settings_for(double, url), folder)
    with contextlib.closing(open_store(url)) as store:
        info = store.run()
    assert info is not None and info.state == "failed" and info.stats.classified == 0
    assert info.stats.failed < 60


def test_a_document_that_makes_the_server_fail_harms_no_other(door, folder, double, tmp_path):
    poison = Behaviour(status=500, body={"error": "llama runner process has terminated"})
    double.answer = lambda system, user: poison if "Number 7 " in user else oracle(system, user)
    stats = door(settings_for(double, f"sqlite:///{tmp_path / 'a.db'}"), folder)
    accounted(stats, 60)
    assert stats.failures == {"server": 1} and stats.classified == 59
    # It is tried again by the next run, for the fault may have been the server's.
    double.answer = oracle
    again = door(settings_for(double, f"sqlite:///{tmp_path / 'a.db'}"), folder)
    assert (again.classified, again.already_done) == (1, 59)


@pytest.mark.parametrize("others", [0, 5])
def test_a_document_over_which_the_server_takes_forever_is_recorded(tmp_path, double, others):
    """Alone or at the end of a run; not once in each run until the end of days."""
    place = tmp_path / "documents"
    place.mkdir()
    for number in range(others):
        (place / f"{number}.txt").write_text(f"Subject: reports\n{number}\n")
    (place / "poison.txt").write_text("Subject: poison\n")
    double.answer = lambda system, user: slow(30) if "poison" in user else oracle(system, user)
    url = f"sqlite:///{tmp_path / 'a.db'}"
    stats = parallel(settings_for(double, url).changed(llm_timeout=0.5, llm_give_up=1.5), place)
    assert (stats.seen, stats.failures) == (1 + others, {"server": 1})


def test_several_documents_that_make_the_server_fail_at_the_end_are_recorded(tmp_path, double):
    place = tmp_path / "documents"
    place.mkdir()
    for number in range(4):
        (place / f"{number}.txt").write_text(f"Subject: poison\n{number}\n")
    double.answer = lambda _system, user: failing(500) if "poison" in user else "reports"
    started = time.monotonic()
    stats = parallel(settings_for(double, f"sqlite:///{tmp_path / 'a.db'}"), place)
    assert (stats.seen, stats.failures) == (4, {"server": 4})
    assert time.monotonic() - started < 60


def test_failures_that_prove_to_be_the_models_are_taken_back(folder, double, tmp_path):
    """The same command works when the model does."""
    double.answer = lambda _system, _user: "Sure! Here is a poem."
    double.follows_schema = False
    settings = settings_for(double, f"sqlite:///{tmp_path / 'a.db'}")
    with pytest.raises(ServerSetupError):
        parallel(settings, folder)
    double.answer = oracle
    assert parallel(settings, folder).classified == 60


def test_a_slow_store_holds_back_the_requests(folder, double, tmp_path, monkeypatch):
    """What is answered and not stored must not pile up in memory."""
    for number in range(60, 300):
        (folder / f"{number}.txt").write_text(f"Subject: reports\nNumber {number} of many.\n")
    counts: list[int] = []
    record = SqlStore.record

    def slowly(self, *args, **how):
        counts.append(len(double.chats))
        time.sleep(0.1)
        return record(self, *args, **how)

    monkeypatch.setattr(SqlStore, "record", slowly)
    settings = settings_for(double, f"sqlite:///{tmp_path / 'a.db'}", batch_size=5)
    stats = parallel(settings.changed(max_concurrent=8), folder)
    assert stats.classified == 300
    ahead = [asked - 5 * stored for stored, asked in enumerate(counts)]
    assert max(ahead) < 5 * 4 + 8 * 2 + 5 + 2 + 10  # queue, in flight, batch, two questions


def test_interrupted_while_the_store_fails_it_ends(folder, double, tmp_path, monkeypatch):
    def fail(self, *_args, **_how):
        time.sleep(1.0)
        raise StorageError("the disk is gone")

    monkeypatch.setattr(SqlStore, "record", fail)
    settings = settings_for(double, f"sqlite:///{tmp_path / 'a.db'}", batch_size=2)

    async def main() -> None:
        with AsyncBatchProcessor(settings=settings, batch_size=2) as processor:
            work = asyncio.create_task(processor.process_directory_async(folder))
            while len(double.chats) < 12:
                await asyncio.sleep(0.01)
            work.cancel()
            await work

    with pytest.raises((StorageError, asyncio.CancelledError)):
        asyncio.run(asyncio.wait_for(main(), 20))
    assert not psutil.Process().children(recursive=True)


def test_a_retry_finds_the_server_and_keeps_to_limits(folder, double, tmp_path):
    double.answer = lambda _system, user: "?" if "Number 7 " in user else kind_of(user)
    double.follows_schema = False
    url = f"sqlite:///{tmp_path / 'a.db'}"
    parallel(settings_for(double, url), folder)
    double.answer = oracle
    done = command(
        *("retry", "--database-url", url, "--host", double.url, "--max-llm-calls", "5"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "1 classified" in done.stdout


def test_a_server_that_sheds_load_is_asked_again(door, folder, double, tmp_path):
    script = [None, None, *[failing(503, "server busy", retry_after="0") for _ in range(5)]]
    double.script.extend(script)
    double.script.extend([None, html(502), failing(429, "slow down"), None, html(500)])
    stats = door(settings_for(double, f"sqlite:///{tmp_path / 'a.db'}"), folder)
    accounted(stats, 60)
    assert stats.classified == 60
    assert stats.llm_calls == 60 + 8


def test_a_server_that_goes_away_is_waited_for(folder, double, tmp_path):
    """In mid-run, with requests in flight; nothing fails, and the wait is told."""
    double.latency = 0.02
    notices: list[str | None] = []
    settings = settings_for(double, f"sqlite:///{tmp_path / 'a.db'}")
    with (
        ParallelDocumentProcessor(
            use_database=True, settings=settings, on_notice=notices.append
        ) as processor,
        away(double, after=20, seconds=1.5),
    ):
        stats = processor.process_directory(folder)
    accounted(stats, 60)
    assert stats.classified == 60
    assert notices and notices[-1] is None and "again" in str(notices[0])


@contextlib.contextmanager
def away(double: OllamaDouble, *, after: int, seconds: float) -> Iterator[None]:
    """Have the server go away after so many requests, and come back."""

    def work() -> None:
        while len(double.chats) < after:
            time.sleep(0.005)
        double.go_away()
        time.sleep(seconds)
        double.come_back()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_a_server_that_stays_away_ends_the_run_which_can_be_resumed(door, folder, double, tmp_path):
    double.latency = 0.02
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with away(double, after=30, seconds=6), pytest.raises(ServerSetupError, match=r"2 s"):
        door(settings_for(double, url).changed(llm_give_up=2), folder)
    with contextlib.closing(open_store(url)) as store:
        info = store.run()
        assert info is not None and info.state == "failed"
        done = info.stats.classified
        # Nothing is marked as failed that only the server kept from an answer.
        assert 10 <= done < 60 and info.stats.failed == 0
    stats = door(settings_for(double, url), folder)
    assert (stats.classified, stats.already_done) == (60 - done, done)


def test_a_missing_model_is_told_before_the_first_document(door, folder, double, tmp_path):
    settings = settings_for(double, f"sqlite:///{tmp_path / 'a.db'}", ollama_model="llama9:1b")
    with pytest.raises(ServerSetupError, match="ollama pull llama9:1b"):
        door(settings, folder)
    assert not (tmp_path / "a.db").exists()


def test_no_server_is_told_before_the_first_document(door, folder, tmp_path):
    settings = load_settings(classifier="ollama", ollama_host="127.0.0.1:9")
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:9"):
        door(settings, folder)


def test_a_limit_of_calls_stops_cleanly_and_the_next_run_goes_on(door, folder, double, tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with pytest.raises(BudgetReachedError, match="25 LLM requests"):
        door(settings_for(double, url, max_llm_calls=25), folder)
    with contextlib.closing(open_store(url)) as store:
        info = store.run()
        assert info is not None
        assert (info.state, info.stats.classified, info.stats.failed) == ("interrupted", 25, 0)
        assert info.stats.llm_calls == 25
    stats = door(settings_for(double, url), folder)
    assert (stats.classified, stats.already_done) == (35, 25)


def test_a_limit_of_money_is_never_passed(door, folder, double, tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    prices = {"price_prompt": 100.0, "price_completion": 500.0}
    with pytest.raises(BudgetReachedError, match="max_cost"):
        door(settings_for(double, url, max_cost=0.5, **prices), folder)
    with contextlib.closing(open_store(url)) as store:
        info = store.run()
    assert info is not None and info.stats.cost is not None
    assert 0.3 < info.stats.cost <= 0.5 and info.stats.pending > 0


def test_auto_takes_ollama_where_it_has_the_model(folder, double, tmp_path):
    chosen: list[str] = []
    settings = settings_for(double, f"sqlite:///{tmp_path / 'a.db'}").changed(classifier="auto")
    with ParallelDocumentProcessor(settings=settings, on_choice=chosen.append) as processor:
        stats = processor.process_directory(folder)
    assert chosen == [f"auto: ollama with llama3.2:3b at {double.url}"]
    assert stats.llm_calls == 60


def test_auto_takes_the_embedded_classifier_elsewhere_and_says_why(folder, double, tmp_path):
    chosen: list[str] = []
    settings = settings_for(double, "sqlite://").changed(classifier="auto", ollama_model="none")
    for changed in (settings, settings.changed(ollama_host="127.0.0.1:9")):
        with ParallelDocumentProcessor(settings=changed, on_choice=chosen.append) as processor:
            stats = processor.process_directory(folder)
        assert stats.classified == 60 and stats.llm_calls == 0
    assert chosen[0].startswith("auto: embedded, since") and "ollama pull none" in chosen[0]
    assert "127.0.0.1:9" in chosen[1]


def test_auto_takes_no_model_that_sends_documents_elsewhere(folder, double, tmp_path):
    double.remote_host = "https://ollama.com:443"
    chosen: list[str] = []
    settings = settings_for(double, "sqlite://").changed(classifier="auto")
    with ParallelDocumentProcessor(settings=settings, on_choice=chosen.append) as processor:
        assert processor.process_directory(folder).llm_calls == 0
    assert "does not run on this server" in chosen[0]
    with ParallelDocumentProcessor(
        settings=settings.changed(classifier="ollama"), on_choice=chosen.append
    ) as processor:
        assert processor.process_directory(folder).llm_calls == 60
    assert "sends documents on to https://ollama.com:443" in chosen[1]


def test_extraction_does_not_run_far_ahead_of_a_slow_server(folder, double, tmp_path):
    """A bounded number of texts waits; otherwise half a million of them would be in memory."""
    for number in range(60, 400):
        (folder / f"{number}.txt").write_text(f"Subject: reports\nNumber {number} of many.\n")
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with pytest.raises(BudgetReachedError):
        parallel(settings_for(double, url, max_llm_calls=3, max_concurrent=2, chunk_size=2), folder)
    with contextlib.closing(open_store(url)) as store:
        info = store.run()
    assert info is not None and info.stats.classified == 3
    assert info.stats.pending > 0


def test_cancelled_in_the_users_loop_it_stores_what_it_has(folder, double, tmp_path):
    double.latency = 0.05
    double.slots = 2
    settings = settings_for(double, f"sqlite:///{tmp_path / 'a.db'}")

    async def main() -> RunStats:
        processor = AsyncBatchProcessor(settings=settings, batch_size=5)
        work = asyncio.create_task(processor.process_directory_async(folder))
        while len(double.chats) < 25:
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        processor.close()
        return processor.stats

    stats = asyncio.run(main())
    assert 10 <= stats.classified < 60
    again = asynchronous(settings, folder)
    assert (again.classified, again.already_done) == (60 - stats.classified, stats.classified)


def command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "doc_classify", *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_tells_classifier_tokens_and_cost(folder, double, tmp_path):
    done = command(
        "classify-async",
        str(folder),
        "--classifier",
        "ollama",
        "--host",
        double.url,
        "--max-concurrent",
        "8",
        "--batch-size",
        "20",
        cwd=tmp_path,
        DOC_CLASSIFY_PRICE_PROMPT="2",
    )
    assert done.returncode == 0, done.stderr
    assert f"classifier ollama with llama3.2:3b at {double.url}" in done.stderr
    assert re.search(r"60 LLM requests: [\d,]+ prompt tokens", done.stdout)
    assert "; cost 0.0" in done.stdout and "60 classified" in done.stdout
    assert (tmp_path / "doc-classify.db").exists()


def test_the_command_ends_with_3_when_the_server_cannot_be_used(folder, double, tmp_path):
    for options in (("--model", "none"), ("--host", "127.0.0.1:9")):
        address = () if options[0] == "--host" else ("--host", double.url)
        done = command(
            *("classify-parallel", str(folder), "--classifier", "ollama", *options, *address),
            cwd=tmp_path,
        )
        assert done.returncode == 3 and done.stderr.startswith("Error: "), done.stderr
        assert done.stdout == ""


def test_check_times_one_classification(double, tmp_path):
    done = command(
        "check",
        "--classifier",
        "ollama",
        "--host",
        double.url,
        cwd=tmp_path,
        OLLAMA_MODEL=double.model,
    )
    assert done.returncode == 0, done.stdout
    assert "log-probabilities" in done.stdout and "on the GPU" in done.stdout
    assert re.search(r"documents/hour, .* for 500,000", done.stdout)
    missing = command("check", "--classifier", "ollama", "--host", "127.0.0.1:9", cwd=tmp_path)
    assert missing.returncode == 3 and "ollama serve" in missing.stdout
    data = json.loads(
        command(
            "check", "--json", "--classifier", "ollama", "--host", double.url, cwd=tmp_path
        ).stdout
    )
    assert {"classifier", "LLM server", "LLM speed"} <= {row["name"] for row in data}


def test_no_status_of_a_file_is_missing(folder, double, store_url):
    """Failures, duplicates and successes of one run add up in either database."""
    (folder / "copy.txt").write_bytes((folder / "00.txt").read_bytes())
    (folder / "empty.txt").write_bytes(b"")
    stats = parallel(settings_for(double, store_url), folder)
    assert (stats.seen, stats.classified, stats.duplicates, stats.failed) == (62, 60, 1, 1)
    with contextlib.closing(open_store(store_url)) as store:
        found = rows(store, stats)
    copy = next(row for row in found if row.uri.endswith("copy.txt"))
    assert copy.status is FileStatus.DUPLICATE or copy.category == "invoices"
