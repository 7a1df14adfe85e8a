"""What an Ollama server answers, read without trust.

The names of fields and the wordings of errors are those of the program itself; see :mod:`.ollama`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from doc_classify.classification.chat import ChatReply
from doc_classify.classification.http import Answer, count, expect, raise_for
from doc_classify.classification.replies import (
    make_usage,
    read_tokens,
    text_of,
    without_thoughts,
)
from doc_classify.errors import ContextExceededError, ServerError, ServerSetupError
from doc_classify.records import Usage
from doc_classify.terminal import one_line

PROBE_ANSWERS = ("QX7", "ZK4")
"""No model says these to a greeting, unless a schema makes it."""
_MARGIN = 4
"""A prompt that ends so few tokens before the context does has been cut."""
_LONGEST_MESSAGE = 10_000
_TOO_LONG = re.compile(
    r"exceeds (?:the )?(?:available |model's )?(?:maximum )?context"
    r"|longer than the context|larger than the max context|exceed_context_size",
    re.IGNORECASE,
)
"""Wordings of Ollama (0.12 and on), of the llama.cpp inside it (0.30 and on) and of its MLX."""
_TOKENS = re.compile(r"\((\d{1,9}) tokens\)")
_FORMAT_REFUSED = re.compile(r"(?<![a-z])(?:schema|grammar|format)(?![a-z])", re.IGNORECASE)
_THINK_REFUSED = re.compile(r"\bthink(?:ing)?\b", re.IGNORECASE)
_BEYOND_REPAIR = re.compile(
    r"requires more system memory|does not support (?:chat|generate|completion)"
    r"|(?:unknown|unsupported) model architecture|not supported by your version"
    r"|unable to load model|error loading model|invalid model name|model is required",
    re.IGNORECASE,
)


def read_reply(answer: Answer, context: int, address: str) -> ChatReply:
    """The answer to a chat request, from a response with a status of success.

    Args:
        answer: the response.
        context: tokens that the server was asked to give prompt and answer together.
        address: where the server is, for messages.

    Raises:
        ContextExceededError: the server has cut the prompt; ``usage`` is what it counted.
        ServerError: it is no chat answer.
    """
    data = expect(answer.data, Mapping)
    if data.get("error"):
        raise ServerError(f"{address}: {answer.message}")
    message = expect(data.get("message"), Mapping)
    content = expect(message.get("content", ""), str)
    if data.get("done") is False:
        raise ServerError("the server's answer is not complete")
    reason = data.get("done_reason")
    if reason in ("load", "unload"):
        raise ServerError(f"the server gave no answer, but did {reason} the model")
    # prompt_eval_count counts the whole prompt, cached tokens included; only the first versions of
    # 0.30 left those out (https://github.com/ollama/ollama/pull/16428), and those before 0.4 left
    # the field out. Newer ones say beside it how many were cached.
    usage = make_usage(
        data.get("prompt_eval_count"), data.get("prompt_eval_cached_count"), data.get("eval_count")
    )
    _check_window(usage, context)
    text, thought, cut = without_thoughts(content)
    thinking = bool(text_of(message.get("thinking")).strip())
    whole = not thinking and len(text) == len(content)
    return ChatReply(
        text=text,
        usage=usage,
        tokens=read_tokens(data.get("logprobs"), text, whole=whole),
        truncated=cut or reason == "length",
        thought=thought or thinking,
    )


def raise_failure(answer: Answer, address: str) -> None:
    """Raise what an answer to a request about the model means that is none.

    A success raises nothing. What else there is, is said at :func:`~.http.raise_for`.

    Raises:
        ContextExceededError: the prompt is too long.
        ServerSetupError: the model cannot be used with this server or machine.
        ServerError: the server gave the request up.
    """
    if 200 <= answer.status < 300:
        return
    message, details = _innermost(answer)
    said = f"{address}: HTTP {answer.status}: {answer.shown(message)}"
    if _TOO_LONG.search(message):
        told = [int(number) for number in _TOKENS.findall(message)[:2]]
        tokens, limit = told if len(told) == 2 else (None, None)
        raise ContextExceededError(
            said,
            tokens=count(details.get("n_prompt_tokens")) or tokens,
            limit=count(details.get("n_ctx")) or limit,
        )
    if _BEYOND_REPAIR.search(message):
        raise ServerSetupError(said)
    if answer.status == 499:  # the server gave the request up
        raise ServerError(said)
    raise_for(answer, address)


def refuses_format(answer: Answer) -> bool:
    """Whether the server says that it cannot follow the schema it was given."""
    return answer.status in (400, 422, 500, 501) and bool(_FORMAT_REFUSED.search(answer.message))


def refuses_think(answer: Answer, model: str) -> bool:
    """Whether the server says that it does not take ``think`` with this model."""
    message = answer.message.replace(model, "")
    return answer.status == 400 and bool(_THINK_REFUSED.search(message))


def _check_window(usage: Usage, limit: int) -> None:
    """Find out by the counts whether the server has cut what it was given.

    Servers before 0.12.6 do not know ``truncate``: they keep the first four tokens and as much
    of the end as the context holds. And an answer that runs into the end of the context makes
    the server drop half of the prompt and go on.
    """
    if usage.prompt_tokens >= limit - _MARGIN:
        error = ContextExceededError(
            f"the prompt fills the context of {limit} tokens, so that the server has cut it",
            limit=limit,
        )
    elif usage.prompt_tokens + usage.completion_tokens > limit:
        error = ContextExceededError(
            f"prompt and answer together are longer than the context of {limit} tokens",
            tokens=usage.prompt_tokens,
            limit=limit,
        )
    else:
        return
    error.usage = usage
    raise error


def full_name(name: str) -> str:
    """A model's name as the server compares it: with its tag, without the default registry."""
    name = name.strip().casefold()
    name = name.removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def names_of(model: Mapping[str, Any]) -> set[str]:
    """The names under which a list of models has one."""
    said = (text_of(model.get("name")), text_of(model.get("model")))
    return {full_name(name) for name in said if name}


def models_in(answer: Answer) -> Iterable[Mapping[str, Any]]:
    """The entries of a list of models."""
    models = expect(answer.data, Mapping).get("models") or []
    if not isinstance(models, list):
        raise ServerError("the server's list of models is none")
    return (model for model in models if isinstance(model, dict))


def context_of(shown: Mapping[str, Any]) -> int | None:
    """The longest context that the model was made for."""
    info = shown.get("model_info")
    if not isinstance(info, dict):
        return None
    architecture = text_of(info.get("general.architecture"))
    return count(info.get(f"{architecture}.context_length")) or None


def digest_of(shown: Mapping[str, Any]) -> str:
    """Stands in for the digest of the weights where the server lists none."""
    fields = ("modelfile", "parameters", "template", "details", "model_info", "modified_at")
    told = json.dumps([shown.get(field) for field in fields], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def remote_host(listed: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    """Where Ollama sends what a "cloud" model is asked; "" where it answers itself."""
    found = text_of(listed.get("remote_host")) or text_of(shown.get("remote_host"))
    return one_line(found[:100])


def notes_on(version: str, *, logprobs: bool) -> tuple[str, ...]:
    """What a person should know of a server of that version."""
    notes = []
    if not logprobs:
        notes.append(f"Ollama {version} gives no log-probabilities; 0.12.11 and newer do")
    return tuple(notes)


def follows(text: str) -> bool:
    """Whether an answer is one that only a schema can bring about."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and data.get("answer") in PROBE_ANSWERS


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
    return message[:_LONGEST_MESSAGE].strip() or "no reason given", details


def number(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None
