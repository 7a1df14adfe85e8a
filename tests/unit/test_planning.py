"""Plans: what the laws of queueing give, whether more machines ever harm, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from doc_classify.benchmark.result import BenchmarkResult, Distribution, Group, read_result
from doc_classify.errors import ConfigurationError
from doc_classify.extraction.options import PageSelection
from doc_classify.planning.catalogue import (
    Assumed,
    configurations,
    llm_profiles,
    packaged_benchmark,
    read_prices,
    services,
)
from doc_classify.planning.demand import Demands, Workload, demands
from doc_classify.planning.model import CORES, IN_FLIGHT, LLM, ROW_LOCK, Fleet, Llm, estimate
from doc_classify.planning.plan import BENCHMARK, Asked, Knowledge, Plan, find_llm, make_plan
from doc_classify.planning.report import plan_lines, plan_to_dict
from doc_classify.planning.sizing import rate_for, rented, smallest

WORK = Workload(500_000, 10, PageSelection(3, 1), 0.1)
RESULT = read_result(packaged_benchmark())
SERVICES = services()
NOTHING = Assumed()
DAY = 86_400.0


def demand(worker: float = 0.05, parent: float = 0.001) -> Demands:
    """Of digital documents alone."""
    return Demands(worker, None, 0.0, 0.0, parent, 0.0, 0.0, 150_000_000, None, "benchmark", ())


def known(work: Workload = WORK, **changes: object) -> Knowledge:
    made = Knowledge(
        demands(RESULT, work), SERVICES, SERVICES.assumed, read_prices(), llm_profiles()
    )
    return replace(made, **changes)


def fleet(machines: int = 1, **changes: object) -> Fleet:
    made = Fleet(machines, cores=8, memory_gb=16, workers=8, distributed=machines > 1)
    return made.changed(**changes)


demand_of = st.builds(demand, st.floats(0.001, 20), st.floats(0.0001, 0.01))
llm_of = st.none() | st.builds(
    Llm,
    st.just("some"),
    st.sampled_from(["workers", "server", "hosted"]),
    st.floats(0.01, 100),
    st.floats(0.01, 1),
    st.integers(1, 50),
    st.integers(1, 16),
)
fleet_of = st.builds(
    Fleet,
    machines=st.integers(1, 200),
    cores=st.integers(1, 64),
    memory_gb=st.just(64.0),
    workers=st.integers(1, 64),
    distributed=st.just(True),
    llm=llm_of,
    in_flight=st.none() | st.integers(1, 100),
    runs=st.integers(1, 10),
    database_cores=st.integers(1, 64),
    losses_per_day=st.sampled_from([0.0, 0.05, 1.0]),
)
assumed_of = st.builds(
    Assumed, st.floats(0, 0.5), st.just(0.0), st.floats(0, 600), st.floats(0, 60)
)


# --- the bounds -----------------------------------------------------------------------------------


def test_the_rate_is_that_of_the_tightest_resource() -> None:
    found = estimate(fleet(), demand(0.099, 0.001), SERVICES, NOTHING)
    assert found.rate == pytest.approx(8 / 0.1)
    assert found.bottleneck == CORES
    assert found.utilisation(found.stations[0]) == pytest.approx(1)
    assert all(found.utilisation(station) <= 1 + 1e-9 for station in found.stations)


def test_one_document_at_a_time_waits_for_every_stage() -> None:
    llm = Llm("some", "server", 1.0, servers=100)
    found = estimate(fleet(llm=llm, in_flight=1), demand(0.5), SERVICES, NOTHING)
    assert found.bottleneck == IN_FLIGHT
    assert found.rate == pytest.approx(1 / (0.5 + 0.001 + 1.0 + 0.0019 + 0.000623), rel=1e-6)
    many = estimate(fleet(llm=llm), demand(0.5), SERVICES, NOTHING)
    assert many.bottleneck == CORES
    assert many.rate > 10 * found.rate


def test_the_lock_on_one_run_is_the_limit_of_many_machines_and_more_runs_lift_it() -> None:
    one = estimate(fleet(100), demand(), SERVICES, NOTHING)
    assert one.bottleneck == ROW_LOCK
    assert one.rate == pytest.approx(541, rel=0.001)
    two = estimate(fleet(100, runs=2), demand(), SERVICES, NOTHING)
    assert two.rate == pytest.approx(2 * one.rate)


def test_an_llm_on_the_workers_cores_takes_them() -> None:
    llm = Llm("some", "workers", 40.0, share=0.5, threads=2)
    found = estimate(fleet(cores=2, llm=llm), demand(1.0, 0.0), SERVICES, NOTHING)
    assert found.bottleneck == CORES
    assert found.rate == pytest.approx(2 / (1 + 0.0019 / 2 + 40 * 0.5 * 2), rel=1e-6)


@given(fleet_of, demand_of, assumed_of, st.integers(1, 10**9))
def test_more_of_anything_is_never_slower(
    given_fleet: Fleet, given_demand: Demands, assumed: Assumed, documents: int
) -> None:
    def seconds(**changes: object) -> float:
        tried = given_fleet.changed(**changes)
        return estimate(tried, given_demand, SERVICES, assumed).seconds(documents)

    before = seconds() * (1 + 1e-9)
    assert math.isfinite(before) and before > 0
    for name in ("machines", "cores", "workers", "runs", "database_cores"):
        assert seconds(**{name: getattr(given_fleet, name) + 1}) <= before, name
    if llm := given_fleet.llm:
        assert seconds(llm=replace(llm, servers=llm.servers + 1)) <= before
        assert seconds(llm=replace(llm, share=llm.share / 2)) <= before


@given(fleet_of, demand_of, assumed_of)
def test_nothing_is_busy_for_more_than_all_of_the_time(
    given_fleet: Fleet, given_demand: Demands, assumed: Assumed
) -> None:
    found = estimate(given_fleet, given_demand, SERVICES, assumed)
    assert all(found.utilisation(station) <= 1 + 1e-9 for station in found.stations)
    assert 0 < found.capacity <= 1


# --- the smallest fleet ---------------------------------------------------------------------------


@given(fleet_of, demand_of, assumed_of, st.floats(0.001, 5_000))
def test_the_smallest_fleet_does_it_and_a_smaller_one_does_not(
    given_fleet: Fleet, given_demand: Demands, assumed: Assumed, rate: float
) -> None:
    start = given_fleet.changed(in_flight=None, machines=1)
    found = smallest(start, rate, given_demand, SERVICES, assumed)
    hosted = found.llm is not None and found.llm.where == "hosted"
    assume(not hosted)  # nobody can add servers to that one
    before = estimate(found, given_demand, SERVICES, assumed)
    assert before.rate >= rate * (1 - 1e-6)
    if found.machines > 1:
        fewer = found.changed(machines=found.machines - 1)
        assert estimate(fewer, given_demand, SERVICES, assumed).rate < rate
    if found.llm and found.llm.where == "server" and found.llm.servers > 1:
        fewer = found.changed(llm=replace(found.llm, servers=found.llm.servers - 1))
        assert estimate(fewer, given_demand, SERVICES, assumed).rate < rate


@given(st.floats(3600, 60 * DAY), st.floats(3600, 60 * DAY), st.sampled_from(["a10g", None]))
@settings(max_examples=30)
def test_more_time_never_takes_more_machines(one: float, other: float, llm: str | None) -> None:
    short, long = sorted((one, other))
    facts = known()

    def machines(deadline: float) -> tuple[int, int]:
        start = fleet()
        if llm:
            start = start.changed(llm=find_llm(llm, facts, share=1, servers=1, rate=None)[0])
        plan = make_plan(Asked(WORK, deadline, 0.2, fixed=False), start, facts)
        return plan.fleet.machines, plan.fleet.llm.servers if plan.fleet.llm else 0

    assert all(a >= b for a, b in zip(machines(short), machines(long), strict=True))


def test_the_rate_that_a_week_takes() -> None:
    """500,000 documents in 168 hours are 2,976 an hour, and not a third of that."""
    rate = rate_for(500_000, 7 * DAY, 0.0, fleet(time_limit=0, chunk=1), demand(0.0001), NOTHING)
    assert rate * 3600 == pytest.approx(2_976, abs=0.5)
    assert rate_for(1, 60, 0.0, fleet(), demand(), NOTHING) is None


@given(st.floats(0, 1e7), st.floats(0, 1e7), st.integers(1, 100), st.floats(0, 50))
def test_a_longer_time_never_costs_less(one: float, other: float, number: int, hour: float) -> None:
    short, long = sorted((one, other))
    bill = [rented("m", number, hour, seconds, 0.5, "list") for seconds in (short, long)]
    assert bill[0].on_demand <= bill[1].on_demand
    assert bill[1].spot <= bill[1].on_demand
    assert rented("m", number + 1, hour, long, 0.5, "").on_demand >= bill[1].on_demand


# --- whole plans ----------------------------------------------------------------------------------


def planned(start: Fleet, deadline: float | None = None, **asked: object) -> Plan:
    facts = known()
    return make_plan(Asked(WORK, deadline, **asked), start, facts)


def test_a_deadline_that_cannot_be_met_says_what_would_do() -> None:
    facts = known()
    llm, figure = find_llm("cpu-2", facts, share=1.0, servers=1, rate=None)
    assert figure and figure.kind == "published" and "sbc-reviews" in figure.source
    plan = make_plan(Asked(WORK, 7 * DAY), fleet(cores=2, workers=2, llm=llm), facts)
    assert plan.feasible is False
    deadline, machines, share = plan.remedies
    assert "a deadline of" in deadline
    number = int(machines.split()[0].replace(",", ""))
    enough = make_plan(
        Asked(WORK, 7 * DAY), plan.fleet.changed(machines=number, distributed=True), facts
    )
    assert enough.feasible
    percent = float(share.split("about ")[1].split("%")[0]) / 100
    fits = plan.fleet.changed(llm=replace(llm, share=percent * 0.99))
    assert make_plan(Asked(WORK, 7 * DAY), fits, facts).feasible
    too_much = plan.fleet.changed(llm=replace(llm, share=percent * 1.1))
    assert not make_plan(Asked(WORK, 7 * DAY), too_much, facts).feasible


def test_a_deadline_that_nothing_meets() -> None:
    plan = planned(fleet(), 60.0, fixed=False)
    assert plan.feasible is False and plan.needed is None
    assert "nothing else" in plan.remedies[1]


def test_the_share_for_the_llm_changes_the_time_and_is_shown() -> None:
    facts = known()
    llm, _ = find_llm("rtx4090", facts, share=0.06, servers=1, rate=None)
    plan = make_plan(Asked(WORK), fleet(llm=llm), facts)
    shares, seconds = zip(*plan.by_share, strict=True)
    assert shares == (1.0, 0.15, 0.06, 0.02, 0.0)
    assert list(seconds) == sorted(seconds, reverse=True)
    assert seconds[0] > 2 * seconds[2]
    assert any("By LLM share" in line for line in plan_lines(plan))


@pytest.mark.parametrize("name", configurations())
def test_every_named_configuration_can_be_planned_and_traced(name: str) -> None:
    facts, one = known(), configurations()[name]
    server = facts.prices.machine_named(one.machine) if one.machine else None
    start = Fleet(
        machines=one.machines,
        cores=server.cores if server else one.cores or 1,
        memory_gb=server.memory_gb if server else one.memory_gb or 1,
        workers=one.workers,
        distributed=one.database is not None,
        in_flight=one.in_flight,
    )
    if one.llm:
        start = start.changed(llm=find_llm(one.llm, facts, share=1, servers=1, rate=None)[0])
    plan = make_plan(Asked(WORK, 7 * DAY, machine=one.machine, profile=one), start, facts)
    assert plan.feasible
    text = "\n".join(plan_lines(plan))
    assert plan.estimate.bottleneck in text
    for figure in plan.figures:
        assert figure.source and figure.kind in ("measured", "published", "assumed", "given")
        assert figure.name in text
    assert all(cost.source for cost in plan.costs)
    data = plan_to_dict(plan)
    assert data["seconds"] == plan.seconds
    assert data["cost_on_demand"] == pytest.approx(sum(cost.on_demand for cost in plan.costs))
    if one.machine:
        assert data["database"]["name"] == one.database


def test_workers_that_do_not_fit_and_connections_that_do_not_suffice_are_noted() -> None:
    plan = planned(fleet(memory_gb=0.5))
    assert any("take fewer workers" in note for note in plan.notes)
    profile = configurations()["minimal"]
    many = fleet(60, workers=16, cores=16, memory_gb=32)
    plan = planned(many, machine="c6i.4xlarge", profile=profile)
    assert any("PgBouncer" in note for note in plan.notes)


def test_a_hosted_model_costs_by_the_token_and_its_rate_can_be_given() -> None:
    facts = known()
    llm, _ = find_llm("hosted", facts, share=1.0, servers=1, rate=None)
    plan = make_plan(Asked(WORK), fleet(llm=llm), facts)
    [cost] = plan.costs
    assert cost.on_demand == pytest.approx(505_000 * (1_200 * 0.10 + 5 * 0.40) / 1e6)
    assert any("--llm-rate" in note for note in plan.notes)
    llm, figure = find_llm("hosted", facts, share=1.0, servers=1, rate=3600.0)
    assert figure and figure.kind == "given"
    plan = make_plan(Asked(WORK), fleet(llm=llm), facts)
    assert plan.estimate.bottleneck == LLM
    assert plan.estimate.rate == pytest.approx(1 / 1.01)


# --- the measurement ------------------------------------------------------------------------------


def changed_result(**groups: Group) -> BenchmarkResult:
    """The packaged result with other groups of documents."""
    operation = RESULT.operations[0]
    repeat = replace(operation.middle, **groups)
    return replace(RESULT, operations=(replace(operation, repeats=(repeat,)),))


def group(files: int, pages: int, ocr_pages: int, total: float) -> Group:
    each = Distribution(files, total, total / max(files, 1), total / max(files, 1) / 2)
    return Group(files, 0, 1, pages, ocr_pages, each, None)


def test_demands_follow_from_the_benchmark() -> None:
    result = changed_result(text=group(90, 180, 0, 1.8), ocr=group(10, 30, 20, 20.1))
    found = demands(result, replace(WORK, scanned=None))
    assert found.digital == pytest.approx(4 * 0.01)
    assert found.scanned == pytest.approx(4 * 1.0)
    assert found.scanned_share == pytest.approx(0.1)
    assert found.read == pytest.approx(0.9 * 0.04 + 0.1 * 4)
    assert found.sigma == pytest.approx(math.sqrt(2 * math.log(2)))
    faster = demands(result, replace(WORK, scanned=None), core_speed=2.0)
    assert faster.read == pytest.approx(found.read / 2)
    everything = demands(result, Workload(1, 10, PageSelection(None, 0), 0.0))
    assert everything.read == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("groups", "scanned", "message"),
    [
        ({"ocr": Group(0, 0, 0, 0, 0, Distribution())}, 0.1, "no page by OCR"),
        ({"text": Group(0, 0, 0, 0, 0, Distribution())}, 0.1, "only documents read by OCR"),
        (dict.fromkeys(("text", "ocr"), Group(0, 0, 0, 0, 0, Distribution())), None, "no document"),
    ],
)
def test_what_was_not_measured_is_not_planned(
    groups: dict[str, Group], scanned: float | None, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        demands(changed_result(**groups), replace(WORK, scanned=scanned))


def test_a_benchmark_of_storing_alone_is_refused() -> None:
    stored = replace(RESULT.operations[0], name="store")
    with pytest.raises(ConfigurationError, match="end_to_end"):
        demands(replace(RESULT, operations=(stored,)), WORK)


def test_the_llm_of_the_benchmark_is_one_that_can_be_named() -> None:
    with pytest.raises(ConfigurationError, match="asked no LLM"):
        find_llm(BENCHMARK, known(), share=1.0, servers=1, rate=None)
    measured = known(demand=replace(demand(), llm_seconds=0.5))
    llm, _ = find_llm(BENCHMARK, measured, share=0.5, servers=2, rate=None)
    found = estimate(fleet(llm=llm), measured.demand, SERVICES, NOTHING)
    assert found.rate == pytest.approx(8.0)


# --- data files -----------------------------------------------------------------------------------


def test_the_profiles_say_what_was_published() -> None:
    listed = llm_profiles()
    rates = {
        name: 3600 / seconds
        for name, one in listed.profiles.items()
        if (seconds := one.seconds(listed.prompt_tokens, listed.answer_tokens))
    }
    for name, hourly in {"cpu-2": 85, "rtx4090": 17_000, "h100": 116_000, "apple-m4": 645}.items():
        assert rates[name] == pytest.approx(hourly, rel=0.02)
    assert all(one.source for one in listed.profiles.values())


def test_prices_can_be_replaced_and_are_checked(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    packaged = packaged_benchmark().with_name("prices.toml").read_text("utf-8")
    own.write_text(packaged.replace('currency = "USD"', 'currency = "EUR"'), "utf-8")
    assert read_prices(own).currency == "EUR"
    for text, message in (
        ("currency = ", "no TOML"),
        ('currency = "EUR"', "region|cloud|machine"),
        (packaged.replace("hour = 0.68", "hour = -1"), "greater than or equal to 0"),
        (packaged.replace("hour = 0.68", "hour = inf"), "finite"),
        (packaged.replace("hour = 0.68", "hours = 1"), "hour"),
    ):
        own.write_text(text, "utf-8")
        with pytest.raises(ConfigurationError, match=message):
            read_prices(own)
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_prices(tmp_path / "none")


def test_services_of_the_named_configurations_are_in_the_price_list() -> None:
    prices = read_prices()
    assert prices.machine in prices.machines
    for one in configurations().values():
        assert one.machine is None or one.machine in prices.machines
        assert one.database is None or one.database in prices.databases
        assert one.broker is None or one.broker in prices.brokers
    for llm in llm_profiles().profiles.values():
        assert llm.gpu is None or llm.gpu in prices.gpus
