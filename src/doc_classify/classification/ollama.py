"""The chat back end for Ollama, by its native protocol.

Documented at https://docs.ollama.com/api and, where that is silent (``truncate``, error texts), by
the types and handlers of the program itself: https://github.com/ollama/ollama/blob/main/api/types.go
and server/routes.go.

The native protocol and not Ollama's OpenAI-compatible one, because only it takes the length of the
context, refuses prompts that do not fit, and gives log-probabilities.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from doc_classify.classification.chat import ChatReply, ChatRequest, ServerFacts, Token
from doc_classify.classification.http import Answer, JsonClient, count, raise_for
from doc_classify.errors import (
    ConfigurationError,
    ContextExceededError,
    ServerError,
    ServerSetupError,
)
from doc_classify.records import Usage
from doc_classify.settings import Settings
from doc_classify.terminal import one_line

_PORT = "11434"
_PORTS = {"http": "80", "https": "443"}
"""What Ollama itself takes OLLAMA_HOST to mean where it has a scheme and no port."""
_ALIVE_SECONDS = 5.0
_ALTERNATIVES = 20
"""Alternatives of a token; Ollama refuses to give more."""
_MARGIN = 4
"""A prompt that ends so few tokens before the context does has been cut."""
_LISTED = 10
_PROBE_TOKENS, _THINKING_TOKENS = 16, 1_024
_PROBE_ANSWERS = ("QX7", "ZK4")
"""No model says these to a greeting, unless a schema makes it."""
_PROBE_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": list(_PROBE_ANSWERS)}},
    "required": ["answer"],
    "additionalProperties": False,
}
_SAMPLING = {
    # Every one of them, since a model may bring its own.
    "seed": 1,
    "temperature": 0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
_TOO_LONG = re.compile(
    r"exceeds (?:the )?(?:available |model's )?(?:maximum )?context"
    r"|longer than the context|larger than the max context|exceed_context_size",
    re.IGNORECASE,
)
"""Wordings of Ollama (0.12 and on), of the llama.cpp inside it (0.30 and on) and of its MLX."""
_TOKENS = re.compile(r"\((\d{1,9}) tokens\)")
_FORMAT_REFUSED = re.compile(r"schema|grammar|format", re.IGNORECASE)
_THINK_REFUSED = re.compile(r"\bthink(?:ing)?\b", re.IGNORECASE)
_BEYOND_REPAIR = re.compile(
    r"requires more system memory|does not support (?:chat|generate|completion)"
    r"|(?:unknown|unsupported) model architecture|not supported by your version"
    r"|unable to load model|error loading model|invalid model name|model is required",
    re.IGNORECASE,
)
_THINK, _THOUGHT = "<think>", "</think>"


class OllamaBackend:
    """One model of one Ollama server. Belongs to the event loop that opened it.

    Args:
        host: where the server is, in every form that ``OLLAMA_HOST`` has.
        model: name of the model, with or without its tag.
        context: tokens that prompt and answer may have together; what the server is asked for.
        timeout: seconds for one answer, loading the model and waiting in the queue included.

    Raises:
        ConfigurationError: the address cannot be used.
    """

    name = "ollama"

    def __init__(self, host: str, model: str, *, context: int, timeout: float) -> None:
        self._client = JsonClient(server_url(host), timeout=timeout)
        self._model = model
        self._context = context
        self._send_think = True

    @classmethod
    def from_settings(cls, settings: Settings) -> OllamaBackend:
        """The back end that the settings describe, not yet opened.

        Raises:
            ConfigurationError: the address cannot be used.
        """
        return cls(
            settings.ollama_host,
            settings.ollama_model,
            context=settings.llm_context,
            timeout=settings.llm_timeout,
        )

    async def open(self) -> ServerFacts:
        """Find the model, load it with two tiny questions, and see what the server makes of them.

        One is without a schema, since a schema keeps a model from thinking aloud, and one with it.

        Raises:
            ServerError: the server does not answer.
            ServerSetupError: it answers, but cannot be used: no Ollama, model missing, model too
                large for the machine or not for chat.
        """
        version = await self._version()
        listed = await self._listed()
        shown = await self._shown()
        own = _context_of(shown)
        if own is not None:
            self._context = min(self._context, own)
        free, _ = await self._probe(schema=False)
        if (
            free.truncated and not free.thought
        ):  # that was no word: perhaps a thought without <think>
            free, _ = await self._probe(schema=False, thinks=True)
        formed, refused = await self._probe(schema=True, thinks=free.thought)
        logprobs = bool(free.tokens or formed.tokens)
        return ServerFacts(
            address=self._client.address,
            model=self._model,
            version=_text(listed.get("digest")) or _digest(shown),
            context=self._context,
            logprobs=logprobs,
            schema=not refused and _follows(formed.text),
            thinks=free.thought or formed.thought,
            on_gpu=await self._on_gpu(),
            server=f"Ollama {version}",
            remote_host=_remote_host(listed, shown),
            notes=_notes(version, logprobs=logprobs),
        )

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Ask one question (``POST /api/chat``).

        Raises:
            ServerBusyError: the server's queue is full.
            ServerError: it cannot be reached, broke off, took too long, or answered nonsense.
            ContextExceededError: the prompt is too long, or the server has cut it.
            RefusedError: it refuses this very request.
            ServerSetupError: the model is gone, or cannot be loaded.
        """
        answer = await self._post(request)
        self._raise_for(answer)
        return self._reply(answer)

    async def alive(self) -> None:
        """Ask for the server's version, which costs nothing.

        Raises:
            ServerError: it does not answer within five seconds.
            ServerSetupError: what answers is no Ollama.
        """
        await self._version()

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._client.close()

    async def _version(self) -> str:
        try:
            answer = await self._client.request("GET", "/api/version", timeout=_ALIVE_SECONDS)
        except ServerError as error:
            raise ServerError(
                f"{error}. Is Ollama running there? It is started with: ollama serve",
                unreachable=error.unreachable,
            ) from error
        raise_for(answer, self._client.address)
        version = _text(answer.data.get("version")) if isinstance(answer.data, dict) else ""
        if not version:
            raise ServerSetupError(f"{self._client.address} is not the address of an Ollama server")
        return one_line(version[:40])

    async def _listed(self) -> Mapping[str, Any]:
        """What the server's list of models says of ours (``GET /api/tags``)."""
        answer = await self._client.request("GET", "/api/tags")
        raise_for(answer, self._client.address)
        models = list(_models(answer))
        wanted = _full_name(self._model)
        for model in models:
            if wanted in _names(model):
                return model
        raise self._missing(_text(model.get("name")) for model in models)

    async def _shown(self) -> Mapping[str, Any]:
        """What the server tells of the model itself (``POST /api/show``)."""
        # Older servers know the field by "name" only.
        body = {"model": self._model, "name": self._model}
        answer = await self._client.request("POST", "/api/show", body)
        self._raise_for(answer)
        shown = _mapping(answer.data, "description of the model")
        able = shown.get("capabilities")
        if isinstance(able, list) and able and "completion" not in able:
            does = ", ".join(one_line(word[:40]) for word in able if isinstance(word, str))
            raise ServerSetupError(
                f"the model {self._model} cannot answer questions (it is for {does}): name "
                "another one with ollama_model"
            )
        return shown

    async def _probe(self, *, schema: bool, thinks: bool = False) -> tuple[ChatReply, bool]:
        """The answer to a tiny question, and whether the server refused to follow a schema."""
        request = ChatRequest(
            system="You answer in one word.",
            user="Hello! Answer with one word.",
            max_tokens=_PROBE_TOKENS + (_THINKING_TOKENS if thinks else 0),
            schema=_PROBE_SCHEMA if schema else None,
            logprobs=True,
        )
        answer = await self._post(request)
        if schema and answer.status >= 400 and _FORMAT_REFUSED.search(answer.message):
            return ChatReply("", Usage(1)), True
        self._raise_for(answer)
        return self._reply(answer), False

    async def _on_gpu(self) -> float | None:
        """Share of the loaded model that is in GPU memory (``GET /api/ps``)."""
        answer = await self._client.request("GET", "/api/ps")
        if answer.status != 200:
            return None
        wanted = _full_name(self._model)
        for model in _models(answer):
            size, there = _number(model.get("size")), _number(model.get("size_vram"))
            if wanted in _names(model) and size and there is not None:
                return min(max(there / size, 0.0), 1.0)
        return None

    async def _post(self, request: ChatRequest) -> Answer:
        body = self._body(request)
        answer = await self._client.request("POST", "/api/chat", body)
        # Ollama takes think=false from every model, and servers that know no "think" ignore it;
        # should one refuse it all the same, the model is left to its own.
        message = answer.message.replace(self._model, "")
        if answer.status == 400 and self._send_think and _THINK_REFUSED.search(message):
            self._send_think = False
            answer = await self._client.request("POST", "/api/chat", self._body(request))
        return answer

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        messages = [{"role": "system", "content": request.system}] if request.system else []
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [*messages, {"role": "user", "content": request.user}],
            "stream": False,
            # From 0.12.6 on; otherwise the prompt's middle would be dropped without a word. "shift"
            # is not sent: it is an option of loading, and a model that others use with its default
            # would be loaded anew for every change.
            "truncate": False,
            # num_ctx is an option of loading, too, hence the same every time; num_predict is not.
            "options": _SAMPLING | {"num_ctx": self._context, "num_predict": request.max_tokens},
        }
        if self._send_think:
            body["think"] = False
        if request.schema is not None:
            body["format"] = request.schema
        if request.logprobs:
            body |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
        return body

    def _reply(self, answer: Answer) -> ChatReply:
        data = _mapping(answer.data, "answer")
        if data.get("error"):
            raise ServerError(f"{self._client.address}: {answer.message}")
        message = _mapping(data.get("message"), "message of the answer")
        content = message.get("content", "")
        if not isinstance(content, str) or data.get("done") is False:
            raise ServerError("the server's answer is not complete")
        reason = data.get("done_reason")
        if reason in ("load", "unload"):
            raise ServerError(f"the server gave no answer, but did {reason} the model")
        usage = _usage(data)
        self._check_window(usage)
        text, thought, open_end = _without_thinking(content)
        tokens = _tokens(data.get("logprobs"))
        return ChatReply(
            text=_clean(text),
            usage=usage,
            tokens=_of_answer(tokens, text, whole=text == content),
            truncated=open_end or reason == "length",
            thought=thought or bool(_text(message.get("thinking")).strip()),
        )

    def _check_window(self, usage: Usage) -> None:
        """Find out by the counts whether the server has cut what it was given.

        Servers before 0.12.6 do not know ``truncate``: they keep the first four tokens and as much
        of the end as the context holds. And an answer that runs into the end of the context makes
        the server drop half of the prompt and go on.
        """
        limit = self._context
        if usage.prompt_tokens >= limit - _MARGIN:
            raise ContextExceededError(
                f"the prompt fills the context of {limit} tokens, so that the server has cut it",
                limit=limit,
            )
        if usage.prompt_tokens + usage.completion_tokens > limit:
            raise ContextExceededError(
                f"prompt and answer together are longer than the context of {limit} tokens",
                tokens=usage.prompt_tokens,
                limit=limit,
            )

    def _raise_for(self, answer: Answer) -> None:
        """Raise what an answer other than success means; see :meth:`chat`."""
        if 200 <= answer.status < 300:
            return
        message, details = _innermost(answer)
        said = f"{self._client.address}: HTTP {answer.status}: {one_line(message)}"
        if _TOO_LONG.search(message):
            told = [int(number) for number in _TOKENS.findall(message)[:2]]
            tokens, limit = told if len(told) == 2 else (None, None)
            raise ContextExceededError(
                said,
                tokens=count(details.get("n_prompt_tokens")) or tokens,
                limit=count(details.get("n_ctx")) or limit,
            )
        if answer.status == 404 and "not found" in message and isinstance(answer.data, dict):
            raise self._missing(())
        if _BEYOND_REPAIR.search(message):
            raise ServerSetupError(said)
        if answer.status == 499:  # the server gave the request up
            raise ServerError(said)
        raise_for(answer, self._client.address)

    def _missing(self, names: Iterable[str]) -> ServerSetupError:
        there = sorted(one_line(name[:100]) for name in names if name)
        text = (
            f"Ollama at {self._client.address} has no model {self._model}. Fetch it with: "
            f"ollama pull {self._model}"
        )
        if there:
            more = f" and {len(there) - _LISTED} more" if len(there) > _LISTED else ""
            text += f"; or name one that is there: {', '.join(there[:_LISTED])}{more}"
        return ServerSetupError(text)


