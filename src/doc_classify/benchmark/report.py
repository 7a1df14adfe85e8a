"""A benchmark for a person to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from doc_classify.benchmark.result import (
    BenchmarkResult,
    Data,
    Distribution,
    Operation,
    Repeat,
)
from doc_classify.terminal import one_line

TITLE = "PERFORMANCE BENCHMARK RESULTS"
PROJECTED = 500_000
_RULE = "=" * 80
_FORMATS_SHOWN = 12
_START_TOLD = 0.05
"""Share of the wall clock that starting the workers may take before a person is told."""


def lines(result: BenchmarkResult) -> Iterator[str]:
    """The report line by line."""
    yield from (TITLE, _RULE, "")
    yield from _setting(result)
    for operation in result.operations:
        yield ""
        yield from _operation(operation)
    reading = [one for one in result.operations if "extract" in one.middle.stages]
    if reading:
        yield ""
        yield from _formats(reading[-1])
    yield ""
    yield from _estimates(result)


def _setting(result: BenchmarkResult) -> Iterator[str]:
    machine, how = result.machine, result.configuration
    yield (
        f"Machine: {one_line(machine.cpu)}, {machine.cores} cores, "
        f"{machine.memory_bytes / 1e9:.1f} GB, {one_line(machine.system)}, "
        f"Python {machine.python}"
    )
    yield data_line(result.data)
    model = f" ({one_line(how.model)})" if how.model else ""
    ocr = "OCR" if how.ocr else "no OCR"
    yield (
        f"Classifier: {one_line(how.classifier)}{model}; pages {one_line(how.pages)}, {ocr}; "
        f"database: {one_line(how.database)}"
    )


def data_line(data: Data) -> str:
    """What was measured on, in a line."""
    return (
        f"Documents: {one_line(data.folder)}, {data.files:,} files, "
        f"{data.bytes / 1e6:,.1f} MB, fingerprint {data.fingerprint[:12]}"
    )


def _operation(operation: Operation) -> Iterator[str]:
    middle = operation.middle
    yield f"{operation.name.upper()} OPERATION:"
    yield f"  Workers: {operation.workers}"
    copies = ""
    if middle.duplicates:
        what = "copy of another" if middle.duplicates == 1 else "copies of others"
        copies = f" (and {middle.duplicates:,} {what})"
    yield f"  Total Files: {middle.files:,}{copies}"
    share = middle.succeeded / middle.files if middle.files else 0.0
    yield f"  Success Rate: {middle.succeeded:,}/{middle.files:,} ({share:.1%})"
    yield f"  Average Processing Time: {seconds(middle.seconds.mean)}"
    yield f"  Median Processing Time: {seconds(middle.seconds.median)}"
    yield f"  Operations per Second: {middle.rate:,.2f}"
    yield f"  Total Throughput: {middle.bytes_per_second / 1e6:,.2f} MB/s"
    yield f"  Peak Memory Usage: {middle.memory.peak_bytes / 1e6:,.1f} MB"
    cores = middle.cpu_seconds / middle.wall_seconds
    yield f"  Average CPU Usage: {cores:.1%} (100% is one core)"
    yield from _how_sure(operation)
    yield from _inside(middle)


def _how_sure(operation: Operation) -> Iterator[str]:
    repeats, middle = operation.repeats, operation.middle
    low, high = operation.rates
    spread = (
        f"{low:,.2f} to {high:,.2f} operations per second in {len(repeats)} repeats; "
        "shown is the middle one"
        if len(repeats) > 1
        else "unknown: measured once"
    )
    warm = "" if operation.warmed_up else ", without a warm-up"
    yield f"  Spread: {spread}{warm}"
    told = sorted({complaint for repeat in repeats for complaint in repeat.quiet.complaints})
    if told:
        loads = [repeat.quiet.load_before for repeat in repeats]
        yield (
            f"  NOT QUIET: in {sum(bool(r.quiet.complaints) for r in repeats)} of {len(repeats)} "
            f"repeats the machine did other work ({told[-1]}; load {min(loads):.1f} to "
            f"{max(loads):.1f}). Compare CPU seconds, not rates."
        )
    if middle.start_seconds > _START_TOLD * middle.wall_seconds:
        yield (
            f"  SHORT: {middle.start_seconds:.2f} s of {middle.wall_seconds:.2f} s are the start "
            "of the workers, which is paid once. More documents give a truer rate."
        )


def _inside(repeat: Repeat) -> Iterator[str]:
    yield (
        f"  Wall clock: {repeat.wall_seconds:.2f} s; documents in progress on average: "
        f"{repeat.in_progress:.2f}"
    )
    if repeat.pages:
        yield (
            f"  Pages read: {repeat.pages:,} ({repeat.pages / repeat.wall_seconds:,.1f}/s), "
            f"{repeat.ocr_pages:,} of them by OCR"
        )
    yield (
        f"  CPU: {repeat.cpu_parent:.2f} s in this process, {repeat.cpu_workers:.2f} s in workers"
        + (f"; {_milli(repeat.cpu_seconds / repeat.files)} a file" if repeat.files else "")
    )
    for failure, number in repeat.failures.items():
        yield f"  Failed: {number:,} {failure}"
    if repeat.llm:
        asked = repeat.llm
        yield (
            f"  LLM: {asked.calls:,} requests, {asked.prompt_tokens:,} prompt tokens "
            f"({asked.cached_tokens:,} cached), {asked.completion_tokens:,} answer tokens, "
            f"{asked.in_flight:.1f} in flight on average (at most {asked.max_concurrent})"
            + (
                ""
                if asked.engine_cpu is None
                else f", {asked.engine_cpu:.2f} s of the engine's CPU"
            )
        )
    yield from _table(
        "stage",
        [
            (name, of.count, of)
            for name, stage in repeat.stages.items()
            if (of := stage.cpu or stage.wall) and of.count
        ],
        marks={name: " CPU" if stage.cpu else "" for name, stage in repeat.stages.items()},
    )


def _formats(operation: Operation) -> Iterator[str]:
    yield f"FORMATS ({operation.name}, {_workers(operation.workers)}):"
    formats = [
        (one_line(name) or "(none)", group.files, group.extract)
        for name, group in operation.middle.formats.items()
        if group.extract.count
    ]
    yield from _table("read (CPU)", formats[:_FORMATS_SHOWN])
    if len(formats) > _FORMATS_SHOWN:
        yield f"    and {len(formats) - _FORMATS_SHOWN} more formats, which the file lists"


def _table(
    heading: str,
    rows: list[tuple[str, int, Distribution]],
    marks: dict[str, str] | None = None,
) -> Iterator[str]:
    if not rows:
        return
    yield (
        f"    {heading:<14} {'files':>8} {'mean':>10} {'median':>10} {'95%':>10} {'99%':>10} "
        f"{'total':>10}"
    )
    for name, files, of in rows:
        shown = f"{name}{(marks or {}).get(name, '')}"
        yield (
            f"    {shown:<14} {files:>8,} {_milli(of.mean):>10} {_milli(of.median):>10} "
            f"{_milli(of.p95):>10} {_milli(of.p99):>10} {of.total:>8.2f} s"
        )


def _estimates(result: BenchmarkResult) -> Iterator[str]:
    whole = [one for one in result.operations if one.name == "end_to_end"]
    for operation in whole or result.operations:
        estimate = operation.middle.seconds_for(PROJECTED)
        if estimate is None:
            continue
        low, high = (PROJECTED / rate for rate in reversed(operation.rates))
        part = "" if whole else f"{operation.name} alone, "
        about = f"{part}{_workers(operation.workers)}"
        between = f"; {_hours(low)} to {_hours(high)}" if len(operation.repeats) > 1 else ""
        yield f"Estimated time for 500K documents: {_hours(estimate)} ({about}{between})"


def saved_line(path: Path) -> str:
    """Where the figures are."""
    return f"Results: {one_line(str(path))}"


def seconds(value: float) -> str:
    """Seconds of one document, with as many digits as mean something."""
    return f"{value:.2f}s" if value >= 1 else f"{value:.4f}s"


def _workers(number: int) -> str:
    return f"{number} worker{'s' if number > 1 else ''}"


def _milli(value: float) -> str:
    return f"{value * 1000:,.2f} ms"


def _hours(value: float) -> str:
    return f"{value / 3600:,.1f} hours" if value >= 360 else f"{value / 60:,.1f} minutes"
