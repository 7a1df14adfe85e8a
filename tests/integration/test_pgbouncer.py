"""PostgreSQL behind a real PgBouncer in transaction mode."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from conftest import CeleryWorker, RedisServer, _free_port, fresh_database, wait_until
from doc_classify import CeleryDistributedProcessor, ParallelDocumentProcessor, load_settings
from doc_classify.storage import monitoring

_NOBODY = 65534  # it refuses to run as root
_PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_POOL = 3
_DOCUMENTS = 120

pytestmark = pytest.mark.skipif(_PROGRAM is None, reason="there is no pgbouncer")


@dataclass
class Pooled:
    """A database: its address through the pooler, and that of its server."""

    url: str
    direct: str
    most: int = 0

    def count(self) -> int:
        with psycopg.connect(self.direct) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid()"
            ).fetchone()
        return int(row[0])


@pytest.fixture
def pooled(postgres_url: str) -> Iterator[Pooled]:
    direct = fresh_database(postgres_url)
    parts = urlsplit(direct)
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="doc-classify-pgbouncer-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "users").write_text(f'"{parts.username}" "{parts.password or ""}"\n')
        (folder / "ini").write_text(
            f"[databases]\n* = host={parts.hostname} port={parts.port or 5432}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {folder / 'users'}\n"
            f"pool_mode = transaction\ndefault_pool_size = {_POOL}\nmax_client_conn = 200\n"
        )
        url = f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"
        with _running(folder, url):
            pooled = Pooled(url, direct)
            stop = threading.Event()
            watcher = threading.Thread(target=_watch, args=(pooled, stop))
            watcher.start()
            try:
                yield pooled
            finally:
                stop.set()
                watcher.join()


@contextlib.contextmanager
def _running(folder: Path, url: str) -> Iterator[None]:
    demote = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(_PROGRAM), folder / "ini"], stdout=log, stderr=log, cwd=folder, **demote
        )
    try:
        wait_until(lambda: _answers(url) or process.poll() is not None, "PgBouncer answers", 20)
        assert process.poll() is None, (folder / "log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _watch(pooled: Pooled, stop: threading.Event) -> None:
    while not stop.wait(0.05):
        pooled.most = max(pooled.most, pooled.count())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(_DOCUMENTS):
        text = f"Invoice no. {number}\nBill to: Customer {number}\nAmount due: {number} EUR\n"
        (tmp_path / f"{number:03}.txt").write_text(text)
    return tmp_path


def test_a_run_on_one_machine(pooled: Pooled, folder: Path):
    settings = load_settings(database_url=pooled.url, workers=2)
    with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
        stats = processor.process_directory(folder)
        rows = list(processor.store.results(stats.run_id))
    assert stats.classified == len(rows) == _DOCUMENTS
    assert 1 <= pooled.most <= _POOL


def test_many_processes_share_few_connections(
    pooled: Pooled, folder: Path, redis_server: RedisServer, tmp_path_factory
):
    environment = {
        "DATABASE_URL": pooled.url,
        "CELERY_BROKER_URL": redis_server.url,
        "DOC_CLASSIFY_DISTRIBUTED_CHUNK_SIZE": "5",
    }
    log = tmp_path_factory.mktemp("worker") / "log"
    worker = CeleryWorker("pooled", environment, log, concurrency=8)
    try:
        worker.wait_until_ready()
        settings = load_settings(
            database_url=pooled.url, celery_broker_url=redis_server.url, distributed_chunk_size=5
        )
        with CeleryDistributedProcessor(settings=settings) as processor:
            run_id = processor.submit_directory(folder)
            progress = processor.wait_for_completion(run_id, poll_interval=0.1)
            rows = list(processor.get_results(run_id))
            sessions = monitoring.connections(processor.store)
    finally:
        worker.end()
    assert progress["successful"] == len(rows) == _DOCUMENTS
    assert "cannot be used" not in worker.said() and "Traceback" not in worker.said()
    assert 1 <= pooled.most <= _POOL
    assert sessions and 1 <= sessions.ours <= _POOL
