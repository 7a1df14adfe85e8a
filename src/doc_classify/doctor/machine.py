"""This computer, and the parts of the program."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from doc_classify.doctor.findings import Finding, judged, look
from doc_classify.errors import ConfigurationError, MissingDependencyError
from doc_classify.settings import Settings

_WORKER_BYTES = 150e6
"""Memory of a worker process at its peak on real documents: docs/benchmarks.md."""
_FREE_BYTES = 2e9
"""Fetched objects alone may take 1 GB of the temporary folder."""
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def findings(settings: Settings) -> Iterator[Finding]:
    """What this computer has, and what is installed."""
    yield _machine(settings)
    yield _memory(settings)
    yield look("categories", settings, _categories)
    yield look("formats", settings, _formats)
    yield look("OCR", settings, _ocr, needed=settings.ocr)
    yield _disk("temporary files", Path(tempfile.gettempdir()), "TMPDIR")
    yield look("legacy formats", settings, _legacy, needed=False)
    yield look("Parquet export", settings, _parquet, needed=False)


def _machine(settings: Settings) -> Finding:
    cores, workers = len(os.sched_getaffinity(0)), settings.worker_count
    return judged(
        "machine",
        f"Python {platform.python_version()}, {workers} workers on {cores} cores",
        f"reading keeps a core busy, so more workers than the {cores} cores gain nothing: set "
        f"workers to {cores}"
        if workers > cores
        else "",
    )


def _memory(settings: Settings) -> Finding:
    total = memory_bytes()
    free = min(psutil.virtual_memory().available, total)
    usual = settings.worker_count * _WORKER_BYTES
    worst = settings.worker_count * settings.memory_limit_mb * 1e6
    return judged(
        "memory",
        f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB free; {settings.worker_count} workers take "
        f"about {usual / 1e9:.1f} GB, at worst {worst / 1e9:.1f} GB (memory_limit_mb)",
        f"that many workers do not fit: set workers to {max(1, int(free / _WORKER_BYTES))}"
        if usual > free
        else "",
    )


def memory_bytes() -> float:
    """Memory of the computer, or of the container where that is less."""
    total = float(psutil.virtual_memory().total)
    for file in _CGROUP_LIMITS:
        try:
            return min(total, float(file.read_text("ascii")))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return total


def _disk(name: str, folder: Path, setting: str) -> Finding:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Finding(name, "missing", f"{folder}: {error.strerror}", f"set {setting}")
    return judged(
        name,
        f"{folder}: {usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free",
        f"less than {_FREE_BYTES / 1e9:.0f} GB: make room, or set {setting} to another disk"
        if usage.free < _FREE_BYTES
        else "",
    )


def database_disk(file: Path) -> Finding:
    """The disk that a database file is on, or will be."""
    folder = next(folder for folder in file.absolute().parents if folder.is_dir())
    return _disk("database disk", folder, "database_url")


def _categories(settings: Settings) -> str:
    from doc_classify.classification.opening import taxonomy_of

    return ", ".join(taxonomy_of(settings).names)


def _formats(_settings: Settings) -> str:
    """Each engine with what it reads, as far as nothing more need be installed."""
    from doc_classify.extraction.registry import extractors
    from doc_classify.sniffing import describe

    engines: dict[str, set[str]] = {}
    for media_type, extractor in extractors().items():
        if extractor.extra is None:
            engines.setdefault(extractor.name, set()).add(describe(media_type))
    return "; ".join(
        f"{name}: {', '.join(sorted(types, key=str.casefold))}"
        for name, types in sorted(engines.items())
    )


def _ocr(settings: Settings) -> str:
    from doc_classify.extraction.ocr import check_languages

    if not settings.ocr:
        raise ConfigurationError("switched off: scans and images are failures without text")
    check_languages(settings.ocr_languages)
    import tesserocr

    version = tesserocr.tesseract_version().split()[1]
    return f"Tesseract {version} with {settings.ocr_languages.replace('+', ', ')}"


def _legacy(_settings: Settings) -> str:
    return _extra("kreuzberg", "legacy", "read .doc and .ppt files")


def _parquet(_settings: Settings) -> str:
    return _extra("pyarrow", "parquet", "export to Parquet")


def _extra(package: str, extra: str, purpose: str) -> str:
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(package, extra, purpose)
    return f"{package} is installed"
