"""Worker processes that may crash, hang or eat memory without harm to anything else.

A plain subprocess and not :mod:`multiprocessing`: it works inside Celery's daemonic children, it
never imports the caller's ``__main__`` again (so a script needs no ``if __name__ ==`` guard), it
gets no secrets from our environment, and what it sends is data (:mod:`.messages`), not pickles.
Requests are sent ahead and answered in order, so the document that a dead worker was reading is
known exactly: only that one is held responsible.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from doc_classify.errors import DocClassifyError
from doc_classify.pipeline.messages import MessageError, Reply, Request, WorkerConfig
from doc_classify.pipeline.worker import READY

_MAX_LINE = 256 * 1024 * 1024
_START_LIMIT = 120.0
"""Seconds for a worker to start; generous, since a loaded machine imports slowly."""
_START_TRIES = 5
_WRITTEN_AT_ONCE = 64 * 1024
_STOP_LIMIT = 2.0
_STDERR_KEPT = 2_000

_INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "TESSDATA_PREFIX",
    "OPENBLAS_CORETYPE",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
)
"""Variables a worker gets to see: no database address, no keys."""

_FIXED = {
    "OMP_THREAD_LIMIT": "1",  # Tesseract is slower with its own threads, and workers are many
    "OPENBLAS_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONHASHSEED": "0",
}


class WorkerStartError(DocClassifyError):
    """A worker process cannot be started at all: no document is to blame."""

    kind = "worker_start"


@dataclass(frozen=True, slots=True)
class Death:
    """A worker died, or was killed for overrunning the limit, while it held a document."""

    timed_out: bool
    reason: str
    worker: str


class IsolatedWorker:
    """One worker process at a time, replaced when it dies or has served long enough.

    Args:
        config: what the worker is told at its start.
        recycle_after: documents after which it is replaced, against slow leaks.
        recycle_resident: resident bytes above which it is replaced after the current document.
    """

    def __init__(
        self, config: WorkerConfig, *, recycle_after: int, recycle_resident: int = 400_000_000
    ) -> None:
        self._config = config
        self._recycle_after = recycle_after
        self._recycle_resident = recycle_resident
        self._process: asyncio.subprocess.Process | None = None
        self._stderr_tail = deque[bytes]()
        self._stderr_task: asyncio.Task[None] | None = None
        self._served = 0

    @property
    def classifies(self) -> bool:
        """Whether it also classifies what it reads."""
        return self._config.classifies

    async def answer(
        self, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[int, Reply | Death]]:
        """Work through the requests in order; yields (index, what came of it).

        After a :class:`Death` the iteration ends: the requests behind it were not worked on.

        Raises:
            WorkerStartError: no worker can be started.
        """
        process = await self._running()
        sending = asyncio.create_task(_send(process, requests))
        resident = 0
        try:
            for index, request in enumerate(requests):
                result = await self._receive(process, request)
                yield index, result
                if isinstance(result, Death):
                    return
                self._served += 1
                resident = result.resident
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
        if self._served >= self._recycle_after or resident > self._recycle_resident:
            await self.stop()

    async def _receive(
        self, process: asyncio.subprocess.Process, request: Request
    ) -> Reply | Death:
        assert process.stdout is not None  # noqa: S101 (for the type checker: we asked for a pipe)
        worker = f"pid {process.pid}"
        limit = self._config.time_limit
        try:
            async with asyncio.timeout(limit):
                line = await process.stdout.readline()
        except TimeoutError:
            await self.kill()
            return Death(True, f"not finished after {limit:g} s", worker)
        except ValueError:  # how asyncio says that a line is longer than the limit
            await self.kill()
            return Death(False, "the worker sent an answer that is too long", worker)
        if not line.endswith(b"\n"):
            return Death(False, await self._cause_of_death(process), worker)
        try:
            reply = Reply.decode(line, self._config)
            if reply.number != request.number:
                raise MessageError(f"answered {reply.number}, asked {request.number}")
        except MessageError as error:
            await self.kill()
            return Death(False, f"the worker sent an invalid answer ({error})", worker)
        return reply

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        for left in reversed(range(_START_TRIES)):
            await self.kill()
            try:
                return await self._start()
            except WorkerStartError:
                if not left:
                    raise
        raise AssertionError("unreachable")

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the working directory may hold hostile .py files
            "-m",
            "doc_classify.pipeline.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_MAX_LINE,
            env=_environment(),
            # Ctrl-C is for the parent alone, which then ends its workers in order.
            start_new_session=True,
        )
        self._served = 0
        self._stderr_tail.clear()
        self._stderr_task = asyncio.create_task(self._drain_stderr(process))
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        line = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(_START_LIMIT):
                process.stdin.write(self._config.encode())
                await process.stdin.drain()
                line = await process.stdout.readline()
        if line != READY:
            reason = await self._cause_of_death(process)
            raise WorkerStartError(f"a worker process could not start: {reason}")
        return process

    async def _drain_stderr(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101
        kept = 0
        while data := await process.stderr.read(4096):
            self._stderr_tail.append(data)
            kept += len(data)
            while kept - len(self._stderr_tail[0]) > _STDERR_KEPT:
                kept -= len(self._stderr_tail.popleft())

    async def _cause_of_death(self, process: asyncio.subprocess.Process) -> str:
        try:
            async with asyncio.timeout(_STOP_LIMIT):
                code = await process.wait()
        except TimeoutError:
            await self.kill()
            return "the worker closed its output and went on"
        if self._stderr_task:
            await asyncio.wait({self._stderr_task}, timeout=_STOP_LIMIT)
        said = b"".join(self._stderr_tail).decode("utf-8", "replace").strip().splitlines()
        detail = f": {said[-1][:300]}" if said else ""
        if code == -signal.SIGKILL:
            return (
                f"the worker was killed (SIGKILL: often the system running out of memory){detail}"
            )
        if code < 0:
            return f"the worker died of {signal.Signals(-code).name}{detail}"
        return f"the worker exited with code {code}{detail}"

    async def kill(self) -> None:
        """End the process at once and wait until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await self._close_pipes(process)

    async def stop(self) -> None:
        """Let the process end by itself, or end it when it does not."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None  # noqa: S101
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_LIMIT):
                await process.wait()
        await self.kill()

    async def _close_pipes(self, process: asyncio.subprocess.Process) -> None:
        if self._stderr_task:
            self._stderr_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._stderr_task
            self._stderr_task = None
        if process.stdin:
            process.stdin.close()
            with contextlib.suppress(ConnectionError):
                await process.stdin.wait_closed()
        # Without this the pipes linger until garbage collection and warn then.
        process._transport.close()  # type: ignore[attr-defined]


async def _send(process: asyncio.subprocess.Process, requests: Sequence[Request]) -> None:
    assert process.stdin is not None  # noqa: S101
    lines = bytearray()
    with contextlib.suppress(ConnectionError):  # its death is noticed where its answers are read
        for number, request in enumerate(requests, 1):
            lines += request.encode()
            # Each write wakes the worker: many small ones cost more than the documents do.
            if len(lines) >= _WRITTEN_AT_ONCE or number == len(requests):
                process.stdin.write(bytes(lines))
                lines.clear()
                await process.stdin.drain()


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith("LC_")
    }
    return kept | _FIXED
