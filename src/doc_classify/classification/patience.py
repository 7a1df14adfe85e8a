"""Waiting for a server that is asked for the first time.

A run that starts has nothing to lose by waiting a little: the server may be loading its model, be
at work for others, or fail once. What it can do must not be concluded from such a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from doc_classify.errors import (
    ClassificationError,
    ServerBusyError,
    ServerError,
    ServerSetupError,
)

_BUSY_SECONDS = 60.0
"""For how long, all in all, a server may say that it is busy."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_TRIES = 3
_TRIES_IN_TIME = 2
"""Of a question that was not answered in time, since each takes all of that time."""
_LOADING = "loading model"
"""What llama.cpp says with its 503 while it does so."""

_T = TypeVar("_T")


class Patience:
    """What a server is granted while it is opened, all questions together.

    Args:
        timeout: seconds for one answer; a server may load its model for as long.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._busy = self._loading = 0.0

    async def ask(self, question: Callable[[], Awaitable[_T]]) -> _T:
        """The answer to a question, asked again while the server is busy or fails.

        Raises:
            ServerBusyError: it has been busy for a minute, or for the timeout if that is shorter;
                or it asks to wait for longer; or it has been loading its model for the timeout.
            ServerError: it cannot be reached, or failed several times in a row.
            ServerSetupError: it refuses the question.
        """
        pause, failures = _FIRST_PAUSE, 0
        while True:
            try:
                return await question()
            except ServerBusyError as error:
                wait = max(error.retry_after or 0.0, pause)
                if not self._grants(wait, loading=_LOADING in str(error).casefold()):
                    raise
            except ClassificationError as error:  # there is no document to blame
                raise ServerSetupError(str(error)) from error
            except ServerError as error:
                wait = pause
                failures += 1
                if error.unreachable:  # nobody there: whoever asked may know another server
                    raise
                if failures >= (_TRIES_IN_TIME if error.timed_out else _TRIES):
                    raise
            await asyncio.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _grants(self, wait: float, *, loading: bool) -> bool:
        if loading:
            self._loading += wait
            return self._loading <= self._timeout
        self._busy += wait
        return self._busy <= min(self._timeout, _BUSY_SECONDS)
