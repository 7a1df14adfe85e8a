"""Statistics against independent implementations, and the page against hostile names."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from doc_classify.errors import ConfigurationError
from doc_classify.evaluation import report
from doc_classify.evaluation.evaluate import Answers
from doc_classify.evaluation.labels import Labels, find_labels, taxonomy_for
from doc_classify.evaluation.page import page
from doc_classify.evaluation.result import Evaluation
from doc_classify.evaluation.statistics import (
    bootstrap,
    calibration,
    macro_f1,
    selective,
    wilson,
)
from doc_classify.records import Failure, FileStatus, RunStats
from doc_classify.storage.base import ResultRow, RunInfo, RunSpec
from doc_classify.taxonomy import DEFAULT_TAXONOMY, Taxonomy


@given(st.integers(1, 5000), st.data())
def test_wilson_is_that_of_scipy(total, data):
    hits = data.draw(st.integers(0, total))
    found = wilson(hits, total)
    theirs = stats.binomtest(hits, total).proportion_ci(0.95, method="wilson")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert found.low <= hits / total <= found.high


def test_no_interval_of_nothing():
    assert wilson(0, 0) is None
    assert bootstrap((0, 0), lambda counts: counts[:, 0]) is None


def test_the_bootstrap_says_nothing_where_all_are_right():
    assert bootstrap((20, 0), lambda counts: counts[:, 0] / counts.sum(axis=1)) is None
    assert wilson(20, 20).low == pytest.approx(0.839, abs=0.001)


def test_bootstrap_of_a_share_is_that_of_scipy():
    right = np.array([1] * 83 + [0] * 17)
    found = bootstrap((83, 17), lambda counts: counts[:, 0] / counts.sum(axis=1))
    theirs = stats.bootstrap(
        (right,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found is not None
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)
    assert found == bootstrap((83, 17), lambda counts: counts[:, 0] / counts.sum(axis=1))


def test_macro_f1_by_hand():
    # Labelled a: 3 right, 1 taken for b. Labelled b: 2 right. c is answered once, never a label.
    labels, answers = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2])
    counts = np.array([[3, 1, 2, 1]])
    of_a, of_b = 2 * 3 / (4 + 3), 2 * 2 / (3 + 3)
    assert macro_f1(labels, answers, counts)[0] == pytest.approx((of_a + of_b) / 2)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=200))
@settings(max_examples=60)
def test_calibration_error_by_definition(answers):
    sure = np.array([confidence for confidence, _ in answers])
    right = np.array([hit for _, hit in answers])
    found = calibration(sure, right)
    assert found is not None
    number = np.minimum(np.floor(sure * 10), 9)
    expected = sum(
        abs(sure[number == each].sum() - right[number == each].sum()) for each in range(10)
    ) / len(sure)
    assert found.ece == pytest.approx(expected, abs=1e-12)
    assert sum(one.count for one in found.bins) == len(sure)
    assert found.brier == pytest.approx(np.mean((sure - right) ** 2))
    assert found.ece <= found.largest_gap + 1e-12


def test_a_confidence_that_is_true_is_calibrated():
    random = np.random.default_rng(3)
    sure = random.uniform(0.3, 1, 50_000)
    found = calibration(sure, random.uniform(size=50_000) < sure)
    assert found is not None
    assert found.ece < 0.01
    inside = [one.interval.low <= one.confidence <= one.interval.high for one in found.bins]
    assert sum(inside) >= len(inside) - 1


def test_answers_equally_sure_are_taken_together():
    points = selective(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False]))
    assert [(point.coverage, point.accuracy) for point in points] == [
        (0.25, 1.0),
        (0.75, 2 / 3),
        (1.0, 0.5),
    ]
    assert selective(np.zeros(0), np.zeros(0, dtype=bool)) == ()


def test_a_long_curve_is_thinned_and_keeps_its_end():
    random = np.random.default_rng(0)
    points = selective(random.uniform(size=5000), random.uniform(size=5000) < 0.8)
    assert len(points) <= 101
    assert points[-1].coverage == 1.0
    assert points[-1].count == 5000
    assert all(a.coverage < b.coverage for a, b in itertools.pairwise(points))


# --- counting ---------------------------------------------------------------------------------


def row(name: str, label: str, **fields) -> ResultRow:
    status = fields.pop("status", FileStatus.CLASSIFIED)
    return ResultRow(uri=f"file:///set/{label}/{name}", status=status, **fields)


def evaluation(
    rows: list[ResultRow], taxonomy: Taxonomy = DEFAULT_TAXONOMY, known: set[str] | None = None
) -> Evaluation:
    trained_with = None if known is None else known.__contains__
    answers = Answers(Labels(Path("/set"), None, {}, "folders"), trained_with)
    for each in rows:
        answers.add(each)
    spec = RunSpec("set", "parallel", "f" * 16, "key", "embedded", taxonomy.names, {"model": None})
    info = RunInfo("run", spec, "finished", "", "", None, RunStats())
    return answers.evaluation(taxonomy, info, RunStats(total_processing_time=1.0, classified=1))


def test_failures_are_apart_and_never_right():
    found = evaluation(
        [
            row("1", "invoices", category="invoices", confidence=0.9, score=0.8),
            row("2", "invoices", category="reports", confidence=0.6, score=0.5, needs_review=True),
            row("3", "invoices", status=FileStatus.FAILED, failure=Failure("empty", "no bytes")),
            row("4", "reports", status=FileStatus.UNSUPPORTED),
            row("5", "other", status=FileStatus.DUPLICATE, category="invoices",
                duplicate_of="file:///set/invoices/1"),
        ]
    )  # fmt: skip
    assert (found.labelled, found.answered, found.right, found.failed) == (4, 2, 1, 2)
    assert found.failures == {"empty": 1, "unsupported": 1}
    assert (found.copies, found.contradicting) == (1, 1)
    assert found.accuracy == 0.5
    assert found.accuracy_of_all == 0.25
    by_name = {score.name: score for score in found.scores}
    assert (by_name["invoices"].precision, by_name["invoices"].recall) == (1.0, 0.5)
    assert (by_name["invoices"].failed, by_name["reports"].failed) == (1, 1)
    assert by_name["reports"].recall is None
    assert by_name["reports"].f1 is None
    assert found.review.marked == 1
    assert found.review.accuracy_of_rest == 1.0
    assert [mistake.label for mistake in found.mistakes] == ["invoices"]


def test_what_the_model_was_trained_with_is_told():
    rows = [
        row("1", "invoices", category="invoices", sha256="1" * 64),
        row("2", "invoices", category="invoices", sha256="2" * 64),
        row("3", "invoices", status=FileStatus.FAILED, sha256="1" * 64),
        row("4", "invoices", status=FileStatus.DUPLICATE, sha256="1" * 64,
            duplicate_of="file:///set/invoices/1"),
    ]  # fmt: skip
    found = evaluation(rows, known={"1" * 64})
    assert found.trained_with == 1
    for said in ("\n".join(report.lines(found)), page(found)):
        assert "trained with 1 of the 2 documents" in said and "flatter" in said
    for known, number in ((set(), 0), (None, None)):
        found = evaluation(rows, known=known)
        assert found.trained_with == number
        assert "flatter" not in "\n".join(report.lines(found)) + page(found)


def test_scores_are_no_confidences():
    found = evaluation([row("1", "other", category="other", score=0.7)])
    assert found.calibration is None
    assert found.sureness == "score"
    assert "no probabilities" in page(found)
    assert "no probabilities" in "\n".join(report.lines(found))


@pytest.mark.parametrize("failed", [True, False], ids=["all failed", "one document"])
def test_next_to_nothing(failed):
    found = evaluation(
        [row("1", "other", status=FileStatus.FAILED, failure=Failure("damaged", "it is"))]
        if failed
        else [row("1", "other", category="other", confidence=1.0, score=1.0)]
    )
    assert found.accuracy == (None if failed else 1.0)
    text = "\n".join(report.lines(found))
    assert ("1 failed" in text) == failed
    check_page(page(found))
    assert json.loads(json.dumps(asdict(found)))["labelled"] == 1


def test_more_mistakes_than_are_kept_the_surest_first():
    found = evaluation(
        [
            row(f"{number}", "other", category="reports", confidence=0.5, score=number / 200)
            for number in range(120)
        ]
    )
    assert len(found.mistakes) == 50
    assert found.answered == 120


def test_many_categories():
    taxonomy = Taxonomy.from_names([f"kind {number}" for number in range(60)])
    rows = [
        row(f"{n}", f"kind%20{n % 60}", category=f"kind {(n * n) % 60}", score=0.5)
        for n in range(600)
    ]
    found = evaluation(rows, taxonomy)
    assert found.labelled == 600
    text = page(found)
    check_page(text)
    assert "kinds.</p>" in text
    assert "Most frequent confusions" in "\n".join(report.lines(found))


# --- the page ---------------------------------------------------------------------------------


class Checked(HTMLParser):
    """Fails on everything that the page must not have."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.ids = []
        self.images = 0

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        assert tag not in {"script", "iframe", "img", "object", "embed", "link", "form", "a"}
        assert not [name for name in given if name.startswith("on") or name in {"href", "src"}]
        if "id" in given:
            self.ids.append(given["id"])
        if given.get("role") == "img":
            self.images += 1
            assert given.get("aria-label") or given.get("aria-labelledby")
        if tag not in {"meta"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_page(text: str) -> Checked:
    checked = Checked()
    checked.feed(text)
    checked.close()
    assert checked.open == []
    assert len(set(checked.ids)) == len(checked.ids)
    for named in re.findall(r'aria-labelledby="([^"]+)"', text):
        assert set(named.split()) <= set(checked.ids)
    return checked


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; }</style><script>1</script>",
    "&lt;b&gt; & {{7*7}}",
    "a\u202egnp.exe",
    "</title></desc></svg><svg onload=alert(1)>",
)


