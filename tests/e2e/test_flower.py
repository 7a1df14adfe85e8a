"""Flower, with a real broker and worker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import CeleryWorker, RedisServer, _free_port, wait_until
from doc_classify import CeleryDistributedProcessor, load_settings

ROOT = Path(__file__).parents[2]


class Flower:
    """Flower as the guide starts it, at a free port."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.port = _free_port()
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", "src.celery_tasks", "flower"),
                    *(f"--port={self.port}", "--address=127.0.0.1"),
                ],
                cwd=ROOT,
                env=os.environ | environment | {"FLOWER_UNAUTHENTICATED_API": "true"},
                stdout=file,
                stderr=file,
            )

    def get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as page:
                return page.read().decode()
        except OSError:  # it is starting
            return ""

    def api(self, path: str) -> dict:
        return json.loads(self.get(path) or "{}")


@pytest.fixture
def environment(redis_server: RedisServer, tmp_path: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'ledger.db'}",
        "CELERY_BROKER_URL": redis_server.url,
    }


@pytest.fixture
def worker(environment: dict[str, str], tmp_path: Path) -> Iterator[CeleryWorker]:
    worker = CeleryWorker("worker1", environment, tmp_path / "worker.log")
    try:
        yield worker.wait_until_ready()
    finally:
        worker.end()


@pytest.fixture
def flower(environment: dict[str, str], tmp_path: Path) -> Iterator[Flower]:
    flower = Flower(environment, tmp_path / "flower.log")
    try:
        wait_until(lambda: flower.get("/") or flower.process.poll() is not None, "Flower answers")
        assert flower.process.poll() is None, (tmp_path / "flower.log").read_text()
        yield flower
    finally:
        flower.process.terminate()
        flower.process.wait(20)


def test_workers_and_chunks_are_listed(worker, flower: Flower, environment, tmp_path: Path):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "private-name.txt").write_text("Invoice no. 1\nAmount due: 1.00 EUR\n")
    settings = load_settings(
        database_url=environment["DATABASE_URL"],
        celery_broker_url=environment["CELERY_BROKER_URL"],
    )
    with CeleryDistributedProcessor(settings=settings) as processor:
        run_id = processor.submit_directory(folder)
        assert processor.wait_for_completion(run_id, poll_interval=0.1)["successful"] == 1

    wait_until(
        lambda: any(name.startswith("worker1@") for name in flower.api("/api/workers?refresh=1")),
        "Flower lists the worker",
    )
    wait_until(
        lambda: [t["state"] for t in flower.api("/api/tasks").values()] == ["SUCCESS"],
        "Flower lists the chunk as done",
    )
    ((_, task),) = flower.api("/api/tasks").items()
    assert task["name"] == "doc_classify.process_chunk"
    assert re.search(rf"{run_id}\W+0", task["args"])
    assert "private-name" not in flower.get("/api/tasks")
    assert "worker1@" in flower.get("/workers")
