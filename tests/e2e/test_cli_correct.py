"""Correcting categories by the real command."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tests.e2e.test_cli_runs import run

from conftest import fresh_database

LETTER = "Dear Sir,\nthank you for your letter of May.\nYours sincerely,\nA. Miller\n"
BILL = "INVOICE no. 12\nAmount due: 100 EUR\nVAT 19\nPlease pay within 30 days.\nTotal 119\n" * 3


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return classified(tmp_path)


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For tests that change nothing."""
    return classified(tmp_path_factory.mktemp("left-alone"))


def classified(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "letter.txt").write_text(LETTER)
    (folder / "bill.txt").write_text(BILL)
    (folder / "copy.txt").write_text(BILL)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    run(tmp_path, "classify-parallel", "documents", "--use-database", "--no-progress", code=1)
    return tmp_path


def listing(here: Path, *more: str) -> dict[str, dict]:
    lines = run(here, "results", "--json", *more).stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["path"].rpartition("/")[2]: row for row in rows}


def test_a_correction_shows_in_all_listings_and_outlives_a_forced_run(here: Path) -> None:
    before = listing(here)["bill.txt"]
    assert (before["category"], before["corrected"]) == ("invoices", False)
    said = run(here, "correct", "documents/bill.txt", "Compliance", "--note", "looks\x1b[2J odd")
    assert b"compliance (the classifier said invoices)" in said.stdout
    for _ in range(2):
        rows = listing(here)
        for name in ("bill.txt", "copy.txt"):  # the same document
            assert rows[name]["category"] == "compliance"
            assert rows[name]["corrected"] is True
            assert rows[name]["predicted_category"] == "invoices"
            assert rows[name]["score"] == before["score"]
            assert rows[name]["needs_review"] is False
        assert rows["letter.txt"]["corrected"] is False
        assert set(listing(here, "--category", "compliance")) == {"bill.txt", "copy.txt"}
        assert "bill.txt" not in listing(here, "--category", "invoices")
        stats = json.loads(run(here, "status", "--json").stdout)["stats"]
        assert stats["corrected"] == 2
        assert stats["categories"]["compliance"] == {
            "files": 2,
            "mean_score": None,
            "mean_confidence": None,
        }
        more = ["--use-database", "--force", "--no-progress"]
        run(here, "classify-parallel", "documents", *more, code=1)
    shown = run(here, "results", "--category", "compliance").stdout
    assert b"compliance (corrected; the classifier said invoices (confidence 0.9" in shown
    listed = run(here, "correct", "--list").stdout
    assert b"\x1b" not in listed
    assert b"compliance (the classifier said invoices)" in listed
    (one,) = map(json.loads, run(here, "correct", "--list", "--json").stdout.splitlines())
    assert one["note"] == "looks\x1b[2J odd"
    assert b"Taken back" in run(here, "correct", "--undo", before["sha256"]).stdout
    assert listing(here)["bill.txt"]["corrected"] is False
    assert b"no correction" in run(here, "correct", "--undo", before["sha256"]).stdout


def test_an_export_with_changed_categories_is_read_back(here: Path) -> None:
    run(here, "export", "-o", "labels.csv")
    with (here / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        if row["path"].endswith("letter.txt"):
            row["category"] = "research"
    with (here / "labels.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        table = csv.DictWriter(stream, rows[0])
        table.writeheader()
        table.writerows(rows)
    counts = json.loads(run(here, "correct", "--from", "labels.csv", "--json").stdout)
    assert (counts["corrected"], counts["unchanged"], counts["failed"]) == (1, 3, 0)
    assert listing(here)["letter.txt"]["category"] == "research"
    assert listing(here)["bill.txt"]["corrected"] is False
    undone = run(here, "correct", "--from", "labels.csv", "--undo", "--json")
    assert json.loads(undone.stdout)["undone"] == 1


def test_hostile_rows_are_named_and_the_others_taken(here: Path) -> None:
    lines = [
        "path,category,note",
        "documents/letter.txt,research,=cmd|' /C calc'!A0",
        "../../etc/passwd,research",
        "documents/../documents/bill.txt,reports,with dots",
        "documents/bill.txt,'=1+1",
        "documents/copy.txt,\x1b[31mred",
        "documents/broken.pdf,contracts",
        "nothing\x07here.txt,invoices",
        ",",
        "documents/letter.txt",
        '"a,b',
    ]
    (here / "labels.csv").write_text("\n".join(lines))
    done = run(here, "correct", "--from", "labels.csv", code=1)
    assert done.stdout.startswith(b"2 corrected, 0 rows unchanged, 8 rows could not be used")
    assert b"\x1b" not in done.stderr
    assert b"\x07" not in done.stderr
    assert b"line 3: ../../etc/passwd: run" in done.stderr
    assert b"no category '=1+1'" in done.stderr
    assert b"broken.pdf: it has no category in run" in done.stderr
    assert listing(here)["bill.txt"]["category"] == "reports"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"name,kind\nx,y\n",
        b"path;category\nx;y\n",
        b"\xff\xfe\x00",
        b"path,category\n\xff,a\n",
    ],
)
def test_a_file_that_is_no_such_table_is_a_usage_error(left_alone: Path, content: bytes) -> None:
    (left_alone / "labels.csv").write_bytes(content)
    assert b"labels.csv" in run(left_alone, "correct", "--from", "labels.csv", code=2).stderr