def server_url(host: str) -> str:
    """The URL of an Ollama server, from any form that ``OLLAMA_HOST`` takes.

    ``127.0.0.1``, ``HOST:PORT``, ``:11434``, ``[::1]:11434``, ``https://USER:PASSWORD@HOST/PATH``
    ... As with Ollama, the port is 11434, or 80 and 443 where http:// and https:// are written
    out. The address that means "all of this machine" to a server means this machine to us. Source:
    https://github.com/ollama/ollama/blob/main/envconfig/config.go

    Raises:
        ConfigurationError: it is none of them. The message holds no part of a password.
    """
    text = host.strip().strip("\"'").strip()
    scheme, given, rest = text.partition("://")
    if not given:
        scheme, rest, port = "http", text, _PORT
    else:
        scheme = scheme.lower()
        port = _PORTS.get(scheme, _PORT)
    if scheme not in _PORTS:
        raise ConfigurationError("the address of Ollama must begin with http:// or https://")
    authority, slash, path = rest.partition("/")
    user, at, place = authority.rpartition("@")
    name, written = _host_and_port(place)
    if written and not (written.isascii() and written.isdigit() and 0 < int(written) < 65536):
        raise ConfigurationError(
            "the address of Ollama must be like 127.0.0.1:11434 or http://HOST:PORT; in a "
            "password, / is written %2F"
        )
    return f"{scheme}://{user}{at}{name}:{written or port}{slash}{path}".rstrip("/")


