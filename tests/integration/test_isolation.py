"""Real worker processes: killed, stopped, starved of memory, worn out, lying."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from doc_classify.extraction.options import ExtractionOptions
from doc_classify.pipeline.isolation import Death, IsolatedWorker, WorkerStartError
from doc_classify.pipeline.messages import MessageError, Reply, Request, WorkerConfig
from doc_classify.records import (
    Classification,
    Extraction,
    Failure,
    Page,
    Source,
    Timings,
    path_to_uri,
)
from doc_classify.taxonomy import DEFAULT_TAXONOMY

CONFIG = WorkerConfig(
    options=ExtractionOptions(),
    taxonomy=DEFAULT_TAXONOMY,
    classifier="embedded",
    include_reasoning=False,
    memory_limit=2_000_000_000,
    time_limit=60.0,
)


@pytest.fixture
def requests(tmp_path: Path) -> list[Request]:
    """Four invoices."""
    made = []
    for number in range(4):
        path = tmp_path / f"{number}.txt"
        path.write_text(f"Invoice no. {number}\nAmount due: {number}.00 EUR\n")
        made.append(request_for(path, number))
    return made


def request_for(path: Path, number: int = 0) -> Request:
    status = path.stat()
    return Request(number, Source(path_to_uri(path), status.st_size, status.st_mtime_ns))


@contextlib.asynccontextmanager
async def a_worker(**changes: Any) -> AsyncIterator[IsolatedWorker]:
    recycle_after = changes.pop("recycle_after", 1_000)
    worker = IsolatedWorker(dataclasses.replace(CONFIG, **changes), recycle_after=recycle_after)
    try:
        yield worker
    finally:
        await worker.kill()


async def all_answers(worker: IsolatedWorker, requests: list[Request]) -> list[Reply | Death]:
    return [answer async for _, answer in worker.answer(requests)]


def child() -> psutil.Process:
    """The one process that we have started."""
    (found,) = psutil.Process().children()
    return found


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test, then see that it left neither processes (nor zombies) nor open files behind."""
    before = psutil.Process().num_fds()
    others = set(psutil.Process().children())
    asyncio.run(test())
    assert set(psutil.Process().children()) == others
    assert psutil.Process().num_fds() == before


def test_answers_come_in_order(requests):
    async def test() -> None:
        async with a_worker() as worker:
            answers = await all_answers(worker, requests)
            assert [answer.number for answer in answers] == [0, 1, 2, 3]
            assert all(answer.classification.category == "invoices" for answer in answers)
            assert all(answer.resident > 0 for answer in answers)
            first = child().pid
            await all_answers(worker, requests)
            assert child().pid == first
            await worker.stop()

    run(test)


def test_a_stored_extraction_is_classified_without_its_file(requests):
    async def test() -> None:
        extraction = Extraction("text/plain", (Page(1, "Invoice. Amount due: 3.00 EUR"),), "text")
        gone = Source(path_to_uri("/nowhere/gone.txt"), 1, 1)
        async with a_worker() as worker:
            (answer,) = await all_answers(worker, [Request(0, gone, extraction)])
        assert answer.classification.category == "invoices"
        assert answer.extraction is None

    run(test)


def test_only_the_document_that_a_killed_worker_held_is_held_responsible(requests):
    async def test() -> None:
        async with a_worker() as worker:
            await all_answers(worker, requests[:1])
            victim = child()
            answers = worker.answer(requests)
            index, answer = await anext(answers)
            assert (index, answer.number) == (0, 0)
            # The answers to all four may have been written by now: those count.
            victim.kill()
            rest = [pair async for pair in answers]
            assert [index for index, _ in rest] == list(range(1, len(rest) + 1))
            assert all(isinstance(answer, Reply) for _, answer in rest[:-1])
            again = await all_answers(worker, requests)
            if isinstance(again[0], Death):  # all four were answered, and its death unnoticed
                again = await all_answers(worker, requests)
            assert len(again) == 4
            assert child().pid != victim.pid

    run(test)


