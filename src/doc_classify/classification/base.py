"""The protocol of a classifier, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from doc_classify.records import Classification, Extraction


@dataclass(frozen=True, slots=True)
class ClassifierInput:
    """What a classifier sees of a document.

    Attributes:
        text: the text that was read, pages separated by form feeds.
        name: the file's name without folders, weak evidence and hostile like the text.
        title: from the document's metadata.
        media_type: the type of the file.
        ocr: whether part of the text was read from images, hence noisy.
    """

    text: str
    name: str = ""
    title: str | None = None
    media_type: str = ""
    ocr: bool = False

    @classmethod
    def of(cls, extraction: Extraction, name: str) -> ClassifierInput:
        """The input made of an extraction and the file's name."""
        return cls(
            text=extraction.text,
            name=name,
            title=extraction.title,
            media_type=extraction.media_type,
            ocr=extraction.ocr_pages > 0,
        )


class Classifier(Protocol):
    """Puts one document into one category of a taxonomy. Made once per process."""

    @property
    def name(self) -> str:
        """Short name as in ``--classifier``."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same input could get another answer (version, model, prompt).

        The taxonomy is not part of it: that has a fingerprint of its own.
        """
        ...

    def classify(
        self, document: ClassifierInput, *, include_reasoning: bool = False
    ) -> Classification:
        """Classify one document; deterministic for a given fingerprint and taxonomy."""
        ...