def _host_and_port(place: str) -> tuple[str, str]:
    """Host, as it stands in a URL, and port, "" where there is none."""
    if place.startswith("["):
        name, _, port = place[1:].partition("]")
        port = port.removeprefix(":")
    elif place.count(":") > 1:
        name, port = place, ""
    else:
        name, _, port = place.partition(":")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name or "127.0.0.1", port
    if address.is_unspecified:
        return ("127.0.0.1" if address.version == 4 else "[::1]"), port
    return (name if address.version == 4 else f"[{name}]"), port


def _full_name(name: str) -> str:
    """A model's name as the server compares it: with its tag, without the default registry."""
    name = name.strip().casefold()
    name = name.removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _names(model: Mapping[str, Any]) -> set[str]:
    said = (_text(model.get("name")), _text(model.get("model")))
    return {_full_name(name) for name in said if name}


def _models(answer: Answer) -> Iterable[Mapping[str, Any]]:
    models = _mapping(answer.data, "list of models").get("models") or []
    if not isinstance(models, list):
        raise ServerError("the server's list of models is none")
    return (model for model in models if isinstance(model, dict))


def _context_of(shown: Mapping[str, Any]) -> int | None:
    """The longest context that the model was made for."""
    info = shown.get("model_info")
    if not isinstance(info, dict):
        return None
    architecture = _text(info.get("general.architecture"))
    return count(info.get(f"{architecture}.context_length")) or None


