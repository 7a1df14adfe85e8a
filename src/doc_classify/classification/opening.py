"""The classifier of a run: named, made, connected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from doc_classify.classification.base import Classifier
from doc_classify.classification.chat import ChatBackend
from doc_classify.classification.llm import LlmClassifier
from doc_classify.classification.registry import AUTO, BACKEND_GROUP, make_classifier, unknown
from doc_classify.errors import ConfigurationError, ServerError, ServerSetupError
from doc_classify.records import CASCADE
from doc_classify.settings import Settings
from doc_classify.taxonomy import Taxonomy

if TYPE_CHECKING:
    from doc_classify.classification.model_file import TrainedModel

EMBEDDED = "embedded"
_AUTO_SERVER, _AUTO_ELSE = "ollama", EMBEDDED


@dataclass(frozen=True, slots=True)
class Chosen:
    """The classifier of a run, and why it is this one (for a person)."""

    classifier: Classifier | LlmClassifier
    reason: str


def make_backend(name: str, settings: Settings) -> ChatBackend:
    """The chat back end of that name, not yet opened.

    Raises:
        ConfigurationError: there is none of that name, or the settings do not suffice for it.
    """
    for entry in entry_points(group=BACKEND_GROUP, name=name):
        backend: ChatBackend = entry.load().from_settings(settings)
        return backend
    raise unknown(name)


def taxonomy_of(settings: Settings, given: Taxonomy | None = None) -> Taxonomy:
    """The categories of a run: those of the trained model where one is used.

    Args:
        settings: name the classifier, its model, and categories.
        given: categories that were given otherwise, which win over those of the settings.

    Raises:
        ConfigurationError: the taxonomy or the model cannot be used, or a model is to be used with
            other categories than it was trained for.
    """
    model = trained_model(settings)
    if model is None:
        return given or settings.make_taxonomy()
    own = model.taxonomy
    if given or settings.categories or settings.taxonomy:
        wanted = given or settings.make_taxonomy()
        if set(wanted.names) != set(own.names):
            raise ConfigurationError(
                f"the model {settings.embedded_model} knows the categories {', '.join(own.names)}, "
                f"and not {', '.join(wanted.names)}: leave the categories out, or train it for them"
            )
    return own


@asynccontextmanager
async def open_classifier(
    settings: Settings,
    taxonomy: Taxonomy,
    *,
    include_reasoning: bool = False,
    digest: str | None = None,
) -> AsyncIterator[Chosen]:
    """The classifier that the settings name, ready to be used in this event loop.

    ``auto`` is decided here, once: a reachable Ollama that has the model and runs it itself (of
    the other kind, documents would leave unasked), else the embedded classifier.

    Args:
        settings: name the classifier, its model and its server.
        taxonomy: the categories.
        include_reasoning: as it will be asked.
        digest: of the trained model, where it has to be one and the same.

    Raises:
        ConfigurationError: it does not exist, or the settings do not suffice for it.
        ServerError, ServerSetupError: its server cannot be reached or used.
    """
    name = settings.classifier
    async with AsyncExitStack() as stack:
        if name == AUTO:
            try:
                llm = _llm(_AUTO_SERVER, settings, taxonomy, include_reasoning)
                opened = await stack.enter_async_context(llm)
                if opened.facts.remote_host:
                    raise ServerSetupError(f"{opened.model} does not run on this server")
            except (ConfigurationError, ServerError, ServerSetupError) as error:
                chosen = Chosen(
                    make_classifier(_AUTO_ELSE, taxonomy), f"auto: {_AUTO_ELSE}, since {error}"
                )
            else:
                chosen = Chosen(opened, f"auto: {_described(opened)}")
        elif name == CASCADE or entry_points(group=BACKEND_GROUP, name=name):
            name = settings.asked
            if not entry_points(group=BACKEND_GROUP, name=name):
                known = ", ".join(entry.name for entry in entry_points(group=BACKEND_GROUP))
                raise ConfigurationError(
                    f"the teacher of a cascade has to be an LLM ({known}), which {name!r} is not"
                )
            opened = await stack.enter_async_context(
                _llm(name, settings, taxonomy, include_reasoning)
            )
            cascade = f"{CASCADE} taught by " if settings.classifier == CASCADE else ""
            chosen = Chosen(opened, f"{cascade}{_described(opened)}")
        elif name == EMBEDDED and settings.embedded_model is not None:
            chosen = _trained(settings.embedded_model, taxonomy, digest)
        else:
            chosen = Chosen(make_classifier(name, taxonomy), name)
        yield chosen


def trained_model(settings: Settings) -> TrainedModel | None:
    """The trained model that the settings name; None where they name none.

    Raises:
        ConfigurationError: it cannot be used.
    """
    if settings.classifier != EMBEDDED or settings.embedded_model is None:
        return None
    from doc_classify.classification.model_file import TrainedModel

    return TrainedModel.load(settings.embedded_model)


def trained_digest(settings: Settings) -> str | None:
    """Digest of the trained model that the settings name; None where they name none.

    Raises:
        ConfigurationError: it cannot be used.
    """
    model = trained_model(settings)
    return model.digest if model else None


def _trained(path: Path, taxonomy: Taxonomy, digest: str | None) -> Chosen:
    from doc_classify.classification.model_file import TrainedModel
    from doc_classify.classification.trained import TrainedClassifier

    model = TrainedModel.load(path)
    if model.taxonomy != taxonomy:
        raise ConfigurationError(f"the model {path} was trained for other categories")
    if digest and model.digest != digest:
        raise ConfigurationError(
            f"the model {path} is not the one that the run began with: it was trained again"
        )
    made = model.provenance
    reason = f"{EMBEDDED}, trained on {made.documents:,} documents {made.created[:10]}".rstrip()
    return Chosen(TrainedClassifier(model), reason)


def _llm(
    name: str, settings: Settings, taxonomy: Taxonomy, include_reasoning: bool
) -> LlmClassifier:
    return LlmClassifier(
        make_backend(name, settings),
        taxonomy,
        context=settings.llm_context,
        document_tokens=settings.llm_document_tokens,
        include_reasoning=include_reasoning,
    )


def _described(classifier: LlmClassifier) -> str:
    facts = classifier.facts
    remote = f", which sends documents on to {facts.remote_host}" if facts.remote_host else ""
    return f"{classifier.name} with {facts.model} at {facts.address}{remote}"
