"""A plan played through: documents, workers, LLM servers and the database as a queueing simulation.

What the formula of :mod:`.model` leaves out happens here one by one: times that vary, documents
done twice, workers that are lost with what they held until its lease ends, chunks that begin and
end, the lock on the row of a run.

Only a stretch is played: the beginning is left out, the steady state is measured in batches, whose
spread gives the error (batch means: Law, Simulation Modeling and Analysis, 5th edition, McGraw-Hill
2015, section 9.5.3). The time of any number of documents follows from the rate, since the state
does not depend on how many are left (a fluid), and the end is what a small run to its end takes
longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from doc_classify.errors import ConfigurationError
from doc_classify.planning.catalogue import Assumed, Services
from doc_classify.planning.demand import Demands
from doc_classify.planning.model import Fleet, estimate
from doc_classify.planning.playing import Run

_STRETCH = 12_000
_DAY = 86_400.0
_PROCESSES = 64
"""Worker processes that are played; a bigger fleet is played by a part of it."""
_DEATHS = 50.0
"""Losses of machines that a stretch should see for their cost to be measured."""


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

    Raises:
        ConfigurationError: a document takes longer than a machine lasts.
    """
    longest = max(demand.digital, demand.scanned or 0.0) + demand.classify
    if longest * fleet.losses_per_day > _DAY:
        raise ConfigurationError(
            f"one document takes {longest / _DAY:,.0f} days, longer than a machine on spot lasts: "
            "hardly any would ever be done, and there is nothing to simulate"
        )
    part, services, scale = _part(fleet, services)
    calm = part.changed(losses_per_day=0.0)
    run = Run(calm, demand, services, assumed, seed, stretch)
    run.play()
    rate, error = run.measured()
    twice = run.repeated / max(1, run.done)
    capacity, capacity_error = 1.0, 0.0
    if part.losses_per_day:
        capacity, capacity_error = _losses(part, demand, services, assumed, seed + 1, stretch, rate)
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
    back: while they are rare, the cost is in proportion. And they are far apart beside documents,
    of which many are therefore played as one; that makes what a loss undoes a little bigger.
    """
    predicted = estimate(fleet, demand, services, assumed).capacity
    share = 1 / predicted - 1
    # So often that they cost a fifth, where the formula is right: far from full, far from noise.
    faster = max(1.0, 0.25 / share) if share else 1.0
    often = fleet.losses_per_day * faster
    seconds = _DEATHS * _DAY / (often * fleet.machines)
    together = max(1.0, rate * seconds / (2 * stretch))
    coarse, coarse_demand, coarse_services = _together(fleet, demand, services, together)
    needed = max(stretch, int(rate / together * seconds))
    run = Run(
        coarse.changed(losses_per_day=often), coarse_demand, coarse_services, assumed, seed, needed
    )
    run.play()
    left, error = run.measured()
    ratio = min(1.0, left * together / rate)
    cost = (1 / max(ratio, 0.05) - 1) / faster
    return 1 / (1 + cost), error * together / rate / faster


def _together(
    fleet: Fleet, demand: Demands, services: Services, number: float
) -> tuple[Fleet, Demands, Services]:
    """So many documents as one: everything takes longer, and a chunk has fewer of them."""
    scanned = None if demand.scanned is None else demand.scanned * number
    slower = replace(
        demand,
        digital=demand.digital * number,
        scanned=scanned,
        classify=demand.classify * number,
        parent=demand.parent * number,
    )
    figures = {
        name: replace(figure, value=figure.value * number)
        for name, figure in services.figures.items()
    }
    llm = fleet.llm
    if llm and llm.seconds:
        llm = replace(llm, seconds=llm.seconds * number)
    chunk = max(1, round(fleet.chunk / number))
    return fleet.changed(llm=llm, chunk=chunk), slower, replace(services, figures=figures)


def _tail(
    fleet: Fleet, demand: Demands, services: Services, assumed: Assumed, seed: int, rate: float
) -> float:
    """Seconds that a run to its end takes beyond its documents divided by the rate."""
    documents = 2 * fleet.chunk * fleet.machines * fleet.workers
    documents = min(max(documents, 200), _STRETCH)
    run = Run(fleet.changed(losses_per_day=0.0), demand, services, assumed, seed + 2, documents)
    run.play(to_the_end=True)
    lease = fleet.lease if fleet.losses_per_day else 0.0
    return max(0.0, run.env.now - documents / rate) + lease
