"""The pace against simulated servers, in virtual time. ``pytest -s`` shows the figures."""

from __future__ import annotations

import asyncio
import random

import pytest
from pacing_simulation import Batching, Server, noisy, now, report, run, simulate

from doc_classify.classification.pacing import Pace


@pytest.mark.parametrize("latency", [0.05, 0.5])
@pytest.mark.parametrize("slots", [1, 3, 8, 9, 17, 64])
def test_fixed_latency(latency: float, slots: int) -> None:
    log = run(lambda: simulate(Server(slots, lambda _: latency), 300 * latency))
    best = min(slots / latency, 500)  # the client itself does no more than 500 a second
    share, queue = report(log, 40 * latency, 300 * latency, best)
    assert share > 0.97
    assert queue < 0.6 * slots + 3
    assert log.rate(0, 40 * latency) > 0.65 * best, "it takes too long to get going"


def test_one_slow_slot_is_not_piled_up() -> None:
    log = run(lambda: simulate(Server(1, lambda _: 36.0), 3600))
    share, queue = report(log, 180, 3600, 1 / 36)
    assert share > 0.99
    assert max(log.limit(0, 3600)) <= 4
    assert queue < 1.5


def test_slow_slots_are_found_within_minutes() -> None:
    log = run(lambda: simulate(Server(4, lambda _: 36.0), 3600))
    share, _ = report(log, 180, 3600, 4 / 36)
    assert share > 0.95
    assert next(at for at, limit, _ in log.limits if limit >= 4) < 80
    assert max(log.limit(0, 3600)) <= 8


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_slot_with_documents_of_all_lengths(seed: int) -> None:
    log = run(lambda: simulate(Server(1, lambda _: 2.0), 2000, work=noisy(0.7), seed=seed))
    share, queue = report(log, 80, 2000, 1 / 2)
    assert share > 0.95  # the documents themselves vary by some percent
    assert queue < 4


@pytest.mark.parametrize("batch", [16, 32, 256])
@pytest.mark.parametrize("variation", [0.0, 0.7])
def test_a_batching_gpu(batch: int, variation: float) -> None:
    def latency(in_batch: int) -> float:
        return 0.3 + 0.02 * in_batch

    work = noisy(variation) if variation else lambda _: 1.0
    log = run(lambda: simulate(Batching(batch, latency), 100, work=work))
    share, queue = report(log, 30, 100, batch / latency(batch))
    assert share > 0.95
    assert queue < 0.6 * batch + 3