def test_hostile_names_stay_text():
    plain = [name for name in HOSTILE if name.isprintable()]  # a category is printable
    taxonomy = Taxonomy.from_names([*plain, "plain"])
    rows = [
        ResultRow(
            uri=f"file:///set/{number}/x", status=FileStatus.CLASSIFIED,
            category=plain[number % len(plain)], confidence=0.5 + number / 100, score=0.5,
        )
        for number in range(len(HOSTILE))
    ]  # fmt: skip
    names = {str(number): HOSTILE[number] for number in range(len(HOSTILE))}
    labels = {f"{number}/x": names[str(number)] for number in range(len(HOSTILE))}
    answers = Answers(Labels(Path("/set"), labels, {}, HOSTILE[1]))
    for each in rows:
        answers.add(each)
    spec = RunSpec("set", "parallel", "f", "key", HOSTILE[0], taxonomy.names, {"model": HOSTILE[5]})
    info = RunInfo("run", spec, "finished", "", "", None, RunStats())
    found = answers.evaluation(taxonomy, info, RunStats(failures={HOSTILE[1]: 1}))
    text = page(found)
    check_page(text)
    assert "<script" not in text
    assert "\u202e" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "default-src 'none'" in text
    terminal = "\n".join(report.lines(found))
    assert "\u202e" not in terminal


