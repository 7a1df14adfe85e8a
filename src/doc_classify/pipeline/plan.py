"""How a run classifies: everything that decides what its results are, and what they cost."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from doc_classify.classification import make_classifier
from doc_classify.extraction.ocr import check_languages
from doc_classify.extraction.options import ExtractionOptions, PageSelection
from doc_classify.pipeline.messages import WorkerConfig
from doc_classify.settings import Settings
from doc_classify.storage.base import RunSpec
from doc_classify.taxonomy import Taxonomy

_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of one run, resolved. ``fingerprint`` is the key of its results."""

    options: ExtractionOptions
    taxonomy: Taxonomy
    classifier: str
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

    @classmethod
    def make(
        cls,
        settings: Settings,
        *,
        taxonomy: Taxonomy | None = None,
        options: ExtractionOptions | None = None,
        include_reasoning: bool = False,
        force: bool = False,
    ) -> Plan:
        """Resolve settings; ``taxonomy`` and ``options`` override theirs.

        Raises:
            ConfigurationError: pages, OCR languages, taxonomy or classifier cannot be used.
        """
        options = options or ExtractionOptions(
            pages=PageSelection.parse(settings.pages),
            ocr=settings.ocr,
            ocr_languages=settings.ocr_languages,
            attachments=settings.attachments,
            max_unpacked_bytes=settings.max_unpacked_mb * _MEGABYTE,
        )
        if options.ocr:
            check_languages(options.ocr_languages)
        taxonomy = taxonomy or settings.make_taxonomy()
        classifier = make_classifier(settings.classifier, taxonomy)
        parts = [
            options.key,
            taxonomy.fingerprint,
            classifier.name,
            classifier.fingerprint,
            include_reasoning,
        ]
        return cls(
            options=options,
            taxonomy=taxonomy,
            classifier=classifier.name,
            fingerprint=hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16],
            include_reasoning=include_reasoning,
            force=force,
            store_text=settings.store_text,
            workers=settings.worker_count,
            chunk_size=settings.chunk_size,
            batch_size=settings.batch_size,
            time_limit=settings.time_limit,
            memory_limit=settings.memory_limit_mb * _MEGABYTE,
            recycle_after=settings.recycle_after,
        )

    @classmethod
    def repeat(cls, spec: RunSpec, settings: Settings) -> Plan:
        """The plan of a run made before, forced; only its speed follows today's settings."""
        stored: Any = spec.settings
        return cls.make(
            settings.model_copy(update={"classifier": spec.classifier}),
            taxonomy=Taxonomy.from_dict(stored["taxonomy"], "stored run"),
            options=ExtractionOptions.from_dict(stored["extraction"]),
            include_reasoning=bool(stored["include_reasoning"]),
            force=True,
        )

    def worker_config(self) -> WorkerConfig:
        """What each worker process is told."""
        return WorkerConfig(
            options=self.options,
            taxonomy=self.taxonomy,
            classifier=self.classifier,
            include_reasoning=self.include_reasoning,
            memory_limit=self.memory_limit,
            time_limit=self.time_limit,
        )

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
            },
            force=self.force,
            store_text=self.store_text,
        )
