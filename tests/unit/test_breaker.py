"""The circuit breaker, with a server and a clock of paper."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from doc_classify.classification.breaker import Attempts, Breaker
from doc_classify.errors import ServerError, ServerSetupError


class World:
    """A clock that moves when somebody sleeps, and a server that is there from ``back_at`` on."""

    def __init__(self, *, back_at: float = 0.0, give_up: float = 900.0) -> None:
        self.now = 0.0
        self.back_at = back_at
        self.sleeps: list[float] = []
        self.lines: list[str | None] = []
        self.checks = 0
        self.fault: Exception = ServerError("connection refused")
        self.breaker = Breaker(
            self.check,
            give_up=give_up,
            on_wait=self.lines.append,
            clock=lambda: self.now,
            sleep=self.sleep,
            random=lambda: 0.5,
        )

    async def check(self) -> None:
        self.checks += 1
        if self.now < self.back_at:
            raise self.fault

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        await asyncio.sleep(0)
        self.now += seconds


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def guarded() -> None:
        await main()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, "tasks are left behind"

    asyncio.run(guarded())


def test_it_opens_after_three_failures_in_a_row_and_closes_when_the_server_is_back() -> None:
    async def main() -> None:
        world = World(back_at=10.0)
        breaker = world.breaker
        breaker.failed(ServerError("reset"))
        breaker.failed(ServerError("reset"))
        breaker.succeeded()
        breaker.failed(ServerError("reset"))
        breaker.failed(ServerError("reset"))
        await breaker.ready()
        assert not breaker.is_open and world.sleeps == []
        breaker.failed(ServerError("reset"))
        assert breaker.is_open
        await asyncio.gather(*(breaker.ready() for _ in range(20)))
        assert world.sleeps == [1, 2, 4, 8], "one task checks for all who wait"
        assert world.checks == 4
        assert world.lines[0] == "reset; trying again in 1 s, giving up in 15 min"
        assert world.lines[1] == "connection refused; trying again in 2 s, giving up in 15 min"
        assert world.lines[-1] is None
        assert breaker.successes == 2  # the check's, and one before

    run(main)


def test_a_refused_connection_opens_at_once() -> None:
    async def main() -> None:
        world = World(back_at=1.0)
        world.breaker.failed(ServerError("refused"), at_once=True)
        assert world.breaker.is_open
        await world.breaker.ready()
        assert world.sleeps == [1]

    run(main)


def test_given_up_for_everybody_now_and_later() -> None:
    async def main() -> None:
        world = World(back_at=1e9, give_up=600.0)
        world.breaker.failed(ServerError("refused"), at_once=True)
        results = await asyncio.gather(
            *(world.breaker.ready() for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(result, ServerSetupError) for result in results)
        assert "for 10 min (connection refused); it was checked 15 times" in str(results[0])
        assert world.now == pytest.approx(600)
        assert max(world.sleeps) == 60
        with pytest.raises(ServerSetupError):
            await world.breaker.ready()
        world.breaker.failed(ServerError("late"))
        assert not world.breaker.is_open

    run(main)


def test_a_passed_check_is_an_answer_and_the_next_failure_is_looked_into() -> None:
    """Documents that fail while the model answers are the documents' fault; see Attempts."""

    async def main() -> None:
        world = World(give_up=600.0)
        document = Attempts(world.breaker)
        requests = 0
        while True:
            await world.breaker.ready()
            requests += 1
            world.now += 0.1
            if document.failed():
                break
            world.breaker.failed(ServerError("out of memory"))
        assert requests == 6  # three until it opens, then one after each check
        assert world.sleeps == pytest.approx([1, 1, 1])

    run(main)


def test_a_failure_that_took_long_counts_twice() -> None:
    async def main() -> None:
        breaker = World().breaker
        document = Attempts(breaker)
        assert not document.failed(weight=2)
        breaker.succeeded()
        assert document.failed(weight=2)

    run(main)


def test_a_success_starts_everything_anew() -> None:
    async def main() -> None:
        world = World(give_up=100.0)
        for _ in range(10):
            world.breaker.failed(ServerError("refused"), at_once=True)
            await world.breaker.ready()
            world.now += 50
            world.breaker.succeeded()
        assert world.sleeps == [1] * 10

    run(main)


