"""BARGAIN, an earlier procedure for the same promise, for benchmarks/cascade.py.

Our own reading of Zeighami, Shankar and Parameswaran, "Cut Costs, Not Accuracy: LLM-Powered Data
Processing with Guarantees" (2025), accuracy target: thresholds at every twentieth of the documents
are tested from the surest down, each on documents sampled from those above it until a betting test
for the mean without replacement (Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", 2023) is sure of the accuracy that is needed there, or the attempt is given
up. Samples are used again at the next threshold.
"""

from __future__ import annotations

import math

import numpy as np
from cascade_corpus import Floats
from numpy.typing import NDArray

_THRESHOLDS, _STEP, _FIRST = 20, 10, 50
_MOST = 30_000
"""Documents sampled at one threshold at most; beyond it is given up."""


def bargain(
    score: Floats,
    right: NDArray[np.bool_],
    target: float,
    delta: float,
    random: np.random.Generator,
    *,
    patient: bool = False,
) -> tuple[int, int]:
    """Run it.

    Args:
        score: how sure the student is of each document.
        right: whether it agrees with the LLM.
        target: accuracy wanted over all these documents.
        delta: probability of failure.
        random: draws.
        patient: give up only when the sample's accuracy is too low; else, as the authors'
            program does, already when it is less than a standard deviation above.

    Returns:
        Calls to the LLM, and documents that are wrong.
    """
    number = len(score)
    order = np.argsort(-score, kind="stable")
    sorted_right = right[order]
    place = random.permutation(number)  # in which order places among the sorted are drawn
    asked = np.zeros(number, dtype=bool)
    best = 0
    step = max(1, number // _THRESHOLDS)
    for inside in range(step, number + 1, step):
        needed = 1 - (1 - target) * number / inside
        if needed <= 0:
            best = inside
            continue
        drawn = place[place < inside][:_MOST]
        passed, used = _above(sorted_right[drawn], inside, needed, delta, patient)
        asked[drawn[:used]] = True
        if not passed:
            break
        best = inside
    taken = np.zeros(number, dtype=bool)
    taken[:best] = True
    taken &= ~asked
    return number - int(taken.sum()), int((taken & ~sorted_right).sum())


def _above(
    seen: NDArray[np.bool_], population: int, needed: float, delta: float, patient: bool
) -> tuple[bool, int]:
    """Whether the mean is shown to be at least ``needed``, and after how many documents."""
    t = np.arange(1, len(seen) + 1)
    total = np.cumsum(seen)
    before = total - seen
    mean = np.clip((population * needed - before) / (population - t + 1), 1e-9, None)
    guess = (0.5 + before) / t
    variance = (0.25 + before * (1 - guess) ** 2 + (t - 1 - before) * guess**2) / t
    bet = np.sqrt(2 * math.log(2 / delta) / (t * np.log(t + 1) * variance))
    growth = 1 + np.minimum(bet, 0.75 / mean) * (seen - mean)
    wealth = np.cumsum(np.log(np.maximum(growth, 1e-12)))
    sure = np.maximum.accumulate(wealth) >= math.log(1 / delta)
    for at in [*range(_STEP, len(seen), _STEP), len(seen)]:
        share = total[at - 1] / at
        if at >= population:
            return bool(share >= needed), at
        if sure[at - 1] and share >= needed:
            return True, at
        spread = 0.0 if patient else math.sqrt(share * (1 - share))
        if at >= _FIRST and share - spread < needed:
            return False, at
    return False, len(seen)
