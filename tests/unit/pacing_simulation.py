"""An event loop that skips what is slept, and in it a simulated LLM server and its client."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import selectors
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from doc_classify.classification.pacing import Pace


class _SkippingSelector(selectors.SelectSelector):
    """Instead of waiting, moves the clock on."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits for something that never comes"
            self.now += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


class Refused(Exception):
    pass


@dataclass
class Server:
    """``slots`` requests at a time, each for ``latency(slots in use)`` seconds per unit of work.

    Above ``slots + queue`` requests it refuses.
    """

    slots: int
    latency: Callable[[int], float]
    queue: int = 10**9
    busy: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    refused: int = 0
    peak: int = 0

    async def serve(self, work: float) -> None:
        if self.busy + len(self.waiting) >= self.slots + self.queue:
            self.refused += 1
            await asyncio.sleep(0.001)
            raise Refused
        if self.busy >= self.slots:
            waiter = asyncio.get_running_loop().create_future()
            self.waiting.append(waiter)
            self.peak = max(self.peak, len(self.waiting))
            await waiter
        else:
            self.busy += 1
        await self.work(work)
        self.busy -= 1
        self.start()

    async def work(self, work: float) -> None:
        await asyncio.sleep(work * self.latency(self.busy))

    def start(self) -> None:
        while self.waiting and self.busy < self.slots:
            self.busy += 1
            self.waiting.popleft().set_result(None)


class Batching(Server):
    """A GPU: all requests advance together, one step of ``latency(batch)`` for 1/20 of work."""

    async def work(self, work: float) -> None:
        for _ in range(max(1, round(work * 20))):
            await asyncio.sleep(self.latency(self.busy) / 20)


@dataclass
class Log:
    """(time, work, latency) of each completion and (time, limit, queue) once per completion."""

    done: list[tuple[float, float]] = field(default_factory=list)
    limits: list[tuple[float, int, int]] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)

    def rate(self, begin: float, end: float) -> float:
        return sum(work for at, work in self.done if begin < at <= end) / (end - begin)

    def limit(self, begin: float, end: float) -> list[int]:
        return [limit for at, limit, _ in self.limits if begin < at <= end]

    def queue(self, begin: float, end: float) -> float:
        """Mean length of the queue over time."""
        part = [(at, queue) for at, _, queue in self.limits if begin < at <= end]
        pairs = list(itertools.pairwise(part))
        total = sum((b[0] - a[0]) * a[1] for a, b in pairs)
        return total / (part[-1][0] - part[0][0])


async def simulate(
    server: Server,
    seconds: float,
    *,
    maximum: int = 256,
    seed: int = 1,
    work: Callable[[random.Random], float] = lambda rng: 1.0,
    counts_work: bool = True,
    demand: float | None = None,
    turn_around: tuple[float, float] = (0.001, 0.003),
    events: dict[float, Callable[[Server, Pace], None]] | None = None,
    retry_after: float | None = None,
) -> Log:
    """A client with more documents than the pace lets through, or ``demand`` per second."""
    rng = random.Random(seed)
    log = Log()
    pace = Pace(maximum, clock=now, jitter=rng.random)
    cpu = asyncio.Lock()
    supply = asyncio.Semaphore(0)

    async def produce() -> None:
        while demand:
            await asyncio.sleep(rng.expovariate(demand))
            supply.release()

    async def client() -> None:
        while True:
            if demand:
                await supply.acquire()
            place = await pace.acquire()
            assert pace.in_flight <= maximum
            amount = work(rng)
            done: float | None = None
            try:
                async with cpu:
                    await asyncio.sleep(rng.uniform(*turn_around))
                await server.serve(amount)
                done = amount if counts_work else 1.0
                log.done.append((now(), amount))
            except Refused:
                log.refusals.append(now())
                pace.overloaded(place, retry_after)
                if demand:
                    supply.release()
            finally:
                pace.release(place, done)
                log.limits.append((now(), pace.limit, len(server.waiting)))

    tasks = [asyncio.create_task(client()) for _ in range(maximum + 8)]
    tasks.append(asyncio.create_task(produce()))
    for at, event in sorted((events or {}).items()):
        await asyncio.sleep(at - now())
        event(server, pace)
    await asyncio.sleep(seconds - now())
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        assert result is None or isinstance(result, asyncio.CancelledError), result
    return log


def noisy(variation: float) -> Callable[[random.Random], float]:
    """Log-normal amounts of work with mean 1 and this coefficient of variation."""
    sigma = math.sqrt(math.log(1 + variation**2))
    return lambda rng: rng.lognormvariate(-(sigma**2) / 2, sigma)


def report(log: Log, begin: float, end: float, best: float) -> tuple[float, float]:
    """(share of the possible throughput, mean queue) of a span, printed for ``pytest -s``."""
    limits = log.limit(begin, end)
    share, queue = log.rate(begin, end) / best, log.queue(begin, end)
    print(
        f"throughput {share:.3f} queue {queue:.1f} limit {min(limits)}-{max(limits)} "
        f"mean {sum(limits) / len(limits):.1f} refused {len(log.refusals)}"
    )
    return share, queue
