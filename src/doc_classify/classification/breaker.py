"""A circuit breaker for an LLM server that goes away, and who is to blame for a failure.

After some failures in a row nothing more is sent to the server (the breaker opens), until a check,
which asks its model a tiny question, is answered; see M. Nygard, "Release It!", chapter "Stability
Patterns".

**A poison document** makes a healthy server fail, or kills it, each time. What tells it from a
sick server is whether *others* are answered meanwhile, documents or checks. The rule, in
:class:`Attempts`: a failure counts against its document only if something else has been answered
since the failure of this document that was counted before; after four that count it has failed
for good. A server that is away fails all documents and answers nothing, so that it costs each of
them one count at most. The first failure counts as well, on suspicion: it takes three more, each
with an answer to others in between, to be condemned. When the breaker closes the caller restarts
its :class:`~.pacing.Pace` at one request, so that those that failed are tried nearly alone.
"""

from __future__ import annotations

import asyncio
import random as _random
import time
from collections.abc import Awaitable, Callable

from doc_classify.errors import ServerError, ServerSetupError

_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0


class Breaker:
    """Holds requests back while the server is away. Belongs to one event loop.

    Args:
        check: asks the server whether it is there; raises :class:`ServerError` when it is not, and
            :class:`ServerSetupError` when waiting would not help.
        give_up: seconds after the first failure without a success, after which it is over.
        on_wait: called with a line for a person before each wait, and with None when requests
            are let through again or it is given up.
        threshold: failures in a row that open the breaker.
        clock: seconds that only grow.
        sleep: waits for some seconds.
        random: numbers from 0 to 1 that spread the waits.

    Attributes:
        successes: requests and checks that were answered so far.
    """

    def __init__(
        self,
        check: Callable[[], Awaitable[None]],
        *,
        give_up: float,
        on_wait: Callable[[str | None], None],
        threshold: int = 3,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._check = check
        self._give_up = give_up
        self._on_wait = on_wait
        self._threshold = threshold
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self.successes = 0
        self._failures = 0  # in a row
        self._first_failure: float | None = None
        self._reason = ""
        self._wait = _FIRST_WAIT
        self._checks = 0  # since it opened
        self._suspicious = False
        self._task: asyncio.Task[None] | None = None
        self._fatal: ServerSetupError | None = None
        self._closed_for_good = False

    @property
    def is_open(self) -> bool:
        """Requests are held back at present."""
        return self._task is not None

    async def ready(self) -> None:
        """Return at once while all is well, else wait until the server is back.

        Raises:
            ServerSetupError: it was given up, or cannot be used.
        """
        while self._task is not None and self._fatal is None:
            # What waits may be cancelled; the check goes on for the others.
            await asyncio.wait([self._task])
        if self._fatal is not None:
            raise ServerSetupError(str(self._fatal)) from self._fatal.__cause__

    def succeeded(self) -> None:
        """A request was answered.

        While the breaker is open this is a late answer, which does not close it: the next check
        decides. But the time until giving up begins anew.
        """
        self.successes += 1
        self._failures = 0
        self._first_failure = None
        self._wait = _FIRST_WAIT
        self._checks = 0
        self._suspicious = False

    def failed(self, error: ServerError, *, at_once: bool = False) -> None:
        """A request failed by the server's fault (not because it had too much to do).

        Args:
            error: what happened.
            at_once: there is no doubt, as when the connection was refused: open without waiting
                for more failures.
        """
        if self._fatal is not None or self._closed_for_good:
            return
        if self._first_failure is None:
            self._first_failure = self._clock()
        if self._task is not None:
            return  # sent before the breaker opened; nothing new
        self._reason = str(error) or type(error).__name__
        self._failures += 1
        # After a check one more failure is enough: the server has yet to show that it works.
        if at_once or self._suspicious or self._failures >= self._threshold:
            self._task = asyncio.get_running_loop().create_task(self._recover())

    async def close(self) -> None:
        """Stop checking. Those who wait in :meth:`ready` are let through. Safe to call twice."""
        self._closed_for_good = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _recover(self) -> None:
        """Check at growing intervals until the server is there again, or it is too late."""
        try:
            while True:
                now = self._clock()
                if self._first_failure is None:  # a late answer came in the meantime
                    self._first_failure = now
                left = self._first_failure + self._give_up - now
                if left <= 0 and self._checks > 0:
                    raise ServerSetupError(self._obituary(now - self._first_failure))
                wait = self._wait * (0.75 + 0.5 * self._random())
                if left > 0:
                    wait = min(wait, left)
                self._wait = min(self._wait * 2, _LONGEST_WAIT)
                self._on_wait(
                    f"{self._reason}; trying again in {_duration(wait)}, "
                    f"giving up in {_duration(max(left, wait))}"
                )
                await self._sleep(wait)
                self._checks += 1
                try:
                    await self._check()
                except ServerError as error:
                    self._reason = str(error) or type(error).__name__
                else:
                    break
        except ServerSetupError as error:
            self._fatal = error
        except Exception as error:  # a check that breaks must not leave everybody waiting
            self._fatal = ServerSetupError(f"checking the LLM server failed: {error!r}")
            self._fatal.__cause__ = error
        else:
            self.succeeded()
            self._suspicious = True
        finally:
            self._task = None
            self._on_wait(None)

    def _obituary(self, seconds: float) -> str:
        return (
            f"the LLM server has answered no request for {_duration(seconds)} "
            f"({self._reason}); it was checked {self._checks} "
            f"time{'' if self._checks == 1 else 's'}. Start it again and repeat the command: "
            "what is done is kept"
        )


class Attempts:
    """Counts the failures of one document that are its own; see the top of this module.

    Args:
        breaker: which knows how much was answered.
        most: failures that condemn the document.
    """

    __slots__ = ("_ahead", "_breaker", "_count", "_most", "_seen")

    def __init__(self, breaker: Breaker, most: int = 4) -> None:
        self._breaker = breaker
        self._most = most
        self._count = 0
        self._seen = -1
        self._ahead = False

    @property
    def count(self) -> int:
        """Failures that count against the document."""
        return self._count

    @property
    def ahead(self) -> bool:
        """Whether it should be tried before documents that were not tried yet."""
        return self._ahead

    def failed(self, *, weight: int = 1) -> bool:
        """The document has failed once more. True if it is not to be tried again.

        Args:
            weight: counts as so many failures, as one does that took very long.
        """
        self._ahead = self._breaker.successes > self._seen
        if self._ahead:
            self._seen = self._breaker.successes
            self._count += weight
        return self._count >= self._most


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    if seconds < 100 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
