"""How many requests an LLM server may have at a time, found out while it works.

:class:`Pace` is what requests pass through; :mod:`.pacing_search` says how the number is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections import deque
from collections.abc import Callable

from doc_classify.classification.pacing_search import Place, Search

__all__ = ["Pace", "Place"]

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 30.0
"""Seconds of pause after refusals that do not say how long to wait."""


class Pace:
    """Lets as many requests through as the server makes good use of.

    Belongs to one event loop::

        place = await pace.acquire()
        work = None
        try:
            reply = await backend.chat(request)
            work = reply.usage.prompt_tokens + ...
        except ServerBusyError as error:
            pace.overloaded(place, error.retry_after)
        finally:
            pace.release(place, work)

    Args:
        maximum: requests that are never exceeded, at least 1.
        clock: seconds that only grow.
        jitter: numbers from 0 to 1 that spread the pauses.
    """

    def __init__(
        self,
        maximum: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if maximum < 1:
            raise ValueError("at least one request has to be allowed")
        self._clock = clock
        self._jitter = jitter
        self._in_flight = 0
        self._area = 0.0
        self._seen = clock()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._not_before = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._search = Search(maximum, self._seen)

    @property
    def limit(self) -> int:
        """Requests that may be in flight at present."""
        return self._search.limit

    @property
    def in_flight(self) -> int:
        """Requests that are in flight; above the limit for a while after it fell."""
        return self._in_flight

    @property
    def pause(self) -> float:
        """Seconds for which no request is let through any more; 0 when none."""
        return max(0.0, self._not_before - self._clock())

    async def acquire(self, *, ahead: bool = False) -> Place:
        """Wait for a free place, first come, first served.

        Args:
            ahead: go before all who wait.
        """
        self._wake()
        if self._waiting or not self._free():
            waiter = asyncio.get_running_loop().create_future()
            if ahead:
                self._waiting.appendleft(waiter)
            else:
                self._waiting.append(waiter)
            self._wake()  # sets the timer where all have to wait out a pause
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._count(-1)  # it was given a place in the same moment
                else:
                    with contextlib.suppress(ValueError):
                        self._waiting.remove(waiter)
                self._wake()
                raise
        else:
            self._count(+1)
        return self._search.place(self._clock())

    def release(self, place: Place, work: float | None) -> None:
        """Give a place back.

        Args:
            place: from :meth:`acquire`; giving it back twice does nothing.
            work: what was done with it, in tokens or whatever the server's time goes by, always
                in the same unit; None when the request failed or was abandoned.
        """
        if not place.held:
            return
        place.held = False
        now = self._count(0)
        if work is not None:
            self._search.completed(place, work, now, self._area, self._in_flight)
        self._count(-1)
        self._search.ended(place)
        self._wake()

    def overloaded(self, place: Place, retry_after: float | None = None) -> None:
        """The server refused the request of this place (which is still to be given back).

        The limit falls once for all the requests that were sent under the same limit, as they are
        refused for the same reason.

        Args:
            place: whose request was refused.
            retry_after: seconds for which nothing more is sent, as the server asked (RFC 9110,
                section 10.2.3); None for a short pause that grows from one cut to the next.
        """
        now = self._count(0)
        cut = self._search.refused(place, now, self._area, self._in_flight)
        if retry_after is None and cut:
            longest = min(_FIRST_PAUSE * 2 ** (self._search.pauses - 1), _LONGEST_PAUSE)
            retry_after = longest * (0.5 + 0.5 * self._jitter())
        if retry_after is not None:
            self._not_before = max(self._not_before, now + retry_after)

    def restart(self) -> None:
        """Begin again with one request, because the server was away."""
        now = self._count(0)
        self._not_before = -math.inf
        self._search.begin(now, self._area, self._in_flight)
        self._wake()

    def _count(self, change: int) -> float:
        """Change the number in flight, keeping its integral over time; returns the time."""
        now = self._clock()
        self._area += self._in_flight * (now - self._seen)
        self._seen = now
        self._in_flight += change
        return now

    def _free(self) -> bool:
        return self._in_flight < self._search.limit and self._clock() >= self._not_before

    def _wake(self) -> None:
        """Give the free places to those who wait."""
        while self._waiting and self._free():
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._count(+1)
                waiter.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pause = self.pause
        if pause > 0 and self._waiting:
            self._timer = asyncio.get_running_loop().call_later(pause, self._wake)
