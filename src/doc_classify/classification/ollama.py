"""The chat back end for Ollama, by its native protocol.

Documented at https://docs.ollama.com/api and, where that is silent (``truncate``, error texts), by
the types and handlers of the program itself: https://github.com/ollama/ollama/blob/main/api/types.go
and server/routes.go.

The native protocol and not Ollama's OpenAI-compatible one, because only it takes the length of the
context, refuses prompts that do not fit, and gives log-probabilities.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from doc_classify.classification.chat import ChatReply, ChatRequest, ServerFacts
from doc_classify.classification.http import Answer, JsonClient, count, raise_for
from doc_classify.errors import (
    ContextExceededError,
    ServerError,
    ServerSetupError,
)
from doc_classify.records import Usage
from doc_classify.settings import Settings
from doc_classify.terminal import one_line

_ALIVE_SECONDS = 5.0
_ALTERNATIVES = 20
"""Alternatives of a token; Ollama refuses to give more."""
_LISTED = 10
_PROBE_TOKENS, _THINKING_TOKENS = 16, 1_024
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
_FORMAT_REFUSED = re.compile(r"schema|grammar|format", re.IGNORECASE)
_THINK_REFUSED = re.compile(r"\bthink(?:ing)?\b", re.IGNORECASE)


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
        own = context_of(shown)
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
            version=_text(listed.get("digest")) or digest(shown),
            context=self._context,
            logprobs=logprobs,
            schema=not refused and follows(formed.text),
            thinks=free.thought or formed.thought,
            on_gpu=await self._on_gpu(),
            server=f"Ollama {version}",
            remote_host=remote_host(listed, shown),
            notes=notes(version, logprobs=logprobs),
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
        models = list(models(answer))
        wanted = full_name(self._model)
        for model in models:
            if wanted in names(model):
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
        wanted = full_name(self._model)
        for model in models(answer):
            size, there = _number(model.get("size")), _number(model.get("size_vram"))
            if wanted in names(model) and size and there is not None:
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

    def _raise_for(self, answer: Answer) -> None:
        """Raise what an answer other than success means; see :meth:`chat`."""
        if 200 <= answer.status < 300:
            return
        message, details = innermost(answer)
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
