"""What a benchmark found: the file ``benchmark_results_TIME.json``, as values.

The schema is that of the dataclasses below. :func:`read_result` checks a file against it, so that
whoever reads one (``--compare``, ``plan --benchmark``) meets these values or a sentence that says
what is wrong. Times are seconds, sizes bytes, shares 0 to 1; rates are a second of wall clock.

Figures that follow from others are properties, not fields, so they cannot contradict them:
``rate`` times ``wall_seconds`` is ``files``, and the estimate for N documents is N / ``rate``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AllowInfNan, Field, TypeAdapter, ValidationError

from doc_classify.errors import ConfigurationError
from doc_classify.terminal import shown_path

SCHEMA = 1
"""Raised when a field changes its meaning or goes."""

OPERATIONS = ("extract", "classify", "store", "end_to_end")
"""What can be measured, in the order in which the documents go through it."""

OperationName = Literal["extract", "classify", "store", "end_to_end"]
Figure = Annotated[float, AllowInfNan(False), Field(ge=0, le=1e12)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, slots=True)
class Distribution:
    """A quantity over ``count`` documents; all zero where there are none.

    ``median``, ``p95`` and ``p99`` are percentiles with linear interpolation (NumPy's default).
    """

    count: Count = 0
    total: Figure = 0.0
    mean: Figure = 0.0
    median: Figure = 0.0
    p95: Figure = 0.0
    p99: Figure = 0.0
    minimum: Figure = 0.0
    maximum: Figure = 0.0


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured. ``cores`` are the logical ones this process may use."""

    cpu: str
    cores: Count
    memory_bytes: Count
    system: str
    architecture: str
    python: str
    packages: dict[str, str] = field(default_factory=dict)
    """Distribution -> version, of what reads, classifies and stores."""


@dataclass(frozen=True, slots=True)
class Data:
    """What was measured on.

    ``fingerprint`` is a hash over the relative names and the contents of all files, in any order:
    equal fingerprints mean equal documents.
    """

    folder: str
    files: Count
    bytes: Count
    fingerprint: str
    formats: dict[str, Count] = field(default_factory=dict)
    """Files by the ending of their names, in lower case, "" for none."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """How it was classified: what has to be equal for a comparison to be one of speed."""

    classifier: str
    model: str | None
    database: str
    pages: str
    ocr: bool
    settings_fingerprint: str
    """Of taxonomy, classifier and extraction settings, as results in the ledger carry it."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """What else the machine did during the measurement.

    Attributes:
        load_before, load_after: load average of one minute.
        others: share of the machine's CPU time that other processes took.
        stolen: share that the hypervisor gave to other guests; 0 where the system does not say.
        complaints: sentences for a person, empty where the machine was quiet.
    """

    load_before: Figure
    load_after: Figure
    others: Figure
    stolen: Figure
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak memory of the whole measurement process with its children, by sampling.

    ``kind`` says what was added up: ``pss`` (shared pages divided among their users), ``uss``
    (pages of one process alone, shared ones left out), or ``rss`` (shared pages counted in each).
    """

    kind: Literal["pss", "uss", "rss"]
    peak_bytes: Count
    peak_worker_bytes: Count
    """Of the biggest single worker process."""
    samples: Count


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage took for each document.

    Stages are ``hash`` (wall clock), ``register`` and ``record`` (the two dealings with the
    database: wall clock, and CPU of the thread that waits for it), all three of a batch and shared
    equally among its documents; ``extract`` and, where the workers classify, ``classify`` (CPU of
    the worker process; the wall clock of both together is in :attr:`Repeat.seconds`). Where an
    LLM classifies, ``classify`` is the wall clock from the first request about a document to its
    answer.
    """

    cpu: Distribution | None = None
    wall: Distribution | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The documents of one format, or those with or without pages read by OCR.

    Attributes:
        failed: of ``files``.
        pages: pages whose text was read; ``ocr_pages`` are those of them read by OCR.
        extract, classify: as :attr:`Stage.cpu`; ``classify`` is None where an LLM did it.
    """

    files: Count
    failed: Count
    bytes: Count
    pages: Count
    ocr_pages: Count
    extract: Distribution
    classify: Distribution | None = None

    @property
    def extract_per_page(self) -> float | None:
        """CPU seconds of reading one page; None where no page was read."""
        return self.extract.total / self.pages if self.pages else None


@dataclass(frozen=True, slots=True)
class Llm:
    """What a language model was asked in one repeat, by its server's own count.

    ``seconds`` is per document, from its first request to its answer; ``in_flight`` is the mean
    number of documents asked about at a time (Little's law: their seconds over the wall clock).
    """

    model: str
    max_concurrent: Count
    calls: Count
    prompt_tokens: Count
    cached_tokens: Count
    completion_tokens: Count
    seconds: Distribution
    in_flight: Figure
    engine_cpu: Figure | None = None
    """CPU seconds of an engine that this process started itself; None for any other server."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """One measured pass over all documents.

    Attributes:
        wall_seconds: from before the first worker process was started to after the last was ended.
        start_seconds: until all worker processes were ready, part of ``wall_seconds``; in
            ``end_to_end``, where other work goes on meanwhile, measured beforehand.
        files: all that were worked on; ``failed`` of them got no result.
        duplicates: copies that were found and needed no work, not part of ``files``.
        bytes: of these files.
        pages, ocr_pages: whose text was read, and those of them by OCR.
        seconds: per document, how long it kept a worker busy, and how long an LLM.
        cpu_parent, cpu_workers: CPU seconds of this process and of its worker processes, exact.
        memory: peaks.
        stages: by name, see :class:`Stage`.
        formats: by the ending of the name.
        text, ocr: the documents read without and with OCR.
        llm: None where none was asked.
        quiet: what else the machine did.
        failures: number by kind.
    """

    wall_seconds: Annotated[Figure, Field(ge=1e-9)]
    start_seconds: Figure
    files: Count
    failed: Count
    bytes: Count
    pages: Count
    ocr_pages: Count
    seconds: Distribution
    cpu_parent: Figure
    cpu_workers: Figure
    memory: Memory
    stages: dict[str, Stage]
    formats: dict[str, Group]
    text: Group
    ocr: Group
    quiet: Quiet
    llm: Llm | None = None
    duplicates: Count = 0
    failures: dict[str, Count] = field(default_factory=dict)

    @property
    def succeeded(self) -> int:
        """Files with a result."""
        return self.files - self.failed

    @property
    def rate(self) -> float:
        """Files a second."""
        return self.files / self.wall_seconds

    @property
    def bytes_per_second(self) -> float:
        """Bytes of the files a second."""
        return self.bytes / self.wall_seconds

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of this process and its workers."""
        return self.cpu_parent + self.cpu_workers

    @property
    def store_seconds(self) -> float:
        """Wall clock that a document occupies the database, registering and recording together.

        One thread does it, one batch at a time: the inverse is the highest rate of one writer.
        """
        walls = [self.stages[name].wall for name in ("register", "record") if name in self.stages]
        return sum(wall.mean for wall in walls if wall)

    @property
    def in_progress(self) -> float:
        """Documents worked on at a time, on average (Little's law); workers times how busy."""
        return self.seconds.total / self.wall_seconds

    def seconds_for(self, documents: int) -> float | None:
        """Wall clock of ``documents`` like these at this rate; None where none were done."""
        return documents / self.rate if self.files else None


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation with one number of workers, measured ``len(repeats)`` times."""

    name: OperationName
    workers: Annotated[int, Field(ge=1)]
    repeats: Annotated[tuple[Repeat, ...], Field(min_length=1)]
    warmed_up: bool
    """Whether a pass before the first repeat was made and not counted."""

    @property
    def middle(self) -> Repeat:
        """The repeat of median rate (the slower of two): the one whose figures are shown.

        One real pass and not a mean of several, so that its figures agree with each other.
        """
        ranked = sorted(self.repeats, key=lambda repeat: repeat.rate)
        return ranked[(len(ranked) - 1) // 2]

    @property
    def rates(self) -> tuple[float, float]:
        """The lowest and the highest rate of all repeats: the run-to-run spread."""
        rates = [repeat.rate for repeat in self.repeats]
        return min(rates), max(rates)


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """A whole file. ``created`` is ISO 8601 in UTC, ``command`` what measured it."""

    created: str
    version: str
    command: str
    machine: Machine
    data: Data
    configuration: Configuration
    operations: Annotated[tuple[Operation, ...], Field(min_length=1)]
    schema: Literal[1] = 1

    def operation(self, name: str, workers: int | None = None) -> Operation | None:
        """The measurement of that name; of several numbers of workers the highest, if not told."""
        found = [
            operation
            for operation in self.operations
            if operation.name == name and workers in (None, operation.workers)
        ]
        return max(found, key=lambda operation: operation.workers, default=None)


_ADAPTER: TypeAdapter[BenchmarkResult] = TypeAdapter(BenchmarkResult)


def encode_result(result: BenchmarkResult) -> bytes:
    """The result as the JSON that :func:`read_result` takes."""
    return _ADAPTER.dump_json(result, indent=2)


def read_result(path: Path) -> BenchmarkResult:
    """A result from its file.

    Raises:
        ConfigurationError: it cannot be read, or is no result of this schema.
    """
    shown = shown_path(path)
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read {shown}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ConfigurationError(
            f"{shown} is no benchmark result of schema {SCHEMA}: {where}: {first['msg']}"
        ) from error
