"""How a run classifies: everything that decides what its results are, and what they cost."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from doc_classify.classification import Classifier
from doc_classify.classification.budget import Budget
from doc_classify.classification.llm import LlmClassifier
from doc_classify.classification.opening import EMBEDDED, taxonomy_of
from doc_classify.classification.registry import model_digest
from doc_classify.errors import ConfigurationError
from doc_classify.extraction.ocr import check_languages
from doc_classify.extraction.options import ExtractionOptions, PageSelection
from doc_classify.pipeline.messages import WorkerConfig
from doc_classify.records import CASCADE, Prices
from doc_classify.settings import Settings
from doc_classify.storage.base import RunSpec
from doc_classify.taxonomy import Taxonomy

if TYPE_CHECKING:
    from doc_classify.classification.cascade import Promise

_MEGABYTE = 1_000_000
_ASKED_ALIKE = (
    "llm_context",
    "llm_document_tokens",
    "agreement",
    "assurance",
    "guarantee",
    "if_hopeless",
)
"""Settings of a run that decide what an LLM is asked and about what, hence the results."""
_CASCADE_VERSION = 1
"""To be raised with every change that can give a document of a cascade another result."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of one run, resolved. ``fingerprint`` is the key of its results.

    ``model`` is the classifier's model, as ``--model`` takes it; None where it has none. ``asks``
    says whether it is an LLM that is asked for each category; all others run in the worker
    processes, which get the content of the trained model's file (``trained``) where there is one.
    Of a cascade, ``promise`` says what for, ``teacher`` names the LLM's classifier and
    ``teacher_fingerprint`` is the key of the LLM's own results.
    """

    options: ExtractionOptions
    taxonomy: Taxonomy
    classifier: str
    model: str | None
    asks: bool
    trained: bytes | None = field(repr=False)
    fingerprint: str
    include_reasoning: bool
    force: bool
    store_text: bool
    workers: int
    chunk_size: int
    batch_size: int
    time_limit: float
    memory_limit: int
    recycle_after: int
    max_concurrent: int
    llm_context: int
    llm_document_tokens: int
    give_up: float
    prices: Prices
    max_calls: int | None
    max_cost: float | None
    promise: Promise | None = None
    teacher: str = ""
    teacher_fingerprint: str = ""
    stops_if_hopeless: bool = False

    @classmethod
    def make(
        cls,
        settings: Settings,
        classifier: Classifier | LlmClassifier,
        *,
        taxonomy: Taxonomy | None = None,
        options: ExtractionOptions | None = None,
        include_reasoning: bool = False,
        force: bool = False,
    ) -> Plan:
        """Resolve settings; ``taxonomy`` and ``options`` override theirs.

        Args:
            settings: whatever else decides.
            classifier: made for the same taxonomy, and opened where it is an LLM.
            taxonomy: the categories.
            options: of extraction.
            include_reasoning: as the classifier was made to.
            force: do again what is done already.

        Raises:
            ConfigurationError: pages or OCR languages cannot be used.
        """
        options = options or extraction_options(settings)
        if options.ocr:
            check_languages(options.ocr_languages)
        taxonomy = taxonomy or taxonomy_of(settings)
        prices = settings.prices
        asks = isinstance(classifier, LlmClassifier)
        if asks and settings.max_cost is not None and not prices:
            raise ConfigurationError(
                "max_cost needs prices: set price_prompt and price_completion, each for a "
                "million tokens"
            )
        parts: list[Any] = [
            options.key,
            taxonomy.fingerprint,
            classifier.name,
            classifier.fingerprint,
            include_reasoning,
        ]
        fingerprint = _digest(parts)
        cascade: dict[str, Any] = {}
        if settings.classifier == CASCADE and asks:
            from doc_classify.classification.cascade import Promise

            promise = Promise(settings.agreement, settings.assurance, settings.guarantee)
            cascade = {
                "promise": promise,
                "teacher": classifier.name,
                "teacher_fingerprint": fingerprint,
                "stops_if_hopeless": settings.if_hopeless == "stop",
            }
            parts = [fingerprint, asdict(promise), settings.max_llm_calls, _CASCADE_VERSION]
            fingerprint = _digest(parts)
        return cls(
            options=options,
            taxonomy=taxonomy,
            classifier=CASCADE if cascade else classifier.name,
            model=_model(settings, classifier),
            asks=asks,
            trained=_trained(settings, classifier),
            fingerprint=fingerprint,
            include_reasoning=include_reasoning,
            force=force,
            store_text=settings.store_text,
            workers=settings.worker_count,
            chunk_size=settings.chunk_size,
            batch_size=settings.batch_size,
            time_limit=settings.time_limit,
            memory_limit=settings.memory_limit_mb * _MEGABYTE,
            recycle_after=settings.recycle_after,
            max_concurrent=settings.max_concurrent,
            llm_context=settings.llm_context,
            llm_document_tokens=settings.llm_document_tokens,
            give_up=settings.llm_give_up,
            prices=prices,
            max_calls=settings.max_llm_calls,
            max_cost=settings.max_cost,
            **cascade,
        )

    def budget(self) -> Budget:
        """What this run may spend on an LLM, with nothing spent yet."""
        return Budget(self.prices, max_calls=self.max_calls, max_cost=self.max_cost)

    def worker_config(self) -> WorkerConfig:
        """What each worker process is told."""
        return WorkerConfig(
            options=self.options,
            taxonomy=self.taxonomy,
            classifier=None if self.asks else self.classifier,
            model=self.trained,
            include_reasoning=self.include_reasoning,
            memory_limit=self.memory_limit,
            time_limit=self.time_limit,
        )

    def _cascade_settings(self) -> dict[str, object]:
        if self.promise is None:
            return {}
        return asdict(self.promise) | {
            "max_llm_calls": self.max_calls,
            "if_hopeless": "stop" if self.stops_if_hopeless else "continue",
        }

    def spec(self, source: str, door: str) -> RunSpec:
        """What is stored with the run: enough to repeat it, no secrets."""
        return RunSpec(
            source=source,
            door=door,
            fingerprint=self.fingerprint,
            extraction_key=self.options.key,
            classifier=self.classifier,
            categories=self.taxonomy.names,
            settings={
                "extraction": self.options.to_dict(),
                "taxonomy": self.taxonomy.to_dict(),
                "include_reasoning": self.include_reasoning,
                "workers": self.workers,
                "chunk_size": self.chunk_size,
                "model": self.model,
                "model_digest": self.trained and model_digest(self.trained),
                "llm_context": self.llm_context,
                "llm_document_tokens": self.llm_document_tokens,
                "prices": asdict(self.prices),
            }
            | self._cascade_settings(),
            force=self.force,
            store_text=self.store_text,
            teacher=self.teacher,
            teacher_fingerprint=self.teacher_fingerprint,
        )


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _model(settings: Settings, classifier: Classifier | LlmClassifier) -> str | None:
    # A file's name alone would not find it again.
    if not isinstance(classifier, LlmClassifier):
        trained = settings.embedded_model
        return str(trained.absolute()) if _is_trained(settings, classifier) and trained else None
    file = settings.llamacpp_model if classifier.name == "llamacpp" else None
    return str(file.absolute()) if file else classifier.model


def _is_trained(settings: Settings, classifier: Classifier | LlmClassifier) -> bool:
    return settings.classifier == classifier.name == EMBEDDED and bool(settings.embedded_model)


def _trained(settings: Settings, classifier: Classifier | LlmClassifier) -> bytes | None:
    """The content of the model's file, as the classifier has it."""
    if not _is_trained(settings, classifier):
        return None
    from doc_classify.classification.trained import TrainedClassifier

    return classifier.model.to_bytes() if isinstance(classifier, TrainedClassifier) else None


def extraction_options(settings: Settings) -> ExtractionOptions:
    """How documents are read, by the settings.

    Raises:
        ConfigurationError: the pages are not written as they should be.
    """
    return ExtractionOptions(
        pages=PageSelection.parse(settings.pages),
        ocr=settings.ocr,
        ocr_languages=settings.ocr_languages,
        attachments=settings.attachments,
        max_unpacked_bytes=settings.max_unpacked_mb * _MEGABYTE,
    )


def settings_of_run(settings: Settings, spec: RunSpec) -> Settings:
    """The settings with which an earlier run classified; limits and addresses are as given."""
    stored: Any = spec.settings
    if spec.teacher:
        settings = settings.changed(teacher=spec.teacher)
    return settings.choosing(spec.classifier, stored.get("model")).changed(
        **{name: stored[name] for name in _ASKED_ALIKE if name in stored}
    )
