"""Looking at a database without making or changing anything in it."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.engine import URL

from doc_classify.errors import StorageError
from doc_classify.storage.engine import make_engine, mask_url, parse_url, reading, writing
from doc_classify.storage.upgrade import current_revision


def has_ledger(url: str) -> bool:
    """Whether the database at ``url`` is there and has our tables.

    Raises:
        ConfigurationError: the address is malformed.
        StorageError: the database does not answer.
    """
    return revision(url) is not None


def probe(url: str) -> str:
    """Name and version of the database at ``url``, once it is sure that it can be written.

    Raises:
        ConfigurationError: the address is malformed.
        StorageError: the database cannot be reached or written.
    """
    parsed = parse_url(url)
    if file := _missing_file(parsed):
        folder = next(folder for folder in file.parents if folder.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise StorageError(f"the database {mask_url(url)} cannot be made: {folder} is closed")
        return f"{mask_url(url)} (the first run makes it)"
    engine = make_engine(url)
    try:
        _check_writable(engine, url)
        version = ".".join(map(str, engine.dialect.server_version_info or ()))
    finally:
        engine.dispose()
    name = "SQLite" if parsed.get_backend_name() == "sqlite" else "PostgreSQL"
    return f"{mask_url(url)} ({name} {version})"


def revision(url: str) -> str | None:
    """Revision of the tables; None where there are none yet.

    Raises:
        ConfigurationError: the address is malformed.
        StorageError: the database does not answer.
    """
    if _missing_file(parse_url(url)):
        return None
    engine = make_engine(url)
    try:
        with reading(engine) as connection:
            return current_revision(connection)
    finally:
        engine.dispose()


def _missing_file(url: URL) -> Path | None:
    """The file of an SQLite database that has not been made yet."""
    if url.get_backend_name() != "sqlite":
        return None
    file = Path(str(url.database)).absolute()
    return None if file.exists() else file


def _check_writable(engine: Engine, url: str) -> None:
    # On SQLite, beginning to write is the test; it is undone by writing nothing.
    with writing(engine) as connection:
        if connection.dialect.name != "postgresql":
            return
        if connection.execute(text("SHOW transaction_read_only")).scalar() == "on":
            raise StorageError(f"the database {mask_url(url)} cannot be written: it is read-only")
        may = "SELECT has_schema_privilege(current_schema(), 'CREATE')"
        if current_revision(connection) is None and not connection.execute(text(may)).scalar():
            raise StorageError(
                f"the database {mask_url(url)} has no tables yet, and its user may make none"
            )
