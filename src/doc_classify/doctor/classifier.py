"""The part of ``check`` that looks at the classifier, and times an LLM."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from doc_classify.errors import DocClassifyError

if TYPE_CHECKING:
    from doc_classify.classification.llm import LlmClassifier
    from doc_classify.settings import Settings

_PROJECTED = 500_000
_SAMPLE = (
    "Dear Ms Young, thank you for your letter of the third of May about the delivery to our "
    "branch. We have looked into the matter and found that two of the crates were left at the "
    "depot by mistake. They will reach you on Thursday. Please accept our apologies, and let us "
    "know whether the remaining order can wait until the end of the month. "
)
"""Repeated up to the length that a document may have in the prompt."""


def check_classifier(settings: Settings) -> list[tuple[str, bool, str]]:
    """(what, usable, what was found) for the classifier that the settings name."""
    from doc_classify.blocking import run_blocking

    try:
        return run_blocking(_check(settings))
    except (DocClassifyError, OSError, ImportError) as error:
        return [("classifier", False, str(error))]


async def _check(settings: Settings) -> list[tuple[str, bool, str]]:
    from doc_classify.classification.llm import LlmClassifier
    from doc_classify.classification.opening import open_classifier

    taxonomy = settings.make_taxonomy()
    async with open_classifier(settings, taxonomy) as chosen:
        found = [("classifier", True, f"{chosen.reason} (version {chosen.classifier.fingerprint})")]
        if not isinstance(chosen.classifier, LlmClassifier):
            return found
        found.append(("LLM server", True, _facts(chosen.classifier)))
        try:
            found.append(("LLM speed", True, await _speed(chosen.classifier)))
        except DocClassifyError as error:
            found.append(("LLM speed", False, str(error)))
        return found


def _facts(classifier: LlmClassifier) -> str:
    facts = classifier.facts
    parts = [facts.server] if facts.server else []
    if facts.context is not None:
        parts.append(f"{facts.context:,} tokens of context")
    if facts.on_gpu is not None:
        where = "on the GPU" if facts.on_gpu >= 0.99 else f"{facts.on_gpu:.0%} on a GPU"
        parts.append(where if facts.on_gpu > 0 else "on the CPU alone: expect it to be slow")
    parts.append(
        "log-probabilities (scores)" if facts.logprobs else "no log-probabilities, so no scores"
    )
    parts.append("JSON schema" if facts.schema else "no JSON schema")
    if facts.thinks:
        parts.append("it thinks aloud before each answer, which costs time")
    return ", ".join((*parts, *facts.notes))


async def _speed(classifier: LlmClassifier) -> str:
    from doc_classify.classification.base import ClassifierInput
    from doc_classify.classification.budget import Budget
    from doc_classify.summary import duration

    # Random words at the start, lest the server answer from its cache.
    text = f"{secrets.token_hex(4)} {secrets.token_hex(4)}\n" + _SAMPLE * 40
    meter = classifier.meter(Budget())
    started = time.perf_counter()
    await classifier.classify(ClassifierInput(text=text, name="letter.txt"), meter)
    seconds = time.perf_counter() - started
    usage = meter.usage
    return (
        f"{seconds:.2f} s for a long document ({usage.prompt_tokens:,} prompt tokens, "
        f"{usage.cached_tokens:,} of them cached, {usage.completion_tokens:,} answered): "
        f"{3600 / seconds:,.0f} documents/hour, {duration(seconds * _PROJECTED)} for "
        f"{_PROJECTED:,}, one after the other; a server that works on several at a time does more"
    )
