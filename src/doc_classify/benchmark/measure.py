"""A whole measurement: warm up, repeat each operation, and put the figures together."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import cast

from doc_classify.benchmark import operations
from doc_classify.benchmark.operations import Bench, Pass
from doc_classify.benchmark.result import (
    OPERATIONS,
    BenchmarkResult,
    Configuration,
    Data,
    Operation,
    OperationName,
)
from doc_classify.benchmark.setting import this_machine
from doc_classify.benchmark.spool import Spool
from doc_classify.classification import make_classifier
from doc_classify.classification.llm import LlmClassifier
from doc_classify.classification.opening import open_classifier, taxonomy_of
from doc_classify.errors import ConfigurationError
from doc_classify.pipeline.plan import Plan
from doc_classify.records import CASCADE
from doc_classify.settings import Settings
from doc_classify.storage import mask_url

_MEASURES = {
    "extract": operations.extract,
    "classify": operations.classify,
    "store": operations.store,
    "end_to_end": operations.end_to_end,
}
_STAND_IN = "embedded"
"""Classifies in the warm-up where an LLM will be measured: asking it about everything is dear."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be measured.

    Attributes:
        operations: of :data:`OPERATIONS`.
        workers: numbers of worker processes to measure with, one after the other.
        repeats: of each.
        database_url: of a database to measure with; None: a new SQLite file for each pass.
        command: how this was asked for, to be kept with the result.
    """

    operations: Sequence[str] = ("end_to_end",)
    workers: Sequence[int] = (1,)
    repeats: int = 3
    database_url: str | None = None
    command: str = ""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.operations if name not in OPERATIONS]:
            raise ConfigurationError(
                f"unknown operation {', '.join(map(repr, unknown))}; known are "
                f"{', '.join(OPERATIONS)}"
            )
        for name, given in (("operation", self.operations), ("number of workers", self.workers)):
            if not given or len(set(given)) != len(given):
                raise ConfigurationError(f"each {name} must be named once, got {list(given)}")
        if min(self.workers) < 1:
            raise ConfigurationError(f"workers must be at least 1, got {min(self.workers)}")
        if self.repeats < 1:
            raise ConfigurationError(f"repeat must be at least 1, got {self.repeats}")


async def measure(
    folder: Path,
    settings: Settings,
    wanted: Wanted,
    data: Data,
    *,
    include_reasoning: bool = False,
    on_progress: Callable[[str], None] = lambda _line: None,
    on_notice: Callable[[str | None], None] = lambda _notice: None,
) -> BenchmarkResult:
    """Measure what is wanted.

    Before anything counts, all documents go through one whole run, which warms the system's cache
    and leaves the texts for the operations that are measured alone.

    Args:
        folder: the documents.
        settings: how they are classified; the number of workers comes from ``wanted``.
        wanted: what to measure.
        data: the documents as :func:`~.setting.look_over` found them.
        include_reasoning: also ask the classifier why.
        on_progress: called with a line for a person now and then.
        on_notice: called with what an LLM is waited for, None when that is over.

    Raises:
        ConfigurationError: something in the settings cannot be used.
        StorageError, WorkerStartError, ServerError: a run cannot go on.
    """
    if settings.classifier == CASCADE:
        raise ConfigurationError(
            "a cascade takes a whole collection, and cannot be measured on some documents again "
            f"and again: measure its LLM ({settings.teacher}) and embedded, and let plan "
            "--cascade-share put them together"
        )
    taxonomy = taxonomy_of(settings)
    measured: list[Operation] = []
    async with open_classifier(settings, taxonomy, include_reasoning=include_reasoning) as chosen:
        on_progress(f"Classifier {chosen.reason}")
        llm = chosen.classifier if isinstance(chosen.classifier, LlmClassifier) else None
        plan = Plan.make(
            settings.changed(workers=wanted.workers[0]),
            chosen.classifier,
            taxonomy=taxonomy,
            include_reasoning=include_reasoning,
            force=True,
        )
        with tempfile.TemporaryDirectory(prefix="doc-classify-benchmark-") as name:
            numbers = count()

            def database() -> str:
                return wanted.database_url or f"sqlite:///{Path(name) / f'{next(numbers)}.db'}"

            stand_in = plan
            if llm:
                stand_in = Plan.make(
                    settings.changed(workers=wanted.workers[0]),
                    make_classifier(_STAND_IN, taxonomy),
                    taxonomy=taxonomy,
                    force=True,
                )
            alone = any(operation != "end_to_end" for operation in wanted.operations)
            spool = Spool(Path(name) / "spool", stand_in.worker_config()) if alone else None
            bench = Bench(folder, settings.recursive, plan, llm, spool, database, on_notice)
            on_progress(f"Warming up on {data.files:,} files ({data.bytes / 1e6:,.1f} MB)")
            await _warm_up(replace(bench, plan=stand_in, llm=None), spool)
            for operation in (known for known in OPERATIONS if known in wanted.operations):
                for workers in wanted.workers if operation != "store" else (1,):
                    at = replace(bench, plan=replace(plan, workers=workers))
                    passes = await _repeat(at, operation, wanted.repeats, on_progress)
                    measured.append(passes)
    return BenchmarkResult(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=this_machine().packages.get("doc-classify", ""),
        command=wanted.command,
        machine=this_machine(),
        data=data,
        configuration=Configuration(
            classifier=plan.classifier,
            model=plan.model,
            database=mask_url(wanted.database_url)
            if wanted.database_url
            else f"a new SQLite file in {tempfile.gettempdir()}",
            pages=settings.pages,
            ocr=settings.ocr,
            settings_fingerprint=plan.fingerprint,
        ),
        operations=tuple(measured),
    )


async def _warm_up(bench: Bench, spool: Spool | None) -> None:
    with spool or nullcontext():
        await operations.end_to_end(bench, spool.add if spool else None)


async def _repeat(
    bench: Bench, name: str, repeats: int, on_progress: Callable[[str], None]
) -> Operation:
    done = []
    workers = bench.plan.workers
    for number in range(1, repeats + 1):
        made: Pass = await _MEASURES[name](bench)
        repeat = made.tally.repeat(
            made.seen, start=made.start, max_concurrent=bench.plan.max_concurrent
        )
        done.append(repeat)
        on_progress(
            f"{name}, {workers} worker{'s' if workers > 1 else ''}, repeat {number} of {repeats}: "
            f"{repeat.files:,} files in {repeat.wall_seconds:.2f} s, {repeat.rate:,.1f}/s"
        )
        await asyncio.sleep(0)
    return Operation(cast("OperationName", name), workers, tuple(done), warmed_up=True)
