"""A double of an OpenAI-compatible server in a process of its own, for benchmarks::

with double_process(slots=8, latency=0.2, says="invoice") as url:
    ...
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.doubles.openai import OpenAIDouble


@contextlib.contextmanager
def double_process(
    *, slots: int = 4, latency: float = 0.0, queue: int = 100_000, says: str = "blue"
) -> Iterator[str]:
    """Run a double in a process of its own; gives its address.

    ``GET /stats`` tells {"answered": N, "most_at_once": M} of its chat requests.
    """
    arguments = ["--slots", slots, "--latency", latency, "--queue", queue, "--says", says]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.doubles.openai_process", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def main() -> None:
    """Serve until standard input ends; prints the port."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--queue", type=int, default=100_000)
    parser.add_argument("--says", default="blue")
    given = parser.parse_args()
    double = OpenAIDouble(
        lambda _system, _user: given.says,
        slots=given.slots,
        latency=given.latency,
        queue=given.queue,
        keep=False,
    )
    with double:
        print(double.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
