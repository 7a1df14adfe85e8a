"""Keeps the figures of single documents while they are measured, as bare numbers.

A few numbers a document, in arrays, never a text: half a million documents take about 50 MB.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict

import numpy as np

from doc_classify.benchmark.result import Distribution, Group, Llm, Repeat, Stage
from doc_classify.benchmark.sampling import Observation
from doc_classify.records import Timings, Usage


def numbers() -> array[float]:
    """An empty row of numbers."""
    return array("d")


def distribution(values: array[float]) -> Distribution:
    """What the schema keeps of a row of numbers."""
    if not values:
        return Distribution()
    row = np.frombuffer(values, dtype=np.float64)
    median, p95, p99 = np.percentile(row, [50, 95, 99])
    return Distribution(
        count=len(row),
        total=float(row.sum()),
        mean=float(row.mean()),
        median=float(median),
        p95=float(p95),
        p99=float(p99),
        minimum=float(row.min()),
        maximum=float(row.max()),
    )


class _Group:
    def __init__(self) -> None:
        self.files = self.failed = self.bytes = self.pages = self.ocr_pages = 0
        self.extract, self.classify = numbers(), numbers()

    def done(self, *, in_worker: bool) -> Group:
        return Group(
            files=self.files,
            failed=self.failed,
            bytes=self.bytes,
            pages=self.pages,
            ocr_pages=self.ocr_pages,
            extract=distribution(self.extract),
            classify=distribution(self.classify) if in_worker else None,
        )


class Tally:
    """Of one pass over the documents.

    Args:
        extracts: the pass reads the documents.
        classifies: it classifies them, in the workers or by an LLM.
        llm: name of the LLM that is asked, None for a classifier in the workers.
    """

    def __init__(self, *, extracts: bool, classifies: bool, llm: str | None = None) -> None:
        self._extracts = extracts
        self._classifies = classifies
        self._llm = llm
        self._total = _Group()
        self._formats: defaultdict[str, _Group] = defaultdict(_Group)
        self._read_by = {True: _Group(), False: _Group()}
        self._seconds = numbers()
        self._shares: defaultdict[str, tuple[array[float], array[float]]] = defaultdict(
            lambda: (numbers(), numbers())
        )
        self._failures: Counter[str] = Counter()
        self._usage = Usage()
        self.duplicates = 0

    def document(
        self,
        *,
        ending: str,
        size: int,
        timings: Timings,
        pages: int = 0,
        ocr_pages: int = 0,
        failure: str | None = None,
        usage: Usage | None = None,
    ) -> None:
        """Count one document; ``failure`` is the kind of its error, None where it went well."""
        for group in (self._total, self._formats[ending], self._read_by[ocr_pages > 0]):
            group.files += 1
            group.failed += failure is not None
            group.bytes += size
            group.pages += pages
            group.ocr_pages += ocr_pages
            if self._extracts:
                group.extract.append(timings.extract)
            if timings.classify > 0:  # else it did not come so far
                group.classify.append(timings.classify)
        asked = self._llm is not None
        self._seconds.append(timings.busy + (timings.classify if asked else 0.0))
        if failure is not None:
            self._failures[failure] += 1
        if usage:
            self._usage += usage

    def rejected(self, ending: str, failure: str) -> None:
        """Count a file that could not even be opened."""
        for group in (self._total, self._formats[ending], self._read_by[False]):
            group.files += 1
            group.failed += 1
        self._failures[failure] += 1

    def batch(self, stage: str, documents: int, wall: float, cpu: float | None) -> None:
        """Count what a stage took for a batch, in equal shares."""
        if documents:
            walls, cpus = self._shares[stage]
            walls.extend([wall / documents] * documents)
            if cpu is not None:
                cpus.extend([cpu / documents] * documents)

    def repeat(self, seen: Observation, *, start: float, max_concurrent: int) -> Repeat:
        """Everything about this pass, which was looked at by ``seen``."""
        in_worker = self._classifies and self._llm is None
        total = self._total
        stages = {
            name: Stage(cpu=distribution(cpus) if cpus else None, wall=distribution(walls))
            for name, (walls, cpus) in self._shares.items()
        }
        if self._extracts:
            stages["extract"] = Stage(cpu=distribution(total.extract))
        classified = distribution(total.classify)
        if self._classifies:
            stages["classify"] = Stage(cpu=classified) if in_worker else Stage(wall=classified)
        works = self._extracts or self._classifies
        seconds = self._seconds
        if not works:  # the store alone: a document's time is its share of the batches
            seconds = array("d", np.sum([walls for walls, _ in self._shares.values()], axis=0))
        return Repeat(
            wall_seconds=seen.wall,
            start_seconds=start,
            files=total.files,
            failed=total.failed,
            bytes=total.bytes,
            pages=total.pages,
            ocr_pages=total.ocr_pages,
            seconds=distribution(seconds),
            cpu_parent=seen.cpu_parent,
            cpu_workers=seen.cpu_children,
            memory=seen.memory,
            stages=stages,
            formats={
                name: group.done(in_worker=in_worker)
                for name, group in sorted(self._formats.items(), key=lambda item: -item[1].files)
                if works
            },
            text=self._read_by[False].done(in_worker=in_worker),
            ocr=self._read_by[True].done(in_worker=in_worker),
            quiet=seen.quiet,
            llm=self._asked(seen, classified, max_concurrent),
            duplicates=self.duplicates,
            failures=dict(self._failures.most_common()),
        )

    def _asked(self, seen: Observation, seconds: Distribution, max_concurrent: int) -> Llm | None:
        if self._llm is None or not self._classifies:
            return None
        usage = self._usage
        return Llm(
            model=self._llm,
            max_concurrent=max_concurrent,
            calls=usage.calls,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            seconds=seconds,
            in_flight=seconds.total / seen.wall,
            engine_cpu=seen.cpu_engine,
        )
