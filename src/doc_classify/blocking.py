"""Running the asynchronous core from code that is not."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

_T = TypeVar("_T")


def run_blocking(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end, also where an event loop runs already (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    result: list[_T] = []
    errors: list[BaseException] = []
    stop: list[Callable[[], object]] = []
    started, ended = threading.Event(), threading.Event()

    async def watched() -> _T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 (for the type checker: a coroutine runs in a task)
        stop.append(partial(loop.call_soon_threadsafe, task.cancel))
        started.set()
        return await work

    def run() -> None:
        try:
            result.append(asyncio.run(watched()))
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run, name="doc-classify")
    thread.start()
    try:
        ended.wait()  # not join: once interrupted, it takes the thread for ended (Python 3.11)
    except KeyboardInterrupt:
        # It reaches this thread alone; what is classified is stored before it goes on.
        started.wait()
        with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
            stop[0]()
        ended.wait()
        raise
    if errors:
        raise errors[0]
    return result[0]
