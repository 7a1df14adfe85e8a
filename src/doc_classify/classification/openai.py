"""Asking any server that speaks OpenAI's chat protocol.

That is vLLM, SGLang, llama.cpp's server, LM Studio, text-generation-inference, OpenAI itself, and
gateways to many more. What they have in common is ``POST /chat/completions``; what each one takes
beyond that is found out at the start (:mod:`.openai_probe`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from yarl import URL

from doc_classify.classification.chat import ChatReply, ChatRequest, ServerFacts
from doc_classify.classification.http import Answer, JsonClient, count, raise_for
from doc_classify.classification.openai_probe import Dialect, Probe
from doc_classify.classification.openai_replies import (
    is_unknown_model,
    out_of_tokens,
    raise_failure,
    ran_out_of_tokens,
    read_reply,
)
from doc_classify.classification.patience import Patience
from doc_classify.errors import ConfigurationError, ServerError, ServerSetupError
from doc_classify.settings import Settings
from doc_classify.terminal import one_line

_ALIVE_SECONDS = 5.0
_LIST_SECONDS = 30.0
_SHOWN_MODELS = 10
_CHAT = "/chat/completions"

_CONTEXT_FIELDS = (
    "max_model_len",  # vLLM, SGLang
    "context_length",  # OpenRouter, Together
    "context_window",  # Groq
    "max_context_length",  # Mistral
)
_STABLE_FIELDS = (
    *("id", "root", "parent", "owned_by"),  # vLLM: "root" is the path or name of the weights
    *("digest", "hash", "checksum", "sha256", "revision", "quantization", "arch"),
)
"""What identifies a model in an entry of ``/models``. Not "created": vLLM and llama.cpp put the
time of the request there. Not "permission": vLLM makes one up for each request."""
_STABLE_META = ("vocab_type", "n_vocab", "n_ctx_train", "n_embd", "n_params", "size", "ftype")
"""What llama.cpp tells of a model; "n_ctx" is of the server's and no matter of its answers."""

_OWN_FACTS = {"llamacpp": "/props", "vllm": "/version"}
"""Where a server tells more than the protocol has, by the owner of its models."""


