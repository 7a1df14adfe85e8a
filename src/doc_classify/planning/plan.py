"""A plan: what is asked for, the fleet that does it, and what that takes and costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from doc_classify.errors import ConfigurationError
from doc_classify.planning.catalogue import (
    Assumed,
    Configuration,
    LlmProfiles,
    Priced,
    Prices,
    Services,
)
from doc_classify.planning.demand import Demands, Workload
from doc_classify.planning.figures import Figure
from doc_classify.planning.model import Estimate, Fleet, Llm, estimate
from doc_classify.planning.simulation import Played
from doc_classify.planning.sizing import (
    Cost,
    Sizes,
    kept,
    pick_broker,
    pick_database,
    rate_for,
    rented,
    sizes,
    smallest,
)
from doc_classify.summary import duration

BENCHMARK = "benchmark"
"""Name of the LLM that the benchmark itself asked."""
_SHARES = (1.0, 0.15, 0.06, 0.02, 0.0)
"""Shares of the documents for the LLM whose effect is shown."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants to know.

    Attributes:
        work: the documents.
        deadline: seconds; None: how long does it take?
        margin: share of the deadline that is kept for what no plan knows.
        fixed: whether the fleet is given, or its machines are to be found.
        spot: whether workers and LLM servers run on spot.
        machine: name of a machine to rent; None where it is one's own.
        profile: the named configuration; None where the fleet is one's own.
    """

    work: Workload
    deadline: float | None = None
    margin: float = 0.2
    fixed: bool = True
    spot: bool = False
    machine: str | None = None
    profile: Configuration | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer. ``feasible`` is None without a deadline; ``played`` where it was simulated.

    ``costs`` are for the time that the run takes, ``costs_kept`` for the whole deadline.
    ``needed`` is the rate that the deadline takes, None where there is none or nothing meets it.
    ``by_share`` has the seconds on this fleet by the share of documents that the LLM gets.
    """

    asked: Asked
    fleet: Fleet
    demand: Demands
    estimate: Estimate
    seconds: float
    needed: float | None
    feasible: bool | None
    remedies: tuple[str, ...]
    sizes: Sizes
    database: tuple[str, Priced] | None
    broker: tuple[str, Priced] | None
    costs: tuple[Cost, ...]
    costs_kept: tuple[Cost, ...]
    currency: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]
    by_share: tuple[tuple[float, float], ...] = ()
    played: Played | None = None


@dataclass(frozen=True, slots=True)
class Knowledge:
    """All that a plan is made from."""

    demand: Demands
    services: Services
    assumed: Assumed
    prices: Prices
    llms: LlmProfiles


def make_plan(asked: Asked, fleet: Fleet, known: Knowledge) -> Plan:
    """Plan with that fleet, or with as many of its machines as the deadline takes.

    Raises:
        ConfigurationError: no deadline, and no fleet either.
    """
    needed = None
    if asked.deadline is not None:
        needed = _needed(asked, asked.deadline, fleet, known)
        if not asked.fixed and needed:
            fleet = smallest(fleet, needed, known.demand, known.services, known.assumed)
            # Many machines take other chunks than one, which end later or sooner.
            needed = _needed(asked, asked.deadline, fleet, known)
            if fleet.distributed and needed:
                fleet = smallest(fleet, needed, known.demand, known.services, known.assumed)
    elif not asked.fixed:
        raise ConfigurationError("a fleet can be looked for only with a --deadline")
    found = estimate(fleet, known.demand, known.services, known.assumed)
    seconds = found.seconds(asked.work.documents)
    feasible = None
    if asked.deadline is not None:
        feasible = seconds <= asked.deadline * (1 - asked.margin) * (1 + 1e-9)
    size = sizes(fleet, found, asked.work, known.demand, known.services)
    database, broker = _services_of(asked, fleet, size, known.prices)
    kept_for = max(seconds, asked.deadline or seconds)

    def bill(time: float) -> tuple[Cost, ...]:
        return _bill(asked, fleet, time, size, database, broker, known)

    return Plan(
        asked=asked,
        fleet=fleet,
        demand=known.demand,
        estimate=found,
        seconds=seconds,
        needed=needed,
        feasible=feasible,
        remedies=() if feasible is not False else _remedies(asked, fleet, seconds, needed, known),
        sizes=size,
        database=database,
        broker=broker,
        costs=bill(seconds),
        costs_kept=bill(kept_for),
        currency=known.prices.currency,
        figures=(*known.demand.figures, *_figures(fleet, known)),
        notes=tuple(_notes(asked, fleet, size, database, known)),
        by_share=tuple(_by_share(asked, fleet, known)),
    )


def _needed(asked: Asked, deadline: float, fleet: Fleet, known: Knowledge) -> float | None:
    return rate_for(
        asked.work.documents, deadline, asked.margin, fleet, known.demand, known.assumed
    )


