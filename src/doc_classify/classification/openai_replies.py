"""What OpenAI-compatible servers answer, read without trust.

The names of fields are those of the OpenAI API reference ("Create chat completion"); what other
servers do differently is said where it is read: vLLM, SGLang, llama.cpp, text-generation-inference,
LM Studio and the gateways in front of them word the same errors each in their own way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from doc_classify.classification.chat import ChatReply, Token
from doc_classify.classification.http import Answer, count, expect, raise_for
from doc_classify.errors import ContextExceededError, RefusedError, ServerSetupError
from doc_classify.records import Usage
from doc_classify.terminal import one_line

FLOOR = -9999.0
"""Log-probability that stands for none at all; OpenAI and vLLM say so, others say -Infinity."""
_ROUNDING = 0.01
"""How far above 0 a log-probability may be by the rounding of a server."""
_MOST_ALTERNATIVES = 64

OPTIONAL_FIELDS = (
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "seed",
    "logprobs",
    "top_logprobs",
    "chat_template_kwargs",
    "reasoning_effort",
    "response_format",
)
"""Fields of a request that some server refuses."""

_THOUGHT_END = re.compile(r"</(?:think|thinking)>")
_THOUGHT_START = re.compile(r"\s*<(?:think|thinking)>")

_NUMBER = r"(\d[\d,]*)"
_TOO_LONG = re.compile(
    r"context[ _-](?:length|size|window|limit)|maximum (?:model|input|prompt) length"
    r"|reduce the length of the|input tokens exceed|prompt is too long"
    r"|must have less than \d+ tokens|`inputs` tokens \+ `max_new_tokens`",
    re.IGNORECASE,
)
_LIMITS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # OpenAI and vLLM: "maximum context length is N tokens", "context length is only N tokens";
        # SGLang: "maximum context length of N tokens", "model's context length (N tokens)".
        rf"(?:context|model|input) (?:length|size|window)(?: is| of)?(?: only)? \(?{_NUMBER}",
        rf"configured limit of {_NUMBER}",  # OpenAI
        rf"must (?:be <=|have less than) {_NUMBER}",  # text-generation-inference
        rf"{_NUMBER} maximum",  # Mistral, Anthropic's adapter
    )
)
_LENGTHS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_NUMBER} (?:tokens )?(?:in|from) the (?:input )?(?:messages|prompt)",  # OpenAI, SGLang
        rf"(?:resulted in|contains at least|passed|has|contains) {_NUMBER} (?:input )?tokens",
        rf"(?:input|request|prompt) \((?:length )?{_NUMBER}",  # SGLang, llama.cpp, older vLLM
        rf"given: {_NUMBER}",  # text-generation-inference
        rf"too long: {_NUMBER}",  # Anthropic's adapter
    )
)
_OUT_OF_TOKENS = "max_tokens or model output limit was reached"
"""OpenAI's 400 for a model that was still thinking when its tokens were used up."""


def read_reply(answer: Answer) -> ChatReply:
    """The answer to a chat request, from a response with a status of success.

    Raises:
        RefusedError: the model or a filter refused.
        ServerError: it is no chat completion.
    """
    choice = expect(_first(expect(answer.data, Mapping).get("choices")), Mapping)
    message = expect(choice.get("message"), Mapping)
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal.strip():
        raise RefusedError(one_line(f"the model refused: {refusal}"))
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        raise RefusedError("the server's content filter stopped the answer")

    usage = _mapping(answer.data.get("usage"))
    written, parts_thought = _content(message.get("content"))
    text, marked, unclosed = _without_thought(written)
    thought = (
        marked
        or parts_thought
        or any(_is_text(message.get(name)) for name in ("reasoning_content", "reasoning"))
        or count(_mapping(usage.get("completion_tokens_details")).get("reasoning_tokens")) > 0
    )
    tokens = tuple(_tokens(choice.get("logprobs")) or ())
    if thought:
        tokens = _after_thought(tokens, text)
    return ChatReply(
        text, _usage(usage), tokens, truncated=reason == "length" or unclosed, thought=thought
    )


def raise_failure(answer: Answer, address: str) -> None:
    """Raise what an answer to a chat request means that is none; a success raises nothing.

    Raises:
        ContextExceededError: the prompt is too long.
        ServerSetupError: the server does not take a field any more that it took at the start.
        RefusedError, ServerError, ServerBusyError, ServerSetupError: see
            :func:`~.http.raise_for`.
    """
    answer = _with_inner_status(answer)
    if answer.status in (400, 413, 422):
        _raise_if_too_long(answer, address)
    if answer.status in (400, 422) and (named := named_field(answer)) is not None:
        raise ServerSetupError(f"{address} no longer takes the field {named}: {answer.message}")
    raise_for(answer, address)


def ran_out_of_tokens(answer: Answer) -> bool:
    """Whether an error says that the answer had no room left after the model's thoughts."""
    return answer.status == 400 and _OUT_OF_TOKENS in answer.text


def out_of_tokens() -> ChatReply:
    """What such an error amounts to; it does not say how many tokens were used."""
    return ChatReply("", Usage(calls=1), truncated=True, thought=True)


def is_unknown_model(answer: Answer) -> bool:
    """Whether an error says that the server does not have the model."""
    if answer.status == 404:
        return True
    return answer.status == 400 and "model_not_found" in _error(answer).values()


def named_field(answer: Answer, fields: tuple[str, ...] = OPTIONAL_FIELDS) -> str | None:
    """The field, of those, that an error names as its cause in ``param``, as OpenAI does."""
    param = _error(answer).get("param")
    name = param.split(".")[0].split("[")[0] if isinstance(param, str) else ""
    return name if name in fields else None


