"""What OpenAI-compatible servers answer, read without trust.

The names of fields are those of the OpenAI API reference ("Create chat completion"); what other
servers do differently is said where it is read: vLLM, SGLang, llama.cpp, text-generation-inference,
LM Studio and the gateways in front of them word the same errors each in their own way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from doc_classify.classification.chat import ChatReply
from doc_classify.classification.http import Answer, count, expect, raise_for
from doc_classify.classification.replies import (
    make_usage,
    mapping,
    read_tokens,
    text_of,
    without_thoughts,
)
from doc_classify.errors import (
    ClassificationError,
    ContextExceededError,
    RefusedError,
    ServerSetupError,
)
from doc_classify.records import Usage

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

_NUMBER = r"(?<![\d,])(\d[\d,]{0,12})"
"""Bounded, so that a long row of digits takes no long time."""
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
_FILTERED = "the server's content filter stopped the answer"
_OUT_OF_TOKENS = "max_tokens or model output limit was reached"
"""OpenAI's 400 for a model that was still thinking when its tokens were used up."""


def read_reply(answer: Answer) -> ChatReply:
    """The answer to a chat request, from a response with a status of success.

    Raises:
        RefusedError: the model or a filter refused; ``usage`` is what that has cost.
        ServerError: it is no chat completion.
    """
    data = expect(answer.data, Mapping)
    used = _usage(data)
    choice = expect(_first(data.get("choices")), Mapping)
    message = expect(choice.get("message"), Mapping)
    refusal = text_of(message.get("refusal")).strip()
    reason = choice.get("finish_reason")
    if refusal or reason == "content_filter":
        said = f"the model refused: {answer.shown(refusal)}" if refusal else _FILTERED
        error = RefusedError(said)
        error.usage = used
        raise error

    written, parts_thought = _content(message.get("content"))
    text, marked, cut = without_thoughts(written)
    details = mapping(mapping(data.get("usage")).get("completion_tokens_details"))
    thought = (
        marked
        or parts_thought
        or any(text_of(message.get(name)).strip() for name in ("reasoning_content", "reasoning"))
        or count(details.get("reasoning_tokens")) > 0
    )
    whole = not thought and len(text) == len(written)
    tokens = read_tokens(mapping(choice.get("logprobs")).get("content"), text, whole=whole)
    return ChatReply(text, used, tokens, truncated=cut or reason == "length", thought=thought)


def raise_failure(answer: Answer, address: str) -> None:
    """Raise what an answer to a chat request means that is none; a success raises nothing.

    Raises:
        ContextExceededError: the prompt is too long.
        ServerSetupError: the server does not take a field any more that it took at the start.
        RefusedError, ServerError, ServerBusyError, ServerSetupError: see
            :func:`~.http.raise_for`.
    """
    answer = unwrapped(answer)
    try:
        if answer.status in (400, 413, 422):
            _raise_if_too_long(answer, address)
        if answer.status in (400, 422) and (named := named_field(answer)) is not None:
            raise ServerSetupError(f"{address} no longer takes the field {named}: {answer.message}")
        raise_for(answer, address)
    except ClassificationError as error:
        told = mapping(answer.data)
        error.usage = _usage(told) if isinstance(told.get("usage"), Mapping) else None
        raise


def ran_out_of_tokens(answer: Answer) -> bool:
    """Whether an error says that the answer had no room left after the model's thoughts."""
    return answer.status == 400 and _OUT_OF_TOKENS in answer.text


def out_of_tokens(answer: Answer, most: int) -> ChatReply:
    """What such an error amounts to.

    Args:
        answer: the error.
        most: tokens that the answer could have, and has used up.
    """
    used = _usage(mapping(answer.data))
    if not used.completion_tokens:
        used = replace(used, completion_tokens=most)
    return ChatReply("", used, truncated=True, thought=True)


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


def unwrapped(answer: Answer) -> Answer:
    """The answer with the status that it means.

    Gateways (OpenRouter) report a fault of the server behind them with status 200.
    """
    if not 200 <= answer.status < 300 or not isinstance(answer.data, Mapping):
        return answer
    if "choices" in answer.data or not isinstance(answer.data.get("error"), Mapping | str):
        return answer
    code = _error(answer).get("code")
    inner = code if isinstance(code, int) and 400 <= code < 600 else 502
    return replace(answer, status=inner)


def _error(answer: Answer) -> Mapping[str, Any]:
    """The fields of an error: in "error", or beside it (SGLang)."""
    data = mapping(answer.data)
    return mapping(data.get("error")) or data


def _usage(data: Mapping[str, Any]) -> Usage:
    told = mapping(data.get("usage"))
    cached = mapping(told.get("prompt_tokens_details")).get("cached_tokens")
    return make_usage(told.get("prompt_tokens"), cached, told.get("completion_tokens"))


def _content(content: object) -> tuple[str, bool]:
    """The text of a message, and whether it came with thoughts beside it (Mistral's parts)."""
    if content is None:
        return "", False
    if not isinstance(content, list):
        text: str = expect(content, str)
        return text, False
    parts = [mapping(part) for part in content]
    text = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return text, any(part.get("type") == "thinking" for part in parts)


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else None
