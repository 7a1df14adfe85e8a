"""The classifier that the settings name: its server, the model, where it runs, how fast it is."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from doc_classify.doctor.findings import Finding, judged
from doc_classify.errors import DocClassifyError
from doc_classify.terminal import one_line

if TYPE_CHECKING:
    from doc_classify.classification.llm import LlmClassifier
    from doc_classify.settings import Settings

_PROJECTED = 500_000
_WHOLE = 0.99
"""Share of a model in GPU memory from which on it counts as all of it."""
_SAMPLE = (
    "Dear Ms Young, thank you for your letter of the third of May about the delivery to our "
    "branch. We have looked into the matter and found that two of the crates were left at the "
    "depot by mistake. They will reach you on Thursday. Please accept our apologies, and let us "
    "know whether the remaining order can wait until the end of the month. "
)
"""Repeated up to the length that a document may have in the prompt."""


def findings(settings: Settings) -> list[Finding]:
    """Whether the classifier works; an LLM is asked about one document."""
    from doc_classify.blocking import run_blocking

    try:
        return run_blocking(_check(settings))
    except (DocClassifyError, OSError, ImportError) as error:
        return [Finding("classifier", "missing", one_line(str(error)), _advice(settings))]


async def _check(settings: Settings) -> list[Finding]:
    from doc_classify.classification.llm import LlmClassifier
    from doc_classify.classification.opening import open_classifier, taxonomy_of

    taxonomy = taxonomy_of(settings)
    async with open_classifier(settings, taxonomy) as chosen:
        text = f"{chosen.reason} (version {chosen.classifier.fingerprint})"
        found = [Finding("classifier", "ok", one_line(text))]
        if not isinstance(chosen.classifier, LlmClassifier):
            return found
        found.append(_server(chosen.classifier))
        try:
            found.append(Finding("LLM speed", "ok", one_line(await _speed(chosen.classifier))))
        except DocClassifyError as error:
            found.append(Finding("LLM speed", "missing", one_line(str(error))))
        return found


def _advice(settings: Settings) -> str:
    """What else may be wrong with a server that cannot be used; the reason itself says most."""
    if settings.classifier == "ollama":
        return (
            f"'ollama list' on that machine shows whether it runs and has {settings.ollama_model}; "
            "OLLAMA_HOST has to be its address as seen from here, and 0.0.0.0 on its own machine "
            "if others are to reach it; --classifier embedded needs no server"
        )
    return ""


def _server(classifier: LlmClassifier) -> Finding:
    facts = classifier.facts
    parts = [facts.server] if facts.server else []
    if facts.context is not None:
        parts.append(f"{facts.context:,} tokens of context")
    advice = ""
    if facts.on_gpu is not None:
        where = "on the GPU" if facts.on_gpu >= _WHOLE else f"{facts.on_gpu:.0%} on a GPU"
        parts.append(where if facts.on_gpu > 0 else "on the CPU alone: expect it to be slow")
        if facts.on_gpu <= 0:
            advice = (
                "where there is a GPU, 'ollama ps' and the server's log say why it is not used "
                "(driver, container without it); where there is none, a smaller model "
                "(llama3.2:1b) is faster, and 'doc-classify plan' says what it comes to"
            )
        elif facts.on_gpu < _WHOLE:
            advice = (
                "the model does not fit into the GPU's memory: take a smaller model or a smaller "
                "llm_context, or lower OLLAMA_NUM_PARALLEL"
            )
    parts.append(
        "log-probabilities (scores)" if facts.logprobs else "no log-probabilities, so no scores"
    )
    parts.append("JSON schema" if facts.schema else "no JSON schema")
    if facts.thinks:
        parts.append("it thinks aloud before each answer, which costs time")
    return judged("LLM server", ", ".join((*parts, *facts.notes)), advice)


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
