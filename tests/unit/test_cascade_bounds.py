"""The cascade's exact bounds, beside integer arithmetic that cannot be off."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doc_classify.classification.cascade.bounds import allowed, most_left, tail

DELTAS = [0.0123, 0.0517, 0.2071]
"""No tail has exactly these probabilities: there the rounding to the safe side would show."""


def exact_tail(population: int, marked: int, drawn: int, seen: int) -> Fraction:
    ways = sum(
        math.comb(marked, x) * math.comb(population - marked, drawn - x)
        for x in range(min(seen, drawn) + 1)
    )
    return Fraction(ways, math.comb(population, drawn))


@st.composite
def situations(draw):
    population = draw(st.integers(1, 120))
    marked = draw(st.integers(0, population))
    drawn = draw(st.integers(0, population))
    seen = draw(st.integers(0, max(marked, drawn)))
    return population, marked, drawn, seen


@settings(max_examples=300, deadline=None)
@given(situations())
def test_tail_is_the_hypergeometric_one_and_never_below_it(situation):
    exact = exact_tail(*situation)
    found = tail(*situation)
    assert found == pytest.approx(float(exact), rel=1e-7)
    assert found >= float(exact) * (1 - 1e-12)


def test_tail_of_half_a_million_documents():
    from scipy.stats import hypergeom

    for marked, drawn, seen in ((25_001, 5_000, 220), (5_038, 20_000, 170), (25_001, 40_000, 0)):
        expected = hypergeom.cdf(seen, 500_000, marked, drawn)
        assert tail(500_000, marked, drawn, seen) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=150, deadline=None)
@given(st.integers(20, 90), st.integers(0, 12), st.floats(0.1, 0.8), st.sampled_from(DELTAS))
def test_allowed_is_the_largest_number_that_keeps_the_promise(population, tolerated, share, delta):
    drawn = int(population * share)
    if tolerated + 1 > population - drawn:
        assert allowed(population, tolerated, drawn, delta) == drawn
        return
    found = allowed(population, tolerated, drawn, delta)
    fits = [
        exact_tail(population, tolerated + 1 + k, drawn, k) <= Fraction(delta)
        for k in range(drawn + 1)
        if tolerated + 1 + k <= population
    ]
    # It fits up to some number and not beyond: what the bisection relies on.
    assert fits == sorted(fits, reverse=True)
    assert found == sum(fits) - 1


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 90), st.data())
def test_most_left_is_the_smallest_bound(population, data):
    drawn = data.draw(st.integers(0, population - 1))
    seen = data.draw(st.integers(0, drawn))
    delta = data.draw(st.sampled_from(DELTAS))
    bound = most_left(population, drawn, seen, delta)
    if bound < population - drawn:
        assert exact_tail(population, bound + 1 + seen, drawn, seen) <= Fraction(delta)
    if bound > 0:
        assert exact_tail(population, bound + seen, drawn, seen) > Fraction(delta)


@pytest.mark.parametrize("population", [400, 5_000, 500_000])
def test_bounds_are_monotone(population):
    tolerances = [population // part for part in (200, 100, 50, 20, 10)]
    sizes = [population // part for part in (100, 50, 20, 10, 4)]
    table = np.array([[allowed(population, a, n, 0.05) for n in sizes] for a in tolerances])
    assert (np.diff(table, axis=0) >= 0).all()  # more tolerated, more allowed
    assert (np.diff(table, axis=1) >= 0).all()  # a larger sample may show more
    for a, n in zip(tolerances, sizes, strict=True):
        by_delta = [allowed(population, a, n, delta) for delta in (0.001, 0.01, 0.05, 0.2)]
        assert by_delta == sorted(by_delta)
        left = [most_left(population, n, seen, 0.05) for seen in (0, 1, 3, 9)]
        assert left == sorted(left)


def test_a_sample_of_everything_leaves_nothing():
    assert most_left(50, 50, 7, 0.05) == 0
    assert allowed(50, 0, 50, 0.05) == 50


def test_nothing_drawn_proves_nothing():
    assert most_left(50, 0, 0, 0.05) == 50
    assert allowed(50, 5, 0, 0.05) == -1
