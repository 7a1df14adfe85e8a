"""Training by the real command, and what is done with the model, through all doors."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.doubles.ollama import OllamaDouble
from tests.doubles.site import Site
from tests.e2e.test_cli_runs import run

from conftest import CeleryWorker, wait_until
from doc_classify.classification.model_file import TrainedModel
from doc_classify.dataset import LABELS_NAME, DatasetOptions, generate

KINDS = {
    "plants": "root leaf soil seed water bloom petal stem garden moss",
    "motors": "piston valve torque gear oil clutch engine wheel spark brake",
}
MODEL = "m.safetensors"


def write(folder: Path, kind: str, number: int) -> Path:
    words = KINDS[kind].split()
    own = " and the ".join(words[(number * step + step) % len(words)] for step in range(1, 6))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:03}.txt"
    path.write_text(f"This is number {number} about the {own}. It has been written down here.\n")
    return path


def labelled(place: Path, number: int = 20, groups: int = 0) -> Path:
    for kind in KINDS:
        for at in range(number):
            group = f"source {at % groups}" if groups else ""
            write(place / kind / group, kind, at)
    return place


def trained(here: Path, *more: str, code: int = 0) -> dict:
    return json.loads(run(here, "train", *more, "--json", code=code).stdout)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("trained")
    labelled(here / "labelled")
    for number in range(100, 104):
        for kind in KINDS:
            write(here / "documents" / kind, kind, number)
    trained(here, "labelled", "-o", MODEL)
    return here


@pytest.fixture
def here(ready: Path, tmp_path: Path) -> Path:
    shutil.copytree(ready, tmp_path / "here")
    return tmp_path / "here"


def rows(here: Path, *more: str) -> dict[str, dict]:
    found = [json.loads(line) for line in run(here, "results", "--json", *more).stdout.splitlines()]
    return {"/".join(row["path"].split("/")[-2:]): row for row in found}


USE = ("--classifier", "embedded", "--model", MODEL)


def test_a_folder_makes_a_model_that_classifies(here: Path) -> None:
    done = run(here, "train", "labelled", "-o", MODEL)
    assert b"Right: " in done.stdout and b"95% interval" in done.stdout
    assert b"40 documents" in done.stdout
    for door in ("classify-parallel", "classify-async"):
        more = (*USE, "--reasoning", "--use-database", "--force", "--no-progress")
        run(here, door, "documents", *more)
        for name, row in rows(here).items():
            assert row["category"] == name.split("/")[0]
            assert row["confidence"] > 0.6 and "spoke" in row["reasoning"]
    again = run(here, "classify-parallel", "documents", *USE, "--use-database", "--reasoning")
    assert b"8 already done" in again.stdout


def test_another_model_gives_results_of_its_own(here: Path) -> None:
    run(here, "classify-parallel", "documents", *USE, "--use-database", "--no-progress")
    before = json.loads(run(here, "status", "--json").stdout)
    trained(here, "labelled", "-o", MODEL, "--no-zero-shot")
    run(here, "classify-parallel", "documents", *USE, "--use-database", "--no-progress")
    after = json.loads(run(here, "status", "--json").stdout)
    assert after["fingerprint"] != before["fingerprint"]
    assert after["stats"]["classified"] == 8
    assert Path(after["model"]) == here / MODEL
    # The first run is not repeated with a model that is not its own.
    again = run(here, "retry", before["run_id"], "--category", "plants", code=2)
    assert b"trained again" in again.stderr
    run(here, "retry", after["run_id"], "--category", "plants")


def test_retry_finds_the_model_from_elsewhere(here: Path, tmp_path: Path) -> None:
    run(here, "classify-parallel", "documents", *USE, "--use-database", "--no-progress")
    other = tmp_path / "other"
    other.mkdir()
    url = f"sqlite:///{here / 'doc-classify.db'}"
    done = run(other, "retry", "--category", "motors", "--database-url", url, "--json")
    assert json.loads(done.stdout)["classified"] == 4
    (here / MODEL).unlink()
    gone = run(other, "retry", "--category", "motors", "--database-url", url, code=2)
    assert b"no model file" in gone.stderr


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("-c", "a,b"), 2, b"leave the categories out"),
        (("-c", "motors,plants"), 0, b""),
    ],
)
def test_the_taxonomy_is_that_of_the_model(here: Path, more, code, said) -> None:
    done = run(here, "classify", "documents", *USE, *more, code=code)
    assert said in done.stderr


def test_a_damaged_model_is_no_run(here: Path) -> None:
    data = (here / MODEL).read_bytes()
    for bad in (data[:100], b"", b"\x80\x04."):
        (here / MODEL).write_bytes(bad)
        done = run(here, "classify-parallel", "documents", *USE, "--no-progress", code=2)
        assert b"damaged" in done.stderr and b"Traceback" not in done.stderr


def test_the_setting_names_the_model_too(here: Path) -> None:
    changes = {"DOC_CLASSIFY_CLASSIFIER": "embedded", "DOC_CLASSIFY_EMBEDDED_MODEL": MODEL}
    done = run(here, "classify", "documents/plants/100.txt", "--json", **changes)
    assert json.loads(done.stdout)["category"] == "plants"
    checked = run(here, "check", **changes)
    assert b"trained on 40 documents" in checked.stdout


def test_sources_are_left_out_together(tmp_path: Path) -> None:
    labelled(tmp_path / "labelled", groups=4)
    judged = trained(tmp_path, "labelled", "-o", MODEL)
    assert (judged["groups"], judged["held_out"]) == (4, 40)
    assert judged["low"] <= judged["accuracy"] <= judged["high"]
    assert [one["documents"] for one in judged["categories"]] == [20, 20]


def test_what_cannot_be_learnt_from_is_counted_and_named(tmp_path: Path) -> None:
    folder = labelled(tmp_path / "labelled")
    (folder / "plants" / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing of the kind")
    (folder / "plants" / "noise.bin").write_bytes(bytes(range(256)) * 4)
    (folder / "plants" / "dots.txt").write_text("... --- ...")
    (folder / "motors" / "both.txt").write_text((folder / "plants" / "001.txt").read_text())
    (folder / "motors" / "twice.txt").write_text((folder / "motors" / "001.txt").read_text())
    (folder / "beside.txt").write_text("not in a folder")
    found = trained(tmp_path, "labelled", "-o", MODEL, code=1)
    counts = {name: found[name] for name in ("failed", "unsupported", "unlabelled", "wordless")}
    assert counts == {"failed": 1, "unsupported": 1, "unlabelled": 1, "wordless": 1}
    assert found["contradictory"] == 1 and found["documents"] == 39
    said = " ".join(found["messages"])
    assert "broken.pdf" in said and "noise.bin" in said and "stands under" in said


def test_generated_documents_of_all_formats_and_their_table(tmp_path: Path) -> None:
    generate(tmp_path / "demo", DatasetOptions(count=60, formats=("txt", "docx", "pdf", "eml")))
    found = trained(tmp_path, f"demo/{LABELS_NAME}", "-o", MODEL, code=1)
    assert found["failed"] and found["documents"] > 40
    assert found["accuracy"] > 0.7
    with (tmp_path / "demo" / LABELS_NAME).open(newline="") as file:
        kinds = {row["category"] for row in csv.DictReader(file)} - {""}
    assert set(TrainedModel.load(tmp_path / MODEL).categories) == kinds


def test_corrections_update_a_model(here: Path) -> None:
    strange = here / "documents" / "strange.txt"
    strange.write_text(
        "Velocipede frame saddle pedals chain and handlebar, polished with care.\n" * 2
    )
    run(here, "classify-parallel", "documents", *USE, "--use-database", "--no-progress")
    run(here, "correct", "documents/strange.txt", "motors")
    before = TrainedModel.load(here / MODEL)
    found = trained(here, "--from-corrections", "--update", MODEL)
    assert (found["taken"], found["before"], found["documents"]) == (1, 40, 41)
    after = TrainedModel.load(here / MODEL)
    assert after.digest != before.digest and after.taxonomy == before.taxonomy
    # The same once more is one document, not two; a change of mind replaces it.
    assert trained(here, "--from-corrections", "--update", MODEL)["documents"] == 41
    assert TrainedModel.load(here / MODEL).fingerprint == after.fingerprint
    run(here, "correct", "documents/strange.txt", "plants")
    changed = trained(here, "--from-corrections", "--update", MODEL, "-o", "n.safetensors")
    assert [one["documents"] for one in changed["categories"]] == [20, 21]
    assert TrainedModel.load(here / MODEL).fingerprint == after.fingerprint


def test_an_update_needs_what_the_model_was_trained_on(here: Path) -> None:
    trained(here, "labelled", "-o", "n.safetensors", "--no-keep-rows")
    assert not (here / "n.rows.safetensors").exists()
    done = run(here, "train", "labelled", "--update", "n.safetensors", code=2)
    assert b"train it anew" in done.stderr
    shutil.copy(here / "m.rows.safetensors", here / "n.rows.safetensors")
    trained(here, "labelled", "--update", "n.safetensors")
    write(here / "more" / "animals", "plants", 1)
    write(here / "more" / "plants", "plants", 2)
    done = run(here, "train", "more", "--update", MODEL, code=2)
    assert b"animals" in done.stderr


def test_the_answers_of_an_llm_teach_a_model(tmp_path: Path) -> None:
    for kind in KINDS:
        for number in range(20):
            write(tmp_path / "documents" / kind, kind, number)

    def oracle(_system: str, user: str) -> dict[str, float]:
        plants = sum(user.count(word) for word in KINDS["plants"].split())
        return {"plants": 0.9, "motors": 0.1} if plants else {"motors": 0.8, "plants": 0.2}

    with OllamaDouble(oracle) as server:
        more = ("-c", "plants,motors", "--classifier", "ollama", "--host", server.url)
        run(tmp_path, "classify-async", "documents", *more, "--no-progress")
    run_id = json.loads(run(tmp_path, "status", "--json").stdout)["run_id"]
    run(tmp_path, "correct", "documents/plants/000.txt", "motors")
    found = trained(tmp_path, "--from-run", run_id, "-o", MODEL)
    assert found["documents"] == 40
    assert [one["documents"] for one in found["categories"]] == [19, 21]
    run(tmp_path, "classify-parallel", "documents", *USE, "--use-database", "--no-progress")
    own = json.loads(run(tmp_path, "status", "--json").stdout)["run_id"]
    refused = run(tmp_path, "train", "--from-run", own, "-o", "n.safetensors", code=2)
    assert b"its own answers" in refused.stderr


def test_an_evaluation_on_what_was_trained_with_says_so(here: Path) -> None:
    done = run(here, "evaluate", "labelled", *USE, "--html", "page.html")
    said = b"the model was trained with 40 of the 40 documents"
    assert said in done.stdout and said in done.stderr
    assert said in (here / "page.html").read_bytes()
    other = run(here, "evaluate", "documents", *USE, "--json")
    assert json.loads(other.stdout)["trained_with"] == 0 and b"flatter" not in other.stderr
    plain = run(here, "evaluate", "documents", "--classifier", "embedded", "--json")
    assert json.loads(plain.stdout)["trained_with"] is None


def test_corrections_are_learnt_for_the_categories_of_the_newest_run(tmp_path: Path) -> None:
    for kind in KINDS:
        for number in range(6):
            write(tmp_path / "documents" / kind, kind, number)
    how = ("-c", "plants,motors", "--classifier", "embedded", "--use-database", "--no-progress")
    run(tmp_path, "classify-parallel", "documents", *how)
    none = run(tmp_path, "train", "--from-corrections", "-o", MODEL, code=2)
    assert b"no correction holds for plants, motors" in none.stderr
    said = [f"documents/{kind}/{number:03}.txt,{kind}" for kind in KINDS for number in range(6)]
    (tmp_path / "said.csv").write_text("\n".join(["path,category", *said]))
    run(tmp_path, "correct", "--from", "said.csv")
    assert trained(tmp_path, "--from-corrections", "-o", MODEL)["documents"] == 12
    named = run(tmp_path, "train", "--from-corrections", "-o", MODEL, "-c", "a,b", code=2)
    assert b"no correction holds for a, b" in named.stderr


def test_where_no_text_is_stored_it_says_so(tmp_path: Path) -> None:
    for kind in KINDS:
        write(tmp_path / "documents" / kind, kind, 1)
    how = ("-c", "plants,motors", "--classifier", "embedded", "--use-database", "--no-progress")
    run(tmp_path, "classify-parallel", "documents", *how, DOC_CLASSIFY_STORE_TEXT="false")
    run(tmp_path, "correct", "documents/plants/001.txt", "plants")
    done = run(tmp_path, "train", "--from-corrections", "-o", MODEL, code=2)
    assert b"of 1 documents no text is stored" in done.stderr
    newest = json.loads(run(tmp_path, "status", "--json").stdout)["run_id"]
    done = run(tmp_path, "train", "--from-run", newest, "--self-train", "-o", MODEL, code=2)
    assert b"001.txt: its text is not stored" in done.stderr and b"got 0" in done.stderr


def test_a_file_that_is_not_there_is_no_name_of_another_model(here: Path) -> None:
    for name in ("typo.safetensors", "./typo"):
        done = run(here, "classify", "documents", "--model", name, code=2)
        assert b"no model file" in done.stderr
    found = run(here, "classify", "documents/plants/100.txt", "--model", MODEL, "--json")
    assert json.loads(found.stdout)["category"] == "plants"


def test_a_link_to_a_folder_is_no_category(tmp_path: Path) -> None:
    folder = labelled(tmp_path / "labelled", 3)
    (folder / "linked").symlink_to(folder)
    names = [one["name"] for one in trained(tmp_path, "labelled", "-o", MODEL)["categories"]]
    assert names == ["motors", "plants"]


@pytest.mark.parametrize("name", ["precious.txt", "n.rows.safetensors", MODEL])
def test_nothing_but_a_model_is_replaced(here: Path, name: str) -> None:
    path = here / name
    content = b"a letter" if name != MODEL else (here / "m.rows.safetensors").read_bytes()
    path.write_bytes(content)
    output = "n.safetensors" if "rows" in name else name
    for more in ((), ("--no-keep-rows",), ("--self-train",)):
        done = run(here, "train", "labelled", "-o", output, *more, code=2)
        assert b"is not replaced" in done.stderr and path.read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), b"give one of"),
        (("labelled", "--update", MODEL, "-c", "plants,motors"), b"leave -c"),
        (("--from-run", "x", "-o", "n", "-c", "plants,motors"), b"leave -c"),
        (("labelled", "--update", MODEL, "--no-zero-shot"), b"leave --no-zero-shot"),
        (("labelled", "-o", "documents"), b"is a directory"),
        (("labelled", "--from-corrections", "-o", "n"), b"give one of"),
        (("labelled",), b"-o says where"),
        (("labelled", "-o", "nowhere/n"), b"there is no folder"),
        (("nothing", "-o", "n"), b"is no folder"),
        (("documents/plants", "-o", "n"), b"two categories or more"),
        (("labelled", "-o", "n", "-c", "a,b"), b"the categories are a, b"),
        (("--from-run", "x", "-o", "n"), b"there is no database"),
        (("labelled", "--update", "labels.csv"), b"is not what doc-classify trains"),
        (("labels.csv", "-o", "n"), b"columns path and category"),
    ],
)
def test_what_cannot_be_done_is_said(here: Path, arguments: tuple[str, ...], said: bytes) -> None:
    (here / "labels.csv").write_text("file,kind\na,b\n")
    done = run(here, "train", *arguments, code=2)
    assert said in done.stderr and not (here / "n").exists()


def test_few_documents_are_warned_of(tmp_path: Path) -> None:
    labelled(tmp_path / "labelled", 3)
    done = run(tmp_path, "train", "labelled", "-o", MODEL)
    assert b"fewer than 10 documents: motors (3), plants (3)" in done.stderr
    assert b"only scores" in done.stderr


def test_distributed_workers_use_the_model_of_the_run_and_no_other(
    here: Path, site: Site, module_worker: Callable[..., CeleryWorker]
) -> None:
    how = {"classifier": "embedded", "embedded_model": here / MODEL}
    right = (here / MODEL).read_bytes()
    with site.processor(**how) as processor:
        run_id = processor.submit_directory(here / "documents")
        trained(here, "labelled", "-o", MODEL, "--no-zero-shot")
        wrong = module_worker("wrong")
        wait_until(lambda: "takes no more" in wrong.said(), "it refuses")
        assert "trained again" in wrong.said() and site.completed(run_id) == 0
        (here / MODEL).write_bytes(right)
        module_worker("right")
        progress = processor.wait_for_completion(run_id, poll_interval=0.1)
        found = list(processor.get_results(run_id, poll_interval=0.1))
    assert (progress["state"], progress["successful"]) == ("finished", 8)
    assert progress["model"] == str(here / MODEL)
    for one in found:
        assert one["path"].split("/")[-2] == one["category"] and one["confidence"] > 0.6
