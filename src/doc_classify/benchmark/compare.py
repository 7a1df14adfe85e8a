"""Two benchmarks of the same documents beside each other, and which differences mean something."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from doc_classify.benchmark.report import data_line
from doc_classify.benchmark.result import BenchmarkResult, Data, Repeat
from doc_classify.errors import ConfigurationError
from doc_classify.terminal import one_line

_CHANCE = 0.1
"""A difference counts as one if it would turn up less often by chance alone."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One quantity, before and after: of the middle repeats, with the range of all.

    ``ratio`` is new over old, ``low`` and ``high`` what it is at least and at most, taking every
    repeat of one with every repeat of the other. ``verdict`` is ``better``, ``worse``, ``noise``
    (the repeats of both overlap) or ``unknown`` (too few repeats to tell).
    """

    operation: str
    workers: int
    quantity: str
    old: float
    new: float
    ratio: float
    low: float
    high: float
    verdict: str


_QUANTITIES: dict[str, tuple[Callable[[Repeat], float], bool]] = {
    "operations per second": (lambda repeat: repeat.rate, True),
    "CPU seconds per file": (lambda repeat: repeat.cpu_seconds / max(repeat.files, 1), False),
    "mean processing time": (lambda repeat: repeat.seconds.mean, False),
    "peak memory": (lambda repeat: float(repeat.memory.peak_bytes), False),
}
"""Name -> how to get it, and whether more of it is better."""


def check_same_data(old: Data, new: Data, *, anyway: bool) -> None:
    """Make sure that a comparison says something.

    Raises:
        ConfigurationError: the documents differ, and nobody said that this is meant.
    """
    if old.fingerprint != new.fingerprint and not anyway:
        raise ConfigurationError(
            f"the results to compare with are of other documents ({data_line(old)}; here: "
            f"{data_line(new)}): a difference would say nothing about speed. "
            "--other-data compares all the same"
        )


def compare(old: BenchmarkResult, new: BenchmarkResult) -> list[Difference]:
    """Every quantity of every operation that both have measured with as many workers."""
    found = []
    for operation in new.operations:
        before = old.operation(operation.name, operation.workers)
        if before is None:
            continue
        for name, (value, more_is_better) in _QUANTITIES.items():
            olds = sorted(map(value, before.repeats))
            news = sorted(map(value, operation.repeats))
            if olds[0] <= 0:
                continue
            found.append(
                Difference(
                    operation=operation.name,
                    workers=operation.workers,
                    quantity=name,
                    old=value(before.middle),
                    new=value(operation.middle),
                    ratio=value(operation.middle) / value(before.middle),
                    low=news[0] / olds[-1],
                    high=news[-1] / olds[0],
                    verdict=_verdict(olds, news, more_is_better),
                )
            )
    return found


def _verdict(olds: list[float], news: list[float], more_is_better: bool) -> str:
    if news[0] <= olds[-1] and olds[0] <= news[-1]:
        return "noise"
    # Both orders in which all of one come before all of the other, of all orders: the exact
    # two-sided probability of Mann and Whitney's (1947) most extreme statistic.
    if 2 / math.comb(len(olds) + len(news), len(olds)) > _CHANCE:
        return "unknown"
    return "better" if (news[0] > olds[-1]) == more_is_better else "worse"


def lines(old: BenchmarkResult, new: BenchmarkResult) -> Iterator[str]:
    """The comparison for a person."""
    yield f"COMPARED WITH {one_line(old.created)} (version {one_line(old.version)})"
    yield from map("  NOTE: {}".format, notes(old, new))
    found = compare(old, new)
    if not found:
        yield "  nothing was measured in both with as many workers"
    last = None
    for one in found:
        if last != (last := (one.operation, one.workers)):
            yield f"  {one.operation}, {one.workers} worker{'s' if one.workers > 1 else ''}:"
        said = {
            "noise": "within the spread",
            "unknown": "too few repeats to tell: repeat both at least 3 times",
        }.get(one.verdict, one.verdict.upper())
        yield (
            f"    {one.quantity:<22} {_figure(one.old):>12} -> {_figure(one.new):>12}  "
            f"x{one.ratio:.3f} ({one.low:.3f} to {one.high:.3f})  {said}"
        )


def notes(old: BenchmarkResult, new: BenchmarkResult) -> list[str]:
    """What else differs, or disturbs: sentences."""
    found = []
    if old.data.fingerprint != new.data.fingerprint:
        found.append(
            f"OTHER DOCUMENTS: {data_line(old.data)} before, {data_line(new.data)} now; "
            "the ratios are not of speed alone"
        )
    for what, before, after in (
        ("machine", asdict(old.machine), asdict(new.machine)),
        ("configuration", asdict(old.configuration), asdict(new.configuration)),
    ):
        for name, value in after.items():
            if before[name] != value:
                found.append(f"{what} differs: {name} {_short(before[name], value)}")
    found.extend(
        f"the machine was not quiet {when}"
        for when, result in (("before", old), ("now", new))
        if any(repeat.quiet.complaints for one in result.operations for repeat in one.repeats)
    )
    return found


def _short(before: object, after: object) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        changed = sorted(
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        )
        return ", ".join(
            one_line(f"{name} {before.get(name)} -> {after.get(name)}") for name in changed
        )
    return one_line(f"{before} -> {after}")


def _figure(value: float) -> str:
    if value >= 1e5:
        return f"{value / 1e6:,.1f} M"
    return f"{value:,.2f}" if value >= 1 else f"{value * 1000:,.3f} m"
