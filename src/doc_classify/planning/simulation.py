"""A plan played through: documents, workers, LLM servers and the database as a queueing simulation.

What the formula of :mod:`.model` leaves out happens here one by one: times that vary, documents
done twice, workers that are lost with what they held until its lease ends, chunks that begin and
end, the lock on the row of a run. SimPy keeps the clock (https://simpy.readthedocs.io).

Only a stretch is played: the beginning is left out, the steady state is measured in batches, whose
spread gives the error (batch means: Law, Simulation Modeling and Analysis, 5th edition, McGraw-Hill
2015, section 9.5.3). The time of any number of documents follows from the rate, since the state
does not depend on how many are left (a fluid), and the end is what a small run to its end takes
longer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from doc_classify.planning.catalogue import Assumed, Services
from doc_classify.planning.demand import Demands
from doc_classify.planning.model import Fleet, estimate, parent_seconds

_BATCHES = 20
_T_95 = 2.093
"""Student's t for 19 degrees of freedom and 95%, two-sided."""
_WARM_UP = 0.25
_STRETCH = 12_000
_PROCESSES = 64
"""Worker processes that are played; a bigger fleet is played by a part of it."""
_DEATHS = 60.0
"""Losses of machines that a stretch should see for their cost to be measured."""
_PLACES = 300
"""Documents in flight that are played: more of them change nothing but the warm-up."""
_LONGEST = 60_000
_QUANTILES = 400
_LLM_SIGMA = 0.3

Events = Generator[Any, Any, None]


@dataclass(frozen=True, slots=True)
class Played:
    """What the simulation found.

    Attributes:
        rate, error: documents a second, and half of its 95% confidence interval.
        seconds, seconds_error: for all documents; the error is that of the rate.
        tail: seconds that the end takes beyond the steady rate.
        capacity: share of the rate that losses of machines leave.
        busy: share of the time that each resource was busy, by name.
        documents: that were played.
        scale: share of the fleet that was played.
        twice: share of the documents that were done more than once.
        predicted: documents a second by the formula.
    """

    rate: float
    error: float
    seconds: float
    seconds_error: float
    tail: float
    capacity: float
    busy: dict[str, float]
    documents: int
    scale: float
    twice: float
    predicted: float

    @property
    def beside_formula(self) -> float:
        """How far the simulated rate is from the formula's, as a share of the latter."""
        return self.rate / self.predicted - 1


def simulate(
    fleet: Fleet,
    demand: Demands,
    services: Services,
    assumed: Assumed,
    documents: int,
    *,
    seed: int = 1,
    stretch: int = _STRETCH,
) -> Played:
    """Play a fleet, and say how long it takes for all documents.

    Time and memory depend on ``stretch``, not on ``documents``.
    """
    part, services, scale = _part(fleet, services)
    calm = part.changed(losses_per_day=0.0)
    if part.llm:
        # Until all places are taken by documents that wait for the LLM, the others pass freely.
        stretch = max(stretch, min(_LONGEST, int(5 * _PLACES / max(part.llm.share, 1e-3))))
    run = _Run(calm, demand, services, assumed, seed, stretch)
    run.play()
    rate, error = run.measured()
    twice = run.repeated / max(1, run.done)
    capacity, capacity_error = 1.0, 0.0
    if part.losses_per_day:
        capacity, capacity_error = _losses(part, demand, services, assumed, seed, stretch, rate)
    tail = _tail(part, demand, services, assumed, seed, rate)
    rate, error = (
        rate * capacity / scale,
        math.hypot(error * capacity, rate * capacity_error) / scale,
    )
    predicted = estimate(part, demand, services, assumed).rate / scale
    return Played(
        rate=rate,
        error=error,
        seconds=assumed.start_seconds + documents / rate + tail,
        seconds_error=documents / rate * error / rate,
        tail=tail,
        capacity=capacity,
        busy=run.busy(),
        documents=run.done,
        scale=scale,
        twice=twice,
        predicted=predicted,
    )


