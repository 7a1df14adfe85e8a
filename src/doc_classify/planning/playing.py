"""One run on a fleet, event by event; SimPy keeps the clock (https://simpy.readthedocs.io)."""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Iterator
from statistics import NormalDist
from typing import Any

from doc_classify.planning.catalogue import Assumed, Services
from doc_classify.planning.demand import Demands
from doc_classify.planning.model import LLM, Fleet, estimate, parent_seconds

BATCHES = 20
T_95 = 2.093
"""Student's t for 19 degrees of freedom and 95%, two-sided."""
_PLACES = 300
"""Documents in flight that are played: more of them change nothing but the warm-up."""
_WARM_UP = 0.25
_QUANTILES = 100
_LLM_SIGMA = 0.3

Events = Generator[Any, Any, None]


class Run:
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
        self.estimate = estimate(fleet, demand, services, assumed)
        self.random = random.Random(seed)  # noqa: S311 (no secret)
        self.reading = self.factors(demand.sigma)
        self.scanning = self.factors(demand.scanned_sigma)
        self.answering = self.factors(_LLM_SIGMA)
        self.scans = self.asks = 0.0
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
        self.every = max(1, int(self.documents * (1 - _WARM_UP)) // BATCHES)
        self.first = self.documents - self.every * BATCHES
        if not to_the_end:
            # More than are measured, so that nobody runs out of work meanwhile.
            self.left = self.documents * 4
            if self.estimate.bottleneck == LLM:
                self.fill()
        for machine in range(self.fleet.machines):
            self.env.process(self.machine(machine))
        self.env.run(until=self.finished)

    def fill(self) -> None:
        """Begin where an LLM that is the limit leads to: everything in flight waits for it."""
        for machine, places in enumerate(self.places):
            for _ in range(int(places.capacity)):
                self.env.process(self.rest(machine, places.request(), asked=True))

    def measured(self) -> tuple[float, float]:
        """Documents a second in the steady state, and half of the 95% interval."""
        spans = [b - a for a, b in zip(self.marks, self.marks[1:], strict=False)]
        mean = sum(spans) / len(spans)
        spread = math.sqrt(sum((s - mean) ** 2 for s in spans) / (len(spans) - 1))
        rate = self.every / mean
        return rate, rate * T_95 * spread / math.sqrt(len(spans)) / mean

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
            # Evenly, not by chance: of few a stretch would see too many or too few.
            self.asks += llm.share if llm else 0.0
            asked = self.asks >= 1
            self.asks -= asked
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
                # Its threads wait for a core each, lest two answers wait for each other.
                cores = self.cores[machine]
                threads = [
                    self.env.process(self.use("cores", cores, seconds)) for _ in range(llm.threads)
                ]
                yield self.env.all_of(threads)
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
        if scanned:
            return (demand.scanned or 0.0) * next(self.scanning) + demand.classify
        return demand.digital * next(self.reading) + demand.classify

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
        if since >= 0 and since % self.every == 0 and len(self.marks) <= BATCHES:
            self.marks.append(self.env.now)
        if self.done == self.documents:
            self.finished.succeed()
