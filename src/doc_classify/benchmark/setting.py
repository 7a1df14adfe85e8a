"""Where and on what is measured: the machine and the documents."""

from __future__ import annotations

import hashlib
import os
import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

import psutil

from doc_classify.benchmark.result import Data, Machine
from doc_classify.discovery import hash_file, walk
from doc_classify.errors import ConfigurationError, TransientError
from doc_classify.records import Source, path_to_uri
from doc_classify.terminal import shown_path

_PACKAGES = (
    "doc-classify",
    "aiohttp",
    "lxml",
    "numpy",
    "pillow",
    "psycopg",
    "pypdfium2",
    "python-calamine",
    "resiliparse",
    "sqlalchemy",
    "tesserocr",
)
"""What the time is spent in."""


def this_machine() -> Machine:
    """The machine, as far as it says."""
    return Machine(
        cpu=_cpu_model(),
        cores=_usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        python=platform.python_version(),
        packages={name: found for name in _PACKAGES if (found := _version(name))},
    )


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == "model name" and value.strip():
                    return value.strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or "unknown"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def ending_of(uri: str) -> str:
    """The ending of a document's name, by which formats are told apart here; "" for none."""
    return PurePosixPath(uri.rpartition("/")[2]).suffix[1:].lower()[:12]


def look_over(folder: Path, *, recursive: bool) -> Data:
    """Count and hash the documents, in constant memory.

    Reading all of them also brings them into the system's cache, as far as they fit: what is
    measured afterwards is not the speed of the disk.

    Raises:
        ConfigurationError: there is no such folder, or no document in it.
    """
    shown, folder = shown_path(folder), folder.resolve()
    root = path_to_uri(folder if folder.is_dir() else folder.parent).rstrip("/")
    files = size = digests = 0
    formats: Counter[str] = Counter()
    for found in walk(folder, recursive=recursive):
        if not isinstance(found, Source):
            continue
        try:
            content = hash_file(found)
        except TransientError:
            content = "unreadable"
        name = found.uri.removeprefix(root)
        # A sum, so that the order of the walk, which is the file system's, does not matter.
        digest = hashlib.sha256(f"{name}\0{content}".encode("ascii", "backslashreplace")).digest()
        digests = (digests + int.from_bytes(digest, "big")) % 2**256
        files += 1
        size += found.size
        formats[ending_of(found.uri)] += 1
    if not files:
        raise ConfigurationError(f"{shown} holds no documents to measure with")
    return Data(
        folder=shown,
        files=files,
        bytes=size,
        fingerprint=f"{digests:064x}",
        formats=dict(formats.most_common()),
    )
