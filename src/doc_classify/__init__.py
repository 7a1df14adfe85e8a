"""Puts mixed documents into your own categories, on your own hardware.

The names below are the public interface; they are imported on first use, so that importing the
package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doc_classify.records import Classification, Extraction, Failure, RunStats
    from doc_classify.runners.async_batch import AsyncBatchProcessor
    from doc_classify.runners.distributed import CeleryDistributedProcessor
    from doc_classify.runners.parallel import ParallelDocumentProcessor
    from doc_classify.settings import Settings, load_settings
    from doc_classify.taxonomy import Category, Taxonomy

_HOMES = {
    "AsyncBatchProcessor": "runners.async_batch",
    "Category": "taxonomy",
    "CeleryDistributedProcessor": "runners.distributed",
    "Classification": "records",
    "Extraction": "records",
    "Failure": "records",
    "ParallelDocumentProcessor": "runners.parallel",
    "RunStats": "records",
    "Settings": "settings",
    "Taxonomy": "taxonomy",
    "load_settings": "settings",
}

__all__ = [
    "AsyncBatchProcessor",
    "Category",
    "CeleryDistributedProcessor",
    "Classification",
    "Extraction",
    "Failure",
    "ParallelDocumentProcessor",
    "RunStats",
    "Settings",
    "Taxonomy",
    "load_settings",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
