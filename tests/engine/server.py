"""Starts the engine on a model as the product does, and ends it by its process id."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from doc_classify.classification.llamacpp_server import EngineConfig


@dataclass(frozen=True)
class Engine:
    """An engine that serves; ``base_url`` is without the /v1."""

    base_url: str
    api_key: str
    process: subprocess.Popen[bytes]


def start(config: EngineConfig) -> tuple[subprocess.Popen[bytes], dict[str, object]]:
    """The process and its first line; an empty one where it ended without a word."""
    process = subprocess.Popen(
        [sys.executable, "-m", "doc_classify.classification.llamacpp_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdin.write(config.encode())
    process.stdin.flush()
    return process, json.loads(process.stdout.readline() or b"{}")


def stop(process: subprocess.Popen[bytes]) -> int:
    """Close the process's standard input and return its exit code."""
    process.stdin.close()
    try:
        return process.wait(20)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def engine(
    model_path: Path, parallel: int = 4, context: int = 2048, threads: int | None = 1
) -> Iterator[Engine]:
    """Serve a model for the time of the block."""
    key = secrets.token_hex(16)
    config = EngineConfig(str(model_path), context, parallel, threads, 0, key)
    process, told = start(config)
    try:
        yield Engine(f"http://127.0.0.1:{told['port']}", key, process)
    finally:
        stop(process)
