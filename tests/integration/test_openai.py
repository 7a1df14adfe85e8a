"""The OpenAI back end against a double that has the habits of many servers."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from aiohttp import web
from tests.doubles.ollama import Behaviour, changed, cut, garbage, html, slow
from tests.doubles.openai import OpenAIDouble, failing
from tests.doubles.openai_process import double_process

from doc_classify.classification.chat import ChatReply, ChatRequest, ServerFacts
from doc_classify.classification.openai import OpenAIBackend
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

SHORT = ChatRequest("Name the kind.", "We bill you 5 EUR.", max_tokens=16, logprobs=True)
SCHEMA = {
    "type": "object",
    "properties": {"category": {"type": "string", "enum": ["letter", "invoice"]}},
    "required": ["category"],
    "additionalProperties": False,
}
IN_JSON = ChatRequest("Name the kind.", "We bill you 5 EUR.", max_tokens=64, schema=SCHEMA)
KEY = "sk-secret-0123456789"

Result = TypeVar("Result")
Work = Callable[[OpenAIBackend], Awaitable[Result]]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in (
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


def use(double: OpenAIDouble, work: Work[Result], **options: Any) -> Result:
    async def run() -> Result:
        options.setdefault("base_url", double.url)
        options.setdefault("model", double.model)
        backend = OpenAIBackend(**{"context": 4096, "timeout": 10, **options})
        try:
            return await work(backend)
        finally:
            await backend.close()

    return asyncio.run(run())


def facts_of(double: OpenAIDouble, **options: Any) -> ServerFacts:
    return use(double, lambda backend: backend.open(), **options)


def replies(
    double: OpenAIDouble, *requests: ChatRequest, **options: Any
) -> tuple[ServerFacts, list[ChatReply]]:
    async def work(backend: OpenAIBackend) -> tuple[ServerFacts, list[ChatReply]]:
        facts = await backend.open()
        return facts, [await backend.chat(request) for request in requests]

    return use(double, work, **options)


def failure_of(double: OpenAIDouble, request: ChatRequest = SHORT) -> DocClassifyError:
    """What a chat raises with the double as it is now, opened before without its script."""

    async def work(backend: OpenAIBackend) -> DocClassifyError:
        script = list(double.script)
        double.script.clear()
        await backend.open()
        double.script.extend(script)
        with pytest.raises(DocClassifyError) as raised:
            await backend.chat(request)
        return raised.value

    return use(double, work)


# What it finds out.


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llamacpp"])
def test_a_local_server_can_do_everything(kind):
    with OpenAIDouble(lambda _s, _u: {"invoice": 0.75, "letter": 0.25}, kind=kind) as double:
        facts, (short, in_json) = replies(double, SHORT, IN_JSON)
    assert (facts.logprobs, facts.schema, facts.thinks) == (True, True, False)
    assert facts.context == 4096
    assert facts.address == f"{double.url}/v1"
    assert facts.model == double.model
    names = {"vllm": "vLLM 0.15.0", "sglang": "SGLang", "llamacpp": "llama.cpp b1234-abcdef"}
    assert facts.server == names[kind]
    assert short.text == "invoice"
    assert short.tokens[0].alternatives[0][1] == pytest.approx(math.log(0.75))
    assert json.loads(in_json.text) == {"category": "invoice"}
    assert double.chats[-2] == {
        "model": "small-model",
        "messages": [
            {"role": "system", "content": "Name the kind."},
            {"role": "user", "content": "We bill you 5 EUR."},
        ],
        "max_tokens": 16,
        "temperature": 0,
        "seed": 1,
        "chat_template_kwargs": {"enable_thinking": False},
        "logprobs": True,
        "top_logprobs": 20,
    }


def test_the_context_is_the_servers_where_that_is_smaller():
    with OpenAIDouble(context=2048) as double:
        assert facts_of(double).context == 2048
    with OpenAIDouble(context=2048, kind="llamacpp") as double:
        assert facts_of(double).context == 2048
    with OpenAIDouble(kind="openai") as double:
        assert facts_of(double).context is None


def test_openai_refuses_what_it_does_not_know():
    refused = ("max_tokens", "temperature")
    with OpenAIDouble(kind="openai", refuses=refused) as double:
        facts, [reply] = replies(double, SHORT)
    assert facts.logprobs and facts.schema
    assert reply.text == "blue"
    sent = double.chats[-1]
    assert sent["max_completion_tokens"] == 16
    assert not {"max_tokens", "temperature", "chat_template_kwargs"} & set(sent)
    assert sent["seed"] == 1


@pytest.mark.parametrize("names", [True, False])
def test_fewer_logprobs_and_then_none(names):
    with OpenAIDouble(most_logprobs=5, names_fields=names) as double:
        facts, _ = replies(double, SHORT)
        assert facts.logprobs
        assert double.chats[-1]["top_logprobs"] == 5
        assert double.chats[-1]["temperature"] == 0
    with OpenAIDouble(refuses=["logprobs"], names_fields=names) as double:
        facts, [reply] = replies(double, SHORT)
        assert not facts.logprobs
        assert reply.tokens == ()
        assert not {"logprobs", "top_logprobs"} & set(double.chats[-1])


def test_a_server_that_says_no_more_than_no_is_asked_for_one_thing_after_the_other():
    refused = ("chat_template_kwargs", "seed", "max_tokens")
    with OpenAIDouble(refuses=refused, names_fields=False) as double:
        facts, _ = replies(double, SHORT)
    assert facts.logprobs and facts.schema
    sent = set(double.chats[-1])
    assert not sent & set(refused)
    assert {"temperature", "max_completion_tokens", "top_logprobs"} <= sent


def test_fields_that_are_ignored_do_not_count_as_understood():
    with OpenAIDouble(ignores=["logprobs", "response_format"]) as double:
        facts, _ = replies(double, SHORT, IN_JSON)
    assert not facts.logprobs
    assert not facts.schema
    assert "response_format" not in double.chats[-1]
    assert "logprobs" not in double.chats[-2]


def test_a_schema_that_is_refused_is_left_out():
    with OpenAIDouble(refuses=["response_format"]) as double:
        facts, _ = replies(double, IN_JSON)
    assert facts.logprobs and not facts.schema
    assert "response_format" not in double.chats[-1]


def test_a_schema_and_logprobs_that_do_not_go_together():
    def refuse(body: dict[str, Any]) -> dict[str, Any]:
        return body

    with OpenAIDouble() as double:
        usual = double._completion

        def completion(body: dict[str, Any]) -> dict[str, Any]:
            if "response_format" in body and "logprobs" in body:
                raise web.HTTPBadRequest(text='{"error": "not both"}')
            return usual(refuse(body))

        double._completion = completion
        both = ChatRequest("s", "u", 16, schema=SCHEMA, logprobs=True)
        facts, (_, in_json) = replies(double, SHORT, both)
    assert facts.logprobs and facts.schema
    assert in_json.tokens == ()
    assert "logprobs" in double.chats[-2] and "logprobs" not in double.chats[-1]


def test_a_template_without_a_system_message():
    with OpenAIDouble(system_role=False) as double:
        facts, _ = replies(double, SHORT)
    assert facts.logprobs and facts.schema
    [message] = double.chats[-1]["messages"]
    assert message == {"role": "user", "content": "Name the kind.\n\nWe bill you 5 EUR."}


@pytest.mark.parametrize("thinks", ["field", "tags", "untagged", "hidden"])
@pytest.mark.parametrize("kept_by", ["chat_template_kwargs", "reasoning_effort"])
def test_a_model_that_can_be_kept_from_thinking_is(thinks, kept_by):
    with OpenAIDouble(thinks=thinks, kept_by=kept_by) as double:
        facts, [reply] = replies(double, SHORT)
    assert not facts.thinks
    assert not reply.thought
    assert (reply.text, len(reply.tokens)) == ("blue", 1)


@pytest.mark.parametrize("thinks", ["field", "tags", "untagged"])
def test_thoughts_are_no_part_of_the_answer(thinks):
    with OpenAIDouble(thinks=thinks) as double:
        facts, [reply] = replies(double, SHORT)
    assert facts.thinks and facts.logprobs
    assert reply.thought and not reply.truncated
    assert reply.text == "blue"
    assert [token.text for token in reply.tokens] == ["blue"]


def test_thoughts_that_do_not_end_leave_no_answer():
    with OpenAIDouble(thinks="unclosed") as double:
        facts, [reply] = replies(double, SHORT)
    assert facts.thinks
    assert (reply.text, reply.tokens) == ("", ())
    assert reply.thought and reply.truncated


def test_openai_says_with_an_error_that_thoughts_took_all_tokens():
    text = (
        "Could not finish the message because max_tokens or model output limit was reached. "
        "Please try again with higher max_tokens."
    )
    with OpenAIDouble(script=[failing(400, text)] * 9, kind="openai") as double:
        facts, [reply] = replies(double, SHORT)
    assert facts.thinks
    assert (reply.text, reply.truncated, reply.thought) == ("", True, True)
    assert reply.usage == Usage(1, 0, 0, SHORT.max_tokens)


# The model.


def test_the_only_model_need_not_be_named():
    with OpenAIDouble() as double:
        assert facts_of(double, model=None).model == "small-model"
    with (
        OpenAIDouble(others=[f"m{number}" for number in range(12)]) as double,
        pytest.raises(ServerSetupError, match=r"13 models: .*small-model, m0, .*and 3 more"),
    ):
        facts_of(double, model=None)
    with OpenAIDouble(lists=False) as double:
        with pytest.raises(ServerSetupError, match="--model"):
            facts_of(double, model=None)
        assert facts_of(double).model == "small-model"


def test_a_model_that_is_not_there():
    with (
        OpenAIDouble(others=["large-model"]) as double,
        pytest.raises(ServerSetupError, match="no model other; it has: small-model, large"),
    ):
        facts_of(double, model="other")
    with (
        OpenAIDouble(any_model=True, kind="llamacpp") as double,
        pytest.raises(ServerSetupError, match="answers with small-model"),
    ):
        facts_of(double, model="other")


def test_a_model_that_goes_away_ends_the_run():
    with OpenAIDouble() as double:

        async def work(backend: OpenAIBackend) -> None:
            await backend.open()
            double.models = ["another"]
            await backend.chat(SHORT)

        with pytest.raises(ServerSetupError, match="no model small-model; it has: another"):
            use(double, work)


def test_an_alias_and_a_name_that_is_not_listed():
    with OpenAIDouble(kind="llamacpp", any_model=True) as double:
        assert facts_of(double, model="an-alias").model == "an-alias"
    with OpenAIDouble(kind="openai", model="gpt-9-2030-01-01", any_model=True) as double:
        facts = facts_of(double, model="gpt-9")
    assert facts.notes == ("the server does not list this model",)


@pytest.mark.parametrize("kind", ["vllm", "llamacpp", "openai"])
def test_the_version_is_the_models_and_not_the_times(kind):
    with OpenAIDouble(kind=kind, others=["b"]) as double:
        first = facts_of(double).version
        assert facts_of(double, context=1000).version == first
        assert facts_of(double, model="b").version != first
    with OpenAIDouble(kind=kind, others=["c"], slots=2, context=3000) as double:
        assert facts_of(double).version == first


# The address and the key.


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_the_address_with_or_without_v1(path):
    with OpenAIDouble() as double:
        assert facts_of(double, base_url=double.url + path).address == f"{double.url}/v1"


@pytest.mark.parametrize(
    "address",
    ["localhost:8000", "ftp://host/v1", "http://", "http://host/v1?key=tops3cret", "http://h:x/"],
)
def test_addresses_that_cannot_be_used(address):
    with pytest.raises(ConfigurationError) as raised:
        OpenAIBackend(address, context=512, timeout=1)
    assert "tops3cret" not in str(raised.value)


def test_without_an_address_nobody_is_asked():
    with pytest.raises(ConfigurationError, match="--base-url or OPENAI_BASE_URL"):
        OpenAIBackend.from_settings(Settings())


def test_the_settings_are_used():
    with OpenAIDouble(api_key=KEY, others=["b"]) as double:
        chosen = Settings(
            openai_base_url=double.url, openai_model="b", openai_api_key=KEY, llm_context=600
        )

        async def work() -> ServerFacts:
            backend = OpenAIBackend.from_settings(chosen)
            assert backend.name == "openai"
            try:
                return await backend.open()
            finally:
                await backend.close()

        facts = asyncio.run(work())
    assert (facts.model, facts.context) == ("b", 600)


def test_a_key_is_never_shown(caplog, capsys):
    caplog.set_level(logging.DEBUG)
    wrong = "sk-wrong-0123456789"
    with OpenAIDouble(api_key=KEY) as double:
        with pytest.raises(ServerSetupError, match=r"401.*Incorrect API key provided: \*\*\*"):
            facts_of(double, api_key=wrong)
        backend = OpenAIBackend(double.url, api_key=KEY, context=512, timeout=1)
        shown = repr(backend) + str(vars(backend).get("address")) + caplog.text
    shown += "".join(capsys.readouterr())
    assert KEY not in shown and wrong not in shown


@pytest.mark.parametrize("key", ["0", "null", "e", '"', "\\", "true", "{}"])
def test_a_short_key_changes_no_message_and_breaks_nothing(key):
    with OpenAIDouble(script=[failing(500, 'one reason, "0" and null')], api_key=key) as double:

        async def work(backend: OpenAIBackend) -> str:
            with pytest.raises(ServerError) as raised:
                await backend.chat(SHORT)
            return str(raised.value)

        assert use(double, work, api_key=key).endswith('HTTP 500: one reason, "0" and null')


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(body={"error": {"message": f"upstream refused {KEY}"}}),
        Behaviour(body={"error": f"upstream refused {KEY}"}),
        Behaviour(body={"error": f"upstream refused {KEY}", "choices": [{"message": {}}]}),
        Behaviour(502, f"<html>{KEY}</html>".encode()),
        Behaviour(500, b"x" * 3_990 + KEY.encode()),
        failing(400, f"no {KEY}", param=KEY),
        changed(lambda data: data | {"choices": [{"message": {"refusal": f"not {KEY}"}}]}),
    ],
)
def test_no_error_repeats_the_key(behaviour):
    with OpenAIDouble(script=[behaviour]) as double:

        async def work(backend: OpenAIBackend) -> str:
            try:
                return str(await backend.chat(SHORT))
            except DocClassifyError as error:
                return str(error)

        said = use(double, work, api_key=KEY)
    assert KEY[:9] not in said


def test_a_key_in_the_path_of_the_address_is_sent_but_not_shown():
    key = "c0ffee1234567890abcdef"
    with OpenAIDouble(faults={f"/{key}/v1/models": failing(500, f"/{key}/v1/models")}) as double:
        with pytest.raises(ServerError) as raised:
            facts_of(double, base_url=f"{double.url}/{key}/v1")
        assert "/***/v1: HTTP 500: /***/v1/models" in str(raised.value)
        double.go_away()
        for path, secret in [(key, None), ("my-key-is-me", "my-key-is-me")]:
            with pytest.raises(ServerError) as raised:
                facts_of(double, base_url=f"{double.url}/{path}", api_key=secret)
            assert path not in str(raised.value) and "/***" in str(raised.value)


def test_a_key_that_is_also_a_name_leaves_names_as_they_are():
    with OpenAIDouble(model="lm-studio", api_key="lm-studio") as double:
        facts = facts_of(double, model=None, api_key="lm-studio")
    assert facts.model == "lm-studio"


@pytest.mark.parametrize("key", ["sk-\nabc", "schlüssel"])
def test_a_key_that_no_header_can_carry(key):
    with pytest.raises(ConfigurationError) as raised:
        OpenAIBackend("http://localhost", api_key=key, context=512, timeout=1)
    assert key not in str(raised.value)


def test_a_password_in_the_address_is_sent_but_not_shown():
    with OpenAIDouble() as double:
        address = double.url.replace("//", "//me:pass%C3%A4@")
        facts = facts_of(double, base_url=address)
        sent = double.received[0].headers["Authorization"]
        with pytest.raises(ConfigurationError, match="user name"):
            facts_of(double, base_url=address, api_key=KEY)
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == "me:passä"
    assert facts.address == f"{double.url}/v1"


def test_a_proxy_of_the_environment_is_used(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    nobody = "http://127.0.0.1:1"
    with OpenAIDouble() as double:
        monkeypatch.setenv("http_proxy", double.url.replace("//", "//me:word@"))
        facts_of(double, base_url=nobody, api_key=KEY)
        headers = double.received[-1].headers
        assert headers["Host"] == "127.0.0.1:1"
        assert headers["Authorization"] == f"Bearer {KEY}"
        assert headers["Proxy-Authorization"] == "Basic bWU6d29yZA=="
        with pytest.raises(ServerError, match="no answer"):
            facts_of(double, base_url=nobody, trust_env=False)
        for exempt in ("127.0.0.1", "127.0.0.1:1"):
            monkeypatch.setenv("no_proxy", exempt)
            with pytest.raises(ServerError, match="no answer"):
                facts_of(double, base_url=nobody)


def test_a_proxy_before_an_encrypted_server_does_not_see_the_key(monkeypatch):
    asked = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def work() -> str:
        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
            port = proxy.sockets[0].getsockname()[1]
            monkeypatch.setenv("https_proxy", f"http://me:word@127.0.0.1:{port}")
            backend = OpenAIBackend("https://127.0.0.1:1", api_key=KEY, context=512, timeout=5)
            with pytest.raises(ServerError) as raised:
                await backend.alive()
            await backend.close()
        return str(raised.value)

    said = asyncio.run(work())
    [head] = asked
    assert head.startswith("CONNECT 127.0.0.1:1 ")
    assert "Proxy-Authorization: Basic bWU6d29yZA==" in head
    assert KEY not in head
    assert "407" in said and "word" not in said


# What a server may answer.


def test_usage_is_counted():
    with OpenAIDouble() as double:
        _, (first, again) = replies(double, SHORT, SHORT)
    assert (first.usage.calls, first.usage.completion_tokens) == (1, 1)
    assert first.usage.prompt_tokens == 8 + 3 + 5
    assert (first.usage.cached_tokens, again.usage.cached_tokens) == (0, 3)


def test_an_answer_that_is_cut_is_told():
    with OpenAIDouble(lambda _s, _u: "a long answer") as double:
        _, [reply] = replies(double, ChatRequest("s", "u", max_tokens=2))
    assert reply.truncated
    assert reply.text == "a long"


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llamacpp", "openai"])
def test_a_prompt_that_is_too_long(kind):
    with OpenAIDouble(kind=kind, context=400) as double:
        error = failure_of(double, ChatRequest("s", "word " * 500, max_tokens=16))
    assert isinstance(error, ContextExceededError)
    assert (error.tokens, error.limit) == (8 + 1 + 500, 400)


@pytest.mark.parametrize(
    ("behaviour", "kind", "says"),
    [
        (failing(400, "the prompt is offensive", code="content_filter"), RefusedError, "offens"),
        (failing(422, "cannot be processed"), RefusedError, "cannot be"),
        (failing(400, "no seed", param="seed"), ServerSetupError, "no longer takes the field seed"),
        (failing(401, "no such key"), ServerSetupError, "no such key"),
        (failing(407, "who are you"), ServerSetupError, "who are you"),
        (failing(402, "pay first"), ServerSetupError, "pay first"),
        (failing(404, "not here"), ServerSetupError, "is this the address of a chat server"),
        (failing(429, "over", code="insufficient_quota"), ServerSetupError, "over"),
        (failing(429, "slow down", retry_after="3"), ServerBusyError, "slow down"),
        (failing(503, "overloaded"), ServerBusyError, "overloaded"),
        (failing(500, "boom"), ServerError, "boom"),
        (html(502), ServerError, "502"),
        (garbage(), ServerError, "NoneType in place of Mapping"),
        (cut(), ServerError, "no answer"),
        (Behaviour(307, b"", {"Location": "http://elsewhere.invalid"}), ServerSetupError, "307"),
        (Behaviour(body={"error": {"code": 429, "message": "slow"}}), ServerBusyError, "slow"),
        (Behaviour(body={"error": {"message": "upstream"}}), ServerError, "upstream"),
        (Behaviour(body={"choices": []}), ServerError, "Mapping"),
        (Behaviour(body=[]), ServerError, "list in place of Mapping"),
    ],
)
def test_faults_of_a_server(behaviour, kind, says):
    with OpenAIDouble(script=[behaviour]) as double:
        error = failure_of(double)
    assert type(error) is kind
    assert says in str(error)
    if behaviour.headers.get("Retry-After"):
        assert error.retry_after == 3.0


def choice(**fields: Any) -> Behaviour:
    def change(data: dict[str, Any]) -> dict[str, Any]:
        chosen = data["choices"][0]
        chosen.update({key: value for key, value in fields.items() if key in chosen})
        chosen["message"] |= {key: value for key, value in fields.items() if key not in chosen}
        return data

    return changed(change)


def test_the_model_or_a_filter_may_refuse():
    with OpenAIDouble(script=[choice(content=None, refusal="I can't\nhelp.")]) as double:
        error = failure_of(double)
    assert isinstance(error, RefusedError) and "I can't help." in str(error)
    assert error.usage == Usage(1, 16, 0, 1)
    with OpenAIDouble(script=[choice(finish_reason="content_filter")]) as double:
        error = failure_of(double)
    assert isinstance(error, RefusedError)
    assert error.usage == Usage(1, 16, 0, 1)


FLAGGED = {"reasons": ["violence"], "flagged_input": "We bill", "provider_name": "X"}


@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("metadata", [FLAGGED, {"flagged_input": "We bill"}, {"reasons": []}])
def test_a_403_about_the_document_stops_no_run(status, metadata):
    said = {"error": {"code": 403, "message": "your input was flagged", "metadata": metadata}}
    with OpenAIDouble(script=[Behaviour(status, said)]) as double:
        error = failure_of(double)
    assert type(error) is RefusedError
    assert "flagged" in str(error) and "We bill" not in str(error)
    assert error.usage is None
    with OpenAIDouble(script=[failing(403, "not for you", metadata={"raw": 1})]) as double:
        assert type(failure_of(double)) is ServerSetupError


@pytest.mark.parametrize("listed", [[], {}, {"data": [None, {"id": 5}, {}]}, {"data": 3}, "x"])
def test_a_list_of_models_that_is_none(listed):
    with (
        OpenAIDouble(faults={"/v1/models": Behaviour(body=listed)}) as double,
        pytest.raises(ServerSetupError),
    ):
        facts_of(double, model=None)


def test_a_server_that_is_none_of_a_chat_protocol():
    with (
        OpenAIDouble(lists=False, faults={"/v1/chat/completions": html(404)}) as double,
        pytest.raises(ServerSetupError, match="404"),
    ):
        facts_of(double)
    with OpenAIDouble(faults={"/v1/chat/completions": failing(400, "go away")}) as double:
        with pytest.raises(ServerSetupError, match=r"takes no chat request: .*go away"):
            facts_of(double)
        assert len(double.chats) < 10
    with (
        OpenAIDouble(faults={"/v1/chat/completions": failing(500, "broken")}) as double,
        pytest.raises(ServerError, match="broken"),
    ):
        facts_of(double)


def test_nonsense_about_the_model_is_left_out():
    entry = {"id": "small-model", "owned_by": [], "aliases": 3, "root": {"a": [1]}}
    more = {"max_model_len": math.nan, "meta": {"n_ctx": "x", "size": []}}
    listed = Behaviour(body={"data": [entry | more]})
    with OpenAIDouble(faults={"/v1/models": listed}) as double:
        assert facts_of(double, model=None).context is None
    props = Behaviour(body={"default_generation_settings": 7, "build_info": 3, "chat_template": []})
    with OpenAIDouble(kind="llamacpp", faults={"/props": props}) as double:
        facts = facts_of(double)
    assert (facts.context, facts.server) == (None, "llama.cpp")


# Time.


def test_it_waits_for_a_server_that_loads_its_model():
    with OpenAIDouble(kind="llamacpp", loading=2) as double:
        assert facts_of(double).schema
    with (
        OpenAIDouble(kind="llamacpp", loading=10**9) as double,
        pytest.raises(ServerBusyError, match="Loading model"),
    ):
        facts_of(double, timeout=0.8)


def test_facts_that_a_busy_server_keeps_back_are_waited_for():
    busy = {"/props": failing(503, "later")}
    with (
        OpenAIDouble(kind="llamacpp", faults=busy) as double,
        pytest.raises(ServerBusyError, match="later"),
    ):
        facts_of(double, timeout=0.6)


def test_an_answer_that_takes_too_long():
    with (
        OpenAIDouble(script=[slow(30)] * 2) as double,
        pytest.raises(ServerError, match=r"did not answer within 0\.3 s") as raised,
    ):
        facts_of(double, timeout=0.3)
    assert raised.value.timed_out and not raised.value.unreachable


def test_whether_it_is_alive():
    with OpenAIDouble() as double:

        async def work(backend: OpenAIBackend) -> None:
            await backend.open()
            await backend.alive()
            double.go_away()
            with pytest.raises(ServerError):
                await backend.alive()
            with pytest.raises(ServerError):
                await backend.chat(SHORT)
            double.come_back()
            await backend.alive()
            assert (await backend.chat(SHORT)).text == "blue"
            double.lists = False
            with pytest.raises(ServerSetupError):
                await backend.alive()
            await backend.close()
            await backend.close()

        use(double, work)
    with OpenAIDouble(lists=False) as double:
        use(double, lambda backend: backend.alive())


def test_the_double_works_on_as_many_requests_as_it_has_slots():
    async def work(url: str) -> Any:
        backend = OpenAIBackend(url, context=4096, timeout=10)
        try:
            await backend.open()
            answers = await asyncio.gather(*(backend.chat(SHORT) for _ in range(12)))
            assert {answer.text for answer in answers} == {"invoice"}
            return await backend._extra("/stats")
        finally:
            await backend.close()

    with double_process(slots=3, latency=0.02, says="invoice") as url:
        stats = asyncio.run(work(url))
    assert stats == {"answered": 14, "most_at_once": 3}
