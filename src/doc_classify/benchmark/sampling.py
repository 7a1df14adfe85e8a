"""Looks at this process, its children and the machine while something is measured."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from types import TracebackType
from typing import Literal, Self

import psutil

from doc_classify.benchmark.result import Memory, Quiet

_INTERVAL = 0.2
_OTHERS, _STOLEN = 0.05, 0.02
"""Shares of the machine's CPU time from which a person is told."""

MemoryKind = Literal["pss", "uss", "rss"]


class Observation:
    """Around what is measured, as a context manager; the figures stand when it is left.

    CPU time comes from the kernel's accounts and is exact, provided that the worker processes
    were started and have ended inside; the engine of an LLM that runs on as a child of this
    process is kept apart. Memory is sampled five times a second, so a shorter peak can be missed.

    Attributes:
        wall: seconds.
        cpu_parent: CPU seconds of this process, less those of the sampling.
        cpu_sampling: these: 1 to 2% of a core.
        cpu_children: CPU seconds of the children that have ended.
        cpu_engine: CPU seconds of the children that were there before and afterwards; None where
            there are none.
    """

    def __init__(self) -> None:
        self.wall = self.cpu_parent = self.cpu_children = self.cpu_sampling = 0.0
        self.cpu_engine: float | None = None
        self.memory = Memory("rss", 0, 0, 0)
        self.quiet = Quiet(0.0, 0.0, 0.0, 0.0)
        self._process = psutil.Process()
        self._kind = _memory_kind(self._process)
        self._peak = self._peak_worker = self._samples = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="sampling", daemon=True)

    def __enter__(self) -> Self:
        self._load = os.getloadavg()[0]
        self._engines = {child.pid: _cpu_of(child) for child in self._children()}
        self._machine = _machine_cpu()
        self._own, self._reaped = _own_cpu()
        self._started = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wall = time.perf_counter() - self._started
        own, reaped = _own_cpu()
        machine = _machine_cpu()
        self._stop.set()
        self._thread.join()
        self.cpu_parent = max(0.0, own - self._own - self.cpu_sampling)
        self.cpu_children = reaped - self._reaped
        left = {child.pid: _cpu_of(child) for child in self._children()}
        engines = [left[pid] - before for pid, before in self._engines.items() if pid in left]
        self.cpu_engine = max(0.0, sum(engines)) if engines else None
        self.memory = Memory(self._kind, self._peak, self._peak_worker, self._samples)
        ours = own - self._own + self.cpu_children + (self.cpu_engine or 0.0)
        self.quiet = _quiet(self._load, self._machine, machine, ours)

    def _children(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return self._process.children(recursive=True)
        return []

    def _sample(self) -> None:
        while True:
            total = self._memory_of(self._process)
            for child in self._children():
                size = self._memory_of(child)
                total += size
                if child.pid not in self._engines:
                    self._peak_worker = max(self._peak_worker, size)
            self._peak = max(self._peak, total)
            self._samples += 1
            self.cpu_sampling = time.thread_time()
            if self._stop.wait(_INTERVAL):
                return

    def _memory_of(self, process: psutil.Process) -> int:
        # A process may end, or not be readable yet, while it is looked at.
        with contextlib.suppress(psutil.Error, OSError):
            found = process.memory_info() if self._kind == "rss" else process.memory_full_info()
            return int(getattr(found, self._kind))
        return 0


def _memory_kind(process: psutil.Process) -> MemoryKind:
    try:
        found = process.memory_full_info()
    except (psutil.Error, OSError):
        return "rss"
    return "pss" if hasattr(found, "pss") else "uss"


def _cpu_of(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _own_cpu() -> tuple[float, float]:
    """CPU seconds so far: of this process, of its children that have ended."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


def _machine_cpu() -> tuple[float, float, float]:
    """CPU seconds of the machine since it was started: all, busy, stolen."""
    times = psutil.cpu_times()._asdict()
    for counted_twice in ("guest", "guest_nice"):  # in user and nice as well
        times.pop(counted_twice, None)
    total, stolen = sum(times.values()), times.get("steal", 0.0)
    return total, total - times["idle"] - times.get("iowait", 0.0) - stolen, stolen


def _quiet(
    load: float, before: tuple[float, float, float], after: tuple[float, float, float], ours: float
) -> Quiet:
    total, busy, stolen = (late - early for early, late in zip(before, after, strict=True))
    others = min(1.0, max(0.0, (busy - ours) / total)) if total > 0 else 0.0
    taken = min(1.0, max(0.0, stolen / total)) if total > 0 else 0.0
    complaints = []
    if others > _OTHERS:
        complaints.append(f"other processes took {others:.0%} of the machine's CPU time")
    if taken > _STOLEN:
        complaints.append(f"the hypervisor gave {taken:.0%} of the CPU time to other guests")
    return Quiet(load, os.getloadavg()[0], others, taken, tuple(complaints))
