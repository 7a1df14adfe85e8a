"""Synthetic lots for the tests of the cascade: what the student says, and where the LLM differs."""

from __future__ import annotations

import numpy as np

from doc_classify.classification.cascade import Judged, Lot, certify


def _logit(x):
    return 1 / (1 + np.exp(-x))


def easy(random, n):
    score = random.beta(5, 1, n)
    return score, random.random(n) < 0.5 * (1 - score)


def hard(random, n):
    score = random.beta(2, 2, n)
    return score, random.random(n) < _logit(1 - 4 * score)


def imbalanced(random, n):
    """A rare category that the student is sure of and always gets wrong."""
    rare = random.random(n) < 0.04
    score = np.where(rare, random.beta(8, 1, n), random.beta(3, 1, n))
    return score, rare | (random.random(n) < 0.15 * (1 - score))


def meaningless(random, n):
    return random.random(n), random.random(n) < 0.12


def upside_down(random, n):
    score = random.random(n)
    return score, random.random(n) < 0.6 * score**3


def all_at_the_top(random, n):
    score = np.sort(random.random(n))[::-1]
    return score, np.arange(n) < n // 4


def noisy_teacher(random, n):
    score = random.beta(5, 1, n)
    return score, random.random(n) < 0.08


def whimsical_teacher(random, n):
    """Systematic: the LLM has its own view of everything in a band of scores."""
    score = random.beta(3, 1, n)
    return score, (score > 0.7) & (score < 0.85)


def few_levels(random, n):
    score, wrong = hard(random, n)
    return np.round(score * 4) / 4, wrong


def one_level(random, n):
    return np.full(n, 0.5), random.random(n) < 0.1


def never_wrong(random, n):
    return random.random(n), np.zeros(n, dtype=bool)


WITHOUT_TIES = (
    easy, hard, imbalanced, meaningless, upside_down, all_at_the_top, noisy_teacher,
    whimsical_teacher,
)  # fmt: skip
KINDS = (*WITHOUT_TIES, few_levels, one_level, never_wrong)


def judged(score, wrong):
    return [Judged(s, not w) for s, w in zip(score.tolist(), wrong.tolist(), strict=True)]


def calibrate(random, lot: Lot, asked, kind, drawn, delta, look=certify, with_left=False):
    """One look at a fresh lot: the decision, and how many the student gets wrong."""
    population = lot.population - asked
    score, wrong = kind(random, population)
    order = random.permutation(population)
    sample, left = order[:drawn], order[drawn:]
    scores_left = score[left] if with_left else None
    decision = look(lot, asked, judged(score[sample], wrong[sample]), delta, scores_left)
    return decision, mistakes(decision, score[left], wrong[left]), len(left)


def taken(decision, score):
    if decision.takes == "nothing":
        return np.zeros(len(score), dtype=bool)
    return score > (-np.inf if decision.threshold is None else decision.threshold)


def mistakes(decision, score, wrong):
    return int((taken(decision, score) & wrong).sum())
