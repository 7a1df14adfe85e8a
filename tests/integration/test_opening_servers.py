"""Opening a back end while its server is busy, fails for a moment, or answers late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import pytest
from aiohttp import web
from tests.doubles import ollama
from tests.doubles.ollama import Behaviour, OllamaDouble, cut, html, slow
from tests.doubles.openai import OpenAIDouble, failing

from doc_classify.classification import patience
from doc_classify.classification.chat import ServerFacts
from doc_classify.classification.ollama import OllamaBackend
from doc_classify.classification.openai import OpenAIBackend
from doc_classify.errors import ServerBusyError, ServerError, ServerSetupError


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.01)


def opened(
    double: OllamaDouble | OpenAIDouble, *, timeout: float = 10, model: str | None = None
) -> ServerFacts:
    kind = OllamaBackend if isinstance(double, OllamaDouble) else OpenAIBackend

    async def run() -> ServerFacts:
        backend = kind(double.url, model or double.model, context=4096, timeout=timeout)
        try:
            return await backend.open()
        finally:
            await backend.close()

    return asyncio.run(run())


def scripts(fault: Behaviour, times: int) -> Iterable[list[Behaviour | None]]:
    """The fault at each place of a probe."""
    return [[*[None] * place, *[fault] * times] for place in range(8)]


# OpenAI's protocol.


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("fault", [failing(500), failing(502), failing(503), cut(), html(504)])
@pytest.mark.parametrize("kind", ["vllm", "openai"])
def test_a_server_that_fails_for_a_moment_is_known_as_the_same(kind, fault, times):
    with OpenAIDouble(kind=kind) as double:
        healthy = opened(double)
        for script in scripts(fault, times):
            double.script.extend(script)
            assert opened(double) == healthy
            double.script.clear()


def test_failures_just_long_enough_to_look_like_a_refusal():
    with OpenAIDouble() as double:
        healthy = opened(double)
        for times in range(3, 12):
            for place in range(4):
                double.script.extend([*[None] * place, *[failing(500)] * times])
                try:
                    assert opened(double) == healthy, (times, place)
                except ServerError as error:
                    assert "boom" in str(error)
                double.script.clear()


def test_an_answer_that_is_late_once_is_asked_for_again():
    with OpenAIDouble() as double:
        healthy = opened(double)
        for script in scripts(slow(20), 1)[:4]:
            double.script.extend(script)
            assert opened(double, timeout=0.5) == healthy
            double.script.clear()
        double.script.extend([slow(20)] * 2)
        with pytest.raises(ServerError, match="within") as caught:
            opened(double, timeout=0.3)
        assert caught.value.timed_out


def test_what_a_server_always_fails_at_it_cannot_do():
    with OpenAIDouble() as double:
        usual = double._completion

        def completion(body: dict[str, Any]) -> dict[str, Any]:
            if "response_format" in body:
                raise web.HTTPInternalServerError(text='{"error": "no grammar engine"}')
            return usual(body)

        double._completion = completion
        facts = opened(double)
    assert facts.logprobs and not facts.schema


@pytest.mark.parametrize("named", ["chat_template_kwargs", "system", "max_tokens"])
def test_a_request_that_a_server_always_fails_at_is_made_without(named):
    with OpenAIDouble() as double:
        usual = double._completion

        def completion(body: dict[str, Any]) -> dict[str, Any]:
            if named in body or named in [message["role"] for message in body["messages"]]:
                raise web.HTTPInternalServerError(text='{"error": "boom"}')
            return usual(body)

        double._completion = completion
        facts = opened(double)
        assert named not in double.chats[-1]
    assert facts.logprobs and facts.schema


def test_the_version_changes_with_all_that_changes_answers():
    def not_both(double: OpenAIDouble) -> None:
        usual = double._completion

        def completion(body: dict[str, Any]) -> dict[str, Any]:
            if "response_format" in body and "logprobs" in body:
                raise web.HTTPBadRequest(text='{"error": "not both"}')
            return usual(body)

        double._completion = completion

    options: list[dict[str, Any]] = [
        {},
        {"system_role": False},
        {"most_logprobs": 5},
        {"refuses": ["temperature"]},
        {"refuses": ["seed"]},
        {"refuses": ["chat_template_kwargs"]},
        {"thinks": "field", "kept_by": "reasoning_effort"},
    ]
    found = []
    for chosen in options:
        with OpenAIDouble(**chosen) as double:
            facts = opened(double)
            assert (facts.logprobs, facts.schema, facts.thinks) == (True, True, False)
            found.append(facts.version)
    with OpenAIDouble() as double:
        not_both(double)
        found.append(opened(double).version)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("status", [403, 413, 418])
def test_a_server_that_takes_no_question_cannot_be_used(status):
    fault = failing(status, "your input was flagged", metadata={"reasons": ["x"]})
    with (
        OpenAIDouble(faults={"/v1/chat/completions": fault}) as double,
        pytest.raises(ServerSetupError, match="takes no chat request"),
    ):
        opened(double)


@pytest.mark.parametrize(
    ("kind", "path"), [(OpenAIDouble, "/v1/models"), (OllamaDouble, "/api/version")]
)
def test_a_server_that_refuses_the_first_question_cannot_be_used(kind, path):
    with (
        kind(faults={path: failing(400, "not like that")}) as double,
        pytest.raises(ServerSetupError, match="not like that"),
    ):
        opened(double)


# Ollama's.


@pytest.mark.parametrize("fault", [ollama.failing(503), ollama.failing(500), html(502), cut()])
@pytest.mark.parametrize("place", [0, 1])
def test_ollama_may_fail_for_a_moment_too(fault, place):
    with OllamaDouble(script=[*[None] * place, fault, fault]) as double:
        facts = opened(double)
    assert facts.logprobs and facts.schema


def test_a_busy_ollama_that_speaks_of_information_is_not_taken_to_refuse_schemas():
    said = "model format is loading; see the log for more information"
    with OllamaDouble(script=[None, ollama.failing(503, said)]) as double:
        assert opened(double).schema
    with OllamaDouble(script=[None, ollama.failing(500, "no information")]) as double:
        assert opened(double).schema


@pytest.mark.parametrize("path", ["/api/version", "/api/tags", "/api/show"])
def test_an_ollama_that_stays_busy_is_told_as_busy(path):
    with OllamaDouble(faults={path: ollama.failing(503, "server busy")}) as double:
        start = time.monotonic()
        with pytest.raises(ServerBusyError, match="server busy"):
            opened(double, timeout=0.5)
        assert time.monotonic() - start < 3
        assert sum(one.path == path for one in double.received) > 2


def test_a_refusal_to_be_told_not_to_think_is_part_of_the_version():
    refusal = ollama.failing(400, "does not support thinking")
    with OllamaDouble(script=[refusal]) as double:
        assert opened(double).version == double.digests[double.model] + " untold"


# Both.


@pytest.mark.parametrize("kind", [OllamaDouble, OpenAIDouble])
def test_nobody_there_is_told_at_once(kind):
    with kind() as double:
        double.go_away()
        start = time.monotonic()
        with pytest.raises(ServerError) as caught:
            opened(double)
        assert caught.value.unreachable
        assert time.monotonic() - start < 2


class Server:
    """Raises errors, one after the other, and counts how often it was asked."""

    def __init__(self, *errors: ServerError) -> None:
        self.errors = list(errors)
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "yes"


@pytest.fixture
def slept(monkeypatch):
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(patience.asyncio, "sleep", sleep)
    monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.25)
    return pauses


def asked(server: Server, timeout: float = 300) -> str:
    return asyncio.run(patience.Patience(timeout).ask(server))


def test_a_busy_server_is_asked_at_growing_intervals_for_a_minute(slept):
    assert asked(Server(*[ServerBusyError("busy")] * 7)) == "yes"
    assert slept == [0.25, 0.5, 1, 2, 4, 5, 5]
    slept.clear()
    for timeout, most in [(300, 60), (10, 10)]:
        with pytest.raises(ServerBusyError):
            asked(Server(*[ServerBusyError("busy")] * 1000), timeout)
        assert most - 6 < sum(slept) <= most
        slept.clear()


def test_what_a_busy_server_asks_for_is_obeyed(slept):
    assert asked(Server(ServerBusyError("busy", 20), ServerBusyError("busy", 0.1))) == "yes"
    assert slept == [20, 0.5]
    with pytest.raises(ServerBusyError):
        asked(Server(ServerBusyError("busy", 61)))
    assert len(slept) == 2


def test_a_server_that_loads_its_model_is_waited_for_as_long_as_an_answer(slept):
    with pytest.raises(ServerBusyError):
        asked(Server(*[ServerBusyError("http://x: HTTP 503: Loading model")] * 1000), 300)
    assert 290 < sum(slept) <= 300


def test_a_fault_is_borne_twice_and_an_answer_that_is_late_once(slept):
    assert asked(Server(*[ServerError("boom")] * 2)) == "yes"
    assert asked(Server(ServerError("late", timed_out=True))) == "yes"
    for error, times in [
        (ServerError("boom"), 3),
        (ServerError("late", timed_out=True), 2),
        (ServerError("nobody", unreachable=True), 1),
    ]:
        server = Server(*[error] * 9)
        with pytest.raises(ServerError):
            asked(server)
        assert server.asked == times
