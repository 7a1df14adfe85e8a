"""The cascade's engine: decisions, steps, certificates and audits."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.cascade_simulation import easy, hard, judged, meaningless

from doc_classify.classification.cascade import (
    Accept,
    AskAll,
    Calibrate,
    Certificate,
    Consistency,
    Judged,
    Lot,
    Promise,
    Round,
    Train,
    audit,
    audit_size,
    certify,
    next_step,
    verify,
)


def sample(number, kind=easy, seed=0):
    return judged(*kind(np.random.default_rng(seed), number))


# --- promise ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agreement", "documents", "tolerated"),
    [
        (0.9, 10, 1),
        (0.95, 100, 5),
        (0.99, 99, 0),
        (0.7, 10, 3),
        (0.95, 19, 0),
        (0.9, 500_000, 50_000),
    ],
)
def test_what_is_tolerated_is_not_a_matter_of_binary_fractions(agreement, documents, tolerated):
    assert Promise(agreement).tolerated(documents) == tolerated


@pytest.mark.parametrize(
    "arguments",
    [{"agreement": 1}, {"agreement": 0}, {"assurance": 1.0}, {"guarantee": "most"}],
)
def test_an_impossible_promise_is_refused(arguments):
    with pytest.raises(ValueError, match=r"has to be|no such"):
        Promise(**arguments)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_is_a_number_or_none(score):
    with pytest.raises(ValueError, match="None"):
        Judged(score, True)


# --- decisions --------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_documents_above_the_threshold_hold_no_more_disagreements_than_allowed(data):
    levels = st.sampled_from([None, 0.1, 0.2, 0.5, 0.9])
    population = data.draw(st.integers(20, 300))
    number = data.draw(st.integers(1, population))
    calibration = [
        Judged(score, agrees)
        for score, agrees in data.draw(
            st.lists(st.tuples(levels, st.booleans()), min_size=number, max_size=number)
        )
    ]
    lot = Lot(population, 3, Promise(data.draw(st.sampled_from([0.7, 0.9, 0.95]))))
    found = certify(lot, 0, calibration, 0.05)
    above = [one for one in calibration if found.accepts(one.score)]
    assert found.disagreed == sum(not one.agrees for one in above)
    assert found.disagreed <= max(found.allowed or 0, 0)
    assert found.most_wrong <= lot.promise.tolerated(population)
    assert found.agreement >= lot.promise.agreement - 1e-12
    assert not found.accepts(None)
    assert [s.category for s in found.statements] == []


def test_stricter_promises_take_less():
    calibration = sample(300, hard)
    answered = [
        certify(Lot(5_000, 5, Promise(agreement)), 100, calibration, delta).answered
        for agreement, delta in ((0.8, 0.05), (0.9, 0.05), (0.95, 0.05), (0.95, 0.005))
    ]
    assert answered == sorted(answered, reverse=True)
    assert answered[0] > answered[-1]


def test_only_the_order_of_the_scores_matters():
    calibration = sample(200, hard)
    bent = [Judged(float(np.tanh(one.score or 0) * 7 - 3), one.agrees) for one in calibration]
    lot = Lot(2_000, 5)
    first, second = certify(lot, 0, calibration, 0.05), certify(lot, 0, bent, 0.05)
    assert (first.answered, first.disagreed) == (second.answered, second.disagreed)


def test_too_small_a_sample_takes_nothing():
    found = certify(Lot(1_000, 5), 0, sample(20), 0.05)
    assert (found.takes, found.allowed, found.answered) == ("nothing", -1, 0)
    assert not found.accepts(1e9)
    assert found.agreement == 1


def test_a_student_that_is_never_wrong_takes_everything_that_has_a_score():
    calibration = [Judged(0.5, True)] * 150 + [Judged(None, False)] * 50
    found = certify(Lot(1_000, 5), 0, calibration, 0.05)
    assert found.takes == "everything"
    assert found.accepts(-5.0)
    assert not found.accepts(None)
    assert found.answered == 600


def test_unreadable_documents_cost_nothing():
    unread = [Judged(None, True)] * 40
    with_them = certify(Lot(2_000, 5), 0, [*sample(160, hard), *unread], 0.05)
    assert with_them.disagreed == (with_them.allowed or 0)


def test_left_scores_make_the_numbers_exact():
    left = np.array([0.9] * 700 + [np.nan] * 100)
    found = certify(Lot(1_000, 5), 0, [Judged(0.9, True)] * 200, 0.05, left)
    assert found.settled
    assert found.answered == 700
    assert found.student_agreement == 1 - found.most_wrong / 700


@pytest.mark.parametrize("asked", [-1, 900])
def test_numbers_that_contradict_each_other_are_refused(asked):
    with pytest.raises(ValueError, match="more documents"):
        certify(Lot(1_000, 5), asked, sample(200), 0.05)
    with pytest.raises(ValueError, match="one score for each"):
        certify(Lot(1_000, 5), 0, sample(200), 0.05, np.zeros(3))
    with pytest.raises(ValueError, match="error probability"):
        certify(Lot(1_000, 5), 0, sample(200), 0)


@pytest.mark.parametrize(
    "lot", [Lot(1_000, 5, Promise(guarantee="student")), Lot(1_000, 5, max_calls=400)]
)
def test_what_needs_all_scores_says_so(lot):
    with pytest.raises(ValueError, match="needs the scores"):
        certify(lot, 0, sample(200), 0.05)


def test_a_larger_budget_gives_a_better_guarantee():
    random = np.random.default_rng(3)
    score, wrong = hard(random, 1_500)
    calibration, left = judged(score[:200], wrong[:200]), score[200:]
    found = [
        certify(Lot(1_600, 5, max_calls=calls), 100, calibration, 0.05, left)
        for calls in (400, 800, 1_200, 1_600)
    ]
    assert [one.most_wrong for one in found] == sorted((o.most_wrong for o in found), reverse=True)
    assert found[-1].takes == "nothing"
    for calls, one in zip((400, 800, 1_200), found, strict=False):
        assert 1_600 - one.answered <= calls


def test_ties_at_the_edge_of_a_budget_go_to_the_llm_only_where_there_is_room():
    left = np.array([0.1] * 300 + [0.5] * 300 + [0.9] * 300)
    calibration = [Judged(score, True) for score in (0.1, 0.5, 0.9) for _ in range(33)] + [
        Judged(0.9, True)
    ]
    found = certify(Lot(1_000, 3, max_calls=550), 0, calibration, 0.05, left)
    assert found.threshold == 0.1
    assert found.answered == 600


# --- steps ------------------------------------------------------------------------------------


def test_a_small_lot_is_told_before_anything_is_asked():
    step = next_step(Lot(60, 7), [])
    assert isinstance(step, AskAll)
    assert step.reason == "too_few_documents"
    assert isinstance(next_step(Lot(400, 7, Promise(0.997)), []), AskAll)


def test_a_hopeless_budget_is_told_before_anything_is_asked():
    step = next_step(Lot(10_000, 20, max_calls=50), [])
    assert isinstance(step, AskAll)
    assert step.reason == "no_budget"


def test_the_first_draw_has_no_pool():
    step = next_step(Lot(10_000, 7), [])
    assert isinstance(step, Train)
    assert step.documents == step.pool > 6 * 7


def test_a_good_student_is_calibrated_and_accepted():
    lot = Lot(9_000, 7)
    rounds = [Round("a", 3_000, tuple(sample(3_000)))]
    step = next_step(lot, rounds)
    assert isinstance(step, Calibrate)
    assert 100 < step.documents < 5_000
    rounds[0] = replace(rounds[0], calibration=tuple(sample(step.documents, seed=1)))
    last = next_step(lot, rounds)
    assert isinstance(last, Accept)
    assert last.round == 0
    assert last.decision.student_share > 0.4
    assert next_step(lot, rounds) == last


def test_a_weak_student_in_a_large_lot_learns_on_from_a_pool():
    step = next_step(Lot(100_000, 7), [Round("a", 475, tuple(sample(475, hard)))])
    assert isinstance(step, Train)
    assert 0 < step.documents < step.pool <= 4 * step.documents


@pytest.mark.parametrize(
    ("consistency", "categories", "reason"),
    [
        (Consistency(100, 24), 7, "teacher_inconsistent"),
        (Consistency(100, 0), 100, "too_many_categories"),
        (None, 7, "student_too_weak"),
    ],
)
def test_a_hopeless_student_is_told_with_the_reason(consistency, categories, reason):
    expected = tuple(Judged(0.5, number % 2 == 0) for number in range(300))
    step = next_step(Lot(1_200, categories), [Round("a", 600, expected)], consistency)
    assert isinstance(step, AskAll)
    assert step.reason == reason
    assert any(character.isdigit() for character in step.message)


@pytest.mark.parametrize("known", [0, 1, 40, 500])
@pytest.mark.parametrize("kind", [easy, meaningless])
def test_a_lot_may_begin_with_a_student_of_other_lots(known, kind):
    """Nothing of this lot was asked about; the steps come to an end all the same."""
    lot = Lot(3_000, 5, Promise(0.9))
    rounds = [Round("of others", 0, tuple(sample(known, kind)))]
    for turn in range(60):
        step = next_step(lot, rounds)
        asked = rounds[-1].asked + len(rounds[-1].calibration)
        assert asked <= lot.population
        if isinstance(step, Train):
            seen = tuple(sample(known + asked + step.documents, kind, turn))
            rounds.append(Round(str(turn), asked + step.documents, seen))
        elif isinstance(step, Calibrate):
            seen = tuple(sample(step.documents, kind, turn))
            rounds[-1] = replace(rounds[-1], calibration=seen)
        else:
            break
    assert isinstance(step, Accept | AskAll)


def test_a_budget_is_never_exceeded_by_the_samples():
    lot = Lot(10_000, 5, max_calls=600)
    rounds = []
    asked = 0
    for _ in range(20):
        step = next_step(lot, rounds, left=np.zeros(10_000 - asked) if asked else None)
        if isinstance(step, Train):
            asked += step.documents
            rounds.append(Round("x", asked, tuple(sample(asked))))
        elif isinstance(step, Calibrate):
            asked += step.documents
            rounds[-1] = replace(rounds[-1], calibration=tuple(sample(step.documents)))
        else:
            break
    assert isinstance(step, Accept)
    assert asked <= 600


def test_a_budget_below_what_only_the_llm_can_answer_is_refused():
    lot = Lot(1_000, 3, max_calls=300)
    round_ = Round("a", 60, tuple(sample(60)), tuple(sample(100)))
    step = next_step(lot, [round_], left=np.full(840, np.nan))
    assert isinstance(step, AskAll)
    assert step.reason == "no_budget"


def test_the_better_of_two_rounds_is_accepted():
    lot = Lot(2_000, 5, Promise(0.9))
    good = Round("good", 100, tuple(sample(100)), tuple(sample(300)))
    bad = Round("bad", 420, tuple(sample(100)), tuple(sample(300, meaningless)))
    step = next_step(lot, [good, bad])
    assert isinstance(step, Accept)
    assert step.round == 0


# --- certificate ------------------------------------------------------------------------------


def certified(kind=easy, lot=None, number=300):
    lot = lot or Lot(5_000, 5)
    score, wrong = kind(np.random.default_rng(4), lot.population - 200)
    calibration = tuple(
        Judged(float(s), not w, "ab"[at % 2])
        for at, (s, w) in enumerate(zip(score[:number], wrong[:number], strict=True))
    )
    rounds = [Round("zero", 100, ()), Round("one", 200, (), calibration)]
    left = score[number:]
    decision = certify(lot, 200, calibration, lot.promise.delta * 0.8, left)
    certificate = Certificate.of(lot, rounds, 1, decision, teacher="llm", consistency=None)
    return certificate, calibration, left


LOTS = [
    Lot(5_000, 5),
    Lot(5_000, 5, Promise(0.9, 0.9, "student")),
    Lot(5_000, 5, max_calls=2_000),
]


@pytest.mark.parametrize("lot", LOTS)
def test_a_certificate_survives_json_and_is_verified(lot):
    certificate, calibration, left = certified(lot=lot)
    again = Certificate.from_dict(json.loads(json.dumps(certificate.to_dict())))
    assert again == certificate
    assert verify(again, calibration) == []
    assert verify(again, calibration, left) == []
    assert certificate.calls + certificate.decision.answered == certificate.calls_without
    assert certificate.spent <= lot.promise.delta


@pytest.mark.parametrize("lot", LOTS)
def test_a_certificate_that_was_tampered_with_is_found_out(lot):
    certificate, calibration, _ = certified(lot=lot)
    decision = certificate.decision
    flipped = [replace(one, agrees=not one.agrees) for one in calibration]
    assert verify(certificate, flipped)
    assert verify(certificate, calibration[1:])
    for change in (
        {"most_wrong": decision.most_wrong - 1},
        {"delta": decision.delta * 2},
        {"disagreed": decision.disagreed + 1},
    ):
        assert verify(replace(certificate, decision=replace(decision, **change)), calibration)
    look = replace(certificate.looks[1], delta=0.049)
    assert verify(replace(certificate, looks=(certificate.looks[0], look)), calibration)
    assert verify(replace(certificate, round=5), calibration)


@pytest.mark.parametrize("data", [{}, {"version": 2}, {"version": 1}, {"version": 1, "lot": {}}])
def test_a_damaged_certificate_is_refused(data):
    with pytest.raises(ValueError, match="certificate"):
        Certificate.from_dict(data)


def test_settling_makes_the_statements():
    certificate, _, _ = certified()
    settled = certificate.settle({"a": 2_000, "b": 3})
    by_name = {one.category: one for one in settled.decision.statements}
    assert by_name["a"].agreement is not None
    assert 0.8 < by_name["a"].agreement < 1
    assert by_name["b"].agreement is None
    assert settled.calls == 5_000 - 2_003


# --- audit ------------------------------------------------------------------------------------


def test_an_audit_confirms_refutes_or_does_not_know():
    certificate, _, _ = certified()
    answered = certificate.decision.answered
    assert audit(certificate, answered=answered, drawn=200, disagreed=1).verdict == "confirms"
    assert audit(certificate, answered=answered, drawn=200, disagreed=30).verdict == "refutes"
    assert audit(certificate, answered=answered, drawn=10, disagreed=0).verdict == "undecided"
    assert audit(certificate, answered=answered, drawn=0, disagreed=0).verdict == "undecided"


def test_an_audit_of_everything_knows():
    certificate, _, _ = certified()
    answered, most = certificate.decision.answered, certificate.decision.most_wrong
    for disagreed, verdict in ((most, "confirms"), (most + 1, "refutes")):
        found = audit(certificate, answered=answered, drawn=answered, disagreed=disagreed)
        assert found.verdict == verdict
        assert found.least_wrong == found.most_wrong == disagreed


def test_the_suggested_size_confirms_what_is_expected():
    certificate, _, _ = certified()
    answered = certificate.decision.answered
    size = audit_size(certificate, answered)
    assert 30 < size < answered
    seen = round(certificate.decision.expected_wrong / answered * size)
    assert audit(certificate, answered=answered, drawn=size, disagreed=seen).verdict == "confirms"


@pytest.mark.parametrize("wrong_by", [0, 1])
def test_an_audit_is_seldom_mistaken(wrong_by):
    """At the edge: exactly as many disagreements as claimed, and one more."""
    certificate, _, _ = certified()
    answered, claimed = certificate.decision.answered, certificate.decision.most_wrong
    random = np.random.default_rng(15)
    seen = random.hypergeometric(claimed + wrong_by, answered - claimed - wrong_by, 400, 2_000)
    verdict = {
        int(one): audit(certificate, answered=answered, drawn=400, disagreed=int(one)).verdict
        for one in np.unique(seen)
    }
    mistaken = "confirms" if wrong_by else "refutes"
    assert np.mean([verdict[int(one)] == mistaken for one in seen]) < 0.025 + 0.012


def test_asking_again_costs():
    certificate, _, _ = certified()
    answered = certificate.decision.answered
    bounds = [
        audit(certificate, answered=answered, drawn=200, disagreed=4, look=look).most_wrong
        for look in range(4)
    ]
    assert bounds == sorted(bounds)
    shares = [1 / ((look + 1) * (look + 2)) for look in range(100)]
    assert sum(shares) < 1
