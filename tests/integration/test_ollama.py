"""The back end for Ollama against a double of its server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.doubles.ollama import (
    OllamaDouble,
    Raw,
    changed,
    cut,
    failing,
    garbage,
    html,
    slow,
    tokens_of,
    without,
)

from doc_classify.classification.chat import ChatReply, ChatRequest, ServerFacts
from doc_classify.classification.http import Answer
from doc_classify.classification.ollama import OllamaBackend
from doc_classify.classification.ollama_address import server_url
from doc_classify.classification.ollama_replies import read_reply
from doc_classify.errors import (
    ConfigurationError,
    ContextExceededError,
    DocClassifyError,
    RefusedError,
    ServerBusyError,
    ServerError,
    ServerSetupError,
)
from doc_classify.records import Usage
from doc_classify.settings import Settings

Result = TypeVar("Result")

SCHEMA = {
    "type": "object",
    "properties": {"category": {"type": "string", "enum": ["invoice", "letter"]}},
    "required": ["category"],
}
CHANCES = {"invoice": 0.75, "letter": 0.25}
QUESTION = ChatRequest("You sort documents.", "Dear Sir, what is this?", 40, logprobs=True)


def use(
    double: OllamaDouble | str,
    what: Callable[[OllamaBackend], Awaitable[Result]],
    *,
    model: str | None = None,
    context: int = 4096,
    timeout: float = 5,
) -> Result:
    """Do something with a back end, and close it."""
    host = double if isinstance(double, str) else double.url
    name = model or (double.model if isinstance(double, OllamaDouble) else "llama3.2:3b")

    async def run() -> Result:
        backend = OllamaBackend(host, name, context=context, timeout=timeout)
        try:
            return await what(backend)
        finally:
            await backend.close()
            await backend.close()

    return asyncio.run(run())


def opened(double: OllamaDouble | str, **named: Any) -> ServerFacts:
    return use(double, lambda backend: backend.open(), **named)


def asked(double: OllamaDouble, request: ChatRequest = QUESTION, **named: Any) -> ChatReply:
    return use(double, lambda backend: backend.chat(request), **named)


def spelt(reply: ChatReply) -> str:
    return "".join(token.text for token in reply.tokens)


# Addresses.


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        ("gpu.example", "http://gpu.example:11434"),
        ("gpu.example:8080", "http://gpu.example:8080"),
        (":11434", "http://127.0.0.1:11434"),
        (":8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:11434", "http://127.0.0.1:11434"),
        ("http://0.0.0.0:11434", "http://127.0.0.1:11434"),
        ("[::]:11434", "http://[::1]:11434"),
        ("::", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("[fe80::1]:8080", "http://[fe80::1]:8080"),
        ("http://localhost:11434", "http://localhost:11434"),
        ("http://localhost:11434/", "http://localhost:11434"),
        ("http://gpu.example", "http://gpu.example:80"),
        ("https://gpu.example", "https://gpu.example:443"),
        ("HTTPS://gpu.example:8443/ollama/", "https://gpu.example:8443/ollama"),
        ("gpu.example:8080/ollama", "http://gpu.example:8080/ollama"),
        ("me:se@cret@gpu.example", "http://me:se@cret@gpu.example:11434"),
        (' "10.0.0.5:11434" ', "http://10.0.0.5:11434"),
    ],
)
def test_every_form_of_ollama_host_is_understood(host: str, url: str) -> None:
    assert server_url(host) == url


@pytest.mark.parametrize(
    "host",
    [
        "ftp://me:secret@gpu.example",
        "http://me:se/secret@gpu.example",
        "me:secret@gpu.example:port",
        "me:secret@gpu.example:0",
        "me:secret@gpu.example:99999",
        "http://me:secret@gpu.example:11434?key=secret",
        "http://me:secret@[::zz]:1",
    ],
)
def test_what_is_no_address_is_told_without_its_password(host: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        OllamaBackend(host, "m", context=1024, timeout=1)
    assert "secret" not in str(caught.value)


def test_user_and_password_are_sent_and_never_shown() -> None:
    with OllamaDouble() as double:
        host = double.url.replace("http://", "http://me:se%40cret@")
        facts = opened(host, model=double.model)
        assert facts.address == double.url
        sent = {received.headers["Authorization"] for received in double.received}
        assert sent == {"Basic bWU6c2VAY3JldA=="}
        double.go_away()
        with pytest.raises(ServerError) as caught:
            opened(host)
        assert "cret" not in str(caught.value)


def test_the_environment_names_no_proxy_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with OllamaDouble() as double:
        assert opened(double).schema


def test_settings_name_server_model_context_and_timeout() -> None:
    with OllamaDouble(model="tiny:1b") as double:
        settings = Settings(ollama_host=double.url, ollama_model="tiny:1b", llm_context=2048)

        async def run() -> ServerFacts:
            backend = OllamaBackend.from_settings(settings)
            try:
                assert backend.name == "ollama"
                return await backend.open()
            finally:
                await backend.close()

        facts = asyncio.run(run())
    assert (facts.model, facts.context) == ("tiny:1b", 2048)


# What is found out on opening.


def test_opening_finds_out_what_the_server_can_do() -> None:
    with OllamaDouble(gpu_share=0.5) as double:
        facts = opened(double)
    assert facts == ServerFacts(
        address=double.url,
        model="llama3.2:3b",
        version=double.digests["llama3.2:3b"],
        context=4096,
        logprobs=True,
        schema=True,
        thinks=False,
        on_gpu=0.5,
        server="Ollama 0.34.1",
    )
    assert double.loads == 1


def test_an_old_server_gives_no_logprobs_and_says_which_would() -> None:
    with OllamaDouble(version="0.12.10", capabilities=()) as double:
        facts = opened(double)
    assert (facts.logprobs, facts.schema) == (False, True)
    assert "0.12.11" in facts.notes[0]


def test_a_server_that_ignores_or_refuses_schemas_is_found_out() -> None:
    with OllamaDouble(follows_schema=False) as double:
        assert not opened(double).schema
    refused = failing(500, "failed to parse grammar")
    with OllamaDouble(script=[None, refused]) as double:
        facts = opened(double)
    assert (facts.schema, facts.logprobs) == (False, True)


@pytest.mark.parametrize("thinks", ["field", "tags", "untagged"])
def test_a_model_that_thinks_all_the_same_is_found_out(thinks: str) -> None:
    with OllamaDouble(lambda _s, _u: CHANCES, thinks=thinks) as double:
        facts = opened(double)
        assert all(body["think"] is False for body in double.chats)
        reply = asked(double, ChatRequest("s", "u", 400, logprobs=True))
    assert (facts.thinks, facts.logprobs, facts.schema) == (True, True, True)
    assert (reply.text, reply.thought, reply.truncated) == ("invoice", True, False)
    assert spelt(reply) == "invoice"


def test_the_context_is_never_more_than_the_model_was_made_for() -> None:
    with OllamaDouble(trained_context=2048) as double:
        assert opened(double, context=8192).context == 2048
        assert {body["options"]["num_ctx"] for body in double.chats} == {2048}
    with OllamaDouble(faults={"/api/show": changed(lambda _data: {})}) as double:
        assert opened(double, context=8192).context == 8192


def test_a_name_without_a_tag_means_the_latest() -> None:
    with OllamaDouble(model="llama3.2:latest", others=["llama3.2:3b"]) as double:
        for name in ("llama3.2", "Llama3.2:LATEST", "registry.ollama.ai/library/llama3.2"):
            facts = use(double, _only_listed, model=name)
            assert facts["digest"] == double.digests["llama3.2:latest"]
        assert opened(double, model="llama3.2").version == double.digests["llama3.2:latest"]


async def _only_listed(backend: OllamaBackend) -> Any:
    return await backend._listed()


def test_a_missing_model_is_told_with_what_is_there_and_what_to_do() -> None:
    others = [f"model{number:02}:1b" for number in range(14)]
    with OllamaDouble(others=others) as double, pytest.raises(ServerSetupError) as caught:
        opened(double, model="qwen3")
    said = str(caught.value)
    assert "ollama pull qwen3" in said
    assert "llama3.2:3b" in said
    assert "model08:1b and 5 more" in said
    assert "model09:1b" not in said
    tags = changed(lambda _data: {"models": None})
    with (
        OllamaDouble(faults={"/api/tags": tags}) as double,
        pytest.raises(ServerSetupError, match="ollama pull"),
    ):
        opened(double)


def test_a_model_for_embeddings_is_no_model_for_questions() -> None:
    with (
        OllamaDouble(capabilities=["embedding"]) as double,
        pytest.raises(ServerSetupError, match="embedding"),
    ):
        opened(double)
    # A server that does not tell capabilities refuses the first question.
    with (
        OllamaDouble(script=[failing(400, '"m" does not support chat')]) as double,
        pytest.raises(ServerSetupError, match="does not support chat"),
    ):
        opened(double)


def test_a_model_too_large_for_the_machine_stops_the_run() -> None:
    said = "model requires more system memory (44.0 GiB) than is available (7.6 GiB)"
    with (
        OllamaDouble(script=[failing(500, said)]) as double,
        pytest.raises(ServerSetupError, match=r"44\.0 GiB"),
    ):
        opened(double)


def test_a_model_that_runs_elsewhere_is_told() -> None:
    with OllamaDouble(remote_host="https://ollama.com:443") as double:
        assert opened(double).remote_host == "https://ollama.com:443"


def test_a_server_that_lists_no_digest_is_known_by_what_it_tells() -> None:
    def no_digests(_data: Any) -> Any:
        return {"models": [{"name": "llama3.2:3b"}]}

    with OllamaDouble(faults={"/api/tags": changed(no_digests)}) as double:
        first, again = opened(double).version, opened(double).version
        double.trained_context = 4096
        other = opened(double).version
    assert first == again != other
    assert len(first) == 64


def test_what_ps_says_of_gpus_is_believed_only_where_it_makes_sense() -> None:
    name = "llama3.2:3b"
    told: list[tuple[Any, float | None]] = [
        ({"models": []}, None),
        ({"models": [{"name": "other", "size": 2, "size_vram": 1}]}, None),
        ({"models": [{"name": name, "size": 0, "size_vram": 0}]}, None),
        ({"models": [{"name": name, "size": "big", "size_vram": 1}]}, None),
        ({"models": [{"model": name, "size": 2, "size_vram": 5}]}, 1.0),
        ({"models": [7, {"name": name, "size": 2, "size_vram": 0}]}, 0.0),
    ]
    with OllamaDouble() as double:
        for data, share in told:
            double.faults["/api/ps"] = changed(lambda _data, data=data: data)
            assert opened(double).on_gpu == share
        double.faults["/api/ps"] = html(404)
        assert opened(double).on_gpu is None


def test_no_server_is_told_with_the_address_and_the_command() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServerError, match=r"ollama serve") as caught:
            opened(address)
        assert address in str(caught.value)
        with pytest.raises(ServerError, match=r"ollama serve"):
            use(address, lambda backend: backend.alive())


@pytest.mark.parametrize(
    "fault", [html(200), html(404), garbage(b"[]"), garbage(b"{}"), garbage(b'{"version": 7}')]
)
def test_another_kind_of_server_is_none_of_ollama(fault: Any) -> None:
    with OllamaDouble(faults={"/api/version": fault}) as double:
        with pytest.raises(ServerSetupError):
            opened(double)
        with pytest.raises(ServerSetupError):
            use(double, lambda backend: backend.alive())


@pytest.mark.parametrize("path", ["/api/tags", "/api/show", "/api/ps"])
@pytest.mark.parametrize("body", [b"[]", b"nonsense", b'{"models": 7}', b"null", b"\xff\xfe\x00"])
def test_no_nonsense_on_opening_escapes_as_another_error(path: str, body: bytes) -> None:
    with OllamaDouble(faults={path: garbage(body)}) as double:
        try:
            opened(double)
        except (ServerError, ServerSetupError):
            pass
        else:
            assert (path, body) == ("/api/show", b'{"models": 7}')


def test_alive_does_not_wait_for_a_busy_server() -> None:
    with OllamaDouble(slots=1, latency=3) as double:

        async def run(backend: OllamaBackend) -> float:
            busy = asyncio.ensure_future(backend.chat(QUESTION))
            await asyncio.sleep(0.1)
            start = time.monotonic()
            await backend.alive()
            busy.cancel()
            return time.monotonic() - start

        assert use(double, run) < 1


# Questions and answers.


def test_an_answer_with_its_tokens_and_counts() -> None:
    heard = []

    def answer(system: str, user: str) -> dict[str, float]:
        heard.append((system, user))
        return CHANCES

    with OllamaDouble(answer) as double:
        first, second = asked(double), asked(double)
    assert heard[0] == (QUESTION.system, QUESTION.user)
    assert (first.text, first.truncated, first.thought) == ("invoice", False, False)
    assert [token.text for token in first.tokens] == tokens_of("invoice")
    beginning = first.tokens[0]
    assert beginning.logprob == pytest.approx(math.log(0.75))
    assert dict(beginning.alternatives) == pytest.approx(
        {"invoic": math.log(0.75), "letter": math.log(0.25)}
    )
    words = len(f"{QUESTION.system} {QUESTION.user}".split())
    assert first.usage.calls == 1
    assert first.usage.prompt_tokens == words + 8
    assert first.usage.completion_tokens == len(tokens_of("invoice"))
    assert (first.usage.cached_tokens, second.usage.cached_tokens) == (0, 3)


def test_an_answer_by_a_schema() -> None:
    request = ChatRequest("s", "u", 40, schema=SCHEMA, logprobs=True)
    with OllamaDouble(lambda _s, _u: CHANCES) as double:
        reply = asked(double, request)
    assert json.loads(reply.text) == {"category": "invoice"}
    assert spelt(reply) == reply.text


def test_an_answer_that_reaches_its_limit_is_marked() -> None:
    with OllamaDouble(lambda _s, _u: "one two three") as double:
        reply = asked(double, ChatRequest("s", "u", 2))
    assert (reply.text, reply.truncated, reply.tokens) == ("one two", True, ())


def test_every_request_asks_for_the_same_model_options() -> None:
    requests = [
        ChatRequest("s", "u", 5),
        ChatRequest("", "other words", 400, schema=SCHEMA, logprobs=True),
    ]

    async def run(backend: OllamaBackend) -> None:
        await backend.open()
        for request in requests:
            await backend.chat(request)

    with OllamaDouble() as double:
        use(double, run)
        plain, formed = double.chats[-2:]
        options = [dict(body["options"]) for body in double.chats]
        limits = [option.pop("num_predict") for option in options]
        assert double.loads == 1
    assert limits[-2:] == [5, 400]
    assert all(option == options[0] for option in options)
    assert options[0] == {
        "num_ctx": 4096,
        "seed": 1,
        "temperature": 0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
    assert all(
        (body["stream"], body["think"], body["truncate"]) == (False, False, False)
        for body in double.chats
    )
    assert "shift" not in plain
    assert "logprobs" not in plain
    assert "format" not in plain
    assert (formed["logprobs"], formed["top_logprobs"]) == (True, 20)
    assert formed["format"] == SCHEMA
    assert [message["role"] for message in plain["messages"]] == ["system", "user"]
    assert [message["role"] for message in formed["messages"]] == ["user"]


def test_a_server_that_takes_no_think_is_asked_without() -> None:
    refusal = failing(400, '"llama3.2:3b" does not support thinking')

    async def run(backend: OllamaBackend) -> list[str]:
        return [(await backend.chat(QUESTION)).text for _ in range(2)]

    with OllamaDouble(script=[refusal]) as double:
        assert use(double, run) == ["Hello", "Hello"]
        assert ["think" in body for body in double.chats] == [True, False, False]


def test_a_model_whose_name_is_thinking_is_not_taken_for_a_refusal() -> None:
    refusal = failing(400, '"think:1b" is refused')
    with OllamaDouble(model="think:1b", script=[refusal]) as double:
        with pytest.raises(RefusedError):
            asked(double)
        assert len(double.chats) == 1


def test_texts_of_every_kind_survive_the_way() -> None:
    user = 'Łódź 請求書 \x00 \ud800 "quoted" \\ 🧾\n\ttab'
    heard = []

    def answer(_system: str, user: str) -> str:
        heard.append(user)
        return "facture d’été 🧾"

    with OllamaDouble(answer) as double:
        assert asked(double, ChatRequest("s", user, 40)).text == "facture d’été 🧾"
    assert heard == [user]


# Thinking.


@pytest.mark.parametrize(
    ("content", "text", "thought", "truncated"),
    [
        ("<think>is it?</think>invoice", "invoice", True, False),
        ("\n<think>\nis it?\n</think>\n\ninvoice", "invoice", True, False),
        ("<think>\n\n</think>\n\ninvoice", "invoice", False, False),
        ("is it? perhaps</think>\ninvoice", "invoice", True, False),
        ("<think>is it? or is it", "", True, True),
        ("invoice <think>", "invoice <think>", False, False),
        ("invoice", "invoice", False, False),
        ("", "", False, False),
    ],
)
def test_thinking_is_taken_off_the_answer(
    content: str, text: str, thought: bool, truncated: bool
) -> None:
    with OllamaDouble(lambda _s, _u: Raw(content)) as double:
        reply = asked(double)
    assert (reply.text, reply.thought, reply.truncated) == (text, thought, truncated)
    assert spelt(reply).strip() == text


def test_a_thought_that_takes_all_the_tokens_is_no_answer() -> None:
    with OllamaDouble(thinks="field") as double:
        reply = asked(double, ChatRequest("s", "u", 10, logprobs=True))
    assert (reply.text, reply.tokens) == ("", ())
    assert reply.thought
    assert reply.truncated


# Prompts that are too long.

LONG = ChatRequest("s " * 20, "word " * 600, 20)


def test_a_prompt_too_long_is_told_with_numbers() -> None:
    with (
        OllamaDouble() as double,
        pytest.raises(ContextExceededError) as caught,
    ):
        asked(double, LONG, context=512)
    assert (caught.value.tokens, caught.value.limit) == (628, 512)
    with (
        OllamaDouble(version="0.13.5") as double,
        pytest.raises(ContextExceededError) as caught,
    ):
        asked(double, LONG, context=512)
    assert (caught.value.tokens, caught.value.limit) == (None, None)


@pytest.mark.parametrize(
    ("status", "said", "tokens", "limit"),
    [
        (
            400,
            "the prompt is longer than the context length currently available to the model; "
            "shorten the prompt, adjust the context length in settings, or use a model with a "
            "longer context length",
            None,
            None,
        ),
        (400, "the input length exceeds the context length", None, None),
        (500, "the request exceeds the available context size, try increasing it", None, None),
        (
            400,
            "request (9021 tokens) exceeds the available context size (8192 tokens)",
            9021,
            8192,
        ),
        (
            500,
            "input length (9021 tokens) exceeds the model's maximum context length (8192 tokens)",
            9021,
            8192,
        ),
        (
            400,
            "input (9021 tokens) is larger than the max context size (8192 tokens). skipping",
            9021,
            8192,
        ),
        (400, '{"error":{"type":"exceed_context_size_error","n_ctx":8192}}', None, 8192),
        (400, '{"error":{"message":"exceed_context_size_error","n_ctx":"x"}}', None, None),
    ],
)
def test_every_wording_of_too_long_is_understood(
    status: int, said: str, tokens: int | None, limit: int | None
) -> None:
    with (
        OllamaDouble(script=[failing(status, said)]) as double,
        pytest.raises(ContextExceededError) as caught,
    ):
        asked(double)
    assert (caught.value.tokens, caught.value.limit) == (tokens, limit)


def test_a_prompt_that_an_old_server_cuts_without_a_word_is_found_out() -> None:
    with (
        OllamaDouble(version="0.12.5") as double,
        pytest.raises(ContextExceededError, match="has cut it") as caught,
    ):
        asked(double, LONG, context=512)
    assert (caught.value.tokens, caught.value.limit) == (None, 512)


def test_an_answer_that_runs_out_of_the_context_is_found_out() -> None:
    request = ChatRequest("", "word " * 480, 100)
    with (
        OllamaDouble(lambda _s, _u: "so " * 60) as double,
        pytest.raises(ContextExceededError, match="together") as caught,
    ):
        asked(double, request, context=512)
    assert caught.value.usage == Usage(1, 488, 0, 61)
    with OllamaDouble(lambda _s, _u: "so " * 20) as double:
        assert asked(double, request, context=512).text.startswith("so")


# Faults.


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (failing(400, "invalid options"), RefusedError),
        (failing(413), RefusedError),
        (failing(401, "unauthorized"), ServerSetupError),
        (failing(403), ServerSetupError),
        (garbage(b'{"message": {"content": "x"}, "error": "boom"}'), ServerError),
        (failing(404, "model 'llama3.2:3b' not found"), ServerSetupError),
        (failing(500, 'model "x" not found, try pulling it first'), ServerError),
        (failing(499, "request canceled"), ServerError),
        (failing(500, "llama runner process has terminated: signal: killed"), ServerError),
        (failing(500, "unable to load model: /blobs/sha256-1"), ServerSetupError),
        (failing(502), ServerError),
        (html(502), ServerError),
        (html(404), ServerSetupError),
        (html(200), ServerError),
        (garbage(), ServerError),
        (garbage(b""), ServerError),
        (garbage(b"null"), ServerError),
        (garbage(b"[" * 100_000), ServerError),
        (garbage(b'{"error": "an error was encountered"}'), ServerError),
        (cut(), ServerError),
        (slow(5), ServerError),
        (without("message"), ServerError),
        (changed(lambda data: data | {"message": None}), ServerError),
        (changed(lambda data: data | {"message": {"content": 7}}), ServerError),
        (changed(lambda data: data | {"done": False}), ServerError),
        (changed(lambda data: data | {"done_reason": "load"}), ServerError),
    ],
)
def test_every_fault_has_its_error(behaviour: Any, kind: type[Exception]) -> None:
    with OllamaDouble(script=[behaviour]) as double, pytest.raises(kind) as caught:
        asked(double, timeout=1)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_the_message_of_llama_cpp_inside_ollama_is_shown_and_not_its_json() -> None:
    inner = json.dumps({"error": {"code": 500, "message": "decode failed", "type": "server"}})
    with (
        OllamaDouble(script=[failing(500, inner)]) as double,
        pytest.raises(ServerError),
    ):
        asked(double)


@pytest.mark.parametrize(
    "behaviour",
    [
        without(
            "done",
            "done_reason",
            "logprobs",
            "model",
            "created_at",
            "eval_count",
            "prompt_eval_count",
            "prompt_eval_cached_count",
        ),
        changed(
            lambda data: (
                data
                | {"prompt_eval_count": "many", "eval_count": -1, "prompt_eval_cached_count": [1]}
            )
        ),
        changed(lambda data: data | {"prompt_eval_count": math.nan, "eval_count": True}),
        changed(lambda data: data | {"prompt_eval_count": 10**400, "eval_count": None}),
    ],
)
def test_fields_that_are_missing_or_nonsense_count_nothing(behaviour: Any) -> None:
    with OllamaDouble(script=[behaviour]) as double:
        reply = asked(double)
    assert reply.text == "Hello"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (0, 0)
    assert reply.usage.cached_tokens == 0


@pytest.mark.parametrize(
    ("logprobs", "texts"),
    [
        (None, []),
        (7, []),
        ({"token": "Hello"}, []),
        ([None], []),
        ([{"token": "Hello", "logprob": math.nan}], []),
        ([{"token": "Hello", "logprob": None}], []),
        ([{"token": "Hello", "logprob": 10**400}], []),
        ([{"token": 7, "logprob": -1}], []),
        ([{"token": "Hello", "logprob": -1, "bytes": 10**12}], ["Hello"]),
        ([{"token": "Hello", "logprob": -1, "bytes": [999, "x"]}], ["Hello"]),
        ([{"token": "Hel", "logprob": -1}, {"token": "lo", "logprob": math.inf}], []),
        ([{"token": "Hello", "logprob": 0.5}], []),
        ([{"token": "Hello", "logprob": 0.005, "top_logprobs": 7}], ["Hello"]),
    ],
)
def test_log_probabilities_that_are_none_are_left_out(logprobs: Any, texts: list[str]) -> None:
    with OllamaDouble(script=[changed(lambda data: data | {"logprobs": logprobs})]) as double:
        reply = asked(double)
    assert reply.text == "Hello"
    assert [token.text for token in reply.tokens] == texts
    assert all(token.logprob <= 0 for token in reply.tokens)


def test_alternatives_are_checked_bounded_and_hold_the_token_itself() -> None:
    top = [{"token": f"t{number}", "logprob": -2.0} for number in range(300)]
    top[1] = {"token": "bad", "logprob": math.nan}
    entry = {"token": "Hello", "logprob": -1.0, "top_logprobs": top}
    with OllamaDouble(script=[changed(lambda data: data | {"logprobs": [entry]})]) as double:
        (token,) = asked(double).tokens
    assert len(token.alternatives) == 64
    assert token.alternatives[0] == ("Hello", -1.0)
    assert "bad" not in dict(token.alternatives)


def test_tokens_that_are_parts_of_characters_are_told_by_their_bytes() -> None:
    whole = "é".encode()
    entries = [
        {"token": "</think>", "logprob": -0.1},
        {"token": "\ufffd", "logprob": -0.1, "bytes": [whole[0]]},
        {"token": "\ufffd", "logprob": -0.1, "bytes": [whole[1]]},
        {"token": "t\ud800", "logprob": -0.1, "bytes": list(b"t?")},
    ]

    def change(data: dict[str, Any]) -> Any:
        return data | {"message": {"content": "</think>ét\ud800"}, "logprobs": entries}

    with OllamaDouble(script=[changed(change)]) as double:
        reply = asked(double)
    assert reply.text == "ét?"
    assert [token.text for token in reply.tokens] == ["\ufffd", "\ufffd", "t?"]


def test_tokens_that_do_not_spell_the_answer_are_kept_only_without_a_thought() -> None:
    def trimmed(data: dict[str, Any]) -> Any:
        return data | {"message": {"content": "parsed"}}

    def thought(data: dict[str, Any]) -> Any:
        return data | {"message": {"content": "<think>x</think>parsed"}}

    with OllamaDouble(script=[changed(trimmed), changed(thought)]) as double:
        assert spelt(asked(double)) == "Hello"
        assert spelt(asked(double)) == ""


FIELDS = (
    *("message", "content", "thinking", "logprobs", "token", "logprob", "bytes", "top_logprobs"),
    *("done", "error", "done_reason", "prompt_eval_count", "eval_count", "n_ctx"),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["<think>", "</think>", "Hello", "stop", "length"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=24,
)


@given(
    st.integers(200, 599),
    JSON
    | st.fixed_dictionaries(
        {
            "message": st.fixed_dictionaries({"content": st.text(max_size=8) | JSON}),
            "logprobs": JSON | st.lists(JSON, max_size=3),
        }
    ),
)
@settings(max_examples=300, deadline=None)
def test_no_json_whatsoever_escapes_as_another_error(status: int, data: Any) -> None:
    backend = OllamaBackend("127.0.0.1", "m", context=4096, timeout=1)
    answer = Answer(status, data, "")
    with contextlib.suppress(DocClassifyError):
        backend._raise_for(answer)
        reply = read_reply(answer, 4096, "here")
        reply.text.encode()
        for token in reply.tokens:
            token.text.encode()
            assert -math.inf < token.logprob <= 0


# Load.


def test_a_full_queue_is_told_as_busy() -> None:
    with OllamaDouble(slots=1, queue=1, latency=0.5) as double:

        async def run(backend: OllamaBackend) -> list[object]:
            return await asyncio.gather(
                *(backend.chat(QUESTION) for _ in range(4)), return_exceptions=True
            )

        outcomes = use(double, run)
    assert sum(isinstance(one, ChatReply) for one in outcomes) == 2
    busy = [one for one in outcomes if not isinstance(one, ChatReply)]
    assert [type(one) for one in busy] == [ServerBusyError] * 2
    assert all("maximum pending requests exceeded" in str(one) for one in busy)


def test_a_busy_server_that_says_for_how_long() -> None:
    behaviour = failing(503, "server busy", retry_after="7")
    with OllamaDouble(script=[behaviour]) as double, pytest.raises(ServerBusyError) as caught:
        asked(double)
    assert caught.value.retry_after == 7


def test_as_many_requests_are_sent_at_a_time_as_are_asked() -> None:
    with OllamaDouble(slots=16, latency=0.3) as double:

        async def run(backend: OllamaBackend) -> None:
            await asyncio.gather(*(backend.chat(QUESTION) for _ in range(16)))

        start = time.monotonic()
        use(double, run)
        assert time.monotonic() - start < 2
        assert double.most_at_once == 16


def test_a_request_that_is_given_up_frees_its_slot() -> None:
    with OllamaDouble(slots=1, script=[slow(60)]) as double:
        with pytest.raises(ServerError, match="within"):
            asked(double, timeout=0.3)
        assert asked(double).text == "Hello"


def test_a_model_that_takes_its_time_to_load_is_waited_for() -> None:
    with OllamaDouble(load_seconds=1.2) as double:
        assert opened(double, timeout=10).logprobs
        assert double.loads == 1


def test_a_server_that_goes_away_and_comes_back() -> None:
    with OllamaDouble(latency=0.2) as double:

        async def run(backend: OllamaBackend) -> None:
            await backend.open()
            threading.Timer(0.1, double.go_away).start()
            with pytest.raises(ServerError):
                await backend.chat(QUESTION)
            await asyncio.sleep(0.2)
            with pytest.raises(ServerError):
                await backend.alive()
            await asyncio.to_thread(double.come_back)
            await backend.alive()
            assert (await backend.chat(QUESTION)).text == "Hello"

        use(double, run)


def test_a_model_that_is_removed_while_it_is_used() -> None:
    async def run(backend: OllamaBackend) -> None:
        await backend.open()
        double.digests.clear()
        with pytest.raises(ServerSetupError, match="ollama pull"):
            await backend.chat(QUESTION)

    with OllamaDouble() as double:
        use(double, run)


# The double itself.

# https://github.com/ollama/ollama/blob/main/api/types.go: names of the JSON fields of the types
# that the requests and answers are made of.
PUBLISHED = {
    "ChatRequest": "model messages stream format keep_alive tools options think truncate shift "
    "_debug_render_only logprobs top_logprobs",
    "ChatResponse": "model remote_model remote_host created_at message done done_reason "
    "_debug_info logprobs total_duration load_duration prompt_eval_count "
    "prompt_eval_cached_count prompt_eval_duration eval_count eval_duration",
    "Message": "role content thinking images tool_calls tool_name tool_call_id",
    "Logprob": "token logprob bytes top_logprobs",
    "Options": "num_keep seed num_predict top_k top_p min_p typical_p repeat_last_n temperature "
    "repeat_penalty presence_penalty frequency_penalty stop num_ctx num_batch num_gpu main_gpu "
    "use_mmap num_thread",
    "ListModelResponse": "name model remote_model remote_host modified_at size digest details",
    "ProcessModelResponse": "name model size digest details expires_at size_vram context_length",
    "ShowResponse": "license modelfile parameters template system renderer parser details "
    "messages remote_model remote_host model_info projector_info tensors capabilities "
    "modified_at requires",
    "ShowRequest": "model system template verbose options name",
}


def test_requests_and_the_doubles_answers_use_the_published_names() -> None:
    published = {name: set(fields.split()) for name, fields in PUBLISHED.items()}

    async def run(backend: OllamaBackend) -> dict[str, Any]:
        await backend.open()
        client = backend._client
        shown = await client.request("POST", "/api/show", {"model": double.model})
        chat = await client.request("POST", "/api/chat", double.chats[-1])
        listed = await client.request("GET", "/api/tags")
        running = await client.request("GET", "/api/ps")
        return {
            "ShowResponse": shown.data,
            "ChatResponse": chat.data,
            "Message": chat.data["message"],
            "Logprob": chat.data["logprobs"][0],
            "ListModelResponse": listed.data["models"][0],
            "ProcessModelResponse": running.data["models"][0],
        }

    with OllamaDouble(thinks="field") as double:
        used = use(double, run)
        used["ChatRequest"] = double.chats[1]
        used["Options"] = double.chats[1]["options"]
        used["ShowRequest"] = next(one.body for one in double.received if one.path == "/api/show")
    assert "thinking" in used["Message"]
    for name, fields in used.items():
        assert set(fields) <= published[name], name
