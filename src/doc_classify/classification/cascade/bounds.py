"""Exact bounds for finite populations: what a sample says about what was not drawn."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def tail(population: int, marked: int, drawn: int, seen: int) -> float:
    """The probability that a sample holds at most so many marked documents.

    The lower tail of the hypergeometric distribution, Pr[X <= seen].

    Args:
        population: documents that can be drawn.
        marked: how many of them are marked.
        drawn: size of the sample, drawn uniformly without putting back.
        seen: marked documents in the sample.

    Returns:
        A probability, never rounded down: at most 1, exact to about nine digits.
    """
    from scipy.special import gammaln

    low = max(0, drawn - (population - marked))
    high = min(marked, drawn)
    if seen < low:
        return 0.0
    if seen >= high:
        return 1.0
    x = np.arange(low, seen + 1, dtype=np.float64)
    log = (
        gammaln(marked + 1.0)
        - gammaln(x + 1)
        - gammaln(marked - x + 1)
        + gammaln(population - marked + 1.0)
        - gammaln(drawn - x + 1)
        - gammaln(population - marked - drawn + x + 1)
        - gammaln(population + 1.0)
        + gammaln(drawn + 1.0)
        + gammaln(population - drawn + 1.0)
    )
    return min(1.0, float(np.exp(log).sum()) * (1 + 1e-8))


@lru_cache(maxsize=4096)
def allowed(population: int, tolerated: int, drawn: int, delta: float) -> int:
    """How many disagreements a calibration sample may show above the student's threshold.

    Order the disagreements of the population by score, best first. If the threshold is the
    score of the sample's disagreement number k + 1, more than ``tolerated`` others lie above it
    only if the sample holds at most k of the first ``tolerated + 1 + k``. That has the
    probability :func:`tail` whatever the scores are.

    Args:
        population: documents from which the sample was drawn.
        tolerated: disagreements that may be left among the documents not drawn.
        drawn: size of the sample.
        delta: probability with which there may be more.

    Returns:
        The largest such k, or -1 where even k = 0 promises too little.
    """
    if tolerated + 1 > population - drawn:
        # Not even if every document left were a disagreement would there be too many.
        return drawn
    low, high = -1, drawn
    while low < high:
        middle = (low + high + 1) // 2
        if tail(population, tolerated + 1 + middle, drawn, middle) <= delta:
            low = middle
        else:
            high = middle - 1
    return low


@lru_cache(maxsize=4096)
def most_left(population: int, drawn: int, seen: int, delta: float) -> int:
    """How many marked documents are left at most among those that were not drawn.

    Args:
        population: documents from which the sample was drawn.
        drawn: size of the sample.
        seen: marked documents in the sample.
        delta: probability with which there may be more.

    Returns:
        The smallest number that is exceeded with a probability of at most ``delta``.
    """
    low, high = 0, population - drawn
    while low < high:
        middle = (low + high) // 2
        if tail(population, middle + 1 + seen, drawn, seen) <= delta:
            high = middle
        else:
            low = middle + 1
    return low
