"""What a fleet does with documents: asymptotic bounds of a closed queueing network.

Every document visits stations: cores, worker processes, an LLM's servers, the lock on the row of
its run, the database, the broker. With ``D`` seconds of service a document at a station of ``m``
servers, the utilisation law says that the station is busy for ``X D / m`` of the time at a rate of
``X`` documents a second. Nothing is busy for more than all of the time, so ``X <= m / D`` at each
station; and ``N`` documents in flight, each of which needs ``sum D`` seconds undisturbed, give
``X <= N / sum D``. The least of these is the rate, and the station that gives it is the bottleneck.
The bound is tight where many documents are in flight, as they are in a pipeline of bounded queues;
:mod:`.simulation` checks how tight. Source: Lazowska, Zahorjan, Graham, Sevcik: Quantitative System
Performance, Prentice-Hall 1984, chapters 3 (utilisation law) and 5 (asymptotic bounds).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from doc_classify.planning.catalogue import Assumed, Services
from doc_classify.planning.demand import Demands

IN_FLIGHT = "documents in flight"
"""Name of the bound by the number of documents in flight, where that is the bottleneck."""
CORES, WORKERS, LLM = "cores", "worker processes", "LLM servers"
ROW_LOCK, DATABASE, BROKER = "lock on the row of a run", "database CPU", "broker CPU"
STORE, PARENT = "recording on one machine", "parent process"

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Llm:
    """The language model of a fleet.

    Attributes:
        name: profile or measurement that its speed is of.
        where: as in :class:`~.catalogue.LlmProfile`.
        seconds: of one server for a document; None where no limit is known.
        share: of the documents that it is asked about.
        servers: how many of them, of those on machines of their own.
        threads: cores that one answer keeps busy, of those on the workers' cores.
    """

    name: str
    where: Literal["workers", "server", "hosted"]
    seconds: float | None
    share: float = 1.0
    servers: int = 1
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Fleet:
    """Machines and what runs on them.

    Attributes:
        machines: that read documents.
        cores, memory_gb: of each.
        workers: worker processes of each.
        distributed: Celery workers with database and broker elsewhere; else one machine alone.
        llm: None where the classifier in the workers decides about all.
        in_flight: documents that each machine works on at a time; None: as many as are needed.
        runs: distributed runs at a time, each with its own row to lock.
        database_cores: of the database server.
        losses_per_day: times that a machine is lost, each, a day.
        chunk: documents that a worker takes at a time; ``distributed_chunk`` is that of many
            machines.
        lease: seconds until a lost chunk is taken over.
        time_limit: seconds that one document may take at most.
    """

    machines: int
    cores: int
    memory_gb: float
    workers: int
    distributed: bool = False
    llm: Llm | None = None
    in_flight: int | None = None
    runs: int = 1
    database_cores: int = 4
    losses_per_day: float = 0.0
    chunk: int = 25
    distributed_chunk: int = 25
    lease: float = 120.0
    time_limit: float = 120.0

    def changed(self, **fields: object) -> Fleet:
        """A copy with other values."""
        return replace(self, **fields)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Station:
    """A resource: ``servers`` of it, each busy ``demand`` seconds for a document."""

    name: str
    servers: float
    demand: float

    @property
    def limit(self) -> float:
        """Documents a second at most."""
        return self.servers / self.demand


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a fleet does.

    Attributes:
        rate: documents a second in the steady state.
        bottleneck: name of the station that limits it, or :data:`IN_FLIGHT`.
        stations: all of them, the tightest first.
        start, tail: seconds before the steady state and, at most, after it: the last chunk, the
            longest document, a lease where machines may be lost.
        capacity: share of the machines' time that losses leave.
    """

    rate: float
    bottleneck: str
    stations: tuple[Station, ...]
    start: float
    tail: float
    capacity: float

    def seconds(self, documents: int) -> float:
        """Time for so many documents, from the start to the last result."""
        return self.start + documents / self.rate + self.tail

    def utilisation(self, station: Station) -> float:
        """Share of the time that a station is busy (utilisation law)."""
        return self.rate * station.demand / station.servers


