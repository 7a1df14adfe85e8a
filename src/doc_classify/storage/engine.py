"""Connections: how SQLite and PostgreSQL are opened, and what their errors mean to us."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from doc_classify.errors import ConfigurationError, StorageError

_BUSY_TIMEOUT = 30.0
"""Seconds a SQLite writer waits for another: shorter ones fail under eight writers."""
_POOL_SIZE, _OVERFLOW = 2, 1
CONNECTIONS = _POOL_SIZE + _OVERFLOW
"""Connections to PostgreSQL that one process has at most."""
_READ_ONLY = "doc_classify_read_only"


def parse_url(url: str) -> URL:
    """A database address with the driver that we bring.

    Raises:
        ConfigurationError: the address is malformed, or of a database that we do not know.
    """
    parsed = _split(url)
    if parsed is None:
        raise ConfigurationError(
            "the database URL is not valid: expected sqlite:///FILE or "
            "postgresql://USER:PASSWORD@HOST:PORT/NAME, with special characters of the password "
            "as %XX"
        )
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigurationError("an SQLite database needs a file: sqlite:///FILE")
        if parsed.query:
            raise ConfigurationError("the URL of an SQLite database takes no options after '?'")
        return parsed.set(drivername="sqlite")
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    raise ConfigurationError(f"{backend!r} databases are not supported: use SQLite or PostgreSQL")


def _split(url: str) -> URL | None:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return None
    port_fits = parsed.port is None or 0 < parsed.port < 65536
    return parsed if "\0" not in url and "%00" not in url and port_fits else None


def mask_url(url: str) -> str:
    """A database address that can be shown: without its password, wherever that stands."""
    parsed = _split(url)
    if parsed is None:
        return "(not a valid database URL)"
    parsed = parsed.difference_update_query(("password", "sslpassword"))
    backend = parsed.get_backend_name()
    return parsed.set(drivername=backend).render_as_string(hide_password=True)


def make_engine(url: str, *, durable: bool = True) -> Engine:
    """An engine for a database address; the database itself is not touched yet.

    ``durable`` False trades safety after a power cut for speed (temporary stores).
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed, durable=durable)
    _check_options(parsed)
    engine = create_engine(
        parsed,
        pool_size=_POOL_SIZE,
        max_overflow=_OVERFLOW,
        pool_pre_ping=True,
        hide_parameters=True,
        # PgBouncer in transaction mode cannot keep prepared statements.
        connect_args={
            "prepare_threshold": None,
            "connect_timeout": 10,
            "application_name": "doc-classify",
        },
    )

    # Inserted before SQLAlchemy's own first look at the server, which fails there without a word.
    @event.listens_for(engine, "connect", insert=True)
    def _check_encoding(connection: Any, _record: object) -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise ConfigurationError(
                f"the database {mask_url(url)} has the encoding {encoding}, which cannot hold "
                "every text: make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
            )

    return engine


def _check_options(url: URL) -> None:
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    try:
        make_conninfo("", **dict.fromkeys(url.query, ""))
    except ProgrammingError as error:
        raise ConfigurationError(f"the database URL is not valid: {error}") from None


def _sqlite_engine(url: URL, *, durable: bool) -> Engine:
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": _BUSY_TIMEOUT})

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own transaction handling begins too late; ours is in _begin.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'NORMAL' if durable else 'OFF'}")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that begins as a reader and then writes fails at once when another
        # writer was faster; one that begins as a writer waits its turn.
        read_only = connection.get_execution_options().get(_READ_ONLY)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def prepare_folder(url: URL) -> None:
    """Make the folder of a SQLite file.

    Raises:
        StorageError: it cannot be made.
    """
    if url.get_backend_name() == "sqlite" and url.database:
        folder = Path(url.database).absolute().parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot make the folder of the database {url.database}: {error.strerror}"
            ) from error


@contextlib.contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes, committed at the end.

    Raises:
        StorageError: the database did not take it.
    """
    with _translated(engine), engine.begin() as connection:
        yield connection


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads: it holds nobody up.

    Raises:
        StorageError: the database did not answer.
    """
    with _translated(engine), connecting(engine) as connection:
        yield connection


@contextlib.contextmanager
def connecting(engine: Engine) -> Iterator[Connection]:
    """The same, with the driver's own errors."""
    with engine.execution_options(**{_READ_ONLY: True}).connect() as connection:
        yield connection


@contextlib.contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise storage_error(engine, error) from error


def storage_error(engine: Engine, error: SQLAlchemyError) -> StorageError:
    """What a driver's error means, in one line that names the database and no password."""
    where = mask_url(engine.url.render_as_string(hide_password=False))
    if isinstance(error, NoSuchModuleError):
        return StorageError(f"no driver for {where}")
    cause: Any = error.orig if isinstance(error, DBAPIError) else error
    reason = " ".join(str(cause).split())[:300]
    return StorageError(f"the database {where} cannot be used: {reason}")