def _part(fleet: Fleet, services: Services) -> tuple[Fleet, Services, float]:
    """The fleet, or a part of it with the same load on everything, and how big a part.

    What the machines share has whole numbers of servers, so their times make up for the rest.
    """
    most = max(1, _PROCESSES // fleet.workers)
    if fleet.machines <= most:
        return fleet, services, 1.0
    scale = most / fleet.machines
    llm = fleet.llm
    if llm and llm.where != "workers" and llm.seconds:
        servers, slower = _whole(llm.servers * scale)
        llm = replace(llm, servers=servers, seconds=llm.seconds * slower)
    runs, lock_slower = _whole(fleet.runs * scale)
    cores, database_slower = _whole(fleet.database_cores * scale)
    slower_by = {"row_lock": lock_slower, "database_cpu": database_slower, "broker_cpu": 1 / scale}
    figures = {
        name: replace(figure, value=figure.value * slower_by.get(name, 1.0))
        for name, figure in services.figures.items()
    }
    part = fleet.changed(machines=most, llm=llm, runs=runs, database_cores=cores)
    return part, replace(services, figures=figures), scale


def _whole(servers: float) -> tuple[int, float]:
    """A whole number of servers, and how much slower they are to do the same."""
    whole = max(1, round(servers))
    return whole, whole / servers


def _losses(
    fleet: Fleet,
    demand: Demands,
    services: Services,
    assumed: Assumed,
    seed: int,
    stretch: int,
    rate: float,
) -> tuple[float, float]:
    """Share of the rate that is left with losses, and its error.

    Losses are too rare for a stretch. They are played more often, and what one costs is scaled
    back: while they are rare, the cost is in proportion.
    """
    predicted = estimate(fleet, demand, services, assumed).capacity
    share = 1 / predicted - 1
    # So often that they cost a fifth, where the formula is right: far from full, far from noise.
    faster = max(1.0, 0.25 / share) if share else 1.0
    seconds = _DEATHS * 86_400 / (fleet.losses_per_day * faster * fleet.machines)
    needed = int(min(4 * stretch, max(stretch, rate * seconds)))
    run = _Run(
        fleet.changed(losses_per_day=fleet.losses_per_day * faster),
        demand, services, assumed, seed + 1, needed,
    )  # fmt: skip
    run.play()
    left, error = run.measured()
    ratio = min(1.0, left / rate)
    cost = (1 / max(ratio, 0.05) - 1) / faster
    return 1 / (1 + cost), error / rate / faster


def _tail(
    fleet: Fleet, demand: Demands, services: Services, assumed: Assumed, seed: int, rate: float
) -> float:
    """Seconds that a run to its end takes beyond its documents divided by the rate."""
    documents = 2 * fleet.chunk * fleet.machines * fleet.workers
    documents = min(max(documents, 200), _STRETCH)
    run = _Run(fleet.changed(losses_per_day=0.0), demand, services, assumed, seed + 2, documents)
    run.play(to_the_end=True)
    lease = fleet.lease if fleet.losses_per_day else 0.0
    return max(0.0, run.env.now - documents / rate) + lease


class _Run:
    """One run on a fleet."""

    def __init__(
        self,
        fleet: Fleet,
        demand: Demands,
        services: Services,
        assumed: Assumed,
        seed: int,
        documents: int,
    ) -> None:
        import simpy

        self.simpy = simpy
        self.env = simpy.Environment()
        self.fleet, self.demand, self.assumed = fleet, demand, assumed
        self.random = random.Random(seed)  # noqa: S311 (no secret)
        self.reading, self.answering = self.factors(demand.sigma), self.factors(_LLM_SIGMA)
        self.scans = 0.0
        self.documents = documents
        self.left = documents
        self.done = self.repeated = 0
        self.marks: list[float] = []
        self.given_back: list[int] = []
        """Documents of chunks that were lost and whose lease has ended."""
        self.finished = self.env.event()
        self.spent: dict[str, float] = {}
        figures = {name: figure.value for name, figure in services.figures.items()}
        self.parent = parent_seconds(fleet, demand, services)
        self.record = figures["row_lock"] if fleet.distributed else figures["local_store"]
        resource = simpy.Resource
        self.broker_seconds = figures["broker_cpu"]
        self.database_seconds = figures["database_cpu"]
        self.broker = resource(self.env, 1) if fleet.distributed else None
        self.database = resource(self.env, fleet.database_cores) if fleet.distributed else None
        self.lives = [0] * fleet.machines
        """How often each machine was lost: what was on its way there is lost as well."""
        self.cores = [resource(self.env, fleet.cores) for _ in range(fleet.machines)]
        self.lock = [resource(self.env, 1) for _ in range(fleet.runs if fleet.distributed else 1)]
        llm = fleet.llm
        self.llm = resource(self.env, llm.servers) if llm and llm.where != "workers" else None
        places = fleet.in_flight or max(2 * fleet.workers, _PLACES // fleet.machines)
        self.places = [resource(self.env, places) for _ in range(fleet.machines)]
        self.parents = None if fleet.distributed else resource(self.env, 1)

    def play(self, *, to_the_end: bool = False) -> None:
        """Until all documents are done, or half of the last batch is missing."""
        self.every = max(1, int(self.documents * (1 - _WARM_UP)) // _BATCHES)
        self.first = self.documents - self.every * _BATCHES
        if not to_the_end:
            # More than are measured, so that nobody runs out of work meanwhile.
            self.left = self.documents * 4
        for machine in range(self.fleet.machines):
            self.env.process(self.machine(machine))
        self.env.run(until=self.finished)

    def measured(self) -> tuple[float, float]:
        """Documents a second in the steady state, and half of the 95% interval."""
        spans = [b - a for a, b in zip(self.marks, self.marks[1:], strict=False)]
        mean = sum(spans) / len(spans)
        spread = math.sqrt(sum((s - mean) ** 2 for s in spans) / (len(spans) - 1))
        rate = self.every / mean
        return rate, rate * _T_95 * spread / math.sqrt(len(spans)) / mean

    def busy(self) -> dict[str, float]:
        """Share of the time that each resource was busy."""
        fleet, now = self.fleet, self.env.now
        servers = {"cores": fleet.cores * fleet.machines, "lock": len(self.lock)}
        if self.database is not None:
            servers |= {"database": fleet.database_cores, "broker": 1}
        if self.llm and fleet.llm:
            servers["LLM servers"] = fleet.llm.servers
        return {name: self.spent.get(name, 0.0) / (many * now) for name, many in servers.items()}

    # --- what happens -----------------------------------------------------------------------

    def machine(self, number: int) -> Events:
        """A machine that works until it is lost, is replaced, and so on."""
        rate = self.fleet.losses_per_day / 86_400
        while True:
            workers = [self.env.process(self.worker(number)) for _ in range(self.fleet.workers)]
            if not rate:
                return
            yield self.env.timeout(self.random.expovariate(rate))
            self.lives[number] += 1
            for worker in workers:
                if worker.is_alive:
                    worker.interrupt()
            yield self.env.timeout(self.assumed.restart_seconds)

    def worker(self, machine: int) -> Events:
        """A worker process: chunk after chunk, reading one document at a time."""
        while (chunk := self.claim()) is not None:
            held = [chunk]
            try:
                if self.broker is not None:
                    yield from self.use("broker", self.broker, chunk * self.broker_seconds)
                yield from self.read_chunk(machine, chunk, held)
            except self.simpy.Interrupt:
                self.env.process(self.lease(held[0]))
                return

    def claim(self) -> int | None:
        """Documents of the next chunk; None where there are no more."""
        if self.given_back:
            return self.given_back.pop()
        if self.left <= 0:
            return None
        chunk = min(self.fleet.chunk, self.left)
        self.left -= chunk
        return chunk

    def lease(self, documents: int) -> Events:
        """What a lost worker held is free when its lease ends; whoever is idle takes it."""
        yield self.env.timeout(self.fleet.lease)
        if documents:
            self.given_back.append(documents)

    def read_chunk(self, machine: int, chunk: int, held: list[int]) -> Events:
        """Read the documents of a chunk; what is read is asked about and recorded by others."""
        llm = self.fleet.llm
        for _ in range(chunk):
            place = self.places[machine].request()
            try:
                yield place
                if self.random.random() < self.assumed.retries:
                    self.repeated += 1
                    yield from self.use("cores", self.cores[machine], self.read_seconds())
                yield from self.use("cores", self.cores[machine], self.read_seconds())
            except self.simpy.Interrupt:
                if place.triggered:
                    self.places[machine].release(place)
                else:
                    place.cancel()
                raise
            held[0] -= 1
            asked = llm is not None and self.random.random() < llm.share
            self.env.process(self.rest(machine, place, asked=asked))

    def rest(self, machine: int, place: Any, *, asked: bool) -> Events:
        """What is done for a document after it was read, while its worker reads on."""
        llm = self.fleet.llm
        life = self.lives[machine]
        if self.parents is not None:
            with self.parents.request() as turn:
                yield turn
                yield from self.use("cores", self.cores[machine], self.parent)
        else:
            yield from self.use("cores", self.cores[machine], self.parent)
        if asked and llm and llm.seconds:
            again = 2 if self.random.random() < self.assumed.retries else 1
            seconds = llm.seconds * next(self.answering) * again
            if self.llm is not None:
                yield from self.use("LLM servers", self.llm, seconds)
            else:
                # It keeps as many cores busy as it has threads, one after the other here.
                work = seconds * llm.threads
                yield from self.use("cores", self.cores[machine], work)
        if life == self.lives[machine]:
            lock = self.lock[self.random.randrange(len(self.lock))]
            yield from self.use("lock", lock, self.record)
            if self.database is not None:
                yield from self.use("database", self.database, self.database_seconds)
            self.count()
        else:
            self.env.process(self.lease(1))
        self.places[machine].release(place)

    def use(self, name: str, resource: Any, seconds: float) -> Events:
        """Wait for a resource and keep it busy."""
        with resource.request() as turn:
            yield turn
            yield self.env.timeout(seconds)
            self.spent[name] = self.spent.get(name, 0.0) + seconds

    def read_seconds(self) -> float:
        """CPU time of reading and classifying some document."""
        demand = self.demand
        self.scans += demand.scanned_share
        scanned = self.scans >= 1
        self.scans -= scanned
        mean = (demand.scanned if scanned else demand.digital) or 0.0
        return mean * next(self.reading) + demand.classify

    def factors(self, sigma: float) -> Iterator[float]:
        """Factors of a lognormal distribution of mean 1, without end.

        Its quantiles in random order, over and over, and not independent draws: a short stretch
        then sees its mean, of which a heavy tail would otherwise make a matter of luck.
        """
        normal = NormalDist()
        steps = ((i + 0.5) / _QUANTILES for i in range(_QUANTILES))
        found = [math.exp(sigma * normal.inv_cdf(step)) for step in steps]
        mean = sum(found) / len(found)
        while True:
            self.random.shuffle(found)
            yield from (one / mean for one in found)

    def count(self) -> None:
        """A document is recorded."""
        self.done += 1
        since = self.done - self.first
        if since >= 0 and since % self.every == 0 and len(self.marks) <= _BATCHES:
            self.marks.append(self.env.now)
        if self.done == self.documents:
            self.finished.succeed()
