"""One document looked at closely: what is read in it, and what speaks for which category."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from doc_classify.blocking import run_blocking
from doc_classify.classification import Classifier, ClassifierInput
from doc_classify.classification.explaining import Explanation
from doc_classify.classification.llm import LlmClassifier
from doc_classify.classification.opening import open_classifier, taxonomy_of
from doc_classify.discovery import walk
from doc_classify.discovery.objects import fetched
from doc_classify.errors import (
    ClassificationError,
    ConfigurationError,
    TimeLimitError,
    TransientError,
    WorkerCrashError,
)
from doc_classify.pipeline.isolation import Death, IsolatedWorker
from doc_classify.pipeline.messages import Request
from doc_classify.pipeline.plan import Plan
from doc_classify.records import (
    Extraction,
    Failure,
    Rejected,
    Source,
    document_name,
    is_object_uri,
    path_to_uri,
)
from doc_classify.settings import Settings
from doc_classify.taxonomy import Taxonomy
from doc_classify.terminal import shown_path


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found out about a document.

    Attributes:
        uri: where it is.
        size: in bytes; None where it could not even be looked at.
        taxonomy: the categories there were to choose from.
        classifier: which one, and why it is this one.
        extraction: what was read; None where nothing could be.
        explanation: the decision; None where there is none.
        failure: why something is missing.
    """

    uri: str
    size: int | None
    taxonomy: Taxonomy
    classifier: str
    extraction: Extraction | None = None
    explanation: Explanation | None = None
    failure: Failure | None = None


def examine(path: Path | str, settings: Settings, *, include_reasoning: bool = False) -> Examined:
    """Read one document in an isolated process and classify it, as a run would.

    Args:
        path: the file, or the URL of an object.
        settings: as of a run.
        include_reasoning: ask an LLM for its reasons as well; the others tell them anyhow.

    Raises:
        ConfigurationError: there is no such document, it is several, or a setting cannot be used.
        ServerError, ServerSetupError: the LLM server cannot be used.
        BudgetReachedError: not even one document may be asked about.
    """
    if isinstance(path, Path) and path.is_dir():
        raise ConfigurationError(f"{shown_path(path)} is a folder: explain takes one document")
    found = [entry for entry in islice(walk(path), 2) if isinstance(entry, Source | Rejected)]
    if len(found) != 1:
        what = "several documents" if found else "no document"
        raise ConfigurationError(f"there is {what} at {shown_path(path)}: explain takes one")
    return run_blocking(_examine(found[0], settings, include_reasoning))


async def _examine(
    found: Source | Rejected, settings: Settings, include_reasoning: bool
) -> Examined:
    taxonomy = taxonomy_of(settings)
    async with open_classifier(settings, taxonomy, include_reasoning=include_reasoning) as chosen:
        plan = Plan.make(
            settings, chosen.classifier, taxonomy=taxonomy, include_reasoning=include_reasoning
        )
        size = found.size if isinstance(found, Source) else None
        examined = Examined(found.uri, size, taxonomy, chosen.reason)
        if isinstance(found, Rejected):
            return replace(examined, failure=Failure(found.kind, found.message))
        result = await _read(found, plan)
        if isinstance(result, Failure):
            return replace(examined, failure=result)
        examined = replace(examined, extraction=result)
        document = ClassifierInput.of(result, document_name(found.uri))
        try:
            explanation = await _explain(chosen.classifier, document, plan)
        except ClassificationError as error:
            return replace(examined, failure=Failure(error.kind, str(error)))
        return replace(examined, explanation=explanation)


async def _explain(
    classifier: Classifier | LlmClassifier, document: ClassifierInput, plan: Plan
) -> Explanation:
    if isinstance(classifier, LlmClassifier):
        return await classifier.explain(document, classifier.meter(plan.budget()))
    explain = getattr(classifier, "explain", None)
    if explain is None:  # somebody's own, which need not be able to
        return Explanation(classifier.classify(document, include_reasoning=True))
    explanation: Explanation = explain(document)
    return explanation


async def _read(source: Source, plan: Plan) -> Extraction | Failure:
    config = replace(plan.worker_config(), classifier=None, model=None)
    worker = IsolatedWorker(config, recycle_after=1)
    try:
        with _copy_of(source) as copy:
            request = Request(1, source, copy=copy)
            async with contextlib.aclosing(worker.answer([request])) as answers:
                async for _, answer in answers:
                    if isinstance(answer, Death):
                        kind = TimeLimitError if answer.timed_out else WorkerCrashError
                        return Failure(kind.kind, answer.reason)
                    if answer.extraction is not None:
                        return answer.extraction
                    if answer.failure is not None:
                        return answer.failure
    except TransientError as error:
        return Failure(error.kind, str(error))
    finally:
        await worker.stop()
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _copy_of(source: Source) -> Iterator[Source | None]:
    """The copy of an object that is read in its place."""
    if not is_object_uri(source.uri):
        yield None
        return
    with fetched(source) as copy:
        status = copy.path.stat()
        yield Source(path_to_uri(copy.path), status.st_size, status.st_mtime_ns)
