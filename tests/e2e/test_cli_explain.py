"""Looking closely at one document by the real command."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.doubles.ollama import OllamaDouble
from tests.e2e.test_cli_correct import BILL
from tests.e2e.test_cli_runs import run

from doc_classify.cli.explain import _lines
from doc_classify.dataset.compose import compose
from doc_classify.dataset.hostile import KINDS, make_hostile
from doc_classify.explanation import Examined, examine
from doc_classify.records import Extraction, Page, Problem
from doc_classify.settings import Settings
from doc_classify.taxonomy import DEFAULT_TAXONOMY

HOSTILE = "\x1b[2J\u202egpj\x07\u2028"


def test_a_person_and_a_program_are_told_the_same(tmp_path: Path) -> None:
    (tmp_path / "bill.txt").write_text(BILL)
    said = run(tmp_path, "explain", "bill.txt").stdout.decode()
    assert "category invoices, confidence 0.9" in said
    assert "'amount due'" in said
    assert "\n  fails" not in said
    found = json.loads(run(tmp_path, "explain", "bill.txt", "--json").stdout)
    assert found["read"]["characters"] == len(BILL.strip())
    assert "text" not in found["read"]
    assert found["decision"]["category"] == "invoices"
    assert found["decision"]["evidence"][0]["category"] == "invoices"
    assert all(one["passed"] for one in found["decision"]["checks"])
    classified = json.loads(run(tmp_path, "classify", "bill.txt", "--json").stdout)
    for name in ("category", "score", "confidence", "scores", "needs_review"):
        assert found["decision"][name] == classified[name]
    shown = json.loads(run(tmp_path, "explain", "bill.txt", "--json", "--show-text").stdout)
    assert shown["read"]["text"] == BILL.strip()


def test_why_a_document_is_for_review(tmp_path: Path) -> None:
    (tmp_path / "thin.txt").write_text("hello there")
    said = run(tmp_path, "explain", "thin.txt").stdout.decode()
    assert ", for review" in said
    assert "fails words: 2, at least 15 needed: there are few words" in said


def test_hostile_text_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "bill.html").write_text(
        f"<title>{HOSTILE}</title><p>{BILL}{HOSTILE}</p>", encoding="utf-8"
    )
    for more in ((), ("--show-text",), ("--json", "--show-text")):
        said = run(tmp_path, "explain", "bill.html", *more).stdout.decode()
        assert all(c.isprintable() or c == "\n" for c in said)


def test_everything_that_a_document_brings_is_escaped() -> None:
    read = Extraction(
        f"text/{HOSTILE}",
        (Page(1, f"{HOSTILE}\n{HOSTILE}", ocr=True),),
        HOSTILE,
        page_count=3,
        title=HOSTILE,
        author=HOSTILE,
        created=HOSTILE,
        modified=HOSTILE,
        language=HOSTILE,
        attachments=(HOSTILE,),
        problems=(Problem(HOSTILE, HOSTILE, 2),),
        truncated=True,
    )
    examined = Examined("file:///d/%1B[2J.txt", 5, DEFAULT_TAXONOMY, HOSTILE, read)
    for show_text in (False, True):
        assert all(line.isprintable() for line in _lines(examined, show_text=show_text))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_broken_file_is_explained(kind: str, tmp_path: Path) -> None:
    extension = KINDS[kind][0]
    content = compose(random.Random(1), "invoices", "en", 1)
    data = make_hostile(kind, extension, content, random.Random(1), first=True)
    (tmp_path / f"broken.{extension}").write_bytes(data)
    examined = examine(tmp_path / f"broken.{extension}", Settings(classifier="embedded"))
    assert (examined.explanation is None) == (examined.failure is not None)
    assert list(_lines(examined, show_text=True))


def test_a_failure_has_its_reason_and_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    assert b"not read (damaged)" in run(tmp_path, "explain", "broken.pdf", code=1).stdout
    found = json.loads(run(tmp_path, "explain", "broken.pdf", "--json", code=1).stdout)
    assert (found["read"], found["decision"], found["error_kind"]) == (None, None, "damaged")


@pytest.mark.parametrize("path", [".", "missing.txt"])
def test_what_is_no_document_is_a_usage_error(path: str, tmp_path: Path) -> None:
    assert run(tmp_path, "explain", path, code=2).stderr.startswith(b"Error: ")


def test_an_object_is_fetched(s3, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    s3.put("bucket", {"in/bill.txt": BILL.encode()})
    settings = Settings(classifier="embedded")
    examined = examine("s3://bucket/in/bill.txt", settings)
    assert examined.explanation is not None
    assert examined.explanation.classification.category == "invoices"


def test_an_llm_tells_what_it_was_asked(tmp_path: Path) -> None:
    (tmp_path / "bill.txt").write_text(BILL)
    with OllamaDouble(lambda _system, _user: {"invoices": 0.55, "other": 0.45}) as double:
        options = ("--classifier", "ollama", "--host", double.url, "--json")
        found = json.loads(run(tmp_path, "explain", "bill.txt", *options).stdout)["decision"]
        said = run(tmp_path, "explain", "bill.txt", *options[:-1]).stdout.decode()
    assert found["category"] == "invoices"
    assert found["needs_review"] is True
    assert [one["passed"] for one in found["checks"]] == [False, True]
    assert found["asked"]["user"] > len(BILL)
    assert found["asked"]["usage"]["calls"] == 1
    assert "asked 1 time: " in said
    assert "fails margin to the runner-up: 0.1, at least 0.2 needed: the model wavers" in said


def test_a_model_that_is_a_file_is_never_taken_for_the_name_of_one(tmp_path: Path) -> None:
    (tmp_path / "bill.txt").write_text(BILL)
    said = run(tmp_path, "explain", "bill.txt", "--model", "bill.txt", code=2).stderr
    assert b"the model bill.txt is not a model of doc-classify" in said
