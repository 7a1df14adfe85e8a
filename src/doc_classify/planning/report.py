"""A plan as text for a person, and as a dictionary for a program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from doc_classify.planning.figures import Figure
from doc_classify.planning.model import LLM, WORKERS
from doc_classify.planning.plan import Plan
from doc_classify.summary import duration

_SHOWN = 4


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan, line by line. Every number has its origin in brackets, or below.

    Names and sources are as the files have them: a terminal wants :func:`.terminal.escaped`.
    """
    yield _heading(plan)
    yield ""
    yield from _fleet(plan)
    yield from _time(plan)
    yield from _cascade(plan)
    yield from _bottleneck(plan)
    yield from _services(plan)
    yield from _costs(plan)
    if plan.played:
        yield from _played(plan)
    for note in plan.notes:
        yield f"! {note}"
    yield ""
    yield f"Computed from the {plan.demand.benchmark}, and"
    for figure in plan.figures:
        yield f"  {figure.kind:<9} {figure.name}: {_value(figure)} ({figure.source})"


def _heading(plan: Plan) -> str:
    work, llm = plan.asked.work, plan.fleet.llm
    how = "the embedded classifier"
    if llm:
        how = f"the LLM {llm.name}"
        if llm.share < 1:
            how = f"a cascade that asks the LLM {llm.name} about {llm.share:.1%}"
    scanned = plan.demand.scanned_share
    until = f", within {duration(plan.asked.deadline)}" if plan.asked.deadline else ""
    return (
        f"{work.documents:,} documents of {work.pages:g} pages ({work.pages_read:g} of them read, "
        f"{scanned:.1%} scanned), by {how}{until}"
    )


def _fleet(plan: Plan) -> Iterator[str]:
    fleet = plan.fleet
    kind = plan.asked.machine or "machines of your own"
    each = f"{fleet.cores} cores, {fleet.memory_gb:.0f} GB, {fleet.workers} worker processes"
    origin = "given" if plan.asked.fixed else "computed"
    yield f"Machines      {fleet.machines:,} x {kind} ({each}) [{origin}]"
    if fleet.llm and fleet.llm.where == "server":
        rate = 3600 / fleet.llm.seconds if fleet.llm.seconds else 0.0
        yield (
            f"LLM servers   {fleet.llm.servers:,} x {fleet.llm.name}, {rate:,.0f} documents/h "
            f"each, for {plan.asked.work.documents * fleet.llm.share:,.0f} documents [{origin}]"
        )
    elif fleet.llm:
        where = "on the workers' cores" if fleet.llm.where == "workers" else "hosted elsewhere"
        asked = plan.asked.work.documents * fleet.llm.share
        yield f"LLM           {fleet.llm.name}, {where}, for {asked:,.0f} documents"


def _time(plan: Plan) -> Iterator[str]:
    found = plan.estimate
    yield (
        f"Time          {duration(plan.seconds)} [computed: {plan.asked.work.documents:,} / "
        f"{_rate(found.rate)} documents/s + {found.start:.0f} s start "
        f"+ {found.tail:.0f} s end at most]"
    )
    yield f"Rate          {found.rate * 3600:,.0f} documents/h"
    if plan.asked.deadline is None:
        return
    margin = plan.asked.margin
    if plan.needed is not None:
        yield (
            f"Needed        {plan.needed * 3600:,.0f} documents/h [computed: deadline less "
            f"{margin:.0%} margin for stragglers, retries and restarts, less start and end]"
        )
    if plan.feasible:
        yield f"Deadline      met, with {1 - plan.seconds / plan.asked.deadline:.0%} of it to spare"
        return
    yield "Deadline      NOT met with this margin. One of these would do:"
    for remedy in plan.remedies:
        yield f"              - {remedy}"


def _cascade(plan: Plan) -> Iterator[str]:
    if plan.by_share:
        times = (f"{share:.0%}: {duration(seconds)}" for share, seconds in plan.by_share)
        yield f"By LLM share  {', '.join(times)} [computed, on this fleet]"


def _bottleneck(plan: Plan) -> Iterator[str]:
    found = plan.estimate
    yield f"Bottleneck    {found.bottleneck}"
    for station in found.stations[:_SHOWN]:
        yield (
            f"              {station.name}: {found.utilisation(station):.0%} busy, "
            f"{_rate(station.limit)} documents/s at most [computed: {station.servers:,.2f} / "
            f"{_seconds(station.demand)} a document]"
        )
    if found.bottleneck in (LLM, WORKERS, "cores"):
        more = "LLM servers, or a smaller share for it," if found.bottleneck == LLM else "cores"
        yield f"              more {more} would help; more of anything else would not"


