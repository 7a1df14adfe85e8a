"""The promise of the cascade, by simulation, and that the simulation notices a wrong formula.

Where scores have no ties and the student is wrong often enough, the probability of a broken promise
is known exactly, whatever the scores are. The number of broken promises is held against that
probability from both sides.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.stats import binom
from tests.unit.cascade_simulation import (
    KINDS,
    WITHOUT_TIES,
    calibrate,
    hard,
    judged,
    meaningless,
    mistakes,
)

from doc_classify.classification.cascade import (
    AskAll,
    Calibrate,
    Judged,
    Lot,
    Promise,
    Round,
    Train,
    certify,
    certifying,
    next_step,
    stages,
)
from doc_classify.classification.cascade.bounds import allowed, tail
from doc_classify.storage.lot_rows import place

DOUBT = 1e-4
"""How improbable a result has to be before a test fails; the seeds are fixed."""
LOT = Lot(600, 5, Promise(0.95, 0.95))
ASKED, DRAWN = 60, 144  # the probability of a broken promise is 4.9%, with one more allowed 9.3%
RUNS = 2_500


def broken(kind, runs=RUNS, *, lot=LOT, asked=ASKED, drawn=DRAWN, delta=0.05, seed=1):
    """In how many of so many runs more is wrong than was promised."""
    random = np.random.default_rng(seed)
    tolerated = lot.promise.tolerated(lot.population)
    return sum(
        calibrate(random, lot, asked, kind, drawn, delta)[1] > tolerated for _ in range(runs)
    )


def too_many(count, runs, probability):
    return binom.sf(count - 1, runs, probability) < DOUBT


def too_few(count, runs, probability):
    return binom.cdf(count, runs, probability) < DOUBT


def exact(limit):
    return tail(LOT.population - ASKED, 31 + limit, DRAWN, limit)


def test_the_situation_tells_formulas_apart():
    limit = allowed(LOT.population - ASKED, 30, DRAWN, 0.05)
    assert 0.0485 < exact(limit) <= 0.05
    assert exact(limit + 1) > 0.09


@pytest.mark.parametrize("kind", WITHOUT_TIES, ids=lambda kind: kind.__name__)
def test_the_promise_is_broken_as_often_as_calculated(kind):
    probability = exact(allowed(LOT.population - ASKED, 30, DRAWN, 0.05))
    count = broken(kind)
    assert not too_many(count, RUNS, probability)
    if kind.__name__ not in ("easy",):  # which is not always wrong often enough
        assert not too_few(count, RUNS, probability * 0.8)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    ("population", "agreement", "drawn"),
    [(40, 0.9, 16), (25, 0.95, 20), (200, 0.95, 150), (3_000, 0.99, 250), (900, 0.8, 60)],
)
def test_the_promise_is_kept_in_lots_of_all_sizes(kind, population, agreement, drawn):
    lot = Lot(population, 3, Promise(agreement, 0.9))
    assert not too_many(broken(kind, 150, lot=lot, asked=0, drawn=drawn, delta=0.1), 150, 0.1)


class TestWrongFormulasAreNoticed:
    def test_one_disagreement_more(self, monkeypatch):
        monkeypatch.setattr(certifying, "allowed", lambda *a: allowed(*a) + 1)
        assert too_many(broken(hard), RUNS, 0.05)

    def test_the_threshold_one_place_further_down(self, monkeypatch):
        counted = certifying._counted

        def further(population, scores, wrong, limit, delta):
            return counted(population, scores, wrong, limit + 1, delta)

        monkeypatch.setattr(certifying, "_counted", further)
        assert too_many(broken(meaningless), RUNS, 0.05)

    def test_binomial_with_the_rate_of_the_rest(self, monkeypatch):
        def naive(population, tolerated, drawn, delta):
            rate = (tolerated + 1) / (population - drawn)
            return int(np.flatnonzero(binom.cdf(np.arange(drawn), drawn, rate) <= delta)[-1])

        monkeypatch.setattr(certifying, "allowed", naive)
        assert too_many(broken(hard, drawn=137), RUNS, 0.05)

    def test_ties_taken_along(self):
        """With ``>=`` the student would take documents as sure as the one that was too many."""

        def careless(*arguments):
            found = certify(*arguments)
            if found.threshold is None:
                return found
            return certifying.replace(found, threshold=float(np.nextafter(found.threshold, -1)))

        random = np.random.default_rng(5)
        kind = next(kind for kind in KINDS if kind.__name__ == "one_level")
        count = sum(
            calibrate(random, LOT, ASKED, kind, DRAWN, 0.05, careless)[1] > 30 for _ in range(200)
        )
        assert too_many(count, 200, 0.05)

    def test_the_sample_that_chose_the_student_judges_it_too(self):
        """What leave-one-out on the training documents does, driven to the extreme."""

        def run(random, *, fresh):
            wrong = random.random(540) < 0.12
            order = random.permutation(540)
            sample, left = order[:DRAWN], order[DRAWN:]
            students = random.random((20, 540))
            looks = [certify(LOT, 60, judged(s[sample], wrong[sample]), 0.05) for s in students]
            best = int(np.argmax([look.answered for look in looks]))
            if not fresh:
                return mistakes(looks[best], students[best][left], wrong[left]) > 30
            again, rest = left[:DRAWN], left[DRAWN:]
            look = certify(LOT, 60 + DRAWN, judged(students[best][again], wrong[again]), 0.05)
            return mistakes(look, students[best][rest], wrong[rest]) > 30

        random = np.random.default_rng(6)
        assert too_many(sum(run(random, fresh=False) for _ in range(80)), 80, 0.05)
        assert not too_many(sum(run(random, fresh=True) for _ in range(80)), 80, 0.05)


def peeking(random, lot, looks=5, drawn=90):
    """Looks with fresh samples and students, of which whoever peeks takes the one he likes best."""
    best, wrong_of_best = -1, 0
    for look in range(looks):
        decision, wrong, _ = calibrate(
            random, lot, look * drawn, meaningless, drawn, stages.spending(lot, look)
        )
        if decision.answered > best:
            best, wrong_of_best = decision.answered, wrong
    return wrong_of_best > lot.promise.tolerated(lot.population)


class TestSeveralLooks:
    lot = Lot(900, 5, Promise(0.95, 0.8))
    runs = 800

    def test_peeking_breaks_no_promise(self):
        random = np.random.default_rng(7)
        count = sum(peeking(random, self.lot) for _ in range(self.runs))
        assert not too_many(count, self.runs, 0.2)
        assert count > 0.05 * self.runs  # and it is a temptation

    def test_without_the_correction_it_would(self, monkeypatch):
        monkeypatch.setattr(stages, "spending", lambda lot, look: lot.promise.delta)
        random = np.random.default_rng(7)
        count = sum(peeking(random, self.lot) for _ in range(self.runs))
        assert too_many(count, self.runs, 0.2)

    def test_all_looks_together_spend_no_more_than_there_is(self):
        spent = [stages.spending(self.lot, look) for look in range(40)]
        assert sum(spent) <= self.lot.promise.delta
        assert spent == sorted(spent, reverse=True)


class Student:
    """A double: sharper with every document it has seen, and never as good as it thinks."""

    def __init__(self, random, population, answers, base):
        self.latent = random.normal(size=population)
        difficulty = base * (40 / max(answers, 1)) ** 0.4
        risk = 1 / (1 + np.exp(2.5 * self.latent - np.log(difficulty / (1 - difficulty))))
        self.wrong = random.random(population) < risk
        self.score = self.latent + random.normal(size=population) * 0.3


def whole_run(random, lot, base):
    """The engine's own steps from the first draw to the end; the number of wrong documents."""
    free = np.arange(lot.population)
    uniform, chosen, rounds, students = [], [], [], []
    while True:
        step = next_step(lot, rounds)
        if isinstance(step, Train):
            pool = random.permutation(free)[: step.pool]
            if step.pool > step.documents:
                pool = pool[np.argsort(students[-1].score[pool])][: step.documents]
                chosen += pool.tolist()
            else:
                uniform += pool.tolist()
            free = np.setdiff1d(free, pool)
            student = Student(random, lot.population, lot.population - len(free), base)
            students.append(student)
            seen = [judged(student.score[at], student.wrong[at]) for at in (uniform, chosen)]
            asked = lot.population - len(free)
            rounds.append(Round(str(len(rounds)), asked, tuple(seen[0]), (), tuple(seen[1])))
        elif isinstance(step, Calibrate):
            sample = random.permutation(free)[: step.documents]
            free = np.setdiff1d(free, sample)
            seen = judged(students[-1].score[sample], students[-1].wrong[sample])
            last = rounds[-1]
            rounds[-1] = Round(last.version, last.asked, last.expected, tuple(seen), last.chosen)
        elif isinstance(step, AskAll):
            return 0, len(rounds)
        else:
            student = students[step.round]
            return mistakes(step.decision, student.score[free], student.wrong[free]), len(rounds)


