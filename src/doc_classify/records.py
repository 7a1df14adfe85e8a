"""The frozen values that travel between the stages.

A file on disk is a :class:`Source`; its bytes, whatever their name, are a *document* (identified
by the SHA-256 of the bytes). Extraction turns a document into an :class:`Extraction`,
classification turns that into a :class:`Classification`, and an :class:`Outcome` says how it
ended for one document: with a classification or with a :class:`Failure`, never with both.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

CASCADE = "cascade"
"""The classifier that is two: an LLM, and a student that learns from it."""
STUDENT = "student"
"""How the student is named where results say who decided."""

FILE_SCHEME = "file://"
OBJECT_SCHEMES = ("s3://", "gs://", "az://")
"""Of documents that live in an object store."""


def path_to_uri(path: str | os.PathLike[str]) -> str:
    """The ``file:`` URI (RFC 8089) of an absolute path: ASCII only, reversible for any bytes."""
    return FILE_SCHEME + quote(os.fsencode(path), safe="/")


def uri_to_path(uri: str) -> str:
    """The path of a ``file:`` URI, undoing :func:`path_to_uri`.

    Raises:
        ValueError: the URI has another scheme.
    """
    if not uri.startswith(FILE_SCHEME):
        raise ValueError(f"not a file URI: {uri}")
    return os.fsdecode(unquote_to_bytes(uri[len(FILE_SCHEME) :]))


def is_object_uri(location: object) -> bool:
    """Whether this is text that names an object, or a prefix, in an object store."""
    return isinstance(location, str) and location.startswith(OBJECT_SCHEMES)


def display_name(path_or_uri: str) -> str:
    """A path as text that any terminal, file and database takes.

    Control characters and bytes that are not UTF-8 are shown as backslash escapes. The URI of an
    object is shown as it is: percent-encoded.
    """
    text = uri_to_path(path_or_uri) if path_or_uri.startswith(FILE_SCHEME) else path_or_uri
    text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def document_name(uri: str) -> str:
    """The bare name of a file or object, to show and to judge by; never a path."""
    bare = uri.rpartition("/")[2]
    if uri.startswith((FILE_SCHEME, *OBJECT_SCHEMES)):
        bare = os.fsdecode(unquote_to_bytes(bare))
    return display_name(bare)


@dataclass(frozen=True, slots=True)
class Source:
    """A place where a document was seen.

    ``size`` is in bytes, ``mtime_ns`` in nanoseconds since the epoch, as the file system or the
    object store says.
    """

    uri: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something discovery met that is not a readable regular file.

    ``kind`` is a short stable word (``link_outside``, ``not_a_file``, ``unreadable`` ...);
    ``message`` says the reason to a person.
    """

    uri: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Page:
    """The text of one page, numbered from 1. ``ocr``: the text was read from an image."""

    number: int
    text: str
    ocr: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a document that could not be read, though the rest could.

    ``page`` is the page number from 1, None where the problem is not one of a page.
    """

    kind: str
    message: str
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Extraction:
    """What was read from a document.

    Attributes:
        media_type: the type found in the bytes (IANA media type).
        pages: the pages that were read, in order; formats without pages have one.
        page_count: pages of the whole document, None where the format has none.
        title, author: as the document's own metadata has them, None where it has none.
        created, modified: ISO 8601 timestamps from the document's own metadata.
        language: ISO 639-1 code declared by the document, None if it declares none.
        attachments: names of embedded files.
        problems: what could not be read; empty when everything asked for was read.
        truncated: text was left out because it passed ``ExtractionOptions.max_characters``.
        engine: name of the extractor.
    """

    media_type: str
    pages: tuple[Page, ...]
    engine: str
    page_count: int | None = None
    title: str | None = None
    author: str | None = None
    created: str | None = None
    modified: str | None = None
    language: str | None = None
    attachments: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    truncated: bool = False

    @property
    def text(self) -> str:
        """All text that was read, pages separated by a form feed."""
        return "\f".join(page.text for page in self.pages)

    @property
    def ocr_pages(self) -> int:
        """How many of the pages were read by OCR."""
        return sum(page.ocr for page in self.pages)


@dataclass(frozen=True, slots=True)
class Classification:
    """The category of a document and what speaks for it.

    Attributes:
        category: one of the taxonomy's names.
        score: share of the evidence that the category got, 0 to 1, comparable only among
            results of one classifier; None where the classifier gives none.
        confidence: probability, 0 to 1, that the category is right, *calibrated* on labelled
            documents; None where no calibration exists.
        scores: score per category, descending.
        needs_review: the evidence was too thin or too even for a decision worth trusting.
        reasoning: why, for a person; only on request.
    """

    category: str
    score: float | None = None
    confidence: float | None = None
    scores: tuple[tuple[str, float], ...] = ()
    needs_review: bool = False
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a document has no category: a stable ``kind`` (see :mod:`doc_classify.errors`)."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds spent on one document.

    CPU time of the process that did the work; for an LLM, the time until it had answered.
    ``busy`` is wall clock: how long the document kept a worker process busy.
    """

    extract: float = 0.0
    classify: float = 0.0
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What LLM requests have used, in tokens by the server's own count.

    Attributes:
        calls: requests sent, also those that failed.
        prompt_tokens: tokens of the prompts, cached ones included.
        cached_tokens: those of them that the server had in its cache, as far as it says.
        completion_tokens: tokens of the answers.
    """

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of a million tokens, in whatever currency the user thinks.

    ``cached``: of prompt tokens that the server had in its cache; None: as ``prompt``.
    """

    prompt: float = 0.0
    completion: float = 0.0
    cached: float | None = None

    def cost(self, usage: Usage) -> float:
        """What the usage costs."""
        cached = self.prompt if self.cached is None else self.cached
        fresh = max(usage.prompt_tokens - usage.cached_tokens, 0)
        return (
            fresh * self.prompt
            + min(usage.cached_tokens, usage.prompt_tokens) * cached
            + usage.completion_tokens * self.completion
        ) / 1_000_000

    def __bool__(self) -> bool:
        return bool(self.prompt or self.completion or self.cached)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one document of a run ended: exactly one of ``classification`` and ``failure`` is set.

    ``extraction`` is None where it failed, or where stored text was used again. ``crashes``
    counts the workers that died on the document on the way to this outcome. ``usage`` is what an
    LLM was asked, None where none was. ``decided_by`` names who decided, None where that is the
    classifier of the run; ``text_digest`` is that of the text, where others may have the same.
    """

    document_id: int
    file_id: int
    classification: Classification | None = None
    failure: Failure | None = None
    extraction: Extraction | None = None
    timings: Timings = field(default_factory=Timings)
    crashes: int = 0
    usage: Usage | None = None
    decided_by: str | None = None
    text_digest: bytes | None = None

    def __post_init__(self) -> None:
        if (self.classification is None) == (self.failure is None):
            raise ValueError("an outcome has either a classification or a failure")


class FileStatus(enum.StrEnum):
    """What became of a file in a run. Every file seen has exactly one of these.

    ``pending`` is left only by an interrupted run; its files are taken by the next one.
    """

    PENDING = "pending"
    CLASSIFIED = "classified"
    FAILED = "failed"
    DUPLICATE = "duplicate"
    ALREADY_DONE = "already_done"
    UNSUPPORTED = "unsupported"


@dataclass(slots=True)
class RunStats:
    """Counts of one run, in files unless said otherwise. The one mutable record: it grows.

    ``seen`` = classified + failed + duplicates + already_done + unsupported + pending, always.

    Attributes:
        submitted: files handed over to distributed workers so far, those that were rejected at
            once included; 0 on one machine.
        skipped: hidden and temporary files, which are not counted as seen.
        already_failed: those of ``already_done`` whose earlier outcome was a failure.
        with_problems: classified documents of which some part could not be read.
        needs_review: classified documents with too little evidence.
        pages: pages whose text was read in this run.
        llm_calls, prompt_tokens, cached_tokens, completion_tokens: as in :class:`Usage`.
        cost: of these tokens by the prices of the run, None where it has no prices.
        total_processing_time: wall-clock seconds.
        categories: per category, the number of files and the sum of scores and confidences; of
            files that a person has corrected, the number alone.
        corrected: files with a category that a person has said.
        failures: failed files by kind of error.
        unsupported_types: unsupported files by the reason or type found.
    """

    run_id: str = ""
    submitted: int = 0
    seen: int = 0
    classified: int = 0
    failed: int = 0
    duplicates: int = 0
    already_done: int = 0
    already_failed: int = 0
    unsupported: int = 0
    skipped: int = 0
    with_problems: int = 0
    needs_review: int = 0
    pages: int = 0
    ocr_pages: int = 0
    bytes: int = 0
    llm_calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    extract_seconds: float = 0.0
    classify_seconds: float = 0.0
    total_processing_time: float = 0.0
    workers: int = 0
    corrected: int = 0
    categories: dict[str, CategoryStats] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    unsupported_types: dict[str, int] = field(default_factory=dict)

    @property
    def successful(self) -> int:
        """Files that this run classified."""
        return self.classified

    @property
    def skipped_duplicates(self) -> int:
        """Files that needed no work: copies of others, and documents done in an earlier run."""
        return self.duplicates + self.already_done

    @property
    def pending(self) -> int:
        """Files seen whose outcome is not stored: none, unless the run was interrupted."""
        return self.seen - (
            self.classified + self.failed + self.duplicates + self.already_done + self.unsupported
        )

    @property
    def processed(self) -> int:
        """Files this run did work for, whatever came of it."""
        return self.classified + self.failed

    @property
    def documents_per_second(self) -> float:
        """Files worked on per second of wall-clock time; 0 where no time was taken."""
        elapsed = self.total_processing_time
        return self.processed / elapsed if elapsed > 0 else 0.0

    @property
    def pages_per_second(self) -> float:
        """Pages read per second of wall-clock time."""
        elapsed = self.total_processing_time
        return self.pages / elapsed if elapsed > 0 else 0.0

    def seconds_for(self, documents: int) -> float | None:
        """Wall-clock seconds that ``documents`` like these would take; None if none were done."""
        rate = self.documents_per_second
        return documents / rate if rate > 0 else None


@dataclass(slots=True)
class CategoryStats:
    """One category of a run: files, and the sums behind the mean score and confidence."""

    files: int = 0
    score_sum: float = 0.0
    score_count: int = 0
    confidence_sum: float = 0.0
    confidence_count: int = 0

    def add(self, classification: Classification) -> None:
        """Count one more classified file."""
        self.files += 1
        if classification.score is not None:
            self.score_sum += classification.score
            self.score_count += 1
        if classification.confidence is not None:
            self.confidence_sum += classification.confidence
            self.confidence_count += 1

    @property
    def mean_score(self) -> float | None:
        """Mean score of the files that have one."""
        return self.score_sum / self.score_count if self.score_count else None

    @property
    def mean_confidence(self) -> float | None:
        """Mean calibrated confidence of the files that have one."""
        return self.confidence_sum / self.confidence_count if self.confidence_count else None


def freeze_scores(scores: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Scores as a tuple, highest first, ties by name, so that equal results compare equal."""
    return tuple(sorted(scores.items(), key=lambda item: (-item[1], item[0])))