def _services(plan: Plan) -> Iterator[str]:
    size = plan.sizes
    yield (
        f"Memory        {size.worker_gb:.1f} GB for the workers of a machine [computed: "
        f"{plan.fleet.workers} x {plan.demand.worker_bytes / 1e6:,.0f} MB]"
    )
    chosen = ""
    if plan.database:
        name, server = plan.database
        chosen = f"{name} ({server.cores} cores, {server.memory_gb:g} GB): "
    if plan.fleet.distributed:
        yield (
            f"Database      {chosen}cores at least: {size.database_cores}, {size.connections:,} "
            f"connections at most (3 for each of {size.processes:,} processes, and 1 a machine), "
            f"{size.database_gb:,.1f} GB of disk [computed]"
        )
        broker = f"{plan.broker[0]} ({plan.broker[1].memory_gb:g} GB): " if plan.broker else ""
        yield f"Broker        {broker}{size.broker_mb:,.1f} MB of memory [computed]"
    else:
        yield f"Database      SQLite or PostgreSQL, {size.database_gb:,.1f} GB of disk [computed]"


def _costs(plan: Plan) -> Iterator[str]:
    if not plan.costs:
        yield "Cost          nothing is rented"
        return
    on_demand, spot = (sum(getattr(c, name) for c in plan.costs) for name in ("on_demand", "spot"))
    spot_text = f", {spot:,.2f} with workers and LLM servers on spot" if spot < on_demand else ""
    yield f"Cost          {on_demand:,.2f} {plan.currency} on demand{spot_text} [price]"
    for cost in plan.costs:
        yield (
            f"              {cost.name}: {cost.on_demand:,.2f}"
            f"{f' (spot {cost.spot:,.2f})' if cost.spot < cost.on_demand else ''} "
            f"[{cost.source}]"
        )
    kept = sum(cost.on_demand for cost in plan.costs_kept)
    if plan.asked.deadline and kept > on_demand * 1.01:
        kept_spot = sum(cost.spot for cost in plan.costs_kept)
        yield (
            f"              left running for the whole deadline: {kept:,.2f} on demand, "
            f"{kept_spot:,.2f} on spot"
        )


def _played(plan: Plan) -> Iterator[str]:
    played = plan.played
    if played is None:
        return
    yield (
        f"Simulated     {duration(played.seconds)}, {_rate(played.rate)} ± {_rate(played.error)} "
        f"documents/s: {played.beside_formula:+.1%} beside the formula "
        f"({played.documents:,} documents played on {played.scale:.0%} of the fleet; "
        f"± {duration(played.seconds_error)})"
    )
    busy = ", ".join(f"{name} {share:.0%}" for name, share in played.busy.items())
    yield (
        f"              busy: {busy}; losses of machines cost {1 - played.capacity:.2%}; "
        f"{played.twice:.1%} done twice; the end takes {played.tail:.0f} s"
    )


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as JSON can hold it; times in seconds, rates a second, money in ``currency``."""
    found = plan.estimate
    data = asdict(plan)
    data["asked"]["work"]["selection"] = str(plan.asked.work.selection)
    data["demand"].pop("figures")
    data["estimate"]["stations"] = [
        asdict(one) | {"limit": one.limit, "utilisation": found.utilisation(one)}
        for one in found.stations
    ]
    for name in ("database", "broker"):
        if chosen := getattr(plan, name):
            data[name] = {"name": chosen[0]} | asdict(chosen[1])
    data["cost_on_demand"] = sum(cost.on_demand for cost in plan.costs)
    data["cost_spot"] = sum(cost.spot for cost in plan.costs)
    return data


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.2f} s" if seconds >= 1 else f"{1e3 * seconds:,.3g} ms"


def _value(figure: Figure) -> str:
    if figure.unit == "bytes":
        return f"{figure.value / 1e6:,.0f} MB"
    if not figure.unit:
        return f"{figure.value:.1%}"
    scale, unit = figure.value, figure.unit
    if "s" in unit.split()[:2] and scale < 1:
        head, _, tail = unit.partition("s")
        return f"{1e3 * scale:,.3g} {head}ms{tail}"
    return f"{scale:,.4g} {unit}"