@pytest.mark.parametrize("base", [0.08, 0.3, 0.5])
def test_the_engines_own_steps_keep_the_promise(base):
    lot = Lot(1_500, 5, Promise(0.93, 0.8))
    random = np.random.default_rng(8)
    results = [whole_run(random, lot, base) for _ in range(60)]
    assert not too_many(sum(wrong > 105 for wrong, _ in results), len(results), 0.2)
    if base == 0.3:
        assert max(rounds for _, rounds in results) > 1


class TestStudentGuarantee:
    lot = Lot(800, 4, Promise(0.9, 0.8, "student"))

    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
    def test_it_is_kept(self, kind):
        random = np.random.default_rng(9)
        count = 0
        for _ in range(80):
            decision, wrong, _ = calibrate(random, self.lot, 50, kind, 120, 0.2, with_left=True)
            count += wrong > 0.1 * decision.answered + 1e-9
            if decision.student_agreement is not None:
                assert decision.student_agreement >= 0.9
        assert not too_many(count, 80, 0.2)

    def test_it_takes_what_it_can(self):
        random = np.random.default_rng(10)
        easy = KINDS[0]
        shares = [
            calibrate(random, self.lot, 50, easy, 120, 0.2, with_left=True)[0].student_share
            for _ in range(20)
        ]
        assert np.mean(shares) > 0.4

    @pytest.mark.parametrize("rate", [0.092, 0.097, 0.1, 0.105, 0.115])
    def test_it_is_kept_at_the_edge(self, rate):
        assert not too_many(self._broken_at(rate), 200, 0.2)

    def test_taking_the_rate_of_the_sample_for_the_truth_would_break_it(self, monkeypatch):
        monkeypatch.setattr(certifying, "tail", lambda p, m, n, k: float(k > 0.1 * n))
        assert too_many(self._broken_at(0.105), 200, 0.2)

    def _broken_at(self, rate):
        """Disagreements of one rate at all scores, spread evenly."""

        def kind(random, n):
            return np.linspace(1, 0, n), (np.arange(n) * rate + random.random()) % 1 < rate

        random = np.random.default_rng(11)
        count = 0
        for _ in range(200):
            decision, wrong, _ = calibrate(random, self.lot, 50, kind, 120, 0.2, with_left=True)
            count += wrong > 0.1 * decision.answered + 1e-9
        return count


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_bound_for_a_budget_holds(kind):
    lot = Lot(700, 4, Promise(assurance=0.8), max_calls=320)
    random = np.random.default_rng(12)
    runs = 250
    count = 0
    for _ in range(runs):
        decision, wrong, left = calibrate(random, lot, 40, kind, 110, 0.2, with_left=True)
        count += wrong > decision.most_wrong
        assert 150 + left - decision.answered <= 320
    assert not too_many(count, runs, 0.2)


