"""The ledger: where files, documents, results and runs are kept."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from doc_classify.storage.base import Store


def open_store(url: str) -> Store:
    """Open the database at ``url``, creating or migrating its tables.

    Raises:
        ConfigurationError: the address is malformed, or the database too new for this program.
        StorageError: the database cannot be used.
    """
    from doc_classify.storage.store import SqlStore

    return SqlStore(url)


def open_existing(url: str) -> Store | None:
    """Open the database at ``url``; None where it is not there yet, or has no tables.

    Unlike :func:`open_store`, this never makes a database.

    Raises:
        ConfigurationError: the address is malformed, or the database too new for this program.
        StorageError: the database cannot be used.
    """
    from doc_classify.storage.probe import has_ledger

    return open_store(url) if has_ledger(url) else None


@contextlib.contextmanager
def temporary_store() -> Iterator[Store]:
    """A store for one run whose results nobody asked to keep, gone at the end."""
    from doc_classify.storage.store import SqlStore

    with tempfile.TemporaryDirectory(prefix="doc-classify-") as folder:
        store = SqlStore(f"sqlite:///{Path(folder) / 'run.db'}", durable=False)
        try:
            yield store
        finally:
            store.close()


def mask_url(url: str) -> str:
    """A database address that can be shown: without its password."""
    from doc_classify.storage.engine import mask_url

    return mask_url(url)