def test_every_plot_has_words():
    rows = [
        row(f"{n}", "other", category="other" if n % 5 else "reports", confidence=n / 40, score=0.5,
            needs_review=n < 10)
        for n in range(41)
    ]  # fmt: skip
    checked = check_page(page(evaluation(rows)))
    assert checked.images >= 4  # two curves, and bars for the categories that have documents


# --- labels -----------------------------------------------------------------------------------


def lay_out(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("text")


def test_folders_are_labels(tmp_path):
    lay_out(tmp_path, "invoices/1.txt", "invoices/deep/2.txt", "reports/3.txt", "loose.txt")
    labels = find_labels(tmp_path, None, {})
    found = list(labels.documents(recursive=True))
    assert len(found) == 3
    assert labels.unlabelled == 1
    assert taxonomy_for(labels, None, recursive=True) is DEFAULT_TAXONOMY


def test_foreign_labels_make_a_taxonomy(tmp_path):
    lay_out(tmp_path, "cats/1.txt", "dogs/2.txt")
    labels = find_labels(tmp_path, None, {})
    assert taxonomy_for(labels, None, recursive=True).names == ("cats", "dogs")
    with pytest.raises(ConfigurationError, match=r"labelled 'cats', 'dogs', which the taxonomy"):
        taxonomy_for(labels, DEFAULT_TAXONOMY, recursive=True)
    mapped = find_labels(tmp_path, None, {"cats": "other"})
    assert taxonomy_for(mapped, DEFAULT_TAXONOMY, recursive=True) is DEFAULT_TAXONOMY
    assert len(list(mapped.documents(recursive=True))) == 1


def test_a_file_of_labels_wins(tmp_path):
    lay_out(tmp_path, "cats/1.txt", "cats/a, b.txt", "cats/unlabelled.txt")
    (tmp_path / ".labels.csv").write_text(
        'path,category,more\ncats/1.txt,reports,x\n"cats/a, b.txt",other,\nmissing.txt,other,\n'
    )
    labels = find_labels(tmp_path, None, {})
    assert {labels.of(found.uri) for found in labels.documents(recursive=True)} == {
        "reports",
        "other",
    }
    assert (labels.unlabelled, labels.missing) == (1, 1)
    other = tmp_path / "other.csv"
    other.write_text("path,category\n./cats/1.txt,invoices\n")
    assert find_labels(tmp_path, other, {}).categories(recursive=True) == ["invoices"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs the columns path and category, has none"),
        ("file,label\n", "needs the columns"),
        ("path,category\na,x\n./a,y\n", "twice"),
        ("path,category\n" + "x" * 200_000 + ",y\n", "cannot read"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        find_labels(tmp_path, tmp_path / "labels.csv", {})


def test_nothing_labelled(tmp_path):
    with pytest.raises(ConfigurationError, match="holds no labelled documents"):
        find_labels(tmp_path, None, {}).categories(recursive=True)
    with pytest.raises(ConfigurationError, match="no folder"):
        find_labels(tmp_path / "nowhere", None, {})
