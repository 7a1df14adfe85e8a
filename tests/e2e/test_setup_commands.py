"""The distributed mode by its names in the repository: src.celery_tasks and the scripts."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doubles.site import Site

from conftest import wait_until

ROOT = Path(__file__).parents[2]
COMMAND = "celery -A src.celery_tasks worker --loglevel=info --concurrency=8 --hostname=worker1@%h"


@pytest.fixture
def worker(site: Site) -> Iterator[Path]:
    """A worker as it is typed in the root of the repository; its log."""
    log = site.root / "worker1.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *shlex.split(COMMAND)],
            cwd=ROOT,
            env=os.environ | site.environment,
            stdout=file,
            stderr=file,
        )
    try:
        wait_until(lambda: b" ready." in log.read_bytes(), "a worker is ready")
        yield log
    finally:
        process.terminate()
        process.wait(60)


def test_what_the_script_submits_is_done_by_that_worker(site: Site, worker: Path):
    folder = site.folder(20)
    script = [sys.executable, "scripts/submit_distributed_batch.py", str(folder)]
    done = subprocess.run(
        script,
        cwd=ROOT,
        env=os.environ | site.environment,
        check=True,
        capture_output=True,
        text=True,
    )
    run_id = done.stdout.strip()
    site.wait(run_id)
    site.settled(run_id, 20)
    assert "worker1@" in worker.read_text(errors="replace")
