"""What the rest of the package asks of a store: the ledger of files, documents and results.

``files`` says where a document was seen, ``documents`` are the bytes (by SHA-256), ``extractions``
the text that was read of them under some extraction settings (*extraction key*), ``results`` what
came of a document under one *fingerprint* (taxonomy, classifier and extraction settings), and
``run_files`` what became of each file in one run. "Already done" therefore means: done this way.

Every write is an upsert, so repeating one does no harm. Counters of a run are written in the
transaction that writes the rows they count, so that they agree after a kill at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from doc_classify.records import (
    Classification,
    Extraction,
    Failure,
    FileStatus,
    Outcome,
    Problem,
    Rejected,
    RunStats,
    Source,
    Usage,
)


@dataclass(frozen=True, slots=True)
class RunSpec:
    """How a run classifies; stored with it.

    Attributes:
        source: what was asked for, for a person: a folder, "3 files".
        door: the runner that was used ("parallel", ...).
        fingerprint: key of its results.
        extraction_key: key of its extracted texts.
        classifier: name of the classifier.
        categories: names of the taxonomy.
        settings: JSON-ready settings, without secrets; enough to repeat the run.
        force: do again what is done already.
        store_text: keep the extracted text.
        teacher: name of the LLM's classifier in a cascade; "" elsewhere.
        teacher_fingerprint: key of the results that the LLM would give alone.
    """

    source: str
    door: str
    fingerprint: str
    extraction_key: str
    classifier: str
    categories: tuple[str, ...]
    settings: dict[str, object]
    force: bool = False
    store_text: bool = True
    teacher: str = ""
    teacher_fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Hashed:
    """A file whose bytes have been hashed. ``sha256`` is the lower-case hex digest."""

    source: Source
    sha256: str


@dataclass(frozen=True, slots=True)
class Task:
    """A document that this run must work on, through the first file that showed it.

    Attributes:
        extraction: text stored earlier under the run's extraction key, used instead of reading
            the file again; or the failure recorded when it was read.
        crashes: workers that died on the document in earlier attempts under this fingerprint.
        sha256: of the document, as it was when it was registered.
        answer: what the LLM of a cascade has said of the document before, None where nothing.
        llm_only: the student of a cascade may not decide about it.
    """

    document_id: int
    file_id: int
    source: Source
    extraction: Extraction | Failure | None = None
    crashes: int = 0
    sha256: str = ""
    answer: Classification | Failure | None = None
    llm_only: bool = False


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run as stored. Times are ISO 8601 in UTC; ``finished`` is None until it has ended.

    ``state`` is ``running``, ``finished``, ``interrupted`` (stopped by the user) or ``failed``
    (could not go on). A run whose process was killed stays ``running``; ``heartbeat`` tells when
    it last wrote.
    """

    run_id: str
    spec: RunSpec
    state: str
    started: str
    heartbeat: str
    finished: str | None
    stats: RunStats
    message: str | None = None


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One file of a run with what is known of it; what exports and listings are made of.

    ``status`` is the file's status in that run. Duplicates and files done already carry the
    classification or failure of their document. ``duplicate_of`` is the URI of the first copy.
    ``category`` is what a person has said where somebody did (``corrected``), and
    ``predicted_category`` what the classifier said; score, confidence and reasoning belong to that.
    """

    uri: str
    status: FileStatus
    sha256: str | None = None
    size: int | None = None
    media_type: str | None = None
    category: str | None = None
    corrected: bool = False
    predicted_category: str | None = None
    score: float | None = None
    confidence: float | None = None
    scores: tuple[tuple[str, float], ...] = ()
    needs_review: bool = False
    reasoning: str | None = None
    failure: Failure | None = None
    duplicate_of: str | None = None
    page_count: int | None = None
    pages_read: int | None = None
    ocr_pages: int | None = None
    title: str | None = None
    author: str | None = None
    created: str | None = None
    modified: str | None = None
    language: str | None = None
    attachments: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    truncated: bool = False
    classifier: str | None = None
    run_id: str | None = None
    processed_at: str | None = None


@dataclass(frozen=True, slots=True)
class ResultFilter:
    """Which rows of a run to list; None or empty means no restriction."""

    statuses: frozenset[FileStatus] = frozenset()
    category: str | None = None
    failed: bool = False
    """Only files whose document failed, in this run or in the one that did it already."""
    error_kind: str | None = None
    needs_review: bool = False
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """What :meth:`Store.register` made of a batch: the work, and the counters it moved."""

    tasks: list[Task] = field(default_factory=list)
    statuses: dict[FileStatus, int] = field(default_factory=dict)
    already_failed: int = 0


class Store(Protocol):
    """The ledger. One per process; safe to use from several threads.

    Every method raises :class:`~doc_classify.errors.StorageError` when the database cannot do
    it, with a message that names the database (never its password) and the reason.
    """

    def start_run(self, spec: RunSpec) -> str:
        """Record a new run; returns its id, short and safe in a URL and a file name."""
        ...

    def known_hashes(self, sources: Sequence[Source]) -> list[str | None]:
        """Per source the SHA-256 recorded for that URI with that very size and time, or None."""
        ...

    def done_hashes(self, fingerprint: str, hashes: Sequence[str]) -> set[str]:
        """Those of the hashes that :meth:`register` would find ``already_done``."""
        ...

    def register(
        self,
        run_id: str,
        seen: Sequence[Hashed],
        *,
        again: bool = False,
        only_listed: bool = False,
    ) -> Registration:
        """Record files seen by a run and decide what each one means, in one transaction.

        A file registered by this run before is left out (a repeat does no harm); with ``again``,
        those of them that are still pending are tasks once more. The first file
        of a document in the run is a task (``pending``) unless a result under the run's
        fingerprint exists (``already_done``; failures that a retry may mend are tasks again, and
        with ``force`` everything is). Further files of the document are ``duplicate``.
        ``only_listed``: the tasks are not asked for yet.
        """
        ...

    def reject(
        self, run_id: str, rejected: Sequence[Rejected], skipped: int = 0, *, again: bool = False
    ) -> int:
        """Record what discovery could not take.

        ``unreadable``, ``vanished`` and ``changed`` count as failed, all else as unsupported.
        Adds ``skipped`` to the run's count of hidden and temporary files. Returns how many of
        ``rejected`` were new to the run. Files registered before are left as they are, save with
        ``again`` those that are still pending: an earlier attempt found them there.
        """
        ...

    def record(self, run_id: str, outcomes: Sequence[Outcome], *, seconds: float = 0.0) -> RunStats:
        """Store outcomes, the status of their files and the run's counters in one transaction.

        An outcome with failure kind ``unsupported`` makes its file ``unsupported``. A failure does
        not replace a classification that its document has already under the fingerprint (of a
        run that was forced); the run itself shows the failure all the same. Outcomes
        recorded before change no counter. ``seconds`` is the run's wall-clock time so far.
        Returns the run's stats as committed.
        """
        ...

    def crashed(self, run_id: str, document_id: int, worker: str, reason: str) -> None:
        """Log that a worker died on a document, before it is tried again."""
        ...

    def finish_run(
        self,
        run_id: str,
        state: str,
        seconds: float,
        message: str | None = None,
        usage: Usage | None = None,
    ) -> RunStats:
        """Close a run with its final state; returns its stats with the breakdowns filled in.

        ``usage`` is all that an LLM was asked in it, also about documents without an outcome.
        """
        ...

    def run(self, run_id: str | None = None) -> RunInfo | None:
        """A run by id (an unambiguous prefix will do), the newest without one; None if none.

        Fills in the breakdowns (categories, kinds of failure, unsupported types). Categories
        count all files of the run that have one, also copies and those done earlier, and where a
        person has said another category, that.
        """
        ...

    def runs(self, limit: int | None = None) -> Iterator[RunInfo]:
        """Runs, newest first, without breakdowns."""
        ...

    def results(self, run_id: str, only: ResultFilter | None = None) -> Iterator[ResultRow]:
        """The files of a run in the order of their URIs, streamed: memory stays flat."""
        ...

    def task_files(self, run_id: str, only: ResultFilter) -> Iterator[Source]:
        """The files that match, one per document: what a retry has to take again."""
        ...

    def lots(self, run_id: str) -> list[dict[str, Any]]:
        """What is known of the lots of a cascade's run, JSON-ready; empty for other runs.

        Their samples, certificate, outcome and audits, as ``docs/cascade.md`` describes them.
        """
        ...

    def close(self) -> None:
        """Give back connections."""
        ...