@pytest.mark.parametrize("slots", [3, 8, 17])
@pytest.mark.parametrize("variation", [0.5, 1.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_noise(slots: int, variation: float, seed: int) -> None:
    server = Server(slots, lambda _: 0.5)
    log = run(lambda: simulate(server, 200, work=noisy(variation), seed=seed))
    share, queue = report(log, 20, 200, slots / 0.5)
    assert share > 0.95
    assert queue < slots + 3


@pytest.mark.parametrize("seed", [1, 2])
def test_noise_that_the_caller_does_not_count(seed: int) -> None:
    server = Server(8, lambda _: 0.5)
    log = run(lambda: simulate(server, 300, work=noisy(0.5), seed=seed, counts_work=False))
    share, queue = report(log, 20, 300, 16)
    assert share > 0.94
    assert queue < 30


@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize("queue", [0, 8])
def test_a_server_that_sheds(retry_after: float | None, queue: int) -> None:
    server = Server(8, lambda _: 0.2, queue=queue)
    log = run(lambda: simulate(server, 300, retry_after=retry_after))
    share, _ = report(log, 20, 300, 40)
    assert share > 0.93
    late = [at for at in log.refusals if at > 20]
    assert len(late) < 0.005 * 280 * 40


@pytest.mark.parametrize("demand", [10, 30, 38])
def test_a_caller_with_little_to_send_does_not_run_away(demand: float) -> None:
    log = run(lambda: simulate(Server(8, lambda _: 0.2), 200, demand=demand))
    share, _ = report(log, 20, 200, demand)
    assert share > 0.97
    assert max(log.limit(0, 200)) <= 32


@pytest.mark.parametrize("variation", [0.0, 0.7])
def test_slots_come_and_go(variation: float) -> None:
    def more(server: Server, _: Pace) -> None:
        server.slots = 16
        server.start()

    def fewer(server: Server, _: Pace) -> None:
        server.slots = 4

    work = noisy(variation) if variation else lambda _: 1.0
    events = {60.0: more, 130.0: fewer}
    server = Server(4, lambda _: 0.2)
    log = run(lambda: simulate(server, 200, work=work, events=events))
    report(log, 8, 60, 20)
    share, _ = report(log, 80, 130, 80)
    assert share > 0.94
    _, queue = report(log, 150, 200, 20)
    assert queue < 6


def test_the_maximum_is_never_exceeded() -> None:
    log = run(lambda: simulate(Server(64, lambda _: 0.5), 60, maximum=10))
    share, _ = report(log, 10, 60, 20)
    assert share > 0.95
    assert max(log.limit(0, 60)) == 10


def test_it_starts_again_from_one() -> None:
    def restart(_: Server, pace: Pace) -> None:
        pace.restart()
        assert pace.limit == 1

    log = run(lambda: simulate(Server(8, lambda _: 0.2), 60, events={30.0: restart}))
    assert min(log.limit(30, 31)) == 1
    assert log.rate(35, 60) > 0.96 * 40


class TestPlaces:
    """Who gets a place, without any server."""

    def test_first_come_first_served_and_ahead(self) -> None:
        async def main() -> None:
            pace = Pace(1, clock=now)
            place = await pace.acquire()
            order: list[int] = []

            async def take(number: int, ahead: bool) -> None:
                mine = await pace.acquire(ahead=ahead)
                order.append(number)
                pace.release(mine, 1.0)

            async with asyncio.TaskGroup() as group:
                for number in range(4):
                    group.create_task(take(number, number == 3))
                await asyncio.sleep(1)
                pace.release(place, 1.0)
                pace.release(place, 1.0)  # twice does nothing
            assert order == [3, 0, 1, 2]
            assert pace.in_flight == 0

        run(main)

    @pytest.mark.parametrize("seed", range(20))
    def test_cancelling_neither_leaks_nor_loses_a_place(self, seed: int) -> None:
        async def main() -> None:
            rng = random.Random(seed)
            pace = Pace(3, clock=now)

            async def one() -> None:
                place = await pace.acquire()
                try:
                    await asyncio.sleep(rng.random())
                finally:
                    pace.release(place, rng.choice([None, 1.0]))

            tasks = [asyncio.create_task(one()) for _ in range(60)]
            for _ in range(200):
                await asyncio.sleep(rng.choice([0, 0, 0.05]))
                assert pace.in_flight <= 3
                rng.choice(tasks).cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert pace.in_flight == 0
            pace.release(await pace.acquire(), 1.0)

        run(main)

    def test_cancelled_in_the_moment_of_being_given_a_place(self) -> None:
        async def main() -> None:
            pace = Pace(1, clock=now)
            place = await pace.acquire()
            first = asyncio.create_task(pace.acquire())
            second = asyncio.create_task(pace.acquire())
            await asyncio.sleep(0)
            pace.release(place, 1.0)
            first.cancel()
            pace.release(await second, 1.0)
            assert pace.in_flight == 0

        run(main)

    def test_refusals_of_one_moment_cut_once_and_hold_all_back(self) -> None:
        async def main() -> None:
            pace = Pace(64, clock=now)
            places = []
            for _ in range(60):
                places = [await pace.acquire() for _ in range(pace.limit)]
                await asyncio.sleep(0.1)
                if pace.limit == 16:
                    break
                for place in places:
                    pace.release(place, 1.0)
            assert pace.limit == 16
            for place in places:
                pace.overloaded(place, 30.0)
            assert pace.limit in (8, 11)
            for place in places:
                pace.release(place, None)
            assert pace.pause == pytest.approx(30)
            began = now()
            await pace.acquire()
            assert now() - began == pytest.approx(30)

        run(main)

    def test_pauses_grow_while_refusals_go_on(self) -> None:
        async def main() -> None:
            pace = Pace(8, clock=now, jitter=lambda: 1.0)
            pauses = []
            for _ in range(9):
                place = await pace.acquire()
                pace.overloaded(place)
                pauses.append(pace.pause)
                pace.release(place, None)
            assert pauses == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 16, 30, 30])

        run(main)

    def test_one_place_at_least(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            Pace(0)
