"""A double of an Ollama server: its protocol over real sockets, with no model behind it.

It runs in a thread of its own, on loopback, at a port that is free::

    with OllamaDouble(lambda system, user: {"invoice": 0.9, "letter": 0.1}) as double:
        backend = OllamaBackend(double.url, double.model, context=4096, timeout=5)

Field names, status codes and error texts are those of Ollama (https://docs.ollama.com/api,
https://github.com/ollama/ollama/blob/main/api/types.go); the version that it is given decides what
it can do, as it does with Ollama. What it says is up to the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Said = str | Mapping[str, float]
"""One text, or the texts (names of categories) that the model might say, with probabilities."""

TEMPLATE_TOKENS = 8
"""Tokens that the double counts for a prompt besides its words."""
_CREATED = "2026-01-02T03:04:05.678901234Z"
_DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "llama",
    "families": ["llama"],
    "parameter_size": "3.2B",
    "quantization_level": "Q4_K_M",
}
_TOKEN = re.compile(r"\s*\w{1,6}|\s*[^\w\s]|\s+")


class Raw(str):
    """A text that the model says letter by letter, whatever schema it was given."""


@dataclass(frozen=True)
class Behaviour:
    """What the double does with one request in place of what it should.

    Attributes:
        status, body, headers: sent in place of the answer; bytes as they are, else as JSON.
        delay: seconds of work more, in the slot.
        cut: the connection breaks in the middle of the answer.
        change: makes another of the answer (a dict, parsed JSON) that it would give.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False
    change: Callable[[dict[str, Any]], Any] | None = None