class OpenAIBackend:
    """One model of an OpenAI-compatible server; a :class:`~.chat.ChatBackend`.

    Args:
        base_url: ``http://HOST:PORT``, with or without ``/v1``, or any other path to what lies
            before ``/chat/completions``.
        model: name of the model; None for the only one that the server has.
        api_key: sent as a bearer token; never shown.
        context: tokens that prompt and answer may have together, at most.
        timeout: seconds until an answer must be complete, time in the server's queue included.
        headers: sent with every request; never shown.
        trust_env: whether the proxy settings of the environment apply.

    Raises:
        ConfigurationError: the address or the key cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        context: int,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        trust_env: bool = True,
    ) -> None:
        self._wanted = model
        self._model = model or ""
        self._context = context
        self._timeout = timeout
        self._headers = dict(headers or {})
        self._trust_env = trust_env
        self._dialect = Dialect()
        self._lists = False
        self._connect(base_url, api_key)

    @classmethod
    def from_settings(cls, settings: Settings) -> OpenAIBackend:
        """The back end that the settings name.

        Raises:
            ConfigurationError: no address is given, or it cannot be used.
        """
        if settings.openai_base_url is None:
            raise ConfigurationError(
                "the classifier openai needs the address of a server: "
                "give --base-url or OPENAI_BASE_URL"
            )
        key = settings.openai_api_key
        return cls(
            settings.openai_base_url,
            settings.openai_model,
            api_key=key.get_secret_value() if key is not None else None,
            context=settings.llm_context,
            timeout=settings.llm_timeout,
        )

    @property
    def name(self) -> str:
        """Short name as in ``--classifier``."""
        return "openai"

    @property
    def dialect(self) -> Dialect:
        """The fields that the server takes; only after opening."""
        return self._dialect

    async def open(self) -> ServerFacts:
        """Find the model and what the server can do with it; waits while it loads the model.

        Raises:
            ServerError: the server does not answer, is busy for a minute, or loads its model for
                longer than the timeout.
            ServerSetupError: it cannot be used: key refused, model missing, no chat server.
        """
        patience = Patience(self._timeout)
        entries = await patience.ask(self._list)
        self._model = self._wanted or self._only(entries)
        listed = [entry for entry in entries if self._model in _names(entry)]
        entry = listed[0] if listed else {}

        findings = await Probe(self._send, self._model, self.address, patience).find()
        # Some servers answer any name with the model they have; others name a dated snapshot.
        if entries and not listed and not findings.model.startswith(self._model):
            answers = f", and answers with {_shown(findings.model)}" if findings.model else ""
            raise ServerSetupError(self._without_model(entries) + answers)
        self._dialect = findings.dialect

        kind = str(entry.get("owned_by", ""))
        told: Mapping[str, Any] = {}
        if kind in _OWN_FACTS:
            told = await patience.ask(partial(self._extra, _OWN_FACTS[kind]))
        context = _context(entry) or _context_of_llamacpp(entry, told)
        return ServerFacts(
            address=self.address,
            model=self._model,
            version=_digest(
                self._model,
                entry,
                findings.model,
                told.get("chat_template"),
                findings.dialect.fingerprint,
            ),
            context=min(context, self._context) if context else None,
            logprobs=findings.dialect.top_logprobs > 0,
            schema=findings.dialect.schema,
            thinks=findings.thinks,
            server=_server(kind, told.get("version", told.get("build_info"))),
            notes=() if listed or not entries else ("the server does not list this model",),
        )

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Ask one question; see :meth:`~.chat.ChatBackend.chat` for the errors.

        An answer that has spent its tokens on thoughts has no text and is truncated.
        """
        answer = await self._send(self._dialect.body(self._model, request))
        if ran_out_of_tokens(answer):
            return out_of_tokens(answer, request.max_tokens)
        raise_failure(answer, self.address)
        return read_reply(answer)

    async def alive(self) -> None:
        """Ask for the list of models.

        Raises:
            ServerError: no answer within a few seconds.
            ServerSetupError: the server refuses the key, or is none any more.
        """
        answer = await self._request("GET", f"{self._prefix}/models", timeout=_ALIVE_SECONDS)
        if self._lists or answer.status not in (404, 405, 501):
            raise_for(answer, self.address)

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._client.close()

    async def move(self, base_url: str, api_key: str | None) -> None:
        """Go on with the same server and model at another address; requests on the way fail.

        Raises:
            ConfigurationError: the address or the key cannot be used.
        """
        await self._client.close()
        self._connect(base_url, api_key)

    def _connect(self, base_url: str, api_key: str | None) -> None:
        root, self._prefix = _split_address(base_url)
        key = _usable_key(api_key)
        headers = dict(self._headers)
        secrets = [key, *headers.values()]
        if key:
            if URL(root).user is not None:
                raise ConfigurationError(
                    "the server's address has a user name, which cannot go with an API key"
                )
            headers["Authorization"] = f"Bearer {key}"
        self._client = JsonClient(
            root,
            timeout=self._timeout,
            headers=headers,
            trust_env=self._trust_env,
            secrets=secrets,
        )
        self.address = self._client.address + self._prefix

    async def _request(
        self, method: str, path: str, body: object = None, *, timeout: float | None = None
    ) -> Answer:
        return await self._client.request(method, path, body, timeout=timeout)

    async def _send(self, body: dict[str, Any]) -> Answer:
        """Send a chat request; returns the answer unless the model is not there."""
        answer = await self._request("POST", self._prefix + _CHAT, body)
        if is_unknown_model(answer):
            try:
                entries = await self._list()
            except ServerError:
                entries = []
            if any(self._model in _names(entry) for entry in entries):
                raise_for(answer, self.address)  # the model is there, but nowhere to ask it
            raise ServerSetupError(f"{self._without_model(entries)} ({answer.message})")
        return answer

    async def _list(self) -> list[Mapping[str, Any]]:
        """The entries of ``/models``; none where the server does not know that address."""
        answer = await self._request("GET", f"{self._prefix}/models", timeout=_LIST_SECONDS)
        if answer.status in (404, 405, 501):
            return []
        raise_for(answer, self.address)
        data = answer.data.get("data") if isinstance(answer.data, Mapping) else answer.data
        if not isinstance(data, list):
            raise ServerSetupError(
                f"{self.address}/models is no list of models (is this a chat server?)"
            )
        self._lists = True
        return [
            entry
            for entry in data
            if isinstance(entry, Mapping) and isinstance(entry.get("id"), str) and entry["id"]
        ]

    def _only(self, entries: list[Mapping[str, Any]]) -> str:
        if len(entries) == 1:
            name: str = entries[0]["id"]
            return name
        if not entries:
            raise ServerSetupError(
                f"{self.address} does not tell which models it has: name one with --model"
            )
        raise ServerSetupError(
            f"{self.address} has {len(entries)} models: choose one with --model: {_listed(entries)}"
        )

    def _without_model(self, entries: list[Mapping[str, Any]]) -> str:
        text = f"{self.address} has no model {_shown(self._model)}"
        return f"{text}; it has: {self._client.shown(_listed(entries))}" if entries else text

    async def _extra(self, path: str) -> Mapping[str, Any]:
        """What a server tells at an address of its own, outside of OpenAI's protocol."""
        answer = await self._request("GET", path, timeout=_LIST_SECONDS)
        if answer.status >= 500 or answer.status == 429:  # the next time it may tell: no {} now
            raise_for(answer, self.address)
        usable = answer.status == 200 and isinstance(answer.data, Mapping)
        return answer.data if usable else {}


