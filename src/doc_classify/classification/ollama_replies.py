"""What an Ollama server answers, read without trust.

The names of fields and the wordings of errors are those of the program itself; see :mod:`.ollama`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from doc_classify.classification.http import Answer, count
from doc_classify.errors import ServerError
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
_BEYOND_REPAIR = re.compile(
    r"requires more system memory|does not support (?:chat|generate|completion)"
    r"|(?:unknown|unsupported) model architecture|not supported by your version"
    r"|unable to load model|error loading model|invalid model name|model is required",
    re.IGNORECASE,
)


READ

CHECK

RAISE


def full_name(name: str) -> str:
    """A model's name as the server compares it: with its tag, without the default registry."""
    name = name.strip().casefold()
    name = name.removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def names(model: Mapping[str, Any]) -> set[str]:
    said = (_text(model.get("name")), _text(model.get("model")))
    return {full_name(name) for name in said if name}


def models(answer: Answer) -> Iterable[Mapping[str, Any]]:
    models = _mapping(answer.data, "list of models").get("models") or []
    if not isinstance(models, list):
        raise ServerError("the server's list of models is none")
    return (model for model in models if isinstance(model, dict))


def context_of(shown: Mapping[str, Any]) -> int | None:
    """The longest context that the model was made for."""
    info = shown.get("model_info")
    if not isinstance(info, dict):
        return None
    architecture = _text(info.get("general.architecture"))
    return count(info.get(f"{architecture}.context_length")) or None


def digest(shown: Mapping[str, Any]) -> str:
    """Stands in for the digest of the weights where the server lists none."""
    fields = ("modelfile", "parameters", "template", "details", "model_info", "modified_at")
    told = json.dumps([shown.get(field) for field in fields], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def remote_host(listed: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    """Where Ollama sends what a "cloud" model is asked; "" where it answers itself."""
    found = _text(listed.get("remote_host")) or _text(shown.get("remote_host")) or ""
    return one_line(found[:100])


def notes(version: str, *, logprobs: bool) -> tuple[str, ...]:
    notes = []
    if not logprobs:
        notes.append(f"Ollama {version} gives no log-probabilities; 0.12.11 and newer do")
    return tuple(notes)


def follows(text: str) -> bool:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and data.get("answer") in _PROBE_ANSWERS


def innermost(answer: Answer) -> tuple[str, Mapping[str, Any]]:
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