def failing(status: int, error: str = "boom", **headers: str) -> Behaviour:
    """An error as Ollama gives them; ``retry_after="3"`` becomes the header Retry-After."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    return Behaviour(status, {"error": error}, named)


def html(status: int = 502) -> Behaviour:
    """The error page of a proxy."""
    page = b"<html><head><title>Bad Gateway</title></head><body>nginx</body></html>"
    return Behaviour(status, page, {"Content-Type": "text/html"})


def garbage(body: bytes = b'{"message": {"content": ') -> Behaviour:
    """A complete answer that is no JSON."""
    return Behaviour(body=body)


def slow(seconds: float) -> Behaviour:
    """The right answer, late."""
    return Behaviour(delay=seconds)


def cut() -> Behaviour:
    """Half an answer, then nothing."""
    return Behaviour(cut=True)


def changed(change: Callable[[dict[str, Any]], Any]) -> Behaviour:
    """The answer that ``change`` makes of the right one."""
    return Behaviour(change=change)


def without(*names: str) -> Behaviour:
    """The right answer, less these fields."""
    return changed(lambda data: {key: value for key, value in data.items() if key not in names})


@dataclass(frozen=True)
class Received:
    """A request as it came: ``body`` is parsed JSON, ``at`` a monotonic time in seconds."""

    method: str
    path: str
    body: Any
    headers: Mapping[str, str]
    at: float


class OllamaDouble:
    """A double of an Ollama server; use it as a context manager.

    Args:
        answer: (system, user) -> what the model says. Runs in the double's thread.
        model: the model that is there, ``others``: further ones.
        version: of Ollama. Before 0.5 no schemas; before 0.12.6 long prompts are cut without a
            word; from 0.12.11 log-probabilities; from 0.30 llama.cpp's own error for long prompts;
            from 0.34 cached tokens are told.
        trained_context: the longest context of the model, in tokens (words, here).
        capabilities: as /api/show tells them; empty as with old versions.
        slots: requests that are worked on at a time, the others wait in order.
        queue: requests that may wait; more are refused with 503.
        latency: seconds that each answer takes in its slot.
        load_seconds: and the one that loads the model.
        thinks: "field", "tags" or "untagged" (the template opened the block) where the model
            thinks aloud whatever it is told; it then spends ``thinking_tokens``.
        follows_schema: the server obeys ``format``.
        gpu_share: part of the model in GPU memory.
        remote_host: the model is not here but there.
        script: behaviours for the first chats in the order in which they come; None: as usual.
        faults: behaviours by path, for all requests to it.
    """

    def __init__(
        self,
        answer: Callable[[str, str], Said] | None = None,
        *,
        model: str = "llama3.2:3b",
        others: Iterable[str] = (),
        version: str = "0.34.1",
        trained_context: int = 131_072,
        capabilities: Iterable[str] = ("completion", "tools"),
        slots: int = 4,
        queue: int = 512,
        latency: float = 0.0,
        load_seconds: float = 0.0,
        thinks: str | None = None,
        thinking_tokens: int = 40,
        follows_schema: bool = True,
        gpu_share: float = 1.0,
        remote_host: str = "",
        script: Iterable[Behaviour | None] = (),
        faults: Mapping[str, Behaviour] | None = None,
    ) -> None:
        self.answer = answer or (lambda _system, _user: "Hello")
        self.model = model
        self.digests = {name: f"{number:064x}" for number, name in enumerate([model, *others], 1)}
        self.version = version
        self.trained_context = trained_context
        self.capabilities = list(capabilities)
        self.slots, self.queue = slots, queue
        self.latency, self.load_seconds = latency, load_seconds
        self.thinks, self.thinking_tokens = thinks, thinking_tokens
        self.follows_schema = follows_schema
        self.gpu_share = gpu_share
        self.remote_host = remote_host
        self.script = deque(script)
        self.faults = dict(faults or {})
        self.received: list[Received] = []
        self.loads = 0
        self.working = self.most_at_once = self.waiting = 0
        self.port = 0
        self._loaded_context: int | None = None
        self._seen_systems: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    # What a test does with it.

    def __enter__(self) -> OllamaDouble:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def chats(self) -> list[dict[str, Any]]:
        """Bodies of the requests to /api/chat, in the order in which they came."""
        return [one.body for one in self.received if one.path == "/api/chat"]

    def go_away(self) -> None:
        """Close the listener and break every connection, requests in work included."""
        self._call(self._close())

    def come_back(self) -> None:
        """Listen again, at the same port."""
        self._call(self._listen())

    # How it works.

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self) -> None:
        self._slots = asyncio.Semaphore(self.slots)
        app = web.Application(client_max_size=64_000_000)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # As Ollama does: a request whose client has gone is given up.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await self._runner.setup()
        await self._listen()

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await self._site.start()
        self.port = self._site._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._site is not None:
            # First let what was just accepted become a connection: Python 3.11 fails over one
            # whose server was closed in between, and leaves its socket open.
            for listener in self._site._server.sockets:
                self._loop.remove_reader(listener.fileno())
            await asyncio.sleep(0.02)
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
            return web.json_response({"error": "invalid request body"}, status=400)
        self.received.append(
            Received(request.method, request.path, body, dict(request.headers), time.monotonic())
        )
        if fault := self.faults.get(request.path):
            return await self._send(request, 200, {}, fault)
        match request.method, request.path:
            case "GET", "/api/version":
                return web.json_response({"version": self.version})
            case "GET", "/api/tags":
                return web.json_response({"models": [self._listed(one) for one in self.digests]})
            case "GET", "/api/ps":
                return web.json_response({"models": self._running()})
            case "POST", "/api/show":
                return self._show(body)
            case "POST", "/api/chat":
                return await self._chat(request, body)
        return web.Response(status=404, text="404 page not found")

    def _find(self, name: str) -> str | None:
        name = name.casefold()
        full = name if ":" in name else f"{name}:latest"
        return next((there for there in self.digests if there.casefold() == full), None)

    def _listed(self, name: str) -> dict[str, Any]:
        entry = {
            "name": name,
            "model": name,
            "modified_at": _CREATED,
            "size": 2_019_393_189,
            "digest": self.digests[name],
            "details": _DETAILS,
        }
        return entry | ({"remote_host": self.remote_host} if self.remote_host else {})

    def _running(self) -> list[dict[str, Any]]:
        if self._loaded_context is None:
            return []
        size = 3_000_000_000
        entry = self._listed(self.model) | {
            "size": size,
            "size_vram": int(size * self.gpu_share),
            "expires_at": _CREATED,
            "context_length": self._loaded_context,
        }
        return [{key: value for key, value in entry.items() if key != "modified_at"}]

    def _show(self, body: Mapping[str, Any]) -> web.Response:
        name = self._find(body.get("model") or body.get("name") or "")
        if name is None:
            return _error(404, f"model '{body.get('model')}' not found")
        shown: dict[str, Any] = {
            "modelfile": f"FROM {name}\n",
            "parameters": 'stop "<|eot_id|>"',
            "template": "{{ .System }}{{ .Prompt }}",
            "details": _DETAILS,
            "model_info": {
                "general.architecture": "llama",
                "llama.context_length": self.trained_context,
            },
            "modified_at": _CREATED,
        }
        if self.capabilities:
            shown["capabilities"] = self.capabilities
        return web.json_response(shown)

    async def _chat(self, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        behaviour = (self.script.popleft() if self.script else None) or Behaviour()
        if self._find(body["model"]) is None:
            return _error(404, f"model '{body['model']}' not found")
        if self.capabilities and "completion" not in self.capabilities:
            return _error(400, f'"{body["model"]}" does not support chat')
        if body.get("think") and "thinking" not in self.capabilities:
            return _error(400, f'"{body["model"]}" does not support thinking')
        if not 0 <= body.get("top_logprobs", 0) <= 20:
            return _error(400, "top_logprobs must be between 0 and 20")
        if self._slots.locked() and self.waiting >= self.queue:
            return _error(503, "server busy, please try again.  maximum pending requests exceeded")
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        self.working += 1
        self.most_at_once = max(self.most_at_once, self.working)
        try:
            await self._load(body)
            status, data = self._answered(body)
            await asyncio.sleep(self.latency + behaviour.delay)
            return await self._send(request, status, data, behaviour)
        finally:
            self.working -= 1
            self._slots.release()

    async def _load(self, body: Mapping[str, Any]) -> None:
        context = min(body.get("options", {}).get("num_ctx", 4096), self.trained_context)
        if context != self._loaded_context:
            self.loads += 1
            await asyncio.sleep(self.load_seconds)
            self._loaded_context = context

    def _answered(self, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON that Ollama gives for this request."""
        told = {message["role"]: message["content"] for message in body["messages"]}
        system, user = told.get("system", ""), told["user"]
        context = self._loaded_context
        prompt = len(system.split()) + len(user.split()) + TEMPLATE_TOKENS
        if prompt >= context:
            if self._can(0, 12, 6) and body.get("truncate") is False:
                return 400, {"error": self._too_long(prompt, context)}
            words = f"{system} {user}".split()
            user = " ".join(words[:4] + words[4 + len(words) - context :])
            system, prompt = "", context
        schema = body.get("format") if self.follows_schema and self._can(0, 5) else None
        spelt = spelling(self.answer(system, user), schema)
        top = body.get("top_logprobs", 0)
        entries = token_entries(spelt, top)
        thinking = self._thoughts(schema)
        thoughts = token_entries({thinking: 1.0}, top) if thinking else []
        most = body.get("options", {}).get("num_predict", -1)
        used = thoughts + entries
        if 0 <= most < len(used):
            used = used[:most]
        says = "".join(entry["token"] for entry in used)
        message: dict[str, Any] = {"role": "assistant", "content": says}
        if self.thinks == "field" and thinking:
            message["content"] = says[len(thinking) :]
            message["thinking"] = says[: len(thinking)]
        data = {
            "model": body["model"],
            "created_at": _CREATED,
            "message": message,
            "done": True,
            "done_reason": "length" if len(used) < len(thoughts + entries) else "stop",
            "total_duration": 5_000_000,
            "load_duration": 1_000_000,
            "prompt_eval_count": prompt,
            "prompt_eval_duration": 2_000_000,
            "eval_count": len(used),
            "eval_duration": 2_000_000,
        }
        if body.get("logprobs") and self._can(0, 12, 11):
            data["logprobs"] = used
        if self._can(0, 34):
            seen = system in self._seen_systems
            data["prompt_eval_cached_count"] = len(system.split()) if seen else 0
        self._seen_systems.add(system)
        return 200, data

    def _thoughts(self, schema: Any) -> str:
        if not self.thinks or (self.thinks != "field" and schema):
            return ""  # a schema lets no tags through
        words = "".join(f" so{number}" for number in range(self.thinking_tokens))
        return {
            "field": words,
            "tags": f"<think>{words}</think>\n",
            "untagged": f"{words}</think>\n",
        }[self.thinks]

    def _too_long(self, prompt: int, context: int) -> str:
        if not self._can(0, 30):
            return "the input length exceeds the context length"
        message = (
            f"request ({prompt} tokens) exceeds the available context size ({context} tokens), "
            "try increasing it"
        )
        error = {
            "code": 400,
            "message": message,
            "type": "exceed_context_size_error",
            "n_prompt_tokens": prompt,
            "n_ctx": context,
        }
        return json.dumps({"error": error})

    def _can(self, *version: int) -> bool:
        return tuple(int(part) for part in self.version.split(".")[:3]) >= version

    async def _send(
        self, request: web.Request, status: int, data: Any, behaviour: Behaviour
    ) -> web.StreamResponse:
        if behaviour.change is not None:
            data = behaviour.change(data)
        if behaviour.body is not None:
            status, data = behaviour.status, behaviour.body
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        headers = {"Content-Type": "application/json; charset=utf-8"} | dict(behaviour.headers)
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


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