def _split_address(base_url: str) -> tuple[str, str]:
    """(address of the server, path to its chat protocol), without slashes at their ends."""
    try:
        url = URL(base_url.strip())
    except ValueError as error:
        raise ConfigurationError(f"the server's address cannot be used: {error}") from None
    # An address may hold a password or a key in all the wrong places: it is not shown.
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError("the server's address must begin with http:// or https://")
    if url.raw_query_string or url.raw_fragment:
        raise ConfigurationError("the server's address must end with its path: no ? and no #")
    path = url.raw_path.rstrip("/").removesuffix(_CHAT).rstrip("/")
    if not path:
        path = "/v1"
    root, version = path, ""
    if path.endswith("/v1"):
        root, version = path.removesuffix("/v1"), "/v1"
    return str(url.with_path(root or "/", encoded=True)).rstrip("/"), version


def _usable_key(api_key: str | None) -> str:
    key = (api_key or "").strip()
    if not (key.isascii() and (not key or key.isprintable())):
        raise ConfigurationError("the API key has characters that no header can carry")
    return key


def _names(entry: Mapping[str, Any]) -> list[Any]:
    aliases = entry.get("aliases")  # llama.cpp
    return [entry["id"], *(aliases if isinstance(aliases, list) else [])]


def _context(entry: Mapping[str, Any]) -> int | None:
    return next((tokens for name in _CONTEXT_FIELDS if (tokens := count(entry.get(name)))), None)


def _context_of_llamacpp(entry: Mapping[str, Any], props: Mapping[str, Any]) -> int | None:
    """Tokens of one slot: the server divides its context among those it works on at a time."""
    settings = props.get("default_generation_settings")
    for place in (settings, entry.get("meta")):
        if isinstance(place, Mapping) and (tokens := count(place.get("n_ctx"))):
            return tokens
    return None


def _digest(
    model: str, entry: Mapping[str, Any], answered: str, template: object, dialect: str
) -> str:
    """What changes with the model, as far as the server tells, and with what it is asked how."""
    facts = {
        "model": model,
        "answered": answered,  # OpenAI: the dated snapshot behind a name
        "entry": _known(entry, _STABLE_FIELDS),
        "meta": _known(entry.get("meta"), _STABLE_META),
        "template": template if isinstance(template, str) else None,
        # All that the probe finds out, but for whether the model thinks and whether there are
        # log-probabilities and schemas at all: these are facts of their own.
        "dialect": dialect,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _known(told: object, names: tuple[str, ...]) -> dict[str, str | int | float]:
    if not isinstance(told, Mapping):
        return {}
    return {name: value for name in names if isinstance(value := told.get(name), str | int | float)}


def _server(kind: str, version: object) -> str:
    name = {"llamacpp": "llama.cpp", "vllm": "vLLM", "sglang": "SGLang"}.get(kind, "")
    told = version if isinstance(version, str) else ""
    return one_line(f"{name} {told}".strip()) if name else ""


def _listed(entries: list[Mapping[str, Any]]) -> str:
    shown = ", ".join(_shown(entry["id"]) for entry in entries[:_SHOWN_MODELS])
    more = len(entries) - _SHOWN_MODELS
    return f"{shown} and {more} more" if more > 0 else shown


def _shown(model: str) -> str:
    return one_line(model)
