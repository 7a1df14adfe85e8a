"""The linear head: exact leave-one-out, groups, priors, soft targets, both ways to solve."""

import numpy as np
import pytest

from doc_classify.classification import ClassifierInput, head
from doc_classify.classification.calibration import MIN_DOCUMENTS, calibrated
from doc_classify.classification.features import BUCKETS, bucket_of, row, stack


def some(number: int, categories: int = 3, seed: int = 0, noise: float = 0.0):
    """Rows of words of which some belong to a category, and one-hot targets."""
    random = np.random.default_rng(seed)
    truth = np.arange(number) % categories
    rows = []
    for category in truth:
        words = [f"c{category}w{random.integers(40)}" for _ in range(6)]
        words += [f"common{random.integers(60)}" for _ in range(20)]
        rows.append(row(ClassifierInput(" ".join(words))))
    shown = np.where(random.random(number) < noise, random.integers(categories, size=number), truth)
    return rows, np.eye(categories)[shown], truth


def scores_of(fitted: head.Fitted, rows) -> np.ndarray:
    return np.array([fitted.head.scores(one) for one in rows])


def test_a_row_is_sorted_distinct_and_the_same_everywhere():
    found = row(ClassifierInput("Bill bill BILL zebra", name="bill.txt", title="bill"))
    assert found.indices.dtype == np.uint32 and found.values.dtype == np.float32
    assert (np.diff(found.indices.astype(int)) > 0).all()
    assert len(found.indices) == 4  # the fields do not share their words
    by_bucket = dict(zip(found.indices.tolist(), found.values.tolist(), strict=True))
    assert by_bucket[bucket_of("bill")] == pytest.approx(1 + np.log(3))
    assert by_bucket[bucket_of("title bill")] == by_bucket[bucket_of("name bill")] == 0.5
    assert bucket_of("bill") == 72163  # of CRC-32, on every machine
    assert not len(row(ClassifierInput("")).indices)


def test_stack_makes_one_matrix_also_of_nothing():
    rows, _, _ = some(4)
    assert stack(rows).shape == (4, BUCKETS)
    assert (stack(rows)[2].indices == rows[2].indices).all()
    assert stack([]).shape == (0, BUCKETS)


@pytest.mark.parametrize("grouped", [False, True])
def test_left_out_scores_are_those_of_training_without(grouped, monkeypatch):
    monkeypatch.setattr(head, "_STRENGTHS", (0.3,))
    monkeypatch.setattr(head, "_TRUSTS", (0.5,))
    rows, targets, _ = some(30)
    random = np.random.default_rng(1)
    weights, prior = random.uniform(0.5, 2, 30), random.random((30, 3))
    groups = np.arange(30) // 5 if grouped else np.arange(30)
    matrix, _, _ = head.tf_idf(stack(rows))
    whole = head._exact(matrix, targets, np.sqrt(weights), prior, (0.5,), groups, 1.0)
    kernel = (matrix @ matrix.T).toarray() + 1.0
    for group in set(groups.tolist()):
        out, kept = groups == group, groups != group
        inverse = np.linalg.inv(kernel[np.ix_(kept, kept)] + np.diag(0.3 / weights[kept]))
        dual = inverse @ (targets - 0.5 * prior)[kept]
        expected = kernel[np.ix_(out, kept)] @ dual + 0.5 * prior[out]
        assert whole.left_out[out] == pytest.approx(expected, abs=1e-8)


def test_both_solvers_agree(monkeypatch):
    rows, targets, truth = some(200, noise=0.1)
    exact = head.fit(rows, targets)
    monkeypatch.setattr(head, "EXACT_ROWS", 100)
    monkeypatch.setattr(head, "_CHOOSING_ROWS", 100)
    monkeypatch.setattr(head, "_STRENGTHS", (exact.strength,))
    solved = head.fit(rows, targets)
    assert scores_of(solved, rows) == pytest.approx(scores_of(exact, rows), abs=0.01)
    assert len(solved.held_out.rows) == 40
    right = truth[solved.held_out.rows] == solved.held_out.scores.argmax(1)
    assert right.mean() > 0.85


def test_whole_groups_are_held_out_by_the_iterative_solver_too(monkeypatch):
    monkeypatch.setattr(head, "EXACT_ROWS", 100)
    rows, targets, _ = some(300)
    groups = np.arange(300) // 10
    out = set(head.fit(rows, targets, groups=groups).held_out.rows.tolist())
    assert 50 <= len(out) <= 70
    for group in range(30):
        members = set(range(10 * group, 10 * group + 10))
        assert members <= out or not members & out
    # One huge group would leave nothing to learn from.
    assert 50 <= len(head.fit(rows, targets, groups=np.zeros(300, int)).held_out.rows) <= 70