def tokens_of(text: str) -> list[str]:
    """The double's tokens: at most six letters or one sign, with the blank before them."""
    return _TOKEN.findall(text)


def spelling(said: Said, schema: Any) -> dict[str, float]:
    """What the model might say, letter by letter, with probabilities."""
    if isinstance(said, Raw) or (isinstance(said, str) and schema is None):
        return {str(said): 1.0}
    chances = {said: 1.0} if isinstance(said, str) else dict(said)
    if schema is None:
        return chances
    spelt: dict[str, float] = defaultdict(float)
    for name, chance in chances.items():
        spelt[json.dumps(_in_schema(schema, name), ensure_ascii=False)] += chance
    return spelt


def _in_schema(schema: Mapping[str, Any], name: str) -> Any:
    """A value that the schema allows; the name where it does, else the first choice."""
    if "enum" in schema:
        return name if name in schema["enum"] else schema["enum"][0]
    if schema.get("type") == "object":
        return {key: _in_schema(part, name) for key, part in schema["properties"].items()}
    return {"string": "It says so.", "boolean": True}.get(schema.get("type"), 0)


def token_entries(spelt: Mapping[str, float], top: int) -> list[dict[str, Any]]:
    """The tokens of the likeliest text, each with the tokens that might stand in its place."""
    possible = [(tokens_of(text), chance) for text, chance in spelt.items() if chance > 0]
    best, _ = max(possible, key=lambda one: one[1])
    entries = []
    for place, token in enumerate(best):
        shares: dict[str, float] = defaultdict(float)
        for tokens, chance in possible:
            if len(tokens) > place:
                shares[tokens[place]] += chance
        total = sum(shares.values())
        ranked = sorted(
            (_entry(text, share / total) for text, share in shares.items()),
            key=lambda entry: -entry["logprob"],
        )
        entry = _entry(token, shares[token] / total)
        if top:
            entry["top_logprobs"] = ranked[:top]
        entries.append(entry)
        possible = [one for one in possible if len(one[0]) > place and one[0][place] == token]
    return entries


def _entry(token: str, share: float) -> dict[str, Any]:
    return {"token": token, "logprob": math.log(share), "bytes": list(token.encode())}