def estimate(fleet: Fleet, demand: Demands, services: Services, assumed: Assumed) -> Estimate:
    """What the fleet does with documents of that demand."""
    capacity = capacity_left(fleet, demand, assumed)
    found = [one for one in stations(fleet, demand, services, assumed, capacity) if one.demand > 0]
    found.sort(key=lambda one: one.limit)
    rate, bottleneck = found[0].limit, found[0].name
    if fleet.in_flight is not None:
        alone = seconds_alone(fleet, demand, services, assumed)
        bound = capacity * fleet.machines * fleet.in_flight / alone
        if bound < rate:
            rate, bottleneck = bound, IN_FLIGHT
    return Estimate(
        rate=rate,
        bottleneck=bottleneck,
        stations=tuple(found),
        start=assumed.start_seconds,
        tail=tail_seconds(fleet, demand),
        capacity=capacity,
    )


def stations(
    fleet: Fleet, demand: Demands, services: Services, assumed: Assumed, capacity: float
) -> Iterator[Station]:
    """Every resource that a document visits."""
    cost = {name: figure.value for name, figure in services.figures.items()}
    again = 1 + assumed.retries
    machines = fleet.machines * capacity
    yield Station(CORES, machines * fleet.cores, core_seconds(fleet, demand, services) * again)
    yield Station(WORKERS, machines * fleet.workers, demand.worker * again)
    llm = fleet.llm
    if llm and llm.where != "workers" and llm.seconds:
        yield Station(LLM, llm.servers, llm.seconds * llm.share * again)
    if not fleet.distributed:
        yield Station(PARENT, machines, parent_seconds(fleet, demand, services) * again)
        yield Station(STORE, fleet.machines, cost["local_store"])
        return
    yield Station(ROW_LOCK, fleet.runs, cost["row_lock"])
    yield Station(DATABASE, fleet.database_cores, cost["database_cpu"])
    yield Station(BROKER, 1, cost["broker_cpu"])


def parent_seconds(fleet: Fleet, demand: Demands, services: Services) -> float:
    """CPU seconds of the process that hands out, asks and records."""
    asked = fleet.llm.share if fleet.llm else 0.0
    client = services.figures["llm_client_cpu"].value * asked
    if fleet.distributed:
        return services.figures["distributed_cpu"].value + client
    return demand.parent + client


def core_seconds(fleet: Fleet, demand: Demands, services: Services) -> float:
    """CPU seconds of a machine for a document, of everything that runs on it."""
    total = demand.worker + parent_seconds(fleet, demand, services)
    llm = fleet.llm
    if llm and llm.where == "workers" and llm.seconds:
        total += llm.seconds * llm.share * llm.threads
    return total


def seconds_alone(fleet: Fleet, demand: Demands, services: Services, assumed: Assumed) -> float:
    """Seconds that a document takes which meets nobody else."""
    again = 1 + assumed.retries
    total = (demand.worker + parent_seconds(fleet, demand, services)) * again
    if fleet.llm and fleet.llm.seconds:
        total += fleet.llm.seconds * fleet.llm.share * again
    name = "row_lock" if fleet.distributed else "local_store"
    return total + services.figures[name].value


def capacity_left(fleet: Fleet, demand: Demands, assumed: Assumed) -> float:
    """Share of the machines' time that is not lost with machines.

    A loss costs the time until another machine works in its place, and the work on what each of
    its workers held and had not recorded: half a chunk, on average.
    """
    lost = assumed.restart_seconds + fleet.chunk * demand.worker / 2
    return 1 / (1 + fleet.losses_per_day / _DAY * lost)


def tail_seconds(fleet: Fleet, demand: Demands) -> float:
    """Seconds at most from when the last chunk is taken until the last result."""
    lease = fleet.lease if fleet.losses_per_day else 0.0
    return fleet.chunk * demand.worker + fleet.time_limit + lease
