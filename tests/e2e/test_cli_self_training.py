"""``train --self-train`` as a user calls it: from a folder, from a run, and what it refuses."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.e2e.test_cli import doc_classify

TOPICS = {
    "sport": ("match team player coach", "pitch whistle striker league fans stadium kick jersey"),
    "cooking": ("recipe kitchen oven", "flour butter simmer spoon garlic onion salt whisk"),
}
FILLER = ["today", "people", "said", "would", "about", "many", "first", "other", "after", "their"]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A hundred and twenty texts, half of which say nothing of what the descriptions say."""
    dice = random.Random(1)
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(120):
        described, besides = TOPICS[("sport", "cooking")[number % 2]]
        words = dice.choices(besides.split(), k=25) + dice.choices(FILLER, k=30)
        if number % 4 < 2:
            words += dice.choices(described.split(), k=4)
        dice.shuffle(words)
        (folder / f"{number:03}.txt").write_text(" ".join(words))
    (tmp_path / "topics.toml").write_text(
        "".join(
            f'[[categories]]\nname = "{name}"\ndescription = "{described}."\n'
            for name, (described, _) in TOPICS.items()
        )
    )
    return tmp_path


def classified(here: Path, *arguments: str) -> tuple[list[str], str]:
    """The categories of all documents, in the order of their names, and the run."""
    run = ("classify-parallel", "documents", "--taxonomy", "topics.toml", "--use-database")
    doc_classify(here, *run, "--classifier", "embedded", *arguments)
    lines = doc_classify(here, "results", "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    found = [row["category"] for row in sorted(rows, key=lambda row: row["uri"])]
    return found, rows[0]["run_id"]


def test_a_model_from_a_folder_and_the_same_from_a_run(here: Path) -> None:
    right = ["sport", "cooking"] * 60
    before, run_id = classified(here)
    assert sum(a == b for a, b in zip(before, right, strict=True)) < 110
    train = ("train", "--self-train", "--json")
    folder = doc_classify(
        here, *train, "documents", "--taxonomy", "topics.toml", "-o", "m.safetensors"
    )
    report = json.loads(folder.stdout)
    assert (report["seen"], report["used"], report["failed"]) == (120, 120, 0)
    assert report["after"] == [60, 60]
    run = json.loads(doc_classify(here, *train, "--from-run", run_id, "-o", "r.safetensors").stdout)
    assert run["before"] == report["before"]
    assert run["after"] == report["after"]
    assert classified(here, "--model", "m.safetensors")[0] == right


def test_what_cannot_help_writes_no_model(here: Path) -> None:
    for path in sorted((here / "documents").iterdir())[80:]:
        path.unlink()
    few = doc_classify(
        here,
        *("train", "documents", "--self-train", "--taxonomy", "topics.toml", "-o", "m.safetensors"),
        code=2,
    )
    assert "100 documents with words or more, got 80" in few.stderr
    assert not (here / "m.safetensors").exists()


def test_options_that_do_not_go_with_it(here: Path) -> None:
    train = ("train", "--self-train", "-o", "m.safetensors")
    for more in (("--from-corrections",), ("documents", "--cautious")):
        assert (
            "goes with LABELLED or --from-run" in doc_classify(here, *train, *more, code=2).stderr
        )
