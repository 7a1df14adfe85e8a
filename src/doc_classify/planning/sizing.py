"""The smallest fleet that meets a deadline, the services it needs, and what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from doc_classify.planning.catalogue import Assumed, Priced, Prices, Services, by_size
from doc_classify.planning.demand import Demands, Workload
from doc_classify.planning.model import (
    Estimate,
    Fleet,
    capacity_left,
    core_seconds,
    estimate,
    tail_seconds,
)
from doc_classify.storage.engine import CONNECTIONS

_BUSY = 0.7
"""Share of its time that a database is let be busy: beyond it, waiting grows without measure."""
_SPARE_CONNECTIONS = 10
_ROUNDING = 1e-9
_HOUR, _MONTH = 3600.0, 730.0 * 3600
_INDEX_FACTOR = 2.0
"""Log, indexes and dead rows beside the rows, in the size of a disk."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What database and broker need.

    Attributes:
        connections: at most, of all workers together; of ``processes`` processes.
        database_cores: so that the database is not the limit.
        database_gb, broker_mb: of disk and of memory, for all documents.
        worker_gb: memory of the worker processes of one machine.
    """

    processes: int
    connections: int
    database_cores: int
    database_gb: float
    broker_mb: float
    worker_gb: float


@dataclass(frozen=True, slots=True)
class Cost:
    """One line of a bill. ``spot`` is the price where what can be had on spot is."""

    name: str
    on_demand: float
    spot: float
    source: str


def rate_for(
    documents: int, deadline: float, margin: float, fleet: Fleet, demand: Demands, assumed: Assumed
) -> float | None:
    """Documents a second that are needed; None where start and end alone take too long."""
    left = deadline * (1 - margin) - assumed.start_seconds - tail_seconds(fleet, demand)
    return documents / left if left > 0 else None


def smallest(
    fleet: Fleet, rate: float, demand: Demands, services: Services, assumed: Assumed
) -> Fleet:
    """The fleet of such machines that does ``rate`` documents a second, and no bigger one.

    One machine alone where that does it; else machines, runs and cores of the database are each
    the least whole number that does it, and so are LLM servers in either case.
    """
    again = 1 + assumed.retries
    alone = fleet.changed(machines=1)
    if not fleet.distributed:
        alone = _with_servers(alone, rate, again)
        if estimate(alone, demand, services, assumed).rate >= rate * (1 - _ROUNDING):
            return alone
    many = fleet.changed(distributed=True, chunk=fleet.distributed_chunk)
    each = min(
        many.cores / (core_seconds(many, demand, services) * again),
        many.workers / (demand.worker * again) if demand.worker else math.inf,
    )
    costs = services.figures
    many = many.changed(
        machines=_ceil(rate / (each * capacity_left(many, demand, assumed))),
        runs=_ceil(rate * costs["row_lock"].value),
        database_cores=_ceil(rate * costs["database_cpu"].value / _BUSY),
    )
    return _with_servers(many, rate, again)


def _ceil(value: float) -> int:
    """Upwards to a whole number of at least 1, forgiving what floating point adds."""
    return max(1, math.ceil(value * (1 - _ROUNDING)))


def _with_servers(fleet: Fleet, rate: float, again: float) -> Fleet:
    llm = fleet.llm
    if llm is None or llm.where != "server" or not llm.seconds:
        return fleet
    return fleet.changed(llm=replace(llm, servers=_ceil(rate * llm.seconds * llm.share * again)))


def sizes(
    fleet: Fleet, found: Estimate, work: Workload, demand: Demands, services: Services
) -> Sizes:
    """What database, broker and memory a fleet needs."""
    costs = {name: figure.value for name, figure in services.figures.items()}
    processes = fleet.machines * fleet.workers if fleet.distributed else 1
    sweepers = fleet.machines if fleet.distributed else 0
    each = costs["database_bytes"] * max(1.0, work.pages_read) * _INDEX_FACTOR
    return Sizes(
        processes=processes,
        connections=processes * CONNECTIONS + sweepers,
        database_cores=_ceil(found.rate * costs["database_cpu"] / _BUSY),
        database_gb=work.documents * each / 1e9,
        broker_mb=work.documents * costs["broker_bytes"] / 1e6 if fleet.distributed else 0.0,
        worker_gb=fleet.workers * demand.worker_bytes / 1e9,
    )


def pick_database(needed: Sizes, prices: Prices) -> tuple[str, Priced] | None:
    """The smallest database server with enough cores and connections; None: no such one."""
    for name, server in by_size(prices.databases):
        allowed = prices.connections.allowed(server.memory_gb)
        if server.cores >= needed.database_cores and allowed >= (
            needed.connections + _SPARE_CONNECTIONS
        ):
            return name, server
    return None


def pick_broker(needed: Sizes, prices: Prices) -> tuple[str, Priced] | None:
    """The smallest broker whose memory the messages fill by half at most."""
    for name, server in by_size(prices.brokers):
        if server.memory_gb * 1000 >= 2 * needed.broker_mb:
            return name, server
    return None


def rented(name: str, number: int, hour: float, seconds: float, spot: float, source: str) -> Cost:
    """So many machines for that time, each begun hour of which is paid."""
    hours = math.ceil(seconds / _HOUR)
    full = number * hour * hours
    return Cost(f"{number} x {name} for {hours:,} h", full, full * spot, source)


def kept(name: str, gigabytes: float, month: float, seconds: float, source: str) -> Cost:
    """So many GB kept for that time, at the price of a month of 730 hours."""
    price = gigabytes * month * seconds / _MONTH
    return Cost(f"{name}, {gigabytes:,.1f} GB", price, price, source)