def test_failures_long_apart_are_not_given_up_without_a_check() -> None:
    async def main() -> None:
        world = World(give_up=100.0)
        for _ in range(3):
            world.now += 1000
            world.breaker.failed(ServerError("timeout"))
        await world.breaker.ready()
        assert world.checks == 1

    run(main)


def test_what_cannot_be_mended_by_waiting_is_raised_at_once() -> None:
    async def main() -> None:
        world = World(back_at=1e9)
        world.fault = ServerSetupError("no model 'x'; run: ollama pull x")
        world.breaker.failed(ServerError("refused"), at_once=True)
        with pytest.raises(ServerSetupError, match="ollama pull x"):
            await world.breaker.ready()
        assert world.checks == 1

    run(main)


def test_a_check_that_breaks_leaves_nobody_waiting() -> None:
    async def main() -> None:
        world = World(back_at=1e9)
        world.fault = ZeroDivisionError("bug")
        world.breaker.failed(ServerError("refused"), at_once=True)
        with pytest.raises(ServerSetupError, match="ZeroDivisionError"):
            await world.breaker.ready()

    run(main)


def test_cancelling_one_who_waits_leaves_the_others_waiting() -> None:
    async def main() -> None:
        world = World(back_at=100.0)
        world.breaker.failed(ServerError("refused"), at_once=True)
        first, second = (asyncio.create_task(world.breaker.ready()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert first.cancelled() and world.now >= 100

    run(main)


def test_closing_stops_the_check_and_lets_go() -> None:
    async def main() -> None:
        lines: list[str | None] = []

        async def check() -> None:
            raise ServerError("away")

        breaker = Breaker(check, give_up=900, on_wait=lines.append)
        breaker.failed(ServerError("refused"), at_once=True)
        waiting = asyncio.create_task(breaker.ready())
        await asyncio.sleep(0.01)
        await breaker.close()
        await breaker.close()
        await asyncio.wait_for(waiting, 1)
        assert lines[-1] is None
        breaker.failed(ServerError("refused"), at_once=True)
        assert not breaker.is_open

    run(main)


def test_a_server_that_is_away_condemns_no_document() -> None:
    async def main() -> None:
        world = World()
        documents = [Attempts(world.breaker) for _ in range(8)]
        for _ in range(20):
            for document in documents:
                assert not document.failed()
        assert {document.count for document in documents} == {1}
        assert not documents[0].ahead

    run(main)


@pytest.mark.parametrize("slots", [1, 4, 8, 32])
@pytest.mark.parametrize("poison", [{0}, {5}, {99}, {5, 6}, {5, 40, 41}])
def test_documents_that_kill_the_server_are_condemned_and_no_others(
    slots: int, poison: set[int]
) -> None:
    async def main() -> None:
        world = World()
        breaker = world.breaker
        attempts = {name: Attempts(breaker) for name in range(100)}
        waiting = list(attempts)
        done: list[int] = []
        condemned: list[int] = []
        sizes: list[int] = []
        crashes = 0
        while waiting and crashes < 50:
            await breaker.ready()
            if not sizes:  # as a pace that has started again
                sizes = [1, 1, 1, 1, 2, 2, 4, 4, 8, 8, 16, 16, *[32] * 100]
            size = min(sizes.pop(0), slots)
            batch, waiting = waiting[:size], waiting[size:]
            if poison.isdisjoint(batch):
                for name in batch:
                    breaker.succeeded()
                    done.append(name)
                continue
            crashes += 1
            sizes = []
            for name in reversed(batch):  # all that were in flight fail with it
                breaker.failed(ServerError("connection lost"), at_once=True)
                if attempts[name].failed():
                    condemned.append(name)
                elif attempts[name].ahead:
                    waiting.insert(0, name)
                else:
                    waiting.append(name)
            if len(waiting) < 10 and len(attempts) < 400:  # more documents come
                new = range(len(attempts), len(attempts) + 10)
                attempts.update((name, Attempts(breaker)) for name in new)
                waiting += new
        assert set(condemned) == poison
        assert crashes <= 8 * len(poison)
        assert sorted(done + condemned) == list(attempts)

    run(main)
