"""What the pipeline costs beside the bare work, on your own documents, in one run.

Usage::

    python benchmarks/pipeline.py FOLDER [--documents 2000] [--workers 1,2] [--json FILE]

The files of FOLDER are copied, each copy with other bytes but the same text, until there are
``--documents`` of them. Measured over the same copies: the bare loop (tell the type and extract,
in this process), the same with classification, and the whole pipeline into a fresh SQLite
database with each number of workers. Compare the ratios; absolute figures depend on the machine
and on what else it does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import threading
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil

from doc_classify import ParallelDocumentProcessor, load_settings
from doc_classify.classification import ClassifierInput, make_classifier
from doc_classify.errors import DocClassifyError
from doc_classify.extraction import Document, extract
from doc_classify.pipeline.plan import Plan
from doc_classify.sniffing import sniff


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name) / "documents"
        size = lay_out(arguments.folder, folder, arguments.documents)
        report: dict[str, Any] = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
            "python": platform.python_version(),
            "documents": arguments.documents,
            "megabytes": round(size / 1e6, 1),
            "bare": bare(folder),
            "pipeline": [
                pipeline(folder, Path(name) / f"{workers}.db", workers)
                for workers in map(int, arguments.workers.split(","))
            ],
        }
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2))


def lay_out(source: Path, target: Path, documents: int) -> int:
    """Copy the files until there are enough; returns the bytes written."""
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    if not files:
        sys.exit(f"{source} holds no files")
    size = 0
    for number, path in enumerate(islice(cycle(files), documents)):
        copy = target / f"{number // 1000:04}" / f"{number:06}{path.suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        with copy.open("ab") as file:
            file.write(distinct(path, number))
        size += copy.stat().st_size
    return size


def distinct(path: Path, number: int) -> bytes:
    """Bytes that change a file's hash and, in the formats that allow it, not its text."""
    if path.read_bytes()[:2] == b"PK":
        return b""  # trailing bytes would make the directory of a ZIP file hard to find
    if path.suffix.lower() == ".pdf":
        return f"\n%{number}\n".encode()
    return b" " * (number % 4000) + b"\n"


def bare(folder: Path) -> dict[str, float]:
    """The loop that any program would need: type, text, category, one file after the other."""
    settings = load_settings(classifier="embedded")
    classifier = make_classifier(settings.classifier, settings.make_taxonomy())
    plan = Plan.make(settings, classifier)
    pages = failed = 0
    extracting = classifying = 0.0
    started = time.perf_counter()
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        begun = time.perf_counter()
        try:
            extraction = extract(Document(path, path.name, sniff(path)), plan.options)
        except DocClassifyError:
            failed += 1
            continue
        finally:
            extracting += time.perf_counter() - begun
        pages += len(extraction.pages)
        begun = time.perf_counter()
        classifier.classify(ClassifierInput.of(extraction, path.name))
        classifying += time.perf_counter() - begun
    return {
        "seconds": time.perf_counter() - started,
        "extract_seconds": extracting,
        "classify_seconds": classifying,
        "pages": pages,
        "failed": failed,
    }


def pipeline(folder: Path, database: Path, workers: int) -> dict[str, float]:
    """One run of the whole pipeline into a fresh database."""
    settings = load_settings(
        classifier="embedded", database_url=f"sqlite:///{database}", workers=workers
    )
    peak = Peak()
    before = os.times()
    with peak, ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        started = time.perf_counter()
        stats = processor.process_directory(folder)
        seconds = time.perf_counter() - started
    after = os.times()
    return {
        "workers": workers,
        "seconds": seconds,
        "classified": stats.classified,
        "failed": stats.failed,
        "duplicates": stats.duplicates,
        "unsupported": stats.unsupported,
        "pages": stats.pages,
        "extract_cpu": stats.extract_seconds,
        "classify_cpu": stats.classify_seconds,
        "parent_cpu": after.user + after.system - before.user - before.system,
        "workers_cpu": after.children_user
        + after.children_system
        - before.children_user
        - before.children_system,
        "parent_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "worker_peak_mb": peak.bytes / 1e6,
    }


class Peak:
    """Samples the memory of this process's children, ten times a second."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        own = psutil.Process()
        while not self._stop.wait(0.1):
            for child in own.children():
                try:
                    self.bytes = max(self.bytes, child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue


def show(report: dict[str, Any]) -> None:
    """Print the report for a person."""
    loop = report["bare"]
    number = report["documents"]
    print(f"{report['machine']}, Python {report['python']}")
    print(f"{number} documents, {report['megabytes']} MB, {loop['pages']} pages read")
    print(
        f"bare loop: {loop['seconds']:.1f} s, {number / loop['seconds']:.1f} documents/s, "
        f"{loop['pages'] / loop['seconds']:.1f} pages/s (extract {loop['extract_seconds']:.1f} s, "
        f"classify {loop['classify_seconds']:.1f} s, {loop['failed']} failed)"
    )
    for run in report["pipeline"]:
        extra = run["seconds"] - loop["seconds"] / run["workers"]
        cpu = run["parent_cpu"] + run["workers_cpu"]
        print(
            f"{run['workers']} worker(s): {run['seconds']:.1f} s, "
            f"{number / run['seconds']:.1f} documents/s, "
            f"{run['pages'] / run['seconds']:.1f} pages/s; beside the bare loop divided by the "
            f"workers {100 * extra * run['workers'] / loop['seconds']:+.1f}% "
            f"({1e6 * extra / number:+.0f} us a document)\n"
            f"  CPU: extract {100 * run['extract_cpu'] / cpu:.0f}%, "
            f"classify {100 * run['classify_cpu'] / cpu:.0f}%, "
            f"rest of the workers "
            f"{100 * (run['workers_cpu'] - run['extract_cpu'] - run['classify_cpu']) / cpu:.0f}%, "
            f"parent {100 * run['parent_cpu'] / cpu:.0f}% "
            f"({1e6 * run['parent_cpu'] / number:.0f} us a document)\n"
            f"  peak memory: parent {run['parent_peak_mb']:.0f} MB, "
            f"a worker {run['worker_peak_mb']:.0f} MB; "
            f"{run['classified']} classified, {run['failed']} failed, "
            f"{run['unsupported']} unsupported, {run['duplicates']} duplicates"
        )


if __name__ == "__main__":
    main()