def test_a_good_prior_is_trusted_and_a_bad_one_is_not():
    rows, targets, truth = some(24, categories=3)
    good = 0.1 + 0.8 * np.eye(3)[truth]
    few = head.fit(rows[:4], targets[:4], prior=good[:4])
    assert few.head.trust > 0.5
    found = [few.head.scores(one, known).argmax() for one, known in zip(rows, good, strict=True)]
    assert (np.array(found) == truth).all()
    with pytest.raises(ValueError, match="needs a prior"):
        few.head.scores(rows[0])
    more, targets, truth = some(150)
    assert head.fit(more, targets, prior=np.roll(0.1 + 0.8 * targets, 1, axis=1)).head.trust == 0


def test_few_documents_cannot_speak_against_the_prior():
    rows, targets, truth = some(90, noise=0.2)
    prior = np.full((90, 3), 0.1)
    wrong = np.arange(90) % 10 == 0
    prior[np.arange(90), np.where(wrong, (truth + 1) % 3, truth)] = 0.8
    for few in (4, 8):  # whatever they say, and they are too few to say what is luck
        fitted = head.fit(rows[:few], targets[:few], prior=prior[:few])
        assert fitted.head.trust == 1.0
    noise = np.random.default_rng(2).dirichlet(np.ones(3), 90)
    assert head.fit(rows, np.eye(3)[truth], prior=noise).head.trust < 0.5


def test_soft_targets_and_weights_count():
    rows, targets, _ = some(60)
    soft = 0.6 * targets + 0.2
    fitted = head.fit(rows, soft)
    assert scores_of(fitted, rows).sum(1) == pytest.approx(np.full(60, 1.2), abs=0.05)
    # Two documents of the same words and other labels: the heavier one decides.
    same = [row(ClassifierInput("one two three four"))] * 2 + rows[:10]
    labels = np.vstack([np.eye(3)[[0, 1]], targets[:10]])
    for weights, expected in (((9.0, 1.0), 0), ((1.0, 9.0), 1)):
        heavy = head.fit(same, labels, np.array([*weights, *np.ones(10)]))
        assert heavy.head.scores(same[0]).argmax() == expected


def test_words_that_were_never_seen_say_nothing():
    rows, targets, _ = some(30)
    fitted = head.fit(rows, targets)
    strange = row(ClassifierInput("never seen before"))
    assert fitted.head.known(strange) == 0.0 == fitted.head.known(row(ClassifierInput("")))
    assert fitted.head.known(rows[0]) == 1.0
    assert fitted.head.scores(strange) == pytest.approx(fitted.head.bias)
    added = fitted.head.spoke(rows[0], [int(rows[0].indices[0]), bucket_of("never")])
    assert added.shape == (2, 3) and not added[1].any() and added[0].any()


def test_the_head_is_bounded(monkeypatch):
    monkeypatch.setattr(head, "_MAX_WEIGHTS", 90)
    rows, targets, truth = some(60)
    fitted = head.fit(rows, targets)
    assert len(fitted.head.buckets) == 30 and fitted.head.weights.dtype == np.float16
    assert (np.diff(fitted.head.buckets.astype(int)) > 0).all()
    assert (scores_of(fitted, rows).argmax(1) == truth).mean() > 0.5


def test_nothing_and_nonsense_are_refused():
    rows, targets, _ = some(6)
    with pytest.raises(ValueError, match="0 rows"):
        head.fit([], np.empty((0, 3)))
    with pytest.raises(ValueError, match="targets of shape"):
        head.fit(rows, targets[:5])
    with pytest.raises((ValueError, np.linalg.LinAlgError)):
        head.fit(rows, np.full((6, 3), np.nan))


def test_confidence_rises_is_never_certain_and_needs_enough_documents():
    random = np.random.default_rng(0)
    margin = random.random(500)
    right = (random.random(500) < 0.5 + margin / 2).astype(float)
    curve = calibrated(margin, right)
    assert curve is not None
    values = [curve(one) for one in np.linspace(-1, 2, 50)]
    assert values == sorted(values) and 0.3 < values[0] <= 0.5 and 0.85 < values[-1] < 1.0
    assert curve(0.5) == pytest.approx(0.75, abs=0.08)
    assert calibrated(margin[: MIN_DOCUMENTS - 1], right[: MIN_DOCUMENTS - 1]) is None
    certain = calibrated(margin[:40], np.ones(40))
    assert certain is not None and 0.9 < certain(1.0) < 1.0