def test_a_worker_killed_over_its_first_document(requests):
    async def test() -> None:
        async with a_worker() as worker:
            await all_answers(worker, requests[:1])
            victim = child()
            victim.suspend()
            answering = asyncio.create_task(all_answers(worker, requests))
            await asyncio.sleep(0)
            victim.kill()
            (death,) = await answering
            assert isinstance(death, Death)
            assert not death.timed_out
            assert "SIGKILL" in death.reason
            assert death.worker == f"pid {victim.pid}"
            assert len(await all_answers(worker, requests)) == 4

    run(test)


def test_the_signal_that_a_worker_died_of_is_named(requests):
    async def test() -> None:
        async with a_worker() as worker:
            await all_answers(worker, requests[:1])
            victim = child()
            victim.suspend()
            answering = asyncio.create_task(all_answers(worker, requests))
            await asyncio.sleep(0)
            victim.send_signal(signal.SIGSEGV)
            victim.resume()
            (death,) = await answering
            assert "SIGSEGV" in death.reason

    run(test)


def test_a_worker_that_hangs_is_ended_at_the_time_limit(requests):
    async def test() -> None:
        async with a_worker(time_limit=0.3) as worker:
            await all_answers(worker, requests[:1])
            hung = child()
            hung.suspend()
            (death,) = await all_answers(worker, requests)
            assert death == Death(True, "not finished after 0.3 s", f"pid {hung.pid}")
            assert not hung.is_running()
            assert len(await all_answers(worker, requests)) == 4

    run(test)


def test_a_document_that_needs_too_much_memory_fails_alone(tmp_path, requests):
    path = tmp_path / "large.png"
    Image.new("RGB", (9_000, 9_000), "white").save(path, compress_level=1)

    async def test() -> None:
        async with a_worker() as worker:
            await all_answers(worker, requests[:1])
            needed = child().memory_info().vms
        async with a_worker(memory_limit=needed + 60_000_000) as worker:
            answers = await all_answers(worker, [requests[0], request_for(path, 9), requests[1]])
        kinds = [answer.failure and answer.failure.kind for answer in answers]
        assert kinds == [None, "out_of_memory", None]
        assert "memory" in answers[1].failure.message

    run(test)


def test_a_worker_gets_no_secrets(requests, monkeypatch):
    for name in ("DATABASE_URL", "OPENAI_API_KEY", "CELERY_BROKER_URL", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "very-secret")

    async def test() -> None:
        async with a_worker() as worker:
            await all_answers(worker, requests[:1])
            seen = Path(f"/proc/{child().pid}/environ").read_bytes()
            line = Path(f"/proc/{child().pid}/cmdline").read_bytes()
            files = {Path(file.path).suffix for file in child().open_files()}
        assert b"PATH=" in seen
        assert b"very-secret" not in seen + line
        assert not files & {".db", ".sqlite"}

    run(test)


def test_a_worker_is_replaced_after_so_many_documents(requests):
    async def test() -> None:
        async with a_worker(recycle_after=4) as worker:
            await all_answers(worker, requests[:2])
            first = child()
            await all_answers(worker, requests[:2])
            assert not first.is_running()
            await all_answers(worker, requests[:2])
            assert child().pid != first.pid

    run(test)


def test_a_worker_that_has_grown_is_replaced(requests):
    async def test() -> None:
        worker = IsolatedWorker(CONFIG, recycle_after=1_000, recycle_resident=1_000)
        assert len(await all_answers(worker, requests)) == 4
        assert not psutil.Process().children()

    run(test)


def test_a_worker_ends_when_nobody_asks_any_more(requests):
    async def test() -> None:
        async with a_worker() as worker:
            await all_answers(worker, requests[:1])
            process = child()
            await worker.stop()
            assert not process.is_running()
            await worker.stop()
            await worker.kill()

    run(test)


def test_answers_that_nobody_waits_for_any_more(requests):
    async def test() -> None:
        async with a_worker() as worker:
            answers = worker.answer(requests)
            await anext(answers)
            await answers.aclose()

    run(test)


def test_a_worker_that_cannot_start_is_nobodys_fault(requests):
    async def test() -> None:
        async with a_worker(classifier="no such classifier") as worker:
            with pytest.raises(WorkerStartError, match="no such classifier"):
                await all_answers(worker, requests)

    run(test)