def find_llm(
    name: str, known: Knowledge, *, share: float, servers: int, rate: float | None
) -> tuple[Llm, Figure | None]:
    """The language model of that profile, and where its speed is from.

    Args:
        name: of a profile, or :data:`BENCHMARK`.
        known: profiles and the benchmark.
        share: of the documents that it is asked about.
        servers: how many.
        rate: documents an hour of one server, where that is known better.

    Raises:
        ConfigurationError: there is no such profile, or the benchmark asked no LLM.
    """
    if name == BENCHMARK:
        if known.demand.llm_seconds is None:
            raise ConfigurationError("the benchmark asked no LLM: name a profile with --llm")
        seconds: float | None = known.demand.llm_seconds
        llm = Llm(name, "server", seconds, share, servers)
        figure = None
    else:
        profile = known.llms.named(name)
        prompt, answer = known.llms.prompt_tokens, known.llms.answer_tokens
        seconds = profile.seconds(prompt, answer)
        llm = Llm(name, profile.where, seconds, share, servers, profile.threads)
        figure = seconds and Figure(
            "LLM server for a document", seconds, "s", "published",
            f"{profile.title}: {profile.source}; {prompt:,} + {answer} tokens",
        )  # fmt: skip
    if rate is not None:
        llm = replace(llm, seconds=3600 / rate)
        figure = Figure("LLM server for a document", 3600 / rate, "s", "given", "--llm-rate")
    return llm, figure or None


def _by_share(asked: Asked, fleet: Fleet, known: Knowledge) -> Iterator[tuple[float, float]]:
    if fleet.llm is None:
        return
    for share in sorted({*_SHARES, fleet.llm.share}, reverse=True):
        tried = fleet.changed(llm=replace(fleet.llm, share=share))
        found = estimate(tried, known.demand, known.services, known.assumed)
        yield share, found.seconds(asked.work.documents)


def _services_of(
    asked: Asked, fleet: Fleet, size: Sizes, prices: Prices
) -> tuple[tuple[str, Priced] | None, tuple[str, Priced] | None]:
    profile = asked.profile
    if profile and profile.database and profile.broker:
        return (
            (profile.database, _listed(prices.databases, profile.database)),
            (profile.broker, _listed(prices.brokers, profile.broker)),
        )
    if asked.machine is None or not fleet.distributed:
        return None, None
    return pick_database(size, prices), pick_broker(size, prices)


def _listed(servers: dict[str, Priced], name: str) -> Priced:
    if name not in servers:
        raise ConfigurationError(f"the price list has no {name}, which the profile needs")
    return servers[name]


def _bill(
    asked: Asked,
    fleet: Fleet,
    seconds: float,
    size: Sizes,
    database: tuple[str, Priced] | None,
    broker: tuple[str, Priced] | None,
    known: Knowledge,
) -> tuple[Cost, ...]:
    prices = known.prices
    spot = prices.spot_of_on_demand
    lines: list[Cost] = []
    if asked.machine:
        server = prices.machine_named(asked.machine)
        lines.append(
            rented(asked.machine, fleet.machines, server.hour, seconds, spot, server.source)
        )
    for chosen in (database, broker):
        if chosen:
            name, server = chosen
            lines.append(rented(name, 1, server.hour, seconds, 1.0, server.source))
    if database:
        storage = prices.storage
        lines.append(
            kept("database disk", size.database_gb, storage.database_gb_month, seconds,
                 storage.database_source)
        )  # fmt: skip
    lines += _llm_bill(asked, fleet, seconds, known)
    if asked.profile and asked.profile.objects_gb:
        storage, profile = prices.storage, asked.profile
        lines.append(
            kept("documents in the object store", profile.objects_gb, storage.objects_gb_month,
                 seconds, storage.objects_source)
        )  # fmt: skip
        out = profile.transfer_gb * storage.transfer_out_gb
        lines.append(
            Cost(f"data out, {profile.transfer_gb:g} GB", out, out, storage.transfer_source)
        )
    return tuple(lines)


def _llm_bill(asked: Asked, fleet: Fleet, seconds: float, known: Knowledge) -> list[Cost]:
    llm = fleet.llm
    if llm is None or llm.name == BENCHMARK:
        return []
    profile = known.llms.named(llm.name)
    if profile.where == "hosted":
        prompt, answer = known.llms.prompt_tokens, known.llms.answer_tokens
        calls = asked.work.documents * llm.share * (1 + known.assumed.retries)
        price = calls * (prompt * profile.price_prompt + answer * profile.price_answer) / 1e6
        batch = price * (1 - profile.batch_discount)
        return [
            Cost(
                f"{calls:,.0f} requests to a hosted model ({batch:,.2f} in batches)",
                price, price, profile.source,
            )
        ]  # fmt: skip
    gpu = known.prices.gpus.get(profile.gpu or "")
    if gpu is None:
        return []
    spot = known.prices.spot_of_on_demand
    return [rented(gpu.machine, llm.servers, gpu.hour, seconds, spot, gpu.source)]


