"""The judgement of a model: intervals that know of groups, honest calibration errors."""

import numpy as np
import pytest

from doc_classify.classification import ClassifierInput
from doc_classify.classification.learning import Labelled, TrainingSet
from doc_classify.errors import ConfigurationError
from doc_classify.records import path_to_uri
from doc_classify.taxonomy import Taxonomy
from doc_classify.training import judging
from doc_classify.training.labels import Label, LabelledFiles

TAXONOMY = Taxonomy.from_names(["a", "b"])


def learnt(number: int, groups: int = 0, noise: int = 0):
    training = TrainingSet(TAXONOMY, zero_shot=False)
    for at in range(number):
        shown = "ab"[at % 2]
        label = "ab"[(at + 1) % 2] if noise and at % noise == 0 else shown
        document = ClassifierInput(f"word {shown}x {shown}y common{at % 7} g{at % max(groups, 1)}")
        group = f"g{at % groups}" if groups else ""
        training.add(Labelled(document, label, group=group, key=f"{at:04}"))
    return training.learn("")


def test_all_right_is_no_certainty():
    judged = judging.judge(learnt(40))
    assert judged.accuracy == 1.0 == judged.high and 0.88 < judged.low < 0.95
    assert (judged.documents, judged.held_out, judged.groups, judged.confused) == (40, 40, 0, ())
    assert judged.warnings == ()
    assert judging.judge(learnt(40, groups=5)).low < 0.6


def test_mistakes_are_counted_by_pair_and_category():
    judged = judging.judge(learnt(100, noise=10))  # of a: every tenth is labelled b
    assert judged.confused[0] == ("b", "a", 10)
    a, b = judged.categories
    assert (a.documents, b.documents) == (40, 60)
    assert a.recall == 1.0 and b.recall == pytest.approx(50 / 60)
    assert a.precision == pytest.approx(0.8) and b.precision == 1.0
    assert judged.low < judged.accuracy == 0.9 < judged.high


def test_documents_of_a_group_tell_less():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    together = np.repeat(random.random(20) < 0.7, 10)
    alone = random.random(200) < together.mean()
    low, high = judging._interval(together, groups)
    assert high - low > 2 * np.subtract(*judging._interval(alone, np.arange(200))[::-1])
    assert 0 <= low < together.mean() < high <= 1


def test_the_interval_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        right = random.random(80) < 0.85
        low, high = judging._interval(right, np.arange(80))
        held += low <= 0.85 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_few_documents_have_no_calibration_error_and_a_warning():
    judged = judging.judge(learnt(12))
    assert judged.calibration_error is None
    assert judged.warnings[0] == "fewer than 10 documents: a (6), b (6)"
    assert "only scores" in judged.warnings[1]


def test_labels_of_folders_and_tables(tmp_path):
    for name in ("a/one.txt", "a/x/y/two.txt", "b/three.txt", ".hidden/four.txt", "beside.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    files = LabelledFiles(tmp_path / "a" / "..")
    assert files.categories == ("a", "b")
    uris = {name: path_to_uri(tmp_path / name) for name in ("a/one.txt", "a/x/y/two.txt")}
    assert [files.label(uri) for uri in uris.values()] == [Label("a"), Label("a", "x/y")]
    assert files.label(path_to_uri(tmp_path / "beside.txt")) is None
    assert files.label("file:///elsewhere/a/x.txt") is None is files.label("s3://a/b/c.txt")
    table = tmp_path / "labels.csv"
    table.write_text("\ufeffcategory,path,group\na,a/one.txt, g\nb,./b/../b/three.txt,\n,c.txt,\n")
    listed = LabelledFiles(table)
    assert listed.categories == ("a", "b")
    assert listed.label(uris["a/one.txt"]) == Label("a", "g")
    found = [entry.uri for entry in listed.entries()]
    assert [listed.label(uri).category for uri in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"path;category\n", "columns path and category"),
        (b"", "columns path and category"),
        (b"path,category\n,a\n", "line 2: there is no path"),
        (b"path,category\nx,a\n", "two categories"),
        (b"path,category\n\xff,a\n", "cannot read"),
        (b'path,category\n"' + b"x" * 200_000 + b'",a\n', "cannot read"),
    ],
)
def test_tables_that_are_none(tmp_path, content, said):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(ConfigurationError, match=said):
        LabelledFiles(tmp_path / "labels.csv")