def test_a_file_that_changed_or_vanished_is_said_to_have(requests, tmp_path):
    async def test() -> None:
        (tmp_path / "1.txt").write_text("something else")
        (tmp_path / "2.txt").unlink()
        async with a_worker() as worker:
            answers = await all_answers(worker, requests)
        assert [a.failure and a.failure.kind for a in answers] == [None, "changed", "changed", None]

    run(test)


# --- What a worker may say ----------------------------------------------------------------------

REPLY = Reply(
    7,
    Classification("invoices", 0.5, None, (("invoices", 0.5), ("other", 0.5)), False, "why"),
    None,
    Extraction("text/plain", (Page(1, "text \ud800 \0"),), "text", page_count=1),
    Timings(0.1, 0.2),
    1000,
)


@pytest.mark.parametrize(
    "reply",
    [REPLY, dataclasses.replace(REPLY, classification=None, failure=Failure("damaged", "why"))],
)
def test_what_is_sent_arrives(reply):
    line = reply.encode()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert Reply.decode(line, CONFIG) == reply


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("classification", "category"), "not in the taxonomy"),
        (("classification", "category"), 1),
        (("classification", "score"), float("nan")),
        (("classification", "confidence"), float("inf")),
        (("classification", "scores"), [["invoices", float("nan")]]),
        (("classification", "scores"), {"invoices": 1}),
        (("classification",), None),
        (("classification",), 0),
        (("classification",), []),
        (("classification",), "invoices"),
        (("failure",), {"kind": "damaged", "message": "both"}),
        (("failure",), ""),
        (("extraction",), 0),
        (("extraction", "pages"), None),
        (("extraction", "pages"), [{"number": 1, "text": None, "ocr": False}]),
        (("extraction", "pages"), [{"number": 2**70, "text": "", "ocr": False}]),
        (("extraction", "page_count"), -1),
        (("extraction", "title"), ["title"]),
        (("timings",), None),
        (("timings", "sleep"), 1),
        (("timings", "extract"), "NaN"),
        (("n",), None),
        (("n",), float("inf")),
        (("resident",), float("inf")),
    ],
)
def test_answers_that_are_not_believed(path, value):
    data = json.loads(REPLY.encode())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(MessageError):
        Reply.decode(json.dumps(data).encode() + b"\n", CONFIG)


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000]
)
def test_garbage_is_not_believed(line):
    with pytest.raises(MessageError):
        Reply.decode(line, CONFIG)


@given(st.data())
def test_no_answer_breaks_its_reader(data):
    """One value anywhere in a good answer replaced by any other."""
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=4,
    )
    answer: Any = json.loads(REPLY.encode())
    place = answer
    while True:
        key = data.draw(
            st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
        )
        if not place[key] or isinstance(place[key], str | int | float) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(anything)
    with contextlib.suppress(MessageError):
        reply = Reply.decode(json.dumps(answer).encode(), CONFIG)
        assert (reply.classification is None) != (reply.failure is None)
        Reply.decode(reply.encode(), CONFIG)


def test_a_worker_that_sends_garbage_is_ended(requests, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(_lying_sitecustomize(requests)))

    async def test() -> None:
        async with a_worker() as worker:
            (death,) = await all_answers(worker, requests)
            assert "invalid answer" in death.reason
            assert not psutil.Process().children()

    run(test)


def _lying_sitecustomize(requests: list[Request]) -> Path:
    """A module that Python imports at its start: it answers in the worker's place."""
    from doc_classify.records import uri_to_path

    folder = Path(uri_to_path(requests[0].source.uri)).parent / "lies"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        "sys.stdin.readline()\n"
        "os.write(1, b'ready\\n')\n"
        "sys.stdin.readline()\n"
        "os.write(1, b'{\"n\": 0}\\n')\n"
        "sys.stdin.read()\n"
        "os._exit(0)\n"
    )
    return folder


def test_our_own_environment_stays(requests):
    before = dict(os.environ)
    run(lambda: _one(requests))
    assert dict(os.environ) == before


async def _one(requests: list[Request]) -> None:
    async with a_worker() as worker:
        await all_answers(worker, requests[:1])