def mentioned_field(answer: Answer, fields: tuple[str, ...]) -> str | None:
    """The field, of those, that an error's text mentions first."""
    found = re.search(rf"\b(?:{'|'.join(map(re.escape, fields))})\b", answer.text)
    return found[0] if found else None


def without_secret(answer: Answer, secret: str) -> Answer:
    """The same answer with the key struck out wherever the server repeats it."""
    if not secret:
        return answer
    escaped = json.dumps(secret)[1:-1]
    try:
        written = json.dumps(answer.data)
    except RecursionError:
        written = "null"
    data = json.loads(written.replace(escaped, "***"))
    text = answer.text.replace(secret, "***").replace(escaped, "***")
    return replace(answer, data=data, text=text)


def _raise_if_too_long(answer: Answer, address: str) -> None:
    error = _error(answer)
    said = f"{address}: {answer.message}"
    if error.get("type") == "exceed_context_size_error":  # llama.cpp
        tokens, limit = count(error.get("n_prompt_tokens")), count(error.get("n_ctx"))
        raise ContextExceededError(said, tokens or None, limit or None)
    text = answer.message
    if error.get("code") == "context_length_exceeded" or _TOO_LONG.search(text):
        raise ContextExceededError(said, _number(_LENGTHS, text), _number(_LIMITS, text))


def _number(patterns: tuple[re.Pattern[str], ...], text: str) -> int | None:
    for pattern in patterns:
        if found := pattern.search(text):
            return count(float(found[1].replace(",", ""))) or None
    return None


def _with_inner_status(answer: Answer) -> Answer:
    """Gateways (OpenRouter) report a fault of the server behind them with status 200."""
    if not 200 <= answer.status < 300 or not isinstance(answer.data, Mapping):
        return answer
    if "choices" in answer.data or not isinstance(answer.data.get("error"), Mapping | str):
        return answer
    code = _error(answer).get("code")
    inner = code if isinstance(code, int) and 400 <= code < 600 else 502
    return replace(answer, status=inner)


def _error(answer: Answer) -> Mapping[str, Any]:
    """The fields of an error: in "error", or beside it (SGLang)."""
    data = _mapping(answer.data)
    return _mapping(data.get("error")) or data


def _usage(usage: Mapping[str, Any]) -> Usage:
    prompt = count(usage.get("prompt_tokens"))
    cached = count(_mapping(usage.get("prompt_tokens_details")).get("cached_tokens"))
    return Usage(1, prompt, min(cached, prompt), count(usage.get("completion_tokens")))


def _content(content: object) -> tuple[str, bool]:
    """The text of a message, and whether it came with thoughts beside it (Mistral's parts)."""
    if content is None:
        return "", False
    if not isinstance(content, list):
        text: str = expect(content, str)
        return text, False
    parts = [_mapping(part) for part in content]
    text = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return text, any(part.get("type") == "thinking" for part in parts)


def _without_thought(text: str) -> tuple[str, bool, bool]:
    """(the answer, whether there were thoughts before it, whether they did not end)."""
    *_, end = [None, *_THOUGHT_END.finditer(text)]
    if end is not None:  # where the template opens the thoughts, only their end is in the answer
        return text[end.end() :].strip(), True, False
    if _THOUGHT_START.match(text):
        return "", True, True
    return text, False, False


def _after_thought(tokens: tuple[Token, ...], text: str) -> tuple[Token, ...]:
    """The tokens of the answer alone; none where they cannot be told from those of thoughts."""
    answer = text.strip()
    written = "".join(token.text for token in tokens)
    *_, end = [None, *_THOUGHT_END.finditer(written)]
    start = end.end() if end is not None else written.rfind(answer)
    if not answer or start < 0:
        return ()
    place = 0
    for index, token in enumerate(tokens):
        if place >= start and token.text.strip():
            return tokens[index:]
        place += len(token.text)
    return ()


def _tokens(logprobs: object) -> list[Token] | None:
    """The tokens of an answer; None where one of them cannot be used, and so none fits."""
    content = _mapping(logprobs).get("content")
    if not isinstance(content, list):
        return None
    tokens = []
    for entry in map(_mapping, content):
        text, logprob = entry.get("token"), _logprob(entry.get("logprob"))
        if not isinstance(text, str) or logprob is None:
            return None
        tokens.append(Token(text, logprob, _alternatives(entry, text, logprob)))
    return tokens


def _alternatives(
    entry: Mapping[str, Any], text: str, logprob: float
) -> tuple[tuple[str, float], ...]:
    given = entry.get("top_logprobs")
    found = list(_pairs(given)) if isinstance(given, list) else []
    # llama.cpp puts bytes of the character before into a token's text, but not into its twin's.
    if found and not any(other == text or value == logprob for other, value in found):
        found.append((text, logprob))
    return tuple(sorted(found, key=lambda pair: -pair[1])[:_MOST_ALTERNATIVES])


def _pairs(given: list[object]) -> Iterator[tuple[str, float]]:
    for alternative in map(_mapping, given):
        text, logprob = alternative.get("token"), _logprob(alternative.get("logprob"))
        if isinstance(text, str) and logprob is not None:
            yield text, logprob


def _logprob(value: object) -> float | None:
    """A log-probability, at least :data:`FLOOR` and at most 0; None for what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(min(max(value, FLOOR), 0.0)) if value <= _ROUNDING else None  # NaN is not


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