def test_statements_about_categories_hold_together():
    lot = Lot(900, 4, Promise(0.9, 0.8))
    random = np.random.default_rng(13)
    runs, count, said = 250, 0, 0
    for _ in range(runs):
        score, wrong = hard(random, 850)
        category = random.choice(4, 850, p=[0.6, 0.3, 0.08, 0.02])
        order = random.permutation(850)
        sample, left = order[:200], order[200:]
        calibration = [Judged(float(score[at]), not wrong[at], str(category[at])) for at in sample]
        decision = certify(lot, 50, calibration, 0.2)
        taken = score[left] > (decision.threshold or -1)
        answered = {str(c): int((taken & (category[left] == c)).sum()) for c in range(4)}
        decision = decision.settle(answered)
        count += any(
            (wrong[left] & taken & (category[left] == int(one.category))).sum() > one.most_wrong
            for one in decision.statements
        )
        said += sum(one.agreement is not None for one in decision.statements)
    assert not too_many(count, runs, 0.2)
    assert runs < said < 4 * runs  # the frequent ones get a statement, the rare ones none


def test_each_draw_has_an_order_of_its_own_that_is_spread_evenly():
    names = [str(number).encode() for number in range(4_000)]
    orders = [[place(b"key", stage, name) for name in names] for stage in (1, 2)]
    first, second = (np.argsort(order)[:400] for order in orders)
    assert 10 < len(np.intersect1d(first, second)) < 80
    places = np.array([int.from_bytes(one[:8], "big") for one in orders[0]]) / 2**64
    assert np.histogram(places, 8, (0, 1))[0].min() > 400


def test_a_folder_sorted_by_kind_is_drawn_from_evenly():
    """Learning from the beginning of the list would break the promise; drawing does not."""
    documents = [f"{number:05d}".encode() for number in range(600)]
    wrong = np.arange(600) >= 480  # the student knows nothing of the last kind
    score = np.random.default_rng(14).random(600)
    count = naive = 0
    for run in range(150):
        drawn = sorted(documents, key=partial(place, f"key number {run:06d}".encode(), 1))
        sample = np.array([int(one) for one in drawn[:DRAWN]])
        for first, counts in ((sample, True), (np.arange(DRAWN), False)):
            left = np.setdiff1d(np.arange(600), first)
            found = certify(LOT, 0, judged(score[first], wrong[first]), 0.05)
            bad = mistakes(found, score[left], wrong[left]) > 30
            count += bad and counts
            naive += bad and not counts
    assert not too_many(count, 150, 0.05)
    assert naive == 150
