"""The chat back end for Ollama, by its native protocol.

Documented at https://docs.ollama.com/api and, where that is silent (``truncate``, error texts), by
the types and handlers of the program itself: https://github.com/ollama/ollama/blob/main/api/types.go
and server/routes.go.

The native protocol and not Ollama's OpenAI-compatible one, because only it takes the length of the
context, refuses prompts that do not fit, and gives log-probabilities.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from doc_classify.classification.chat import ChatReply, ChatRequest, ServerFacts
from doc_classify.classification.http import Answer, JsonClient, expect, raise_for
from doc_classify.classification.ollama_address import server_url
from doc_classify.classification.ollama_replies import (
    PROBE_ANSWERS,
    context_of,
    digest_of,
    follows,
    full_name,
    models_in,
    names_of,
    notes_on,
    number,
    raise_failure,
    read_reply,
    refuses_format,
    refuses_think,
    remote_host,
)
from doc_classify.classification.patience import Patience
from doc_classify.classification.replies import text_of
from doc_classify.errors import ClassificationError, ServerError, ServerSetupError
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
    "properties": {"answer": {"type": "string", "enum": list(PROBE_ANSWERS)}},
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
        self._timeout = timeout
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
            ServerError: the server does not answer, or is busy for a minute.
            ServerSetupError: it answers, but cannot be used: no Ollama, model missing, model too
                large for the machine or not for chat.
        """
        patience = Patience(self._timeout)
        version = await patience.ask(self._version)
        listed = await patience.ask(self._listed)
        shown = await patience.ask(self._shown)
        own = context_of(shown)
        if own is not None:
            self._context = min(self._context, own)
        free, _ = await patience.ask(self._probe)
        if free.truncated and not free.thought:
            # That was no word: perhaps a thought without <think>.
            free, _ = await patience.ask(partial(self._probe, thinks=True))
        formed, refused = await patience.ask(partial(self._probe, schema=True, thinks=free.thought))
        logprobs = bool(free.tokens or formed.tokens)
        return ServerFacts(
            address=self._client.address,
            model=self._model,
            version=self._fingerprint(text_of(listed.get("digest")) or digest_of(shown)),
            context=self._context,
            logprobs=logprobs,
            schema=not refused and follows(formed.text),
            thinks=free.thought or formed.thought,
            on_gpu=await patience.ask(self._on_gpu),
            server=f"Ollama {version}",
            remote_host=remote_host(listed, shown),
            notes=notes_on(version, logprobs=logprobs),
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
        return read_reply(answer, self._context, self._client.address)

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
                timed_out=error.timed_out,
            ) from error
        raise_for(answer, self._client.address)
        version = text_of(answer.data.get("version")) if isinstance(answer.data, dict) else ""
        if not version:
            raise ServerSetupError(f"{self._client.address} is not the address of an Ollama server")
        return one_line(version[:40])

    async def _listed(self) -> Mapping[str, Any]:
        """What the server's list of models says of ours (``GET /api/tags``)."""
        answer = await self._client.request("GET", "/api/tags")
        raise_for(answer, self._client.address)
        models = list(models_in(answer))
        wanted = full_name(self._model)
        for model in models:
            if wanted in names_of(model):
                return model
        raise self._missing(text_of(model.get("name")) for model in models)

    async def _shown(self) -> Mapping[str, Any]:
        """What the server tells of the model itself (``POST /api/show``)."""
        # Older servers know the field by "name" only.
        body = {"model": self._model, "name": self._model}
        answer = await self._client.request("POST", "/api/show", body)
        self._raise_for(answer)
        shown: Mapping[str, Any] = expect(answer.data, Mapping)
        able = shown.get("capabilities")
        if isinstance(able, list) and able and "completion" not in able:
            does = ", ".join(one_line(word[:40]) for word in able if isinstance(word, str))
            raise ServerSetupError(
                f"the model {self._model} cannot answer questions (it is for {does}): name "
                "another one with ollama_model"
            )
        return shown

    def _fingerprint(self, weights: str) -> str:
        """What answers depend on besides what :class:`~.chat.ServerFacts` has a field for.

        That is, of all that opening finds out, whether the model is told not to think. The length
        of the context changes no answer: a prompt that does not fit is refused.
        """
        return weights if self._send_think else f"{weights} untold"

    async def _probe(self, *, schema: bool = False, thinks: bool = False) -> tuple[ChatReply, bool]:
        """The answer to a tiny question, and whether the server refused to follow a schema."""
        request = ChatRequest(
            system="You answer in one word.",
            user="Hello! Answer with one word.",
            max_tokens=_PROBE_TOKENS + (_THINKING_TOKENS if thinks else 0),
            schema=_PROBE_SCHEMA if schema else None,
            logprobs=True,
        )
        answer = await self._post(request)
        if schema and refuses_format(answer):
            return ChatReply("", Usage(1)), True
        try:
            self._raise_for(answer)
            return read_reply(answer, self._context, self._client.address), False
        except ClassificationError as error:  # no document is to blame for that
            raise ServerSetupError(f"the model answers no question: {error}") from error

    async def _on_gpu(self) -> float | None:
        """Share of the loaded model that is in GPU memory (``GET /api/ps``)."""
        answer = await self._client.request("GET", "/api/ps")
        if answer.status != 200:
            return None
        wanted = full_name(self._model)
        for model in models_in(answer):
            size, there = number(model.get("size")), number(model.get("size_vram"))
            if wanted in names_of(model) and size and there is not None:
                return min(max(there / size, 0.0), 1.0)
        return None

    async def _post(self, request: ChatRequest) -> Answer:
        body = self._body(request)
        answer = await self._client.request("POST", "/api/chat", body)
        # Ollama takes think=false from every model, and servers that know no "think" ignore it;
        # should one refuse it all the same, the model is left to its own.
        if self._send_think and refuses_think(answer, self._model):
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
        said = answer.message
        if answer.status == 404 and "not found" in said and isinstance(answer.data, dict):
            raise self._missing(())
        raise_failure(answer, self._client.address)

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
