"""``dataset``, ``benchmark`` and ``evaluate`` as a user calls them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import fresh_database
from tests.doubles.ollama import OllamaDouble

from doc_classify.benchmark.result import read_result
from doc_classify.dataset import CATEGORIES, DatasetOptions, generate
from doc_classify.settings import Settings, environment_variable

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "tests/test_performance_benchmark.py"
OPTIONS = DatasetOptions(
    count=42, formats=("txt", "md", "eml", "docx", "html"), hostile=0.1, duplicates=0.05, scanned=0
)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without settings."""
    for field in Settings.model_fields:
        monkeypatch.delenv(environment_variable(field), raising=False)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measuring") / "documents"
    generate(folder, OPTIONS)
    return folder


@pytest.fixture
def double() -> Iterator[OllamaDouble]:
    """A model that knows an invoice when it sees one, and takes all else for ``other``."""

    def answer(_system: str, user: str) -> dict[str, float]:
        known = "invoices" if re.search(r"Invoice no\. \d", user) else "other"
        return {known: 0.8, "reports": 0.2}

    with OllamaDouble(answer) as server:
        yield server


def run(here: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = ["-m", "doc_classify"] if arguments[0] != BENCHMARK else []
    done = subprocess.run(
        [sys.executable, *command, *map(str, arguments)],
        cwd=here, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


# --- benchmark --------------------------------------------------------------------------------


def test_the_script_measures_and_reports(documents, tmp_path):
    done = run(
        tmp_path, BENCHMARK, documents, "--operations", "end_to_end", "--workers", "1",
        "--repeat", "2", "--output-dir", "benchmark_results/", code=1,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0] == "PERFORMANCE BENCHMARK RESULTS"
    assert set(lines[1]) == {"="}
    assert "END_TO_END OPERATION:" in lines
    shown = dict(re.findall(r"^  (\w[^:]+): (.+)$", done.stdout, re.MULTILINE))
    [saved] = (tmp_path / "benchmark_results").glob("benchmark_results_*.json")
    middle = read_result(saved).operations[0].middle
    assert read_result(saved).command == (
        f"doc-classify benchmark {documents} --operations end_to_end --workers 1 --repeat 2 "
        "--output-dir benchmark_results/"
    )
    assert shown["Total Files"].startswith(f"{middle.files} (and 2 copies")
    assert shown["Success Rate"].startswith(f"{middle.succeeded}/{middle.files} (")
    assert float(shown["Operations per Second"].replace(",", "")) == pytest.approx(
        middle.files / middle.wall_seconds, abs=0.01
    )
    [estimate] = [line for line in lines if line.startswith("Estimated time for 500K documents:")]
    number, unit = estimate.split(": ")[1].split(" ")[:2]
    seconds = float(number) * {"hours": 3600, "minutes": 60}[unit]
    assert seconds == pytest.approx(500_000 * middle.wall_seconds / middle.files, rel=0.02, abs=200)


def test_every_operation_agrees_with_the_others(documents, tmp_path):
    done = run(
        tmp_path, "benchmark", documents, "--operations", "end_to_end,store,classify,extract",
        "--workers", "1,2", "--repeat", "1", "--json", code=1,
    )  # fmt: skip
    [saved] = (tmp_path / "benchmark_results").iterdir()
    assert json.loads(done.stdout) == json.loads(saved.read_bytes())
    result = read_result(saved)
    measured = [(one.name, one.workers) for one in result.operations]
    assert measured == [
        ("extract", 1), ("extract", 2), ("classify", 1), ("classify", 2), ("store", 1),
        ("end_to_end", 1), ("end_to_end", 2),
    ]  # fmt: skip
    assert result.data.files == OPTIONS.count
    assert result.machine.cores >= 1
    assert result.machine.memory_bytes > 10**8
    whole = [one.middle for one in result.operations if one.name == "end_to_end"]
    for operation in result.operations:
        repeat = operation.middle
        assert operation.warmed_up
        assert repeat.seconds.count + repeat.failures.get("unreadable", 0) == repeat.files
        # Nobody is busy for longer than there was time.
        assert repeat.in_progress <= operation.workers * 1.02
        assert repeat.start_seconds <= repeat.wall_seconds or operation.name == "end_to_end"
        if operation.name != "store":
            groups = repeat.formats.values()
            assert sum(group.files for group in groups) == repeat.files
            assert sum(group.pages for group in groups) == repeat.pages
            assert repeat.cpu_workers > 0
        if operation.name == "classify":
            assert repeat.files == whole[0].succeeded
            assert repeat.failed == 0
        else:
            assert (repeat.files, repeat.failed) == (whole[0].files, whole[0].failed)
            assert repeat.failures == whole[0].failures
    for repeat in whole:
        assert repeat.duplicates == 2
        assert repeat.files + repeat.duplicates == OPTIONS.count
        assert set(repeat.stages) == {"hash", "register", "extract", "classify", "record"}
        inside = repeat.stages["extract"].cpu.total + repeat.stages["classify"].cpu.total
        assert inside <= repeat.cpu_workers
        assert inside <= repeat.seconds.total * 1.02 + 0.05
        assert repeat.store_seconds > 0


def test_a_result_is_compared_with_an_earlier_one(documents, tmp_path):
    options = ("--repeat", "1", "--workers", "1", "--operations", "store")
    run(tmp_path, "benchmark", documents, *options, code=1)
    [old] = (tmp_path / "benchmark_results").iterdir()
    done = run(tmp_path, "benchmark", documents, *options, "--compare", old, code=1)
    assert "COMPARED WITH" in done.stdout
    assert "x" in done.stdout.split("operations per second")[-1]
    assert len(list((tmp_path / "benchmark_results").iterdir())) == 2
    (tmp_path / "more").mkdir()
    (tmp_path / "more/one.txt").write_text("Dear Sir, kind regards")
    done = run(tmp_path, "benchmark", "more", *options, "--compare", old, code=2)
    assert "other documents" in done.stderr
    done = run(tmp_path, "benchmark", "more", *options, "--compare", old, "--other-data")
    assert "OTHER DOCUMENTS" in done.stdout


def test_an_llm_is_measured_without_asking_it_for_the_warm_up(documents, double, tmp_path):
    run(
        tmp_path, "benchmark", documents, "--operations", "classify,end_to_end", "--workers", "1",
        "--repeat", "1", "--classifier", "ollama", "--host", double.url, "--max-concurrent", "4",
        code=1,
    )  # fmt: skip
    [saved] = (tmp_path / "benchmark_results").iterdir()
    result = read_result(saved)
    assert result.configuration.classifier == "ollama"
    asked = 0
    for operation in result.operations:
        llm = operation.middle.llm
        assert llm is not None
        asked += llm.calls
        assert llm.seconds.count == llm.calls == operation.middle.succeeded
        assert 0 < llm.in_flight <= 4
        assert llm.prompt_tokens > 100 * llm.calls
        assert operation.middle.stages["classify"].cpu is None
    assert len(double.chats) - asked <= 2  # the two that found out what the server can do


def test_a_database_can_be_named(documents, tmp_path, postgres_url):
    url = fresh_database(postgres_url)
    run(
        tmp_path, "benchmark", documents, "--operations", "store,end_to_end", "--workers", "1",
        "--repeat", "2", "--database-url", url, code=1,
    )  # fmt: skip
    [saved] = (tmp_path / "benchmark_results").iterdir()
    result = read_result(saved)
    assert result.configuration.database.startswith("postgresql")
    for operation in result.operations:
        assert {repeat.files for repeat in operation.repeats} == {OPTIONS.count - 2}
    # What is now in the ledger is true: a run finds all of it done.
    done = run(
        tmp_path, "classify-parallel", documents, "--use-database", "--database-url", url, "--json",
        code=1,
    )  # fmt: skip
    stats = json.loads(done.stdout)
    assert (stats["already_done"], stats["duplicates"]) == (OPTIONS.count - 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "does not exist"),
        (("empty",), "holds no documents"),
        (("empty", "--operations", "sing"), "unknown operation 'sing'"),
        (("empty", "--workers", "many"), "no list of numbers"),
        (("empty", "--compare", "broken.json"), "no benchmark result"),
        (("empty", "--output-dir", "broken.json/x"), "cannot write"),
        ((".",), "lies among the documents"),
    ],
)
def test_benchmarks_that_cannot_be_made(tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.json").write_text("{}")
    done = run(tmp_path, "benchmark", *arguments, code=2)
    assert message in done.stderr


def test_one_document_and_nothing_but_failures(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one/letter.txt").write_text("Dear Sir, thank you for your letter. Kind regards")
    done = run(tmp_path, "benchmark", "one", "--repeat", "1", "--workers", "2")
    assert "Success Rate: 1/1 (100.0%)" in done.stdout
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/empty.txt").touch()
    (tmp_path / "bad/broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    done = run(
        tmp_path, "benchmark", "bad", "--operations", "extract,classify,store,end_to_end",
        "--repeat", "1", "--workers", "1", code=1,
    )  # fmt: skip
    assert "Success Rate: 0/2 (0.0%)" in done.stdout


def test_an_interrupted_benchmark_leaves_no_workers_and_no_result(documents, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "doc_classify", "benchmark", documents, "--repeat", "500"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"DOC_CLASSIFY_WORKERS": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "repeat 2 of" in line:
            break
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - started < 20
    assert said == ""
    assert list((tmp_path / "benchmark_results").iterdir()) == []


# --- evaluate ---------------------------------------------------------------------------------


def test_a_data_set_is_evaluated_by_its_labels(documents, tmp_path):
    done = run(tmp_path, "evaluate", documents, "--json", "--html", "page.html", code=1)
    found = json.loads(done.stdout)
    assert found["labels"].endswith(".labels.csv")
    assert found["labelled"] == found["answered"] + found["failed"]
    assert found["right"] == sum(n for label, answer, n in found["confusion"] if label == answer)
    assert found["accuracy"] == found["right"] / found["answered"] > 0.7
    assert found["accuracy_95"]["low"] < found["accuracy"] < found["accuracy_95"]["high"]
    assert found["copies"] == 2
    assert found["categories"] == list(CATEGORIES)
    assert sum(found["failures"].values()) == found["failed"] > 0
    assert found["calibration"]["count"] <= found["answered"]
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "<svg" in page
    table = run(tmp_path, "evaluate", documents, code=1).stdout
    assert f"Accuracy: {found['accuracy']:.3f}" in table


def test_folders_are_evaluated_with_an_llm(double, tmp_path):
    for name, text in (("invoices", "Invoice no. {}"), ("reports", "All is well, says no. {}")):
        (tmp_path / "labelled" / name).mkdir(parents=True)
        for number in range(6):
            (tmp_path / "labelled" / name / f"{number}.txt").write_text(text.format(number))
    done = run(
        tmp_path, "evaluate", "labelled", "--classifier", "ollama", "--host", double.url, "--json",
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert (found["answered"], found["right"]) == (12, 6)
    assert found["calibration"] is None
    assert found["sureness"] == "score"
    assert found["speed"]["llm_calls"] >= 12
    assert ["reports", "other", 6] in found["confusion"]


def test_hostile_names_on_a_page(tmp_path):
    for name in ("<b>one", "two & <script>x</script>".replace("/", "\u2215")):
        (tmp_path / "labelled" / name).mkdir(parents=True)
        (tmp_path / "labelled" / name / "<img src=x>.txt").write_text(f"nothing to see {name}")
    run(tmp_path, "evaluate", "labelled", "--html", "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<b>one" not in page
    assert "<img" not in page
    assert "<script" not in page


def test_nothing_but_failures_is_no_accuracy(tmp_path):
    (tmp_path / "labelled/reports").mkdir(parents=True)
    (tmp_path / "labelled/reports/empty.txt").touch()
    done = run(tmp_path, "evaluate", "labelled", "--html", "page.html", code=1)
    assert "0 right, 0 wrong, 1 failed" in done.stdout
    assert "Accuracy: -\n" in done.stdout


def test_an_evaluation_that_is_not_made_leaves_no_page(tmp_path):
    (tmp_path / "empty").mkdir()
    run(tmp_path, "evaluate", "empty", "--html", "page.html", code=2)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("empty",), "holds no labelled documents"),
        (("nowhere",), "does not exist"),
        (("labelled", "--map", "cats"), "LABEL=CATEGORY"),
        (("labelled", "-c", "a,b"), "which the taxonomy does not have"),
        (("labelled", "--html", "empty/no/page.html"), "cannot write"),
        (("labelled",), "at least two categories"),
    ],
)
def test_evaluations_that_cannot_be_made(tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "labelled/cats").mkdir(parents=True)
    (tmp_path / "labelled/cats/1.txt").write_text("a cat")
    done = run(tmp_path, "evaluate", *arguments, code=2)
    assert message in done.stderr


def test_time_that_a_hanging_document_took_is_counted(tmp_path, monkeypatch):
    """It held a worker until the limit, so it is part of what the workers were busy with."""
    monkeypatch.setenv("DOC_CLASSIFY_TIME_LIMIT", "1")
    (tmp_path / "slow").mkdir()
    options = DatasetOptions(count=1, formats=("pdf",), scanned=1, pages=8, seed=1)
    [label] = generate(tmp_path / "scans", options)
    assert label.pages > 10  # seconds of OCR on any machine
    [scan] = (tmp_path / "scans").rglob("*.pdf")
    for number in range(2):
        (tmp_path / f"slow/{number}.pdf").write_bytes(scan.read_bytes() + b"%" * number)
    (tmp_path / "slow/letter.txt").write_text("Dear Sir, thank you for your letter. Kind regards")
    run(
        tmp_path, "benchmark", "slow", "--operations", "extract,end_to_end", "--workers", "1",
        "--repeat", "1", "--pages", "all", code=1,
    )  # fmt: skip
    [saved] = (tmp_path / "benchmark_results").iterdir()
    for operation in read_result(saved).operations:
        repeat = operation.middle
        assert (repeat.files, repeat.failures) == (3, {"timeout": 2})
        assert 2.0 <= repeat.seconds.total <= repeat.wall_seconds
