"""The formula beside the simulation, over fleets and documents of many kinds."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doc_classify.errors import ConfigurationError
from doc_classify.planning.catalogue import Assumed, services
from doc_classify.planning.demand import Demands
from doc_classify.planning.model import Fleet, Llm, estimate
from doc_classify.planning.simulation import simulate

SERVICES = services()


def demand(digital: float, scanned: float, share: float, sigma: float) -> Demands:
    return Demands(digital, scanned, share, 0.0005, 0.0015, sigma, sigma, 1, None, "benchmark", ())


demands = st.builds(
    demand,
    st.floats(0.002, 0.1),
    st.floats(0.5, 5),
    st.sampled_from([0.0, 0.05, 0.2]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
llms = st.none() | st.builds(
    Llm,
    st.just("some"),
    st.sampled_from(["workers", "server"]),
    st.floats(0.05, 3),
    st.sampled_from([0.06, 0.3, 1.0]),
    st.integers(1, 8),
    st.integers(1, 2),
)
losses = st.sampled_from([0.0, 0.05, 2.0])


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    distributed = draw(st.booleans())
    return Fleet(
        machines=draw(st.integers(1, 60)) if distributed else 1,
        cores=draw(st.sampled_from([2, 4, 16])),
        memory_gb=16,
        workers=draw(st.integers(1, 16)),
        distributed=distributed,
        llm=draw(llms),
        in_flight=None if distributed else draw(st.sampled_from([None, 1])),
        runs=draw(st.integers(1, 3)),
        database_cores=draw(st.integers(1, 8)),
        losses_per_day=draw(losses) if distributed else 0.0,
    )


@given(fleets(), demands, st.sampled_from([0.0, 0.02]), st.integers(1, 1000))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_the_formula_agrees_with_the_simulation(
    fleet: Fleet, given_demand: Demands, retries: float, seed: int
) -> None:
    """Within 5%, or within the error that the simulation states of itself.

    The formula is an upper bound; it is tight because queues are never empty at the bottleneck.
    """
    assumed = Assumed(retries, 0.0, 300, 60)
    played = simulate(fleet, given_demand, SERVICES, assumed, 500_000, seed=seed, stretch=6_000)
    error = 1.5 * played.error / played.rate
    assert abs(played.beside_formula) < max(0.05, error), played
    found = estimate(fleet, given_demand, SERVICES, assumed)
    assert played.predicted == pytest.approx(found.rate, rel=0.02)


def test_losses_cost_what_the_formula_says() -> None:
    fleet = Fleet(10, 8, 16, 8, distributed=True, losses_per_day=5.0)
    assumed = Assumed(0.0, 0.0, 600, 60)
    documents = demand(0.2, 1, 0.0, 0.5)
    played = simulate(fleet, documents, SERVICES, assumed, 10**6)
    predicted = estimate(fleet, documents, SERVICES, assumed).capacity
    assert predicted == pytest.approx(1 / (1 + 5 / 86_400 * (600 + 2.5)), abs=0.001)
    assert 1 - played.capacity == pytest.approx(1 - predicted, rel=0.4)
    assert played.tail > 120  # what a lost machine held waits for its lease


def test_an_answer_on_several_cores_takes_its_time_on_all_of_them() -> None:
    """With one document in flight the threads of its answer run beside each other."""
    llm = Llm("some", "workers", 2.0, threads=4)
    fleet = Fleet(1, 8, 16, 8, llm=llm, in_flight=1)
    played = simulate(fleet, demand(0.05, 1, 0, 0), SERVICES, Assumed(), 10**4, stretch=2_000)
    assert played.rate == pytest.approx(1 / 2.1, rel=0.08)  # the slowest of four threads counts
    assert abs(played.beside_formula) < 0.05


def test_a_slow_llm_that_is_asked_seldom_is_still_the_limit() -> None:
    """A stretch that began empty would end before the first of them are waited for."""
    llm = Llm("some", "server", 3_600.0, share=0.001)
    fleet = Fleet(4, 16, 32, 16, distributed=True, llm=llm)
    played = simulate(fleet, demand(0.02, 2, 0.1, 1), SERVICES, Assumed(), 10**6)
    assert played.predicted == pytest.approx(1 / 3.6)
    assert abs(played.beside_formula) < max(0.1, 1.5 * played.error / played.rate)


def test_retries_are_played() -> None:
    fleet = Fleet(1, 4, 16, 4)
    played = simulate(fleet, demand(0.05, 1, 0, 0), SERVICES, Assumed(0.1, 0, 0, 0), 10**5)
    assert played.twice == pytest.approx(0.1, abs=0.02)
    assert played.rate == pytest.approx(4 / (0.0505 * 1.1 + 0.0015), rel=0.03)


def test_a_hundred_million_documents_take_no_longer_to_simulate() -> None:
    fleet = Fleet(400, 16, 32, 16, distributed=True, runs=40, database_cores=64)
    fleet = fleet.changed(llm=Llm("some", "server", 0.031, 0.06, 12), losses_per_day=0.05)
    documents, assumed = demand(0.02, 2, 0.05, 1.0), SERVICES.assumed
    started = time.process_time()
    played = simulate(fleet, documents, SERVICES, assumed, 10**8)
    assert time.process_time() - started < 15
    assert played.scale == pytest.approx(0.01)
    assert played.documents < 100_000
    assert abs(played.beside_formula) < 0.05
    formula = estimate(fleet, documents, SERVICES, assumed).seconds(10**8)
    assert played.seconds == pytest.approx(formula, rel=0.05)


def test_the_same_seed_gives_the_same_and_another_one_nearly_so() -> None:
    fleet = Fleet(3, 4, 16, 4, distributed=True)
    documents = demand(0.05, 2, 0.05, 1.0)
    one, two, other = (
        simulate(fleet, documents, SERVICES, SERVICES.assumed, 10**6, seed=seed)
        for seed in (1, 1, 2)
    )
    assert one == two
    assert other.rate == pytest.approx(one.rate, rel=0.05)


def test_the_error_covers_the_spread_of_independent_runs() -> None:
    """Of ten runs, nearly all are within their own error of what all of them give together."""
    fleet, documents = Fleet(2, 4, 16, 4, distributed=True), demand(0.05, 2, 0.1, 1.0)
    played = [
        simulate(fleet, documents, SERVICES, SERVICES.assumed, 10**6, seed=seed, stretch=4_000)
        for seed in range(10)
    ]
    mean = sum(one.rate for one in played) / len(played)
    assert sum(abs(one.rate - mean) <= one.error for one in played) >= 8


def test_rare_scans_do_not_make_the_simulated_rate_a_matter_of_luck() -> None:
    mixed = Demands(0.01, 2.0, 0.058, 0.001, 0.003, 0.8, 1.0, 1, None, "benchmark", ())
    for seed in range(1, 4):
        played = simulate(Fleet(1, 16, 32, 16), mixed, SERVICES, Assumed(0.01), 500_000, seed=seed)
        assert abs(played.beside_formula) < 0.04, (seed, played)


def test_documents_that_outlast_their_machines_are_not_waited_for() -> None:
    fleet = Fleet(2, 4, 16, 4, distributed=True, losses_per_day=0.05)
    with pytest.raises(ConfigurationError, match="longer than a machine"):
        simulate(fleet, demand(3e6, 0.0, 0.0, 0.0), SERVICES, Assumed(), 500_000)
