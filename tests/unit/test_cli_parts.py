"""What can be tested of the command line without a process of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from doc_classify.cli import cli
from doc_classify.cli.progress import ProgressReport
from doc_classify.cli.report import check_export, exit_code, stats_to_dict
from doc_classify.errors import ConfigurationError
from doc_classify.records import CategoryStats, RunStats
from doc_classify.settings import Settings, environment_variable
from doc_classify.storage import open_existing, open_store
from doc_classify.storage.probe import probe
from doc_classify.terminal import one_line, shown_path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for field in Settings.model_fields:
        monkeypatch.delenv(environment_variable(field), raising=False)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")  # whatever runs on the developer's machine
    monkeypatch.chdir(tmp_path)
    return tmp_path


def findings(code: int = 0, **environment: str) -> dict[str, dict]:
    """What ``doctor`` finds, by name."""
    runner = CliRunner(env=environment)
    result = runner.invoke(cli, ["doctor", "--json"], standalone_mode=False)
    assert result.exception is None
    assert result.return_value == code, result.output
    return {found["name"]: found for found in json.loads(result.output)}


@given(st.text())
def test_any_text_becomes_one_printable_line(text):
    line = one_line(text)
    assert line.isprintable()
    assert len(line) <= 400 * 10


def test_readable_text_stays_as_it_is():
    assert one_line("Größe: 5 µm [x] ✓") == "Größe: 5 µm [x] ✓"
    assert one_line("two\nlines \x1b[2J") == "two lines \\x1b[2J"
    assert one_line("x" * 1000).endswith("x…")


def test_paths_of_any_bytes_can_be_shown():
    assert shown_path(Path("a/b.txt")) == "a/b.txt"
    assert shown_path(os.fsdecode(b"caf\xe9\n\x1b")) == "caf\\xe9\\n\\x1b"


def test_failures_now_or_earlier_give_exit_code_1():
    assert exit_code(RunStats(seen=1, classified=1)) == 0
    assert exit_code(RunStats(seen=1, unsupported=1)) == 0
    assert exit_code(RunStats(seen=1, failed=1)) == 1
    assert exit_code(RunStats(seen=1, already_done=1, already_failed=1)) == 1


def test_stats_as_json():
    stats = RunStats(seen=3, classified=2, total_processing_time=4.0, pages=8)
    stats.categories["letters"] = CategoryStats(2, score_sum=1.0, score_count=2)
    data = json.loads(json.dumps(stats_to_dict(stats)))
    assert data["pending"] == 1
    assert data["documents_per_second"] == 0.5
    assert data["pages_per_second"] == 2.0
    assert data["seconds_for_500000"] == 1_000_000
    assert data["categories"] == {
        "letters": {"files": 2, "mean_score": 0.5, "mean_confidence": None}
    }
    assert stats_to_dict(RunStats())["seconds_for_500000"] is None


def test_an_export_that_cannot_be_is_refused_before_the_run(here):
    check_export(here / "new" / "folder", "json")
    assert not (here / "new").exists()
    (here / "file").touch()
    with pytest.raises(ConfigurationError, match="file"):
        check_export(here / "file" / "folder", "json")


# --- Progress -------------------------------------------------------------------------------------


def test_progress_in_a_log_is_a_line_now_and_then(monkeypatch, capsys, here):
    now = [0.0]
    monkeypatch.setattr("doc_classify.cli.progress.time.monotonic", lambda: now[0])
    with ProgressReport(here, recursive=True) as report:
        for second in range(1, 26):
            now[0] = second
            report.update(RunStats(seen=10 * second, classified=9 * second, failed=second - 1))
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second = captured.err.splitlines()
    assert first == "99 done, 1 waiting, 9 failed, 9.9 documents/s"
    assert second.startswith("199 done")


def test_no_progress_means_silence(monkeypatch, capsys, here):
    monkeypatch.setattr("doc_classify.cli.progress._LINE_SECONDS", 0.0)
    with ProgressReport(here, recursive=True, shown=False) as report:
        report.update(RunStats(seen=1))
    assert capsys.readouterr() == ("", "")


def test_progress_of_a_folder_that_is_not_there_leaves_the_error_to_the_run(monkeypatch, here):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with ProgressReport(here / "nowhere", recursive=True) as report:
        report.update(RunStats(seen=1, classified=1))


# --- Databases that are only looked at ------------------------------------------------------------


def test_looking_for_a_database_makes_none(store_url, here):
    assert open_existing(store_url) is None
    assert open_existing(store_url) is None
    assert not list(here.iterdir())
    open_store(store_url).close()
    found = open_existing(store_url)
    assert found is not None
    assert found.run() is None
    found.close()


def test_probing_a_database_makes_none(store_url):
    assert probe(store_url).startswith(store_url.split("?")[0].replace("+psycopg", ""))
    assert open_existing(store_url) is None


# --- check ----------------------------------------------------------------------------------------


def test_check_says_which_classifier_auto_takes():
    found = findings(OLLAMA_HOST="http://user:hunter2@127.0.0.1:9", DOC_CLASSIFY_CLASSIFIER="auto")
    assert found["classifier"]["ok"]
    assert found["classifier"]["found"].startswith(
        "auto: embedded, since no answer from http://127.0.0.1:9: Connection refused."
    )
    found = findings(3, DOC_CLASSIFY_CLASSIFIER="openai")
    assert "--base-url" in found["classifier"]["found"]


@pytest.mark.parametrize("address", ["", "http://", "http://[::1", "nonsense://x:y", "a b c"])
def test_check_survives_any_address(address):
    """Of Ollama as of the broker; a broker that was named and does not answer is to be mended."""
    found = findings(
        1,
        OLLAMA_HOST=address,
        DOC_CLASSIFY_CLASSIFIER="auto",
        CELERY_BROKER_URL=address or "redis://127.0.0.1:9",
    )
    assert found["message broker"]["status"] == "warning"
    assert "CELERY_BROKER_URL" in found["message broker"]["advice"]
    assert found["classifier"]["found"].startswith("auto: embedded, since")


def test_check_names_engines_languages_and_the_database(here):
    found = findings()
    assert "pdf: PDF document" in found["formats"]["found"]
    assert "Word 97" not in found["formats"]["found"]  # needs the extra
    assert found["OCR"]["found"].endswith("with eng")
    assert "the first run makes it" in found["database"]["found"]
    assert "the first run makes them" in found["tables"]["found"]
    assert not list(here.iterdir())
    open_store("sqlite:///doc-classify.db").close()
    found = findings()
    assert "(SQLite 3." in found["database"]["found"]
    assert "as this version" in found["tables"]["found"]


def test_check_says_how_to_get_what_is_missing():
    found = findings(3, DOC_CLASSIFY_OCR_LANGUAGES="eng+xyz")["OCR"]
    assert "'xyz' is not installed; install it" in found["found"]
    (Path("file")).touch()
    found = findings(3, DATABASE_URL="sqlite:///file/a.db")["database"]
    assert not found["ok"]
