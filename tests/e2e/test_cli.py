"""The command as a user calls it: in a process of its own, in a folder of its own."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from doc_classify.cli import _COMMANDS, _HELP, cli, main
from doc_classify.cli.reference import reference
from doc_classify.settings import Settings, environment_variable

TEXTS = {
    "invoice.txt": "Invoice no. 17\nBill to: Customer\nAmount due: 17.00 EUR\nVAT 19%\n",
    "contract.txt": "This agreement is made between the parties. Governing law. Termination.\n",
    "letter.txt": "Dear Sir, thank you for your letter of 3 May. Kind regards, A. Writer\n",
    "sub/copy.txt": "Invoice no. 17\nBill to: Customer\nAmount due: 17.00 EUR\nVAT 19%\n",
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A working directory with a small folder of documents: three texts, one of them twice."""
    for name, text in TEXTS.items():
        path = tmp_path / "documents" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without settings."""
    for field in Settings.model_fields:
        monkeypatch.delenv(environment_variable(field), raising=False)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")  # whatever runs on the developer's machine


def doc_classify(
    here: Path, *arguments: str | os.PathLike[str], code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own; checks its exit code."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "doc_classify", *arguments],
        cwd=here,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return checked(done, code)


def called(
    here: Path, *arguments: str, code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The same in this process, which saves the second that the start takes."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(here)
        patch.setattr(sys, "argv", ["doc-classify", *arguments])
        for name, value in environment.items():
            patch.setenv(name, value)
        handler = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            signal.signal(signal.SIGTERM, handler)
    done = subprocess.CompletedProcess(arguments, ended.value.code, out.getvalue(), err.getvalue())
    return checked(done, code)


def checked(done: subprocess.CompletedProcess[str], code: int) -> subprocess.CompletedProcess[str]:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def run_json(here: Path, *options: str, code: int = 0) -> dict:
    done = called(here, "classify-parallel", "documents", "-w", "1", "--json", *options, code=code)
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def lines(done: subprocess.CompletedProcess[str]) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    return line


# --- Help -----------------------------------------------------------------------------------------


def test_help_is_quick_and_imports_nothing_heavy(here):
    script = (
        "import sys; sys.argv = ['doc-classify', '--help']\n"
        "import atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from doc_classify.cli import main; main()"
    )
    seconds = []
    for _ in range(5):  # the machine may be busy with something else
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=here, capture_output=True, text=True, check=True
        )
        seconds.append(time.perf_counter() - started)
        if seconds[-1] < 0.5:
            break
    assert min(seconds) < 0.5
    imported = set(done.stderr.split())
    assert "click" in imported
    assert not imported & {"sqlalchemy", "pydantic", "rich", "lxml", "numpy", "PIL", "asyncio"}
    for name in _COMMANDS:
        assert name in done.stdout


def test_the_short_help_agrees_with_the_commands():
    assert list(_HELP) == list(_COMMANDS)
    for name, line in _HELP.items():
        command = cli.get_command(None, name)
        assert command.name == name
        first = " ".join(command.help.split("\n\n")[0].split())
        assert first.startswith(line.rstrip(".")), name


def test_the_written_reference_is_that_of_the_commands():
    written = Path(__file__).parents[2] / "docs" / "commands.md"
    assert written.read_text("utf-8") == reference(), "make docs writes it anew"


def test_every_option_of_every_command_has_a_help():
    for name in _COMMANDS:
        command = cli.get_command(None, name)
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{name} {parameter.opts}"


def test_version(here):
    assert doc_classify(here, "--version").stdout.strip()


# --- Runs -----------------------------------------------------------------------------------------


def test_without_a_database_nothing_is_left_behind(here):
    before = sorted(here.rglob("*"))
    done = doc_classify(here, "classify-parallel", "documents", "-w", "1")
    assert "4 files seen = 3 classified + 1 duplicates" in done.stdout
    assert "--use-database" in done.stdout
    assert "Classifying documents with 1 workers" in done.stderr
    assert sorted(here.rglob("*")) == before


def test_a_second_run_has_nothing_to_do(here):
    first = run_json(here, "--use-database")
    assert (first["seen"], first["classified"], first["duplicates"]) == (4, 3, 1)
    assert first["pages"] == 3
    assert first["workers"] == 1
    assert first["interrupted"] is False
    assert sum(item["files"] for item in first["categories"].values()) == 4
    second = run_json(here, "--use-database")
    assert (second["classified"], second["already_done"], second["duplicates"]) == (0, 3, 1)
    assert second["pages"] == 0
    assert second["run_id"] != first["run_id"]
    done = doc_classify(here, "classify-parallel", "documents", "--use-database")
    assert "Everything was done already; --force does it again." in done.stdout
    forced = run_json(here, "--use-database", "--force")
    assert (forced["classified"], forced["duplicates"]) == (3, 1)
    assert forced["pages"] == 3


def test_other_categories_need_no_new_extraction(here):
    run_json(here, "--use-database")
    other = run_json(here, "--use-database", "-c", "invoices,contracts,other")
    assert other["classified"] == 3
    assert other["pages"] == 0
    assert other["extract_seconds"] < 0.001
    assert set(other["categories"]) <= {"invoices", "contracts", "other"}
    (here / "mine.toml").write_text('categories = ["invoices", "letters"]')
    mine = run_json(here, "--use-database", "--taxonomy", "mine.toml")
    assert (mine["classified"], mine["pages"]) == (3, 0)


def test_a_new_file_is_all_that_a_later_run_takes(here):
    run_json(here, "--use-database")
    (here / "documents" / "new.txt").write_text("Annual report: revenue and findings of the year")
    later = run_json(here, "--use-database")
    assert (later["classified"], later["already_done"], later["duplicates"]) == (1, 3, 1)


def test_no_recursive(here):
    assert run_json(here, "--no-recursive")["seen"] == 3


def test_a_failed_document_gives_exit_code_1_then_and_later(here):
    (here / "documents" / "empty.pdf").touch()
    done = doc_classify(here, "classify-parallel", "documents", "--use-database", code=1)
    assert "empty.pdf: empty: " in done.stdout
    assert "results --failed" in done.stdout
    later = run_json(here, "--use-database", code=1)
    assert (later["already_done"], later["already_failed"]) == (4, 1)


def test_a_dry_run_writes_nothing(here):
    before = sorted(here.rglob("*"))
    done = called(here, "classify-parallel", "documents", "--use-database", "--export", "--dry-run")
    assert "4 files: 3 would be classified" in done.stdout
    assert "1 are duplicates" in done.stdout
    assert sorted(here.rglob("*")) == before
    run_json(here, "--use-database")
    after = run_json(here, "--use-database", "--dry-run")
    assert (after["take"], after["already_done"], after["duplicates"]) == (0, 3, 1)
    assert after["rate"] > 0
    assert run_json(here, "--use-database", "--dry-run", "--force")["take"] == 3


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "parquet"])
def test_exports(here, form):
    result = run_json(here, "--export", "--export-format", form, "-o", "out")
    path = here / result["export"]
    assert path == here / "out" / f"results_{result['run_id']}.{form}"
    if form == "json":
        assert len(json.loads(path.read_text("utf-8"))["results"]) == 4
    elif form == "jsonl":
        assert len([json.loads(line) for line in path.read_text("utf-8").splitlines()]) == 4
    elif form == "csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            assert len(list(csv.DictReader(file))) == 4
    else:
        import pyarrow.parquet

        assert pyarrow.parquet.read_table(path).num_rows == 4
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_reasoning(here):
    run_json(here, "--use-database", "--reasoning")
    rows = lines(called(here, "results", "--json"))
    assert all(row["reasoning"] for row in rows)


def test_a_folder_whose_name_is_not_utf8(here):
    folder = os.fsdecode(bytes(here) + b"/caf\xe9")
    (here / "documents").rename(folder)
    done = called(here, "classify-parallel", folder, "--use-database", "--export")
    assert "3 classified" in done.stdout
    for arguments in (["status"], ["runs"], ["results"], ["export"], ["retry", "--failed"]):
        called(here, *arguments)
    assert "caf\\xe9" in called(here, "status").stdout
    assert called(here, "classify", folder + "/invoice.txt").stdout.count("invoices") == 1


# --- Looking back ---------------------------------------------------------------------------------


def test_looking_back_at_runs(here):
    (here / "documents" / "empty.pdf").touch()
    first = run_json(here, "--use-database", code=1)
    second = run_json(here, "--use-database", code=1)

    infos = lines(called(here, "runs", "--json"))
    assert [info["run_id"] for info in infos] == [second["run_id"], first["run_id"]]
    assert {info["state"] for info in infos} == {"finished"}
    assert len(called(here, "runs", "--limit", "1").stdout.splitlines()) == 1

    status = called(here, "status", first["run_id"])
    assert f"Run {first['run_id']}: finished" in status.stdout
    assert "5 files seen = 3 classified + 1 duplicates" in status.stdout
    (info,) = lines(called(here, "status", "--json"))
    assert info["run_id"] == second["run_id"]
    assert info["stats"]["already_done"] == 4

    rows = lines(called(here, "results", first["run_id"], "--json"))
    assert len(rows) == 5
    assert len(called(here, "results").stdout.splitlines()) == 5
    (failed,) = lines(called(here, "results", first["run_id"], "--failed", "--json"))
    assert failed["path"].endswith("empty.pdf")
    assert len(lines(called(here, "results", "--error", "empty", "--json"))) == 1
    assert not lines(called(here, "results", "--error", "crash", "--json"))
    invoices = called(here, "results", first["run_id"], "--category", "invoices")
    assert "invoice.txt  invoices (" in invoices.stdout
    assert len(called(here, "results", "--limit", "2").stdout.splitlines()) == 2

    for name in ("out.csv", "out.jsonl"):
        assert called(here, "export", "-o", name).stdout.strip() == name
        assert (here / name).read_text("utf-8")
    path = Path(called(here, "export", first["run_id"]).stdout.strip())
    assert path == Path("results") / f"results_{first['run_id']}.json"
    assert (here / path).exists()


def test_retry(here):
    empty = here / "documents" / "empty.pdf"
    empty.touch()
    first = run_json(here, "--use-database", "-c", "invoices,other", code=1)
    again = called(here, "retry", first["run_id"], "--json", code=1)
    assert json.loads(again.stdout)["failed"] == 1
    empty.write_text("Invoice no. 18. Amount due: 18.00 EUR. Bill to: Customer.")
    # The newest run is the retry: its one failed file.
    mended = json.loads(called(here, "retry", "--json", "-w", "1").stdout)
    assert (mended["seen"], mended["classified"]) == (1, 1)
    assert set(mended["categories"]) <= {"invoices", "other"}
    before = called(here, "runs").stdout
    nothing = called(here, "retry", first["run_id"], "--error", "crash")
    assert "Nothing" in nothing.stdout
    assert called(here, "runs").stdout == before
    invoices = called(here, "retry", first["run_id"], "--category", "invoices", "--json")
    assert json.loads(invoices.stdout)["classified"] >= 1


def test_classify_prints_what_it_found(here):
    done = doc_classify(here, "classify", "documents/invoice.txt", "--reasoning")
    assert "invoice.txt: invoices, " in done.stdout
    assert done.stderr.startswith("Classifier auto: embedded, since no answer from http://127.")
    rows = lines(called(here, "classify", "documents", "--json"))
    assert sorted(Path(row["path"]).name for row in rows) == sorted(
        Path(name).name for name in TEXTS
    )
    (here / "empty.txt").touch()
    failed = called(here, "classify", "empty.txt", "documents/letter.txt", code=1)
    assert "empty.txt: failed (empty): " in failed.stdout
    assert not list(here.glob("*.db"))


# --- Setting up -----------------------------------------------------------------------------------


def test_init_writes_files_that_work_and_overwrites_none(here):
    done = called(here, "init")
    assert done.stdout.splitlines() == ["Wrote doc-classify.toml", "Wrote taxonomy.toml"]
    config = here / "doc-classify.toml"
    lines_ = config.read_text("utf-8").splitlines()
    settings = [line[2:] if line.startswith("# ") and " = " in line else line for line in lines_]
    config.write_text("\n".join(settings), "utf-8")  # every setting, as its default
    assert run_json(here)["classified"] == 3
    (here / "taxonomy.toml").write_text("mine")
    refused = called(here, "init", code=2)
    assert error_line(refused).endswith("exist already: --force overwrites")
    assert (here / "taxonomy.toml").read_text() == "mine"
    called(here, "init", "--force")
    assert (here / "taxonomy.toml").read_text() != "mine"


def test_config(here):
    (here / "doc-classify.toml").write_text("chunk_size = 7")
    done = called(here, "config", "--json", CATEGORIES="a,b")
    rows = {row["setting"]: row for row in json.loads(done.stdout)}
    assert (rows["chunk_size"]["value"], rows["chunk_size"]["origin"]) == (7, "file")
    assert (rows["categories"]["value"], rows["categories"]["origin"]) == ("a,b", "environment")
    assert rows["categories"]["variable"] == "CATEGORIES"
    assert rows["pages"]["origin"] == "default"
    assert len(called(here, "config").stdout.splitlines()) == len(rows)


def test_check(here):
    done = called(here, "check", OLLAMA_HOST="http://127.0.0.1:9")
    assert done.stdout.endswith("Ready.\n")
    assert "ok         classifier      auto: embedded, since " in done.stdout
    findings = {
        found["name"]: found
        for found in json.loads(called(here, "check", "--json", OLLAMA_HOST="127.0.0.1:9").stdout)
    }
    assert findings["OCR"]["ok"]
    assert findings["database"]["ok"]
    assert not list(here.glob("*.db"))
    bad = called(here, "check", code=3, DOC_CLASSIFY_CLASSIFIER="nonesuch")
    assert "MISSING    classifier" in bad.stdout
    assert bad.stdout.endswith("Not ready: see MISSING above.\n")
    address = "postgresql://someone:hunter2@127.0.0.1:9/none"
    bad = called(here, "check", code=3, DATABASE_URL=address)
    assert "MISSING    database" in bad.stdout
    assert "hunter2" not in bad.stdout + bad.stderr


# --- What cannot be done --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify-parallel", "nowhere"], "nowhere does not exist"),
        (["classify-parallel", "nowhere", "--dry-run"], "nowhere does not exist"),
        (["classify-parallel", "nowhere", "--use-database", "--json"], "nowhere does not exist"),
        (["classify", "nowhere.txt"], "there is no nowhere.txt"),
        (["classify-parallel", "documents", "--pages", "some"], "pages"),
        (["classify-parallel", "documents", "-c", "one"], "at least two categories"),
        (["classify-parallel", "documents", "-c", "a,b", "--taxonomy", "t.toml"], "give one"),
        (["classify-parallel", "documents", "--taxonomy", "t.toml"], "cannot read the taxonomy"),
        (["classify-parallel", "documents", "--classifier", "nonesuch"], "nonesuch"),
        (["classify-parallel", "documents", "--database-url", "mysql://a/b", "--use-database"], ""),
        (["classify-parallel", "documents", "-w", "0"], "-w"),
        (["classify-parallel", "documents", "-o", "out"], "--export"),
        (["classify-parallel", "documents", "--export-format", "csv"], "--export"),
        (["classify-parallel", "documents", "--nonesuch"], "--nonesuch"),
        (["classify-parallel"], "Missing argument"),
        (["nonesuch"], "nonesuch"),
        (["runs"], "there is no database sqlite:///doc-classify.db yet"),
        (["status"], "there is no database"),
        (["results", "--failed"], "there is no database"),
        (["export"], "there is no database"),
        (["retry"], "there is no database"),
    ],
)
def test_requests_that_cannot_be_met_give_exit_code_2(here, arguments, message):
    before = sorted(here.rglob("*"))
    assert message in error_line(called(here, *arguments, code=2))
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("command", ["status", "results", "export", "retry"])
def test_an_unknown_run(here, command):
    run_json(here, "--use-database", "--no-recursive")
    done = called(here, command, "nonesuch", code=2)
    assert error_line(done) == "Error: there is no run 'nonesuch'"


def test_retry_of_what_was_not_supported(tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "x.bin").write_bytes(bytes(range(256)) * 4)
    called(tmp_path, "classify-parallel", "documents", "--use-database", "--json", "-w", "1")
    again = called(tmp_path, "retry", "--error", "unsupported", "--json", "-w", "1")
    assert json.loads(again.stdout)["unsupported"] == 1


def test_retry_by_category_and_failure_at_once(here):
    done = called(here, "retry", "--category", "a", "--failed", code=2)
    assert "--category cannot go with" in error_line(done)


def test_an_export_of_an_unknown_kind(here):
    run_json(here, "--use-database", "--no-recursive")
    assert ".docx" in error_line(called(here, "export", "-o", "out.docx", code=2))
    assert not (here / "out.docx").exists()


@pytest.mark.parametrize(
    "command", [["classify-parallel", "documents", "--use-database"], ["runs"]]
)
def test_a_database_that_cannot_be_used_gives_exit_code_3(here, command):
    (here / "doc-classify.db").write_bytes(b"this is no database at all " * 100)
    done = called(here, *command, code=3)
    assert "doc-classify.db" in error_line(done)
    (here / "file").touch()
    if command != ["runs"]:
        done = called(here, *command, "--database-url", "sqlite:///file/run.db", code=3)
        assert "file" in error_line(done)


def test_a_database_that_is_read_only(here):
    run_json(here, "--use-database")
    address = "sqlite:////proc/version"  # read-only for everybody
    done = doc_classify(
        here, "classify-parallel", "documents", "--use-database", "--database-url", address, code=3
    )
    assert "/proc/version" in error_line(done)


def test_an_unreachable_server_names_no_password(here):
    address = "postgresql://someone:hunter2@127.0.0.1:9/none"
    for command in (["classify-parallel", "documents", "--use-database"], ["runs"], ["retry"]):
        done = called(here, *command, code=3, DATABASE_URL=address)
        assert "127.0.0.1" in error_line(done)
        assert "hunter2" not in done.stdout + done.stderr


def test_verbose_shows_where_an_error_is_from_with_the_same_exit_code(here):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "doc_classify", "classify-parallel", "nowhere", "-v"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "Error: " in done.stderr.splitlines()[-1]


def test_a_reader_that_has_seen_enough(here):
    run_json(here, "--use-database")
    command = f"{sys.executable} -P -m doc_classify results --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=here, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
