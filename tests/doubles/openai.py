"""A double of an OpenAI-compatible server: its protocol over real sockets, with no model behind it.

It runs in a thread of its own, at a free port of the loopback interface::

    with OpenAIDouble(lambda system, user: {"invoice": 0.9, "letter": 0.1}) as double:
        backend = OpenAIBackend(double.url, double.model, context=4096, timeout=5)

For benchmarks, where it must not share a core with what is measured, there is
:func:`tests.doubles.openai_process.double_process`.

Field names, status codes and error texts are those of the servers named by ``kind``: "vllm",
"sglang", "llamacpp" and "openai" (https://platform.openai.com/docs/api-reference/chat/create,
https://docs.vllm.ai, https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

from aiohttp import web
from tests.doubles.ollama import Behaviour, Received, Said, spelling, token_entries
from tests.doubles.openai_errors import answer_limit, error, prompt_tokens, refusal


def failing(status: int, message: str = "boom", *, retry_after: str = "", **more: Any) -> Behaviour:
    """An error as OpenAI gives them; ``more``: further fields of it, as ``code`` and ``param``."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    headers = {"Retry-After": retry_after} if retry_after else {}
    return Behaviour(status, {"error": error | more}, headers)


class OpenAIDouble:
    """A double of an OpenAI-compatible server; use it as a context manager.

    Args:
        answer: (system, user) -> what the model says. Runs in the double's thread.
        kind: whose names and errors it has.
        model: the model that is there, ``others``: further ones.
        any_model: it answers every name with the model that it has, as llama.cpp does.
        api_key: the only key that it takes, None for any or none.
        context: tokens (words, here) of prompt and answer together.
        slots: requests that are worked on at a time, the others wait in order.
        queue: requests that may wait; more are refused with 503.
        latency: seconds that each answer takes in its slot.
        loading: requests that it answers with 503 at first, since it loads its model.
        refuses: fields that it refuses with 400, ``names_fields``: saying so in ``param``.
        ignores: fields that it takes and does nothing with.
        most_logprobs: the greatest ``top_logprobs`` that it takes.
        system_role: the model's template knows system messages.
        thinks: "field", "tags", "untagged" (the template opened the block), "unclosed" or "hidden"
            (told by the usage alone) where the model thinks; ``kept_by``: the field that keeps it
            from it.
        lists: it knows ``/models``.
        script: behaviours for the first chats in the order in which they come; None: as usual.
        faults: behaviours by path, for all requests to it.
        keep: remember the requests, for ``received`` and ``chats``.
    """

    def __init__(
        self,
        answer: Callable[[str, str], Said] | None = None,
        *,
        kind: str = "vllm",
        model: str = "small-model",
        others: Iterable[str] = (),
        any_model: bool = False,
        api_key: str | None = None,
        context: int = 8192,
        slots: int = 4,
        queue: int = 100_000,
        latency: float = 0.0,
        loading: int = 0,
        refuses: Collection[str] = (),
        names_fields: bool = True,
        ignores: Collection[str] = (),
        most_logprobs: int = 20,
        system_role: bool = True,
        thinks: str | None = None,
        kept_by: str | None = None,
        lists: bool = True,
        script: Iterable[Behaviour | None] = (),
        faults: Mapping[str, Behaviour] | None = None,
        keep: bool = True,
    ) -> None:
        self.answer = answer or (lambda _system, _user: "blue")
        self.kind = kind
        self.model = model
        self.models = [model, *others]
        self.any_model = any_model
        self.api_key = api_key
        self.context = context
        self.slots, self.queue, self.latency = slots, queue, latency
        self.loading = loading
        self.refuses, self.names_fields, self.ignores = set(refuses), names_fields, set(ignores)
        self.most_logprobs = most_logprobs
        self.system_role = system_role
        self.thinks, self.kept_by = thinks, kept_by
        self.lists = lists
        self.script = deque(script)
        self.faults = dict(faults or {})
        self.keep = keep
        self.received: list[Received] = []
        self.answered = 0
        self.working = self.most_at_once = self.waiting = 0
        self.port = 0
        self._seen_systems: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    # What a test does with it.

    def __enter__(self) -> OpenAIDouble:
        self._thread.start()
        self._call(self.start())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        """Its address, without the /v1."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def chats(self) -> list[dict[str, Any]]:
        """Bodies of the chat requests, in the order in which they came."""
        return [one.body for one in self.received if one.path == "/v1/chat/completions"]

    def go_away(self) -> None:
        """Close the listener and break every connection, requests in work included."""
        self._call(self._close())

    def come_back(self) -> None:
        """Listen again, at the same port."""
        self._call(self._listen())

    # How it works.

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def start(self) -> None:
        """Begin to listen, in the running loop."""
        self._slots = asyncio.Semaphore(self.slots)
        app = web.Application(client_max_size=64_000_000)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await self._runner.setup()
        await self._listen()

    async def _listen(self) -> None:
        self._site = web.TCPSite(
            self._runner, "127.0.0.1", self.port, reuse_address=True, backlog=4096
        )
        await self._site.start()
        self.port = self._site._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._site is not None:
            await self._site.stop()
            self._site = None
        for connection in list(self._runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)

    async def _stop(self) -> None:
        await self._close()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            return error(400, "invalid JSON")
        if self.keep:
            self.received.append(
                Received(
                    request.method, request.path, body, dict(request.headers), time.monotonic()
                )
            )
        if fault := self.faults.get(request.path):
            return await _send(request, 200, {}, fault)
        if self.api_key is not None and (
            request.headers.get("Authorization") != f"Bearer {self.api_key}"
        ):
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            return error(401, f"Incorrect API key provided: {given}.", code="invalid_api_key")
        if self.loading:
            self.loading -= 1
            return error(503, "Loading model", type="unavailable_error")
        match request.method, request.path:
            case "GET", "/v1/models" if self.lists:
                return web.json_response({"object": "list", "data": self.token_entries()})
            case "GET", "/props" if self.kind == "llamacpp":
                settings = {"n_ctx": self.context}
                return web.json_response(
                    {
                        "default_generation_settings": settings,
                        "total_slots": self.slots,
                        "chat_template": "{{ messages }}",
                        "build_info": "b1234-abcdef",
                    }
                )
            case "GET", "/version" if self.kind == "vllm":
                return web.json_response({"version": "0.15.0"})
            case "GET", "/stats":
                return web.json_response(
                    {"answered": self.answered, "most_at_once": self.most_at_once}
                )
            case "POST", "/v1/chat/completions":
                return await self._chat(request, body)
        return error(404, "Not Found")

    def token_entries(self) -> list[dict[str, Any]]:
        now = int(time.time() * 1000)  # vLLM and llama.cpp tell the time of the request
        entries = []
        for name in self.models:
            entry: dict[str, Any] = {"id": name, "object": "model", "created": now}
            if self.kind == "llamacpp":
                entry |= {"owned_by": "llamacpp", "aliases": ["an-alias"], "meta": _META}
            elif self.kind == "openai":
                entry |= {"owned_by": "system", "created": 1_700_000_000}
            else:
                entry |= {"owned_by": self.kind, "root": name, "max_model_len": self.context}
                entry["permission"] = [{"id": f"modelperm-{now}", "created": now}]
            entries.append(entry)
        return entries

    async def _chat(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        behaviour = (self.script.popleft() if self.script else None) or Behaviour()
        if (refused := refusal(self, body)) is not None and behaviour == Behaviour():
            return refused
        if self._slots.locked() and self.waiting >= self.queue:
            return error(503, "the server is overloaded")
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        self.working += 1
        self.most_at_once = max(self.most_at_once, self.working)
        try:
            data = self._completion(body)
            if (seconds := self.latency + behaviour.delay) > 0:
                await asyncio.sleep(seconds)
            self.answered += 1
            return await _send(request, 200, data, behaviour)
        finally:
            self.working -= 1
            self._slots.release()

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        told = {message["role"]: message["content"] for message in body["messages"]}
        system, user = told.get("system", ""), told["user"]
        schema = None
        if "response_format" in body and "response_format" not in self.ignores:
            schema = body["response_format"]["json_schema"]["schema"]
        said = self.answer(system, user)
        top = body.get("top_logprobs", 0)
        if isinstance(said, str):
            entries = _spoken(said, json.dumps(schema), top)
        else:
            entries = token_entries(spelling(said, schema), top)
        before, after, field = self._thoughts(body)
        hidden = 5 if self.thinks == "hidden" and not self._is_kept(body) else 0
        thoughts = token_entries({before + after: 1.0}, top) if before + after else []
        used = (thoughts + entries)[: answer_limit(body)]
        says = "".join(entry["token"] for entry in used)
        message: dict[str, Any] = {"role": "assistant", "content": says, "refusal": None}
        if field and thoughts:
            message["content"] = says[len(before + after) :] or None
            message["reasoning_content"] = before
        cut = len(used) < len(thoughts + entries)
        choice: dict[str, Any] = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": "length" if cut else "stop",
        }
        if body.get("logprobs") and "logprobs" not in self.ignores:
            choice["logprobs"] = {"content": used}
        seen = system in self._seen_systems
        self._seen_systems.add(system)
        prompt = prompt_tokens(body)
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.model,
            "choices": [choice],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": len(used),
                "total_tokens": prompt + len(used),
                "prompt_tokens_details": {"cached_tokens": len(system.split()) if seen else 0},
                "completion_tokens_details": {"reasoning_tokens": hidden},
            },
        }

    def _is_kept(self, body: dict[str, Any]) -> bool:
        """Whether the request keeps the model from thinking."""
        if self.kept_by == "reasoning_effort":
            return body.get("reasoning_effort") == "none"
        return self.kept_by in body

    def _thoughts(self, body: dict[str, Any]) -> tuple[str, str, bool]:
        """(thoughts, what stands behind them, whether they go into a field of their own)."""
        if not self.thinks or self._is_kept(body):
            return "", "", False
        words = " so it is"
        return {
            "field": (words, "", True),
            "hidden": ("", "", False),
            "tags": (f"<think>{words}", "</think>\n\n", False),
            "untagged": (words, "</think>\n\n", False),
            "unclosed": (f"<think>{words * 200}", "", False),
        }[self.thinks]


_META = {"vocab_type": 2, "n_vocab": 32000, "n_ctx_train": 32768, "n_params": 7, "size": 9}


@lru_cache(maxsize=1000)
def _spoken(said: str, schema: str, top: int) -> list[dict[str, Any]]:
    return token_entries(spelling(said, json.loads(schema)), top)


async def _send(
    request: web.Request, status: int, data: Any, behaviour: Behaviour
) -> web.StreamResponse:
    if behaviour.change is not None:
        data = behaviour.change(data)
    if behaviour.body is not None:
        status, data = behaviour.status, behaviour.body
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    headers = {"Content-Type": "application/json"} | dict(behaviour.headers)
    if not behaviour.cut:
        return web.Response(status=status, body=raw, headers=headers)
    response = web.StreamResponse(
        status=status, headers=headers | {"Content-Length": str(len(raw))}
    )
    await response.prepare(request)
    await response.write(raw[: len(raw) // 2])
    with contextlib.suppress(AttributeError):
        request.transport.abort()
    return response