def _digest(shown: Mapping[str, Any]) -> str:
    """Stands in for the digest of the weights where the server lists none."""
    fields = ("modelfile", "parameters", "template", "details", "model_info", "modified_at")
    told = json.dumps([shown.get(field) for field in fields], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _remote_host(listed: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    """Where Ollama sends what a "cloud" model is asked; "" where it answers itself."""
    found = _text(listed.get("remote_host")) or _text(shown.get("remote_host")) or ""
    return one_line(found[:100])


def _notes(version: str, *, logprobs: bool) -> tuple[str, ...]:
    notes = []
    if not logprobs:
        notes.append(f"Ollama {version} gives no log-probabilities; 0.12.11 and newer do")
    return tuple(notes)


def _follows(text: str) -> bool:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and data.get("answer") in _PROBE_ANSWERS


def _usage(data: Mapping[str, Any]) -> Usage:
    # prompt_eval_count counts the whole prompt, cached tokens included; only the first versions of
    # 0.30 left those out (https://github.com/ollama/ollama/pull/16428), and those before 0.4 left
    # the field out. Newer ones say beside it how many were cached.
    prompt = count(data.get("prompt_eval_count"))
    cached = min(count(data.get("prompt_eval_cached_count")), prompt)
    return Usage(1, prompt, cached, count(data.get("eval_count")))


def _without_thinking(content: str) -> tuple[str, bool, bool]:
    """The answer; whether the model thought before it; whether it has not come to an end of that.

    Models whose template opens the block itself close one that they have not opened.
    """
    begun = content.lstrip().startswith(_THINK)
    thinking, closed, rest = content.partition(_THOUGHT)
    if closed:
        thought = thinking.lstrip().removeprefix(_THINK).strip()
        return rest.lstrip(), bool(thought), False
    return ("", True, True) if begun else (content, False, False)


def _tokens(entries: Any) -> list[tuple[Token, bytes]]:
    """The tokens up to the first that is none, with the bytes that they stand for."""
    tokens = []
    for entry in entries if isinstance(entries, list) else ():
        scored = _scored(entry)
        if scored is None:
            break
        text, logprob, raw = scored
        others = entry.get("top_logprobs")
        alternatives = [
            (other[0], other[1])
            for other in map(_scored, others[:_ALTERNATIVES] if isinstance(others, list) else ())
            if other is not None
        ]
        if alternatives and all(other != text for other, _ in alternatives):
            alternatives.append((text, logprob))
        tokens.append((Token(text, logprob, tuple(alternatives)), raw))
    return tokens


def _scored(entry: Any) -> tuple[str, float, bytes] | None:
    """Text, log-probability and bytes of an entry, None where it has none."""
    if not isinstance(entry, dict):
        return None
    text, logprob = entry.get("token"), _number(entry.get("logprob"))
    if not isinstance(text, str) or logprob is None:
        return None
    spelt = entry.get("bytes")
    try:
        raw = bytes(spelt) if isinstance(spelt, list) else b""
    except (TypeError, ValueError):
        raw = b""
    return _clean(text), min(logprob, 0.0), raw or text.encode("utf-8", "replace")


def _of_answer(tokens: list[tuple[Token, bytes]], text: str, *, whole: bool) -> tuple[Token, ...]:
    """The tokens of the answer itself, without those of what the model thought before it."""
    answer = text.encode("utf-8", "replace").strip()
    spelt = b"".join(raw for _, raw in tokens)
    start = spelt.rfind(answer) if answer else -1
    if start < 0:
        # Not spelt by them: of a server that trims or parses its answers.
        return tuple(token for token, _ in tokens) if whole and answer else ()
    kept, end = [], 0
    for token, raw in tokens:
        end += len(raw)
        if end > start:
            kept.append(token)
    return tuple(kept)


def _innermost(answer: Answer) -> tuple[str, Mapping[str, Any]]:
    """Message and details of an error; Ollama passes on those of llama.cpp as JSON in a string."""
    error: Any = answer.data.get("error") if isinstance(answer.data, dict) else None
    details: Mapping[str, Any] = {}
    for _ in range(4):
        if isinstance(error, str) and error.lstrip().startswith("{"):
            try:
                error = json.loads(error)
            except (ValueError, RecursionError):
                break
        if not isinstance(error, dict):
            break
        details = error
        error = error.get("error", error.get("message"))
    message = error if isinstance(error, str) and error.strip() else answer.text
    return message.strip() or "no reason given", details


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ServerError(f"the server's {what} is not what Ollama sends")
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _clean(text: str) -> str:
    """Without lone surrogates, which JSON can spell and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