def _remedies(
    asked: Asked, fleet: Fleet, seconds: float, needed: float | None, known: Knowledge
) -> tuple[str, ...]:
    """What would make a deadline feasible, each by itself."""
    deadline = seconds / (1 - asked.margin)
    found = [f"a deadline of {duration(deadline)} ({math.ceil(deadline / 3600):,} h)"]
    if needed is None:
        return (
            *found,
            "nothing else: starting, the longest document and the margin take the whole deadline",
        )
    start = fleet.changed(machines=1, in_flight=None)
    bigger = smallest(start, needed, known.demand, known.services, known.assumed)
    if estimate(bigger, known.demand, known.services, known.assumed).rate >= needed * (1 - 1e-6):
        found.append(_described(bigger))
    if fleet.llm and (share := _share_that_fits(fleet, needed, known)) is not None:
        found.append(f"a cascade that asks the LLM about {share:.1%} of the documents at most")
    return tuple(found)


def _described(fleet: Fleet) -> str:
    text = f"{fleet.machines:,} such machine{'s' if fleet.machines > 1 else ''}"
    if fleet.llm and fleet.llm.where == "server":
        text += f" and {fleet.llm.servers:,} LLM servers"
    return f"{text} in {fleet.runs} runs" if fleet.runs > 1 else text


def _share_that_fits(fleet: Fleet, needed: float, known: Knowledge) -> float | None:
    """The biggest share of documents for the LLM at which the rate suffices; None: not even 0."""
    llm = fleet.llm
    if llm is None:
        return None

    def enough(share: float) -> bool:
        tried = fleet.changed(llm=replace(llm, share=share))
        return estimate(tried, known.demand, known.services, known.assumed).rate >= needed

    if not enough(0.0):
        return None
    low, high = 0.0, llm.share
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    return low if low >= 0.0005 else None


def _figures(fleet: Fleet, known: Knowledge) -> list[Figure]:
    used = ["distributed_cpu", "row_lock", "database_cpu", "broker_cpu", "broker_bytes"]
    names = [*(used if fleet.distributed else ["local_store"]), "database_bytes"]
    if fleet.llm:
        names.append("llm_client_cpu")
    where = known.services.measured_on
    found = [
        Figure(
            name.replace("_", " "),
            cost.value,
            cost.unit,
            "measured",
            f"{cost.source}; {cost.where or where}",
        )
        for name in names
        for cost in [known.services.figures[name]]
    ]
    assumed = known.assumed
    found += [
        Figure("documents done twice", assumed.retries, "", "assumed", "retries"),
        Figure("start of the workers", assumed.start_seconds, "s", "assumed", "start_seconds"),
    ]
    if fleet.losses_per_day:
        found += [
            Figure("losses of a machine a day", fleet.losses_per_day, "", "assumed", "spot"),
            Figure("until one is replaced", assumed.restart_seconds, "s", "assumed",
                   "restart_seconds"),
        ]  # fmt: skip
    return found


def _notes(
    asked: Asked,
    fleet: Fleet,
    size: Sizes,
    database: tuple[str, Priced] | None,
    known: Knowledge,
) -> list[str]:
    notes = []
    if size.worker_gb > fleet.memory_gb * 0.9:
        notes.append(
            f"{fleet.workers} workers may need {size.worker_gb:.1f} GB, a machine has "
            f"{fleet.memory_gb:.1f} GB: take fewer workers"
        )
    if fleet.runs > 1:
        notes.append(
            f"one run's counters allow fewer documents a second than that: submit {fleet.runs} "
            "parts as runs of their own"
        )
    if fleet.llm and fleet.llm.seconds is None:
        notes.append(
            "how many requests the hosted model takes is not known: --llm-rate with what your "
            "account allows makes it part of the plan"
        )
    if fleet.llm and fleet.llm.where == "workers":
        notes.append(
            f"the LLM runs on the workers' cores, {fleet.llm.threads} for each answer; that "
            "several answers at a time do not slow each other down is assumed"
        )
    if database:
        name, server = database
        allowed = known.prices.connections.allowed(server.memory_gb)
        if allowed < size.connections:
            notes.append(
                f"the workers may open {size.connections:,} connections, {name} allows "
                f"{allowed:,}: put PgBouncer in transaction mode between"
            )
        if server.cores < size.database_cores:
            notes.append(f"{name} has fewer cores than the {size.database_cores} it should have")
    elif fleet.distributed and asked.machine:
        notes.append("no database server of the price list is big enough: PgBouncer, or a bigger")
    return notes
