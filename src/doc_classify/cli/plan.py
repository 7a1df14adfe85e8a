"""``plan``: machines, workers, LLM servers, time and cost of a pile of documents, with sources."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from doc_classify.cli import EXIT_COULD_NOT_RUN
from doc_classify.cli.options import Finite, as_json, verbose
from doc_classify.errors import ConfigurationError
from doc_classify.settings import Settings, load_settings

if TYPE_CHECKING:
    from doc_classify.planning.catalogue import Configuration
    from doc_classify.planning.model import Fleet
    from doc_classify.planning.plan import Knowledge, Plan

_UNITS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_CLOUDS = ("aws",)


class Share(click.ParamType[float]):
    """A share: ``10%`` or ``0.1``."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The share as a number from 0 to 1."""
        if not isinstance(value, str):
            return value
        text = value.strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is no share such as 10% or 0.1", param, ctx)
        return share


class Duration(click.ParamType[float]):
    """A time: ``7d``, ``12h``, ``90m``, ``1w``."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The time in seconds."""
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([mhdw])", value.strip(), re.ASCII)
        if not match or not float(match[1]):
            self.fail(f"{value!r} is no time such as 7d, 12h or 90m", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


@click.command()
@click.option(
    "--documents",
    type=click.IntRange(1, 10**9),
    default=500_000,
    show_default=True,
    metavar="N",
    help="How many there are.",
)
@click.option(
    "--pages",
    type=Finite(1e-6, 1e9),
    default=10,
    show_default=True,
    help="Pages of a document, on average.",
)
@click.option("--read", "selection", metavar="SPEC", help="Pages that are read [default: 3+1].")
@click.option("--scanned", type=Share(), help="Read by OCR [default: as in the benchmark].")
@click.option("--deadline", type=Duration(), help="7d, 12h, 90m; without it: how long it takes.")
@click.option(
    "--margin",
    type=Share(),
    default="20%",
    show_default=True,
    help="Of the deadline, kept for what no plan knows.",
)
@click.option(
    "--benchmark",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="What 'benchmark' measured [default: a measurement that comes with the program].",
)
@click.option("--llm", metavar="PROFILE", help="Ask a language model; --list names them.")
@click.option(
    "--llm-rate",
    type=Finite(1e-6, 1e9),
    metavar="N",
    help="Documents an hour of one LLM server, as 'doctor' tells.",
)
@click.option("--llm-servers", type=click.IntRange(1, 10**5), metavar="N", help="How many of them.")
@click.option("--cascade-share", type=Share(), help="Documents that the LLM is asked about.")
@click.option("--cloud", type=click.Choice(_CLOUDS), help="Rent the machines there.")
@click.option("--machine", metavar="NAME", help="Machine to rent; --list names them.")
@click.option("--profile", metavar="NAME", help="A configuration by name; --list names them.")
@click.option("--machines", type=click.IntRange(1, 10**5), metavar="N", help="So many, no more.")
@click.option(
    "--workers",
    type=click.IntRange(1, 4096),
    metavar="N",
    help="Worker processes of a machine [default: its cores].",
)
@click.option(
    "--core-speed",
    type=Finite(1e-6, 1e9),
    default=1.0,
    show_default=True,
    help="Of a planned core, beside a measured one.",
)
@click.option("--spot", is_flag=True, help="Rent workers on spot, and allow for losing them.")
@click.option(
    "--prices",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Another price list [default: the program's, of AWS].",
)
@click.option("--simulate", is_flag=True, help="Also play it through, and compare.")
@click.option("--list", "listing", is_flag=True, help="List profiles, LLMs and machines.")
@as_json
@verbose
def plan(listing: bool, as_json: bool, verbose: bool, **options: Any) -> int:
    """Say what classifying a pile of documents takes, and where each figure comes from.

    Without --deadline: how long it takes on this machine, or on the one named. With it: the
    smallest number of machines that meets it, unless --machines or --profile fix them.

    Ends with exit code 3 when the deadline cannot be met with the machines given.
    """
    from doc_classify.planning.report import plan_lines, plan_to_dict
    from doc_classify.terminal import escaped

    settings = load_settings()
    if listing:
        for line in _listing(options["prices"]):
            click.echo(escaped(line))
        return 0
    made = _plan(settings, **options)
    if as_json:
        click.echo(json.dumps(plan_to_dict(made)))
    else:
        for line in plan_lines(made):
            click.echo(escaped(line))
    return EXIT_COULD_NOT_RUN if made.feasible is False else 0


def _plan(
    settings: Settings,
    *,
    documents: int,
    pages: float,
    selection: str | None,
    scanned: float | None,
    deadline: float | None,
    margin: float,
    benchmark: Path | None,
    llm: str | None,
    llm_rate: float | None,
    llm_servers: int | None,
    cascade_share: float | None,
    cloud: str | None,
    machine: str | None,
    profile: str | None,
    machines: int | None,
    workers: int | None,
    core_speed: float,
    spot: bool,
    prices: Path | None,
    simulate: bool,
) -> Plan:
    from doc_classify.extraction.options import PageSelection
    from doc_classify.planning.demand import Workload
    from doc_classify.planning.plan import Asked, find_llm, make_plan

    if margin >= 1:
        raise ConfigurationError("a margin of the whole deadline leaves no time: make it smaller")
    chosen = _profile(profile)
    llm = llm or (chosen.llm if chosen else None)
    if llm is None and (cascade_share is not None or llm_rate or llm_servers):
        raise ConfigurationError("--cascade-share, --llm-rate and --llm-servers need --llm PROFILE")
    work = Workload(documents, pages, PageSelection.parse(selection or settings.pages), scanned)
    known, notes = _known(benchmark, prices, work, core_speed)
    rented = machine or (chosen.machine if chosen else None)
    rented = rented or (known.prices.machine if cloud else None)
    if spot and rented is None:
        raise ConfigurationError("--spot is for rented machines: give --cloud or --machine")
    spot = spot or bool(chosen and chosen.spot)
    fleet = _fleet(settings, known, rented, chosen, machines, workers, spot=spot)
    if llm:
        share = 1.0 if cascade_share is None else cascade_share
        found, figure = find_llm(llm, known, share=share, servers=llm_servers or 1, rate=llm_rate)
        fleet = fleet.changed(llm=found)
        if figure:
            known = replace(
                known, demand=replace(known.demand, figures=(*known.demand.figures, figure))
            )
    fixed = deadline is None or profile is not None or bool(machines)
    asked = Asked(work, deadline, margin, fixed, spot, rented, chosen)
    made = make_plan(asked, fleet, known)
    if simulate:
        made = _simulated(made, known)
    return replace(made, notes=(*notes, *made.notes))


def _profile(name: str | None) -> Configuration | None:
    from doc_classify.planning.catalogue import configurations
    from doc_classify.terminal import one_line

    if name is None:
        return None
    known = configurations()
    if name not in known:
        raise ConfigurationError(f"no profile {one_line(name)!r}; there are: {', '.join(known)}")
    return known[name]


def _known(
    benchmark: Path | None, prices: Path | None, work: Any, core_speed: float
) -> tuple[Knowledge, list[str]]:
    from doc_classify.benchmark.result import read_result
    from doc_classify.planning.catalogue import (
        llm_profiles,
        packaged_benchmark,
        read_prices,
        services,
    )
    from doc_classify.planning.demand import demands
    from doc_classify.planning.plan import Knowledge

    result = read_result(benchmark or packaged_benchmark())
    notes = []
    if benchmark is None:
        notes.append(
            f"planned by a measurement of {result.created[:10]} on {result.machine.cores} cores "
            f"({result.machine.cpu}) and generated documents, not by yours: "
            "'doc-classify benchmark FOLDER' measures, --benchmark FILE takes that"
        )
    if core_speed == 1.0:
        notes.append("a planned core is taken to be as fast as a measured one (--core-speed)")
    demand = demands(result, work, core_speed=core_speed)
    known = services()
    return Knowledge(demand, known, known.assumed, read_prices(prices), llm_profiles()), notes


def _fleet(
    settings: Settings,
    known: Knowledge,
    rented: str | None,
    chosen: Configuration | None,
    machines: int | None,
    workers: int | None,
    *,
    spot: bool,
) -> Fleet:
    """The machines: of the profile, rented, or such as this one."""
    from doc_classify.planning.model import Fleet

    cores, memory = _this_machine()
    if rented:
        server = known.prices.machine_named(rented)
        cores, memory = server.cores, server.memory_gb
    elif chosen and chosen.cores:
        cores, memory = chosen.cores, chosen.memory_gb or memory
    number = machines or (chosen.machines if chosen else 1)
    own = None if rented or chosen else settings.workers
    distributed = number > 1 or bool(chosen and chosen.database)
    return Fleet(
        machines=number,
        cores=cores,
        memory_gb=memory,
        workers=workers or own or (chosen.workers if chosen else cores),
        distributed=distributed,
        in_flight=chosen.in_flight if chosen else None,
        database_cores=_database_cores(known, chosen),
        losses_per_day=known.assumed.losses_per_day if spot else 0.0,
        chunk=settings.distributed_chunk_size if distributed else settings.chunk_size,
        distributed_chunk=settings.distributed_chunk_size,
        lease=settings.lease_seconds,
        time_limit=settings.time_limit,
    )


def _database_cores(known: Knowledge, chosen: Configuration | None) -> int:
    server = known.prices.databases.get(chosen.database or "") if chosen else None
    return server.cores if server else os.cpu_count() or 1


def _this_machine() -> tuple[int, float]:
    """Cores and GB of memory."""
    import psutil

    return len(os.sched_getaffinity(0)), psutil.virtual_memory().total / 1e9


def _simulated(made: Plan, known: Knowledge) -> Plan:
    from doc_classify.planning.simulation import simulate

    played = simulate(
        made.fleet, known.demand, known.services, known.assumed, made.asked.work.documents
    )
    return replace(made, played=played)


def _listing(prices: Path | None) -> Iterator[str]:
    from doc_classify.planning.catalogue import configurations, llm_profiles, read_prices

    yield "Profiles (--profile)"
    for name, one in configurations().items():
        yield f"  {name:<16} {one.title}"
    known = llm_profiles()
    yield f"LLM profiles (--llm), for {known.prompt_tokens:,} + {known.answer_tokens} tokens"
    for name, llm in known.profiles.items():
        seconds = llm.seconds(known.prompt_tokens, known.answer_tokens)
        rate = f"{3600 / seconds:,.0f} documents/h" if seconds else "rate not known"
        yield f"  {name:<16} {rate:<20} {llm.title} ({llm.source})"
    listed = read_prices(prices)
    yield f"Machines (--machine), {listed.cloud} {listed.region} {listed.date}, {listed.currency}/h"
    for name, server in listed.machines.items():
        yield f"  {name:<16} {server.hour:<8g} {server.cores} cores, {server.memory_gb:g} GB"
