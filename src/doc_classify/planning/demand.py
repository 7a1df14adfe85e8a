"""What one document takes of each resource, from a benchmark's result.

The service demand law (Lazowska, Zahorjan, Graham, Sevcik: Quantitative System Performance,
Prentice-Hall 1984, chapter 3): the demand of a document at a resource is the time that the resource
was busy divided by the documents that were done meanwhile. CPU time and not wall clock is taken, so
that what else the measured machine did does not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from doc_classify.benchmark.result import BenchmarkResult, Group, Operation, Repeat
from doc_classify.errors import ConfigurationError
from doc_classify.extraction.options import PageSelection
from doc_classify.planning.figures import Figure

_OPERATIONS = ("end_to_end", "extract")


@dataclass(frozen=True, slots=True)
class Workload:
    """The documents of a plan.

    Attributes:
        documents: how many.
        pages: of a document, on average.
        selection: which of its pages are read.
        scanned: share of documents that have to be read by OCR; None: as in the benchmark.
    """

    documents: int
    pages: float
    selection: PageSelection
    scanned: float | None = None

    @property
    def pages_read(self) -> float:
        """Pages of a document that are read."""
        if self.selection.first is None:
            return self.pages
        return min(self.pages, self.selection.first + self.selection.last)


@dataclass(frozen=True, slots=True)
class Demands:
    """CPU seconds of one core of the measured machine that a document takes.

    Attributes:
        digital, scanned: of reading a document without and with OCR; ``scanned`` None where the
            benchmark had none.
        scanned_share: share of the latter kind.
        classify: of the classifier in the worker.
        parent: of the process that hashes, stores and hands out, on one machine.
        sigma: spread of the time of reading without OCR: standard deviation of its logarithm;
            ``scanned_sigma`` the same with OCR.
        worker_bytes: memory of one worker process at its peak.
        llm_seconds: of an LLM's server for a document, where the benchmark asked one.
        benchmark: the measurement, in words.
        figures: where they come from.
    """

    digital: float
    scanned: float | None
    scanned_share: float
    classify: float
    parent: float
    sigma: float
    scanned_sigma: float
    worker_bytes: int
    llm_seconds: float | None
    benchmark: str
    figures: tuple[Figure, ...]

    @property
    def read(self) -> float:
        """CPU seconds of reading a document, on average."""
        return self.digital * (1 - self.scanned_share) + (self.scanned or 0.0) * self.scanned_share

    @property
    def worker(self) -> float:
        """CPU seconds of a worker process for a document."""
        return self.read + self.classify


def demands(result: BenchmarkResult, work: Workload, *, core_speed: float = 1.0) -> Demands:
    """What a document of the workload takes, by a benchmark.

    Args:
        result: the benchmark.
        work: the documents.
        core_speed: of the planned cores, beside the measured ones.

    Raises:
        ConfigurationError: the benchmark did not measure what is asked for.
    """
    operation = _operation(result)
    middle = operation.middle
    figures: list[Figure] = []

    def measured(name: str, value: float, unit: str, how: str) -> float:
        figures.append(Figure(name, value, unit, "measured", f"benchmark: {how}"))
        return value

    page = _page_seconds(middle.text)
    digital = _document(middle.text, work.pages_read) if middle.text.files else None
    scanned = None
    ocr_page = _ocr_page_seconds(middle.ocr, page or 0.0)
    if ocr_page is not None:
        scanned = measured(
            "reading a page by OCR", ocr_page, "CPU s", f"mean of {middle.ocr.ocr_pages:,} pages"
        ) * max(1.0, work.pages_read)
    if page is not None:
        measured("reading a page", page, "CPU s", f"mean of {middle.text.pages:,} pages")
    if digital is None and scanned is None:
        raise ConfigurationError("the benchmark has read no document: nothing can be planned by it")
    files = middle.text.files + middle.ocr.files
    share = middle.ocr.files / files if work.scanned is None else work.scanned
    if work.scanned is None:
        figures.append(
            Figure("share of scanned documents", share, "", "measured", "benchmark: its files")
        )
    if share > 0 and scanned is None:
        raise ConfigurationError(
            "the benchmark has read no page by OCR: give one that has, or --scanned 0"
        )
    if share < 1 and digital is None:
        raise ConfigurationError(
            "the benchmark has only documents read by OCR: give one with others, or --scanned 100%"
        )
    classified = [g.classify for g in (middle.text, middle.ocr) if g.classify and g.classify.count]
    seconds = sum(one.total for one in classified) / max(1, sum(one.count for one in classified))
    if classified:
        measured("classifying a document in the worker", seconds, "CPU s", "mean")
    parent = measured(
        "hashing, storing, handing out",
        middle.cpu_parent / max(1, middle.files),
        "CPU s",
        "CPU of the parent process / documents",
    )
    memory = measured(
        "memory of a worker",
        middle.memory.peak_worker_bytes,
        "bytes",
        f"peak, {middle.memory.kind}",
    )
    llm = None
    if middle.llm and middle.llm.calls:
        llm = measured(
            "LLM server for a document",
            middle.wall_seconds / middle.llm.calls,
            "s",
            f"time of the run / {middle.llm.calls:,} requests to {middle.llm.model}",
        )
    return Demands(
        digital=(digital or 0.0) / core_speed,
        scanned=None if scanned is None else scanned / core_speed,
        scanned_share=share,
        classify=seconds / core_speed,
        parent=parent / core_speed,
        sigma=_sigma(middle.text),
        scanned_sigma=_sigma(middle.ocr),
        worker_bytes=int(memory),
        llm_seconds=llm,
        benchmark=_where(result, operation),
        figures=tuple(figures),
    )


def _operation(result: BenchmarkResult) -> Operation:
    for name in _OPERATIONS:
        if operation := result.operation(name):
            return operation
    raise ConfigurationError(
        f"the benchmark measured neither {' nor '.join(_OPERATIONS)}: it takes one of them"
    )


def _where(result: BenchmarkResult, operation: Operation) -> str:
    middle: Repeat = operation.middle
    return (
        f"benchmark of {result.created[:10]}, {operation.name} with {operation.workers} workers, "
        f"{middle.files:,} files, {result.machine.cpu}, {result.machine.cores} cores"
    )


def _page_seconds(group: Group) -> float | None:
    return group.extract_per_page if group.files else None


def _document(group: Group, pages: float) -> float:
    """CPU seconds of a document of so many pages read; of any, where the group has no pages."""
    page = _page_seconds(group)
    return group.extract.mean if page is None else page * max(1.0, pages)


def _ocr_page_seconds(group: Group, page: float) -> float | None:
    """CPU seconds of one page read by OCR; pages of these documents with text cost ``page``."""
    if not group.ocr_pages:
        return None
    return max(group.extract.total - page * (group.pages - group.ocr_pages), 0.0) / group.ocr_pages


def _sigma(group: Group) -> float:
    """Of a lognormal distribution with this mean and median: mean / median = exp(sigma^2 / 2)."""
    mean, median = group.extract.mean, group.extract.median
    return math.sqrt(2 * math.log(mean / median)) if 0 < median < mean else 0.0
