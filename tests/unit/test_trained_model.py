"""Trained models: what they answer, how they are kept, files that were tampered with."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from doc_classify.classification import ClassifierInput, make_classifier
from doc_classify.classification.calibration import calibrated
from doc_classify.classification.embedded import EmbeddedClassifier
from doc_classify.classification.learning import Labelled, TrainingSet, train
from doc_classify.classification.model_file import TrainedModel, safetensors_header
from doc_classify.classification.trained import TrainedClassifier
from doc_classify.classification.training_file import load_rows, rows_path, save_rows
from doc_classify.errors import ConfigurationError
from doc_classify.settings import load_settings, load_settings_with_origins
from doc_classify.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_names(["plants", "motors", "other"])
WORDS = {
    "plants": "root leaf soil seed water bloom petal stem garden moss",
    "motors": "piston valve torque gear oil clutch engine wheel spark brake",
}


def text(category: str, number: int) -> str:
    words = WORDS[category].split()
    own = [words[(number * step + step) % len(words)] for step in range(1, 6)]
    return f"This is number {number} about the {' and the '.join(own)}. It has been written down."


def documents(number: int = 40, of: tuple[str, ...] = ("plants", "motors")):
    for at in range(number):
        category = of[at % len(of)]
        yield Labelled(ClassifierInput(text(category, at)), category)


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return train(documents(), TAXONOMY, created="2026-01-02")


def changed(model: TrainedModel, header: dict | None = None, **tensors: np.ndarray | None) -> bytes:
    data = model.to_bytes()
    parts = {name: part for name, part in (load(data) | tensors).items() if part is not None}
    text = json.dumps(safetensors_header(data) | (header or {}))
    return save(parts, metadata={"doc_classify": text})


def test_it_classifies_what_it_has_not_seen(model):
    classifier = TrainedClassifier(model)
    for number in range(100, 110):
        for category in WORDS:
            found = classifier.classify(
                ClassifierInput(text(category, number)), include_reasoning=True
            )
            assert found.category == category
            assert found.confidence is not None and found.confidence > 0.6
            assert not found.needs_review and found.reasoning.isprintable()
            assert sum(score for _, score in found.scores) == pytest.approx(1, abs=0.001)
    assert any(word in found.reasoning for word in WORDS["motors"].split())
    assert classifier.name == "embedded" != classifier.fingerprint
    assert model.provenance.counts == (20, 20, 0) and model.provenance.documents == 40


@pytest.mark.parametrize(
    "strange", ["", "一二三四五六七八九十" * 20, "xyzzy plugh " * 40, "\ufffd" * 900]
)
def test_what_says_nothing_is_other_and_for_review(model, strange):
    found = TrainedClassifier(model).classify(ClassifierInput(strange), include_reasoning=True)
    assert (found.category, found.needs_review, found.confidence) == ("other", True, None)


def test_other_is_what_is_left_where_it_was_not_learnt(model):
    assert model.floor is not None
    mixed = "the gear in the garden of number this written it about has been down and the"
    found = TrainedClassifier(model).classify(ClassifierInput(mixed))
    assert found.category == "other" or found.confidence < 0.95
    learnt = train(
        [*documents(), Labelled(ClassifierInput("nothing of the kind at all"), "other")], TAXONOMY
    )
    assert learnt.floor is None


def test_reasoning_echoes_words_alone_cut_to_a_length(model):
    hostile = "root leaf \x1b[2J soil </x><b>" + "seed" * 30 + " \u202e" + text("plants", 1)
    found = TrainedClassifier(model).classify(ClassifierInput(hostile), include_reasoning=True)
    assert found.reasoning.isprintable() and "<" not in found.reasoning
    assert len(found.reasoning) < 600


def test_the_file_gives_the_same_model_back(model, tmp_path):
    path = tmp_path / "m.safetensors"
    model.save(path)
    again = TrainedModel.load(path)
    assert again.digest == model.digest and again.to_bytes() == path.read_bytes()
    assert again.taxonomy == TAXONOMY and again.provenance == model.provenance
    document = ClassifierInput(text("motors", 77))
    assert (again.scores(document) == model.scores(document)).all()
    made = make_classifier("embedded", TAXONOMY, path.read_bytes())
    assert made.classify(document) == TrainedClassifier(model).classify(document)
    assert made.fingerprint == TrainedClassifier(model).fingerprint
    assert list(tmp_path.iterdir()) == [path]


def test_order_makes_no_difference_and_labels_do(model):
    assert train(reversed(list(documents())), TAXONOMY, created="2026-01-02").digest == model.digest
    other = [Labelled(one.document, "plants") for one in documents(1)]
    assert train([*documents(), *other], TAXONOMY).digest != model.digest


def test_all_processes_make_the_same_model(tmp_path):
    script = (
        "from tests.unit.test_trained_model import *\n"
        "print(train(documents(), TAXONOMY, created='x').digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(digests) == 1


def _header_of(size: int) -> bytes:
    return size.to_bytes(8, "little")


def test_files_that_are_no_models(model):
    data = model.to_bytes()
    weights, buckets = load(data)["weights"], load(data)["buckets"]
    nan = weights.copy()
    nan[0, 0] = np.nan
    two = [TAXONOMY.to_dict()["categories"][0]] * 2
    calibration = load(data)["calibration"]
    cases = {
        "empty": b"",
        "short": data[:7],
        "cut": data[: len(data) // 2],
        "one byte less": data[:-1],
        "one byte more": data + b"x",
        "pickle": pickle.dumps({"weights": weights}),
        "huge header": _header_of(2**63) + data[8:],
        "large header": _header_of(len(data)) + data[8:],
        "no json": _header_of(8) + b"[[[[[[[[" + data,
        "deep json": _header_of(100_000) + b"[" * 100_000,
        "no metadata": save({"weights": weights}),
        "metadata of others": save({"a": weights}, metadata={"doc_classify": '{"format": "x"}'}),
        "metadata is a list": save({"a": weights}, metadata={"doc_classify": "[]"}),
        "nan": changed(model, weights=nan),
        "endless idf": changed(model, idf=np.full(len(buckets), np.inf, np.float32)),
        "negative idf": changed(model, idf=np.full(len(buckets), -1, np.float32)),
        "too few rows": changed(model, weights=weights[:-1]),
        "too few columns": changed(model, weights=weights[:, :2]),
        "other type": changed(model, weights=weights.astype(np.float64)),
        "no bias": changed(model, bias=None),
        "one more part": changed(model, extra=weights),
        "unsorted": changed(model, buckets=buckets[::-1].copy()),
        "beyond": changed(model, buckets=buckets + np.uint32(2**18)),
        "signed": changed(model, buckets=buckets.astype(np.int32)),
        "taxonomy exchanged": changed(
            model, {"taxonomy": Taxonomy.from_names(["a", "b", "other"]).to_dict()}
        ),
        "taxonomy broken": changed(model, {"taxonomy": {"categories": two}}),
        "taxonomy of none": changed(model, {"taxonomy": 7}),
        "trust": changed(model, {"trust": 7}),
        "trust nan": changed(model, {"trust": float("nan")}),
        "trust text": changed(model, {"trust": "x"}),
        "floor": changed(model, {"floor": float("inf")}),
        "counts": changed(model, {"provenance": {"counts": [1], "created": "", "data": ""}}),
        "provenance": changed(model, {"provenance": None}),
        "created": changed(
            model,
            {"provenance": {"counts": [1, 1, 1], "created": 7, "data": "", "prior": ""}},
        ),
        "falling": changed(model, calibration=calibration[:, ::-1].copy()),
        "too sure": changed(model, calibration=calibration + 1),
        "flat": changed(model, calibration=np.zeros(5)),
        "no points": changed(model, calibration=np.zeros((2, 0))),
    }
    for name, bad in cases.items():
        with pytest.raises(ConfigurationError, match=r"^the thing"):
            TrainedModel.from_bytes(bad, "the thing")
            pytest.fail(name)
    for header in ({"version": 1}, {"version": "\x1b" * 99}, {"features": 99}, {"new": 1}):
        with pytest.raises(ConfigurationError, match=r"by another version.*train it again"):
            TrainedModel.from_bytes(changed(model, header))
    fewer = safetensors_header(model.to_bytes())
    del fewer["floor"]
    written = save(load(model.to_bytes()), metadata={"doc_classify": json.dumps(fewer)})
    with pytest.raises(ConfigurationError, match="by another version"):
        TrainedModel.from_bytes(written)


def test_a_model_knows_what_it_was_trained_with(tmp_path):
    training = TrainingSet(TAXONOMY)
    keys = [hashlib.sha256(bytes([at])).hexdigest() for at in range(41)]
    for key, labelled in zip(keys, documents(40), strict=False):
        training.add(Labelled(labelled.document, labelled.label, key=key))
    training.add(Labelled(ClassifierInput("petal and stem"), "plants"))  # no file
    learnt = training.learn("x").model
    learnt.save(tmp_path / "m")
    again = TrainedModel.load(tmp_path / "m")
    assert [again.knows(key) for key in keys] == [True] * 40 + [False]
    assert len(again.learnt_from) == 40
    for strange in ("", "0" * 63, keys[0].upper(), "\0"):
        assert not again.knows(strange)
    assert again.digest == learnt.digest
    for bad in (again.learnt_from[::-1].copy(), again.learnt_from.astype(np.int64)):
        with pytest.raises(ConfigurationError, match="learnt_from"):
            TrainedModel.from_bytes(changed(again, learnt_from=bad))


@pytest.mark.parametrize("number", [30, 120, 3000, 100_000])
def test_nothing_is_certain_however_often_it_was_right(number):
    found = calibrated(np.linspace(0, 1, number), np.ones(number))
    assert f"{found(1.0):.2f}" != "1.00" and found(1.0) <= (number + 1) / (number + 2)
    half = calibrated(np.linspace(0, 1, number), (np.arange(number) > number / 2) * 1.0)
    assert half(0.9) < 1 - 1 / number and half(0.9) > half(0.1)


def test_files_that_cannot_be_read(tmp_path, model):
    with pytest.raises(ConfigurationError, match="no model file"):
        TrainedModel.load(tmp_path / "nothing")
    with pytest.raises(ConfigurationError, match="no model file"):
        TrainedModel.load(tmp_path)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(ConfigurationError, match="larger than 256 MB"):
        TrainedModel.load(large)


def test_a_model_of_another_zero_shot_classifier_is_refused(monkeypatch):
    few = train(documents(6), Taxonomy.from_names(["invoices", "plants", "motors"]))
    if not few.head.trust:
        header = {"trust": 0.5}
        few = TrainedModel.from_bytes(changed(few, header))
    monkeypatch.setattr(EmbeddedClassifier, "fingerprint", property(lambda _self: "another"))
    with pytest.raises(ConfigurationError, match="train it again"):
        TrainedClassifier(TrainedModel.from_bytes(few.to_bytes()))


def test_labels_that_cannot_be_used():
    training = TrainingSet(TAXONOMY)
    document = ClassifierInput("some words")
    for label in ("animals", {}, {"plants": -1.0}, {"plants": float("nan")}, {"plants": 0.0}):
        with pytest.raises(ConfigurationError):
            training.add(Labelled(document, label))
    for weight in (0.0, -1.0, float("inf")):
        with pytest.raises(ConfigurationError, match="weight"):
            training.add(Labelled(document, "plants", weight=weight))
    assert not training.add(Labelled(ClassifierInput("..."), "plants"))
    assert training.add(Labelled(document, {"plants": 3, "motors": 1}))
    (example,) = training.examples.values()
    assert example.target.tolist() == [0.75, 0.25, 0.0]
    with pytest.raises(ConfigurationError, match="two categories"):
        training.learn("")


def test_a_later_label_takes_the_place_of_an_earlier_one():
    training = TrainingSet(TAXONOMY, zero_shot=False)
    for category in ("plants", "motors"):
        training.add(Labelled(ClassifierInput("some words"), category, key="one"))
    (example,) = training.examples.values()
    assert example.target.tolist() == [0, 1, 0]


def test_a_training_set_is_bounded_and_a_uniform_sample():
    sets = []
    for order in (1, -1):
        training = TrainingSet(TAXONOMY, zero_shot=False, most=50)
        for number in list(range(400))[::order]:
            training.add(Labelled(ClassifierInput(f"word{number}"), "plants", key=str(number)))
        sets.append(training)
    assert set(sets[0].examples) == set(sets[1].examples)
    kept = sorted(map(int, sets[0].examples))
    assert len(kept) == 50 and 120 < sum(kept) / 50 < 280


def test_rows_let_a_model_learn_on(tmp_path):
    whole = TrainingSet(TAXONOMY)
    part = TrainingSet(TAXONOMY)
    for at, labelled in enumerate(documents()):
        keyed = Labelled(labelled.document, labelled.label, 1.5, f"group {at % 5}", f"key {at}")
        whole.add(keyed)
        if at < 30:
            part.add(keyed)
    first = part.learn("x").model
    path = rows_path(tmp_path / "m.safetensors")
    assert path.name == "m.rows.safetensors" == rows_path(Path("m")).name
    save_rows(part, first, path)
    again = load_rows(first, path)
    assert again.learn("x").model.digest == first.digest
    for at, labelled in enumerate(documents()):
        if at >= 30:
            again.add(
                Labelled(labelled.document, labelled.label, 1.5, f"group {at % 5}", f"key {at}")
            )
    assert again.learn("x").model.digest == whole.learn("x").model.digest


def test_rows_that_cannot_be_used(tmp_path, model):
    training = TrainingSet(TAXONOMY)
    for labelled in documents():
        training.add(labelled)
    mine = training.learn("").model
    path = tmp_path / "rows"
    with pytest.raises(ConfigurationError, match="train it anew"):
        load_rows(mine, path)
    save_rows(training, mine, path)
    data = path.read_bytes()
    header, tensors = safetensors_header(data), load(data)

    def refused(pattern: str, written: bytes | None = None, **parts: object) -> None:
        if written is None:
            described = header | {name: parts.pop(name) for name in list(parts) if name in header}
            metadata = {"doc_classify": json.dumps(described)}
            written = save({**tensors, **parts}, metadata=metadata)
        path.write_bytes(written)
        with pytest.raises(ConfigurationError, match=pattern):
            load_rows(mine, path)

    for bad in (b"", data[:-1], pickle.dumps(1), b"\xff" * 100):
        refused("damaged", bad)
    refused("damaged", indices=tensors["indices"][::-1].copy())
    refused("damaged", indices=tensors["indices"] | np.uint32(2**20))
    refused("damaged", values=-tensors["values"])
    refused("damaged", sizes=tensors["sizes"] + np.uint32(1))
    refused("damaged", sizes=np.full(40, 2**32 - 1, np.uint32))
    refused("damaged", targets=tensors["targets"] * 2)
    refused("damaged", weights=np.full(40, np.nan))
    refused("damaged", group=np.full(40, 9, np.uint32))
    refused("damaged", keys=[1] * 40)
    refused("another model", data="0" * 32)
    refused("another version", version=9)
    refused("another version", prior="0123")


def test_settings_know_the_model(tmp_path):
    settings = load_settings(tmp_path, classifier="embedded", embedded_model="m.safetensors")
    assert settings.chosen_model == "m.safetensors"
    assert settings.choosing("embedded").embedded_model is None
    assert settings.choosing("embedded", "n").embedded_model == Path("n")


def test_a_model_of_ones_own_decides_where_the_choice_is_automatic(tmp_path, monkeypatch):
    monkeypatch.setenv("DOC_CLASSIFY_EMBEDDED_MODEL", "m.safetensors")
    settings = load_settings(tmp_path)
    assert (settings.classifier, settings.chosen_model) == ("embedded", "m.safetensors")
    assert load_settings(tmp_path, classifier="auto").classifier == "embedded"
    assert load_settings(tmp_path, classifier="ollama").classifier == "ollama"
    other = settings.choosing("auto", "llama")
    assert (other.classifier, other.chosen_model) == ("auto", "llama")
    assert settings.choosing("auto").classifier == "auto"
    assert load_settings_with_origins(tmp_path)[1]["classifier"] == "environment"


def test_the_digest_is_that_of_the_file(model, tmp_path):
    model.save(tmp_path / "m")
    assert hashlib.sha256((tmp_path / "m").read_bytes()).hexdigest().startswith(model.digest)
