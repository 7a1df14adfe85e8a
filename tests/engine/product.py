"""The trained model that the product's own prompt is for, with the taxonomy that it starts with."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from tests.engine.training import CACHE, Form, trained_model

from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.prompt import Prompt
from doc_classify.taxonomy import DEFAULT_TAXONOMY

PROMPT = Prompt(DEFAULT_TAXONOMY, context=4096, document_tokens=1500)


def by_name(text: str) -> tuple[str, str]:
    """Asks for the bare name of a category."""
    return PROMPT.system, PROMPT.user(_document(text), PROMPT.by_name)


def by_json(text: str) -> tuple[str, str]:
    """Asks for JSON."""
    return PROMPT.system, PROMPT.user(_document(text), PROMPT.by_json)


def with_reasoning(text: str) -> tuple[str, str]:
    """Asks for JSON with a reason in it."""
    return PROMPT.system, PROMPT.user(_document(text), PROMPT.with_reasoning)


def product_model(cache: Path = CACHE) -> Path:
    """A model that puts documents into the categories of the taxonomy that there is at first."""
    forms = [
        Form(by_name, weight=5),
        Form(by_json, _json, weight=3),
        Form(with_reasoning, _reasoned, weight=2),
    ]
    return trained_model(forms, cache=cache)


def _document(text: str) -> ClassifierInput:
    """The document under a file name that says nothing, with its title or without."""
    number = zlib.crc32(text.encode())
    title = text.partition("\n")[0] if number % 2 else None
    return ClassifierInput(text, name=f"{number % 10_000}.pdf", title=title)


def _json(category: str) -> str:
    return json.dumps({"category": category})


def _reasoned(category: str) -> str:
    return json.dumps({"reasoning": f"It reads like {category}.", "category": category})
