"""Finding out by trying what an OpenAI-compatible server understands.

Servers differ in what they take, and many ignore silently what they do not know. What counts is
therefore not that a request is accepted, but that its answer shows what was asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from doc_classify.classification.chat import ChatReply, ChatRequest
from doc_classify.classification.http import Answer
from doc_classify.classification.openai_replies import (
    OPTIONAL_FIELDS,
    mentioned_field,
    named_field,
    out_of_tokens,
    raise_failure,
    ran_out_of_tokens,
    read_reply,
    unwrapped,
)
from doc_classify.classification.patience import Patience
from doc_classify.errors import (
    ClassificationError,
    RefusedError,
    ServerError,
    ServerSetupError,
)
from doc_classify.records import Usage

_TOP_LOGPROBS = (20, 5)
"""Alternatives of a token to ask for: the most that OpenAI and, by default, vLLM give; then what
stricter servers give."""
_SEED = 1
_EFFORTS = ("none", "minimal")
"""What keeps a model from thinking where ``chat_template_kwargs`` does not (Ollama, OpenAI)."""

_NOT_TAKEN = (400, 422, 501)
"""What servers answer to fields that they cannot handle."""
_FAILED = 500
"""Some fail in trying to; but any server may also fail for a moment."""
_NO_SYSTEM = re.compile(r"system (?:role|message|prompt)|role\W{1,3}system", re.IGNORECASE)
"""How chat templates without a system message (Gemma 2, early Mistral) say so."""

_UNLIKELY = "zq-4711-x"
"""An answer that no model gives by itself."""
_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": [_UNLIKELY]}},
    "required": ["answer"],
    "additionalProperties": False,
}
_PLAIN = ChatRequest(
    system="Answer with one word.",
    user="What colour is a clear sky at noon?",
    max_tokens=64,
    logprobs=True,
)
_WITH_SCHEMA = replace(
    _PLAIN,
    system='Answer in JSON: {"answer": "one word"}',  # some servers demand the word JSON
    max_tokens=256,
    schema=_SCHEMA,
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """The fields that a server takes; every request of a run has the same.

    Attributes:
        limit: name of the field for the tokens of the answer.
        temperature: it takes temperature 0.
        seed: it takes a seed.
        template: it takes ``chat_template_kwargs``, which keep models from thinking aloud.
        effort: value for ``reasoning_effort``, None to leave it out.
        top_logprobs: alternatives to ask for, 0 where it gives no log-probabilities.
        schema: it follows a JSON schema.
        both: it gives log-probabilities with a schema as well.
        system: its models know a system message; else it stands before the user's.
    """

    limit: str = "max_tokens"
    temperature: bool = True
    seed: bool = True
    template: bool = True
    effort: str | None = None
    top_logprobs: int = _TOP_LOGPROBS[0]
    schema: bool = True
    both: bool = True
    system: bool = True

    @property
    def fingerprint(self) -> str:
        """Differs between dialects in which the same question may get different answers.

        That is all of them: whether thoughts are kept down and by which field, how the system
        message is sent, temperature and seed, how many alternatives a score is made of, and whether
        there are any with a schema. The name of the limit's field is in it as well, since models
        that take only the newer one count their thoughts in it.
        """
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def body(self, model: str, request: ChatRequest) -> dict[str, Any]:
        """The request as this server takes it."""
        messages = [
            {"role": "system", "content": request.system},
            {"role": "user", "content": request.user},
        ]
        if not self.system:
            messages = [{"role": "user", "content": f"{request.system}\n\n{request.user}"}]
        body: dict[str, Any] = {
            "model": model,
            "messages": messages,
            self.limit: request.max_tokens,
        }
        if self.temperature:
            body["temperature"] = 0
        if self.seed:
            body["seed"] = _SEED
        if self.template:
            body["chat_template_kwargs"] = {"enable_thinking": False}
        if self.effort is not None:
            body["reasoning_effort"] = self.effort
        schema = request.schema if self.schema else None
        if request.logprobs and self.top_logprobs and (self.both or schema is None):
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        if schema is not None:
            named = {"name": "answer", "strict": True, "schema": dict(schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        return body

    def without(self, field: str) -> Dialect | None:
        """The next best dialect after a server refused the field; None where there is none."""
        match field:
            case "max_tokens":
                other = "max_completion_tokens"
                return replace(self, limit=other) if self.limit == field else None
            case "temperature" if self.temperature:
                return replace(self, temperature=False)
            case "seed" if self.seed:
                return replace(self, seed=False)
            case "chat_template_kwargs" if self.template:
                return replace(self, template=False)
            case "reasoning_effort" if self.effort is not None:
                return replace(self, effort=None)
            case "top_logprobs" if self.top_logprobs:
                fewer = [number for number in _TOP_LOGPROBS if number < self.top_logprobs]
                return replace(self, top_logprobs=fewer[0] if fewer else 0)
            case "logprobs" if self.top_logprobs:
                return self.without("top_logprobs")
            case "response_format" if self.schema:
                return replace(self, schema=False)
        return None


_LEAST = Dialect(temperature=False, seed=False, template=False, top_logprobs=0, schema=False)


_ADDITIONS: tuple[Callable[[Dialect], Dialect], ...] = (
    lambda known: replace(known, temperature=True),
    lambda known: replace(known, seed=True),
    lambda known: replace(known, template=True),
    lambda known: replace(known, top_logprobs=_TOP_LOGPROBS[0]),
    lambda known: replace(known, top_logprobs=known.top_logprobs or _TOP_LOGPROBS[1]),
)


@dataclass(frozen=True, slots=True)
class Findings:
    """What came of trying.

    Attributes:
        dialect: the fields that the server takes.
        thinks: the model thinks aloud nevertheless.
        model: its name as answers give it, "" where they do not.
    """

    dialect: Dialect
    thinks: bool
    model: str


class Probe:
    """Tries what a server takes.

    Args:
        send: sends the body of a chat request; returns the answer whatever its status.
        model: name of the model.
        address: where the server is, for messages.
        patience: what the server is granted.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], Awaitable[Answer]],
        model: str,
        address: str,
        patience: Patience,
    ) -> None:
        self._send = send
        self._model = model
        self._address = address
        self._patience = patience
        self._works: tuple[Dialect, ChatRequest] | None = None

    async def find(self) -> Findings:
        """Send a handful of small requests.

        Raises:
            ServerError: see :meth:`~.chat.ChatBackend.chat`; also where the server fails in a way
                that does not let one tell what it can do.
            ServerSetupError: the server takes no chat request, however plain.
        """
        dialect, answer = await self._plain()
        reply = _reply(answer, _PLAIN)
        if reply.thought:
            dialect, reply = await self._unthinking(dialect, reply)
        dialect, in_schema = await self._schema(dialect)
        if not reply.tokens and not (in_schema is not None and in_schema.tokens):
            dialect = replace(dialect, top_logprobs=0)
        data = answer.data if isinstance(answer.data, dict) else {}
        model = data.get("model")
        return Findings(dialect, reply.thought, model if isinstance(model, str) else "")

    async def _plain(self) -> tuple[Dialect, Answer]:
        """The dialect with which a plain request is taken, and its answer."""
        dialect: Dialect | None = Dialect()
        while dialect is not None:
            last, answer = dialect, await self._ask(dialect, _PLAIN)
            if _is_taken(answer):
                return last, answer
            dialect = self._shorter(last, _PLAIN, answer)
        return await self._from_nothing()

    def _shorter(self, dialect: Dialect, request: ChatRequest, answer: Answer) -> Dialect | None:
        """The dialect without what the server complains about; None where it does not say."""
        if dialect.system and _NO_SYSTEM.search(answer.message):
            return replace(dialect, system=False)
        if answer.status == _FAILED:  # a failure's words are no statement about fields
            return None
        sent = tuple(name for name in dialect.body("", request) if name in OPTIONAL_FIELDS)
        named = named_field(answer, sent) or mentioned_field(answer, sent)
        return None if named is None else dialect.without(named)

    async def _from_nothing(self) -> tuple[Dialect, Answer]:
        """Start with what every server takes, and keep of the rest what is not refused."""
        failed = []
        for kept in (
            _LEAST,
            replace(_LEAST, limit="max_completion_tokens"),
            replace(_LEAST, system=False),
        ):
            answer = await self._ask(kept, _PLAIN)
            if _is_taken(answer):
                break
            if answer.status == _FAILED:
                failed.append(kept)
        else:
            if answer.status >= 500:
                raise_failure(answer, self._address)
            raise ServerSetupError(f"{self._address} takes no chat request: {answer.message}")
        for earlier in failed:  # was it the request, or a moment that is over?
            again = await self._ask(earlier, _PLAIN)
            if _is_taken(again):
                kept, answer = earlier, again
                break
        for enriched in _ADDITIONS:
            richer = enriched(kept)
            if richer == kept:
                continue
            tried = await self._ask(richer, _PLAIN)
            if _is_taken(tried):
                kept, answer = richer, tried
        return replace(kept, schema=True), answer

    async def _unthinking(self, dialect: Dialect, reply: ChatReply) -> tuple[Dialect, ChatReply]:
        for effort in _EFFORTS:
            other = replace(dialect, effort=effort)
            answer = await self._ask(other, _PLAIN)
            if _is_taken(answer) and not (tried := _reply(answer, _PLAIN)).thought:
                return other, tried
        return dialect, reply

    async def _schema(self, dialect: Dialect) -> tuple[Dialect, ChatReply | None]:
        """Whether the server follows a schema, and its answer to one where it does."""
        answer = await self._ask(dialect, _WITH_SCHEMA)
        if not _is_taken(answer) and dialect.top_logprobs:  # the two may not go together
            dialect = replace(dialect, both=False)
            answer = await self._ask(dialect, _WITH_SCHEMA)
        if _is_taken(answer) and _follows(reply := _reply(answer, _WITH_SCHEMA)):
            return dialect, reply
        return replace(dialect, schema=False, both=True), None

    async def _ask(self, dialect: Dialect, request: ChatRequest) -> Answer:
        """The answer; errors that are no fault of the request's fields are raised.

        A failure (500) is returned, which means that the request is not taken, only where none was
        taken so far, or where one that was taken before is taken still.

        Raises:
            ServerError: the server fails whatever it is asked.
        """
        answer = await self._repeated(dialect, request)
        if answer.status == _FAILED and self._works is not None:
            known = await self._repeated(*self._works)
            if not _is_taken(known):
                raise ServerError(f"{self._address}: {known.message}")
            answer = await self._repeated(dialect, request)
        if _is_taken(answer):
            self._works = (dialect, request)
        return answer

    async def _repeated(self, dialect: Dialect, request: ChatRequest) -> Answer:
        """The answer; a failure only where the server fails every time."""
        try:
            return await self._patience.ask(partial(self._once, dialect.body(self._model, request)))
        except _FailedError as error:
            return error.answer

    async def _once(self, body: dict[str, Any]) -> Answer:
        answer = unwrapped(await self._send(body))
        if answer.status == _FAILED:
            raise _FailedError(answer)
        if ran_out_of_tokens(answer) or answer.status in _NOT_TAKEN:
            return answer
        try:
            raise_failure(answer, self._address)
        except ClassificationError as error:  # no document is to blame for that
            raise ServerSetupError(f"{self._address} takes no chat request: {error}") from error
        return answer


class _FailedError(ServerError):
    """A server that answered 500."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.answer = answer


def _is_taken(answer: Answer) -> bool:
    return 200 <= answer.status < 300 or ran_out_of_tokens(answer)


def _reply(answer: Answer, request: ChatRequest) -> ChatReply:
    if ran_out_of_tokens(answer):
        return out_of_tokens(answer, request.max_tokens)
    try:
        return read_reply(answer)
    except RefusedError:  # nothing to be learnt from
        return ChatReply("", Usage(1))


def _follows(reply: ChatReply) -> bool:
    try:
        return bool(json.loads(reply.text) == {"answer": _UNLIKELY})
    except (ValueError, RecursionError):
        return False
