"""What parent and worker process say to each other: one JSON object a line.

JSON and not pickle, because a worker reads hostile documents: whatever takes it over can send
wrong text, but it cannot make the parent run code. Decoding therefore checks every type.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from doc_classify.extraction.options import ExtractionOptions
from doc_classify.records import (
    Classification,
    Extraction,
    Failure,
    Page,
    Problem,
    Source,
    Timings,
    freeze_scores,
)
from doc_classify.taxonomy import Taxonomy

_MAX_INTEGER = 2**31 - 1
"""What a column of either database takes."""


class MessageError(ValueError):
    """A line that is not what the other side may send."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker is told once, before its first document.

    Attributes:
        options: what to read, within which limits.
        taxonomy: the categories.
        classifier: name of the classifier that runs inside the worker; None where the worker
            only reads, and a server is asked for the category.
        model: content of the trained model's file, so that every worker of a run has the same;
            None where the classifier needs none.
        student: file of a trained model that classifies instead; None elsewhere.
        include_reasoning: ask it for its reasons.
        memory_limit: address space in bytes.
        time_limit: seconds per document, after which the worker kills itself should the parent
            not have done so.
    """

    options: ExtractionOptions
    taxonomy: Taxonomy
    classifier: str | None
    include_reasoning: bool
    memory_limit: int
    time_limit: float
    model: bytes | None = field(default=None, repr=False)
    student: str | None = None

    @property
    def classifies(self) -> bool:
        """Whether the worker does more than read."""
        return self.classifier is not None or self.student is not None

    def encode(self) -> bytes:
        """The line that :meth:`decode` reads."""
        model = None if self.model is None else base64.b64encode(self.model).decode("ascii")
        return _line(
            {
                "options": self.options.to_dict(),
                "taxonomy": self.taxonomy.to_dict(),
                "classifier": self.classifier,
                "include_reasoning": self.include_reasoning,
                "memory_limit": self.memory_limit,
                "time_limit": self.time_limit,
                "model": model,
                "student": self.student,
            }
        )

    @classmethod
    def decode(cls, line: bytes) -> WorkerConfig:
        """Read the parent's first line."""
        data = json.loads(line)
        model = data.pop("model")
        return cls(
            model=model and base64.b64decode(model),
            options=ExtractionOptions.from_dict(data.pop("options")),
            taxonomy=Taxonomy.from_dict(data.pop("taxonomy")),
            **data,
        )


@dataclass(frozen=True, slots=True)
class Request:
    """One document for a worker. With ``extraction`` it is only classified, not read.

    ``copy`` is the file to read where the document itself is not on this machine; the worker has
    no credentials to fetch it.
    """

    number: int
    source: Source
    extraction: Extraction | None = None
    copy: Source | None = None

    def encode(self) -> bytes:
        """The line that :meth:`decode` reads."""
        stored = None if self.extraction is None else asdict(self.extraction)
        copy = None if self.copy is None else asdict(self.copy)
        source = asdict(self.source)
        return _line({"n": self.number, "source": source, "extraction": stored, "copy": copy})

    @classmethod
    def decode(cls, line: bytes) -> Request:
        """Read one of the parent's lines."""
        data = json.loads(line)
        stored, copy = data["extraction"], data["copy"]
        return cls(
            number=data["n"],
            source=Source(**data["source"]),
            extraction=stored and decode_extraction(stored),
            copy=copy and Source(**copy),
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker found: a classification or a failure, and the text it read.

    A worker without a classifier gives the text or a failure. ``extraction`` is also None when the
    request brought it. ``resident`` is the worker's resident memory in bytes, 0 where the system
    does not say.
    """

    number: int
    classification: Classification | None
    failure: Failure | None
    extraction: Extraction | None
    timings: Timings
    resident: int = 0

    def encode(self) -> bytes:
        """The line that :meth:`decode` reads."""
        return _line(
            {
                "n": self.number,
                "classification": self.classification and asdict(self.classification),
                "failure": self.failure and asdict(self.failure),
                "extraction": self.extraction and asdict(self.extraction),
                "timings": asdict(self.timings),
                "resident": self.resident,
            }
        )

    @classmethod
    def decode(cls, line: bytes, config: WorkerConfig) -> Reply:
        """Read one of a worker's lines.

        Raises:
            MessageError: the line is not a reply, or names a category outside the taxonomy.
        """
        try:
            data = json.loads(line)
            classification = _optional(data["classification"], _classification)
            failure = _optional(data["failure"], _failure)
            extraction = _optional(data["extraction"], decode_extraction)
            timings = Timings(**{key: _number(value) for key, value in data["timings"].items()})
            number, resident = int(data["n"]), int(data["resident"])
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise MessageError(f"{type(error).__name__}: {error}") from error
        except RecursionError:
            raise MessageError("nested too deep") from None
        if not config.classifies:
            if classification or (extraction is None) == (failure is None):
                raise MessageError("neither or both of text and failure")
        elif (classification is None) == (failure is None):
            raise MessageError("neither or both of classification and failure")
        if classification and classification.category not in config.taxonomy.names:
            raise MessageError(f"category {classification.category!r} is not in the taxonomy")
        return cls(number, classification, failure, extraction, timings, resident)


def decode_extraction(data: Mapping[str, Any]) -> Extraction:
    """An extraction from its JSON form, every type checked.

    Raises:
        ValueError, KeyError, TypeError: the data has another form.
    """
    return Extraction(
        media_type=_text(data["media_type"]),
        pages=tuple(
            Page(_integer(page["number"]), _text(page["text"]), bool(page["ocr"]))
            for page in data["pages"]
        ),
        engine=_text(data["engine"]),
        page_count=_optional(data["page_count"], _integer),
        title=_optional(data["title"], _text),
        author=_optional(data["author"], _text),
        created=_optional(data["created"], _text),
        modified=_optional(data["modified"], _text),
        language=_optional(data["language"], _text),
        attachments=tuple(_text(name) for name in data["attachments"]),
        problems=tuple(
            Problem(
                _text(problem["kind"]),
                _text(problem["message"]),
                _optional(problem["page"], _integer),
            )
            for problem in data["problems"]
        ),
        truncated=bool(data["truncated"]),
    )


def _failure(data: Mapping[str, Any]) -> Failure:
    return Failure(_text(data["kind"]), _text(data["message"]))


def _classification(data: Mapping[str, Any]) -> Classification:
    return Classification(
        category=_text(data["category"]),
        score=_optional(data["score"], _number),
        confidence=_optional(data["confidence"], _number),
        scores=freeze_scores({_text(name): _number(score) for name, score in data["scores"]}),
        needs_review=bool(data["needs_review"]),
        reasoning=_optional(data["reasoning"], _text),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _integer(value: Any) -> int:
    number = int(value)
    if not 0 <= number <= _MAX_INTEGER:
        raise ValueError(f"expected a count, got {str(value)[:30]}")
    return number


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"expected a number, got {number}")
    return number


def _optional(value: Any, convert: Any) -> Any:
    return None if value is None else convert(value)


def _line(data: object) -> bytes:
    # ASCII escapes carry lone surrogates (paths that are not UTF-8) and never hold a newline.
    return json.dumps(data, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