def test_a_hundred_thousand_rows_take_little_memory(here: Path) -> None:
    with (here / "labels.csv").open("w") as stream:
        stream.write("path,category\n")
        for number in range(100_000):
            stream.write(f"/elsewhere/{number}.txt,invoices\n")
        stream.write("documents/letter.txt,invoices\n")
    counts = json.loads(run(here, "correct", "--from", "labels.csv", "--json", code=1).stdout)
    assert (counts["corrected"], counts["failed"], len(counts["errors"])) == (1, 100_000, 20)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("documents/bill.txt",),
        ("documents/bill.txt", "no such category"),
        ("documents/nothing.txt", "invoices"),
        ("documents/broken.pdf", "invoices"),
        ("documents/bill.txt", "invoices", "--undo"),
        ("documents/bill.txt", "invoices", "--run", "x"),
        ("--list", "--undo"),
        ("--from", "missing.csv"),
        ("--from", "missing.csv", "documents/bill.txt"),
    ],
)
def test_what_cannot_be_done_is_a_usage_error(left_alone: Path, arguments: tuple[str, ...]) -> None:
    assert run(left_alone, "correct", *arguments, code=2).stderr.startswith(b"Error: ")


def test_corrections_are_kept_in_postgresql_too(tmp_path: Path, postgres_url: str) -> None:
    url = fresh_database(postgres_url)
    changes = {"DATABASE_URL": url}
    (tmp_path / "documents").mkdir()
    for name, content in (("letter.txt", LETTER), ("bill.txt", BILL), ("copy.txt", BILL)):
        (tmp_path / "documents" / name).write_text(content)
    run(tmp_path, "classify-parallel", "documents", "--use-database", "--no-progress", **changes)
    run(tmp_path, "correct", "documents/copy.txt", "contracts", "--note", "a nul", **changes)
    (tmp_path / "said.csv").write_text(
        "path,category\ndocuments/letter.txt,research\ndocuments/nothing.txt,reports\n"
    )
    said = run(tmp_path, "correct", "--from", "said.csv", "--json", code=1, **changes)
    assert [json.loads(said.stdout)[name] for name in ("corrected", "failed")] == [1, 1]
    lines = run(tmp_path, "correct", "--list", "--json", **changes).stdout.splitlines()
    assert sorted(json.loads(line)["category"] for line in lines) == ["contracts", "research"]
    shown = run(tmp_path, "results", "--json", **changes).stdout.splitlines()
    found = {row["path"].rpartition("/")[2]: row["category"] for row in map(json.loads, shown)}
    assert found == {"letter.txt": "research", "bill.txt": "contracts", "copy.txt": "contracts"}
    model = ("train", "--from-corrections", "-o", "m.safetensors", "--json")
    assert json.loads(run(tmp_path, *model, **changes).stdout)["documents"] == 2
    undone = run(tmp_path, "correct", "documents/bill.txt", "--undo", **changes)
    assert b"Taken back" in undone.stdout
    (line,) = run(tmp_path, "correct", "--list", "--json", **changes).stdout.splitlines()
    assert json.loads(line)["category"] == "research"
