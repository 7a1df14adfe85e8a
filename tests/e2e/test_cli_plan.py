"""``plan`` as it is called."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from doc_classify.cli import cli
from doc_classify.errors import ConfigurationError
from doc_classify.planning.catalogue import configurations, packaged_benchmark
from doc_classify.settings import Settings, environment_variable

PRICES = packaged_benchmark().with_name("prices.toml")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for field in Settings.model_fields:
        monkeypatch.delenv(environment_variable(field), raising=False)
    monkeypatch.setattr("doc_classify.cli.plan._this_machine", lambda: (2, 8.0))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(*options: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["plan", *options], standalone_mode=False)
    assert result.exception is None, result.exception
    assert result.return_value == code, result.output
    return result.stdout


def planned(*options: str, code: int = 0) -> dict:
    return json.loads(plan("--json", *options, code=code))


def test_without_a_deadline_it_says_how_long_this_machine_takes() -> None:
    text = plan()
    assert "500,000 documents of 10 pages (4 of them read" in text
    assert "1 x machines of your own (2 cores, 8 GB, 2 worker processes) [given]" in text
    assert "Bottleneck    cores" in text
    assert "not by yours" in text  # a measurement that comes with the program
    assert "measured  reading a page by OCR" in text


def test_the_process_says_the_same_from_a_settled_folder(here: Path) -> None:
    (here / "doc-classify.toml").write_text('pages = "all"\nworkers = 1\n', "utf-8")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "doc_classify", "plan", "--pages", "7"],
        capture_output=True,
        text=True,
        check=True,
        cwd=here,
    )
    assert "of 7 pages (7 of them read" in done.stdout
    assert ", 1 worker processes)" in done.stdout
    assert done.stderr == ""


def test_with_a_deadline_the_smallest_fleet_is_found() -> None:
    found = planned("--deadline", "1h", "--cloud", "aws", "--scanned", "50%")
    fleet = found["fleet"]
    assert found["feasible"] is True and fleet["machines"] > 1
    assert fleet["cores"] == 16
    fewer = planned(
        "--deadline", "1h", "--cloud", "aws", "--scanned", "0.5",
        "--machines", str(fleet["machines"] - 1), code=3,
    )  # fmt: skip
    assert fewer["feasible"] is False and fewer["remedies"]
    assert found["database"]["name"].startswith("db.")
    names = [cost["name"] for cost in found["costs"]]
    assert names[0].startswith(f"{fleet['machines']} x c6i.4xlarge for 1 h")
    assert all(cost["source"] for cost in found["costs"])


def test_spot_costs_less_and_allows_for_losses() -> None:
    options = ("--deadline", "3h", "--cloud", "aws", "--llm", "a10g")
    usual, spot = planned(*options), planned(*options, "--spot")
    assert spot["cost_spot"] < spot["cost_on_demand"]
    assert spot["estimate"]["capacity"] < usual["estimate"]["capacity"] == 1
    assert "losses of a machine a day" in {figure["name"] for figure in spot["figures"]}
    assert any("g5.xlarge" in cost["name"] for cost in spot["costs"])


def test_many_machines_take_the_chunks_of_a_distributed_run(here: Path) -> None:
    (here / "doc-classify.toml").write_text(
        "chunk_size = 5\ndistributed_chunk_size = 2000\n", "utf-8"
    )
    options = ("--deadline", "1h", "--margin", "0", "--scanned", "50%")
    found = planned(*options)
    assert found["feasible"] and found["fleet"]["distributed"]
    assert found["fleet"]["chunk"] == 2000
    fewer = str(found["fleet"]["machines"] - 1)
    assert planned(*options, "--machines", fewer, code=3)["feasible"] is False
    assert planned("--deadline", "7d")["fleet"]["chunk"] == 5


def test_a_deadline_that_is_not_met_ends_with_3() -> None:
    text = plan("--deadline", "7d", "--llm", "cpu-2", "--machines", "1", code=3)
    assert "NOT met" in text
    assert "a cascade that asks the LLM about" in text
    share = re.search(r"about ([\d.]+)% of the documents at most", text)
    assert share
    met = f"{float(share[1]) - 0.1:.2f}%"
    plan(
        "--deadline", "7d", "--llm", "cpu-2", "--machines", "1", "--cascade-share", met
    )  # fmt: skip


def test_the_share_for_the_llm_shows() -> None:
    text = plan("--llm", "rtx4090", "--cascade-share", "6%")
    assert "a cascade that asks the LLM rtx4090 about 6.0%" in text
    assert "for 30,000 documents" in text
    assert re.search(r"By LLM share  100%: .*, 6%: .*, 0%: ", text)


def test_simulating_beside_the_formula() -> None:
    found = planned("--profile", "recommended", "--deadline", "7d", "--simulate")
    played = found["played"]
    assert played["rate"] == pytest.approx(found["estimate"]["rate"], rel=0.05)
    text = plan("--documents", "100000000", "--deadline", "4w", "--cloud", "aws", "--simulate")
    assert "Simulated " in text and "documents played on" in text


@pytest.mark.parametrize("name", configurations())
def test_named_configurations(name: str) -> None:
    found = planned("--profile", name, "--deadline", "7d", "--scanned", "10%")
    assert found["fleet"]["machines"] == configurations()[name].machines
    assert found["feasible"]


def test_more_workers_of_one_configuration() -> None:
    found = planned("--profile", "distributed-4", "--workers", "4", "--machines", "2")
    assert (found["fleet"]["machines"], found["fleet"]["workers"]) == (2, 4)
    assert found["sizes"]["connections"] == 2 * 4 * 3 + 2


def test_other_prices_and_another_benchmark(here: Path) -> None:
    prices = here / "prices.toml"
    prices.write_text(PRICES.read_text("utf-8").replace('"USD"', '"EUR"'), "utf-8")
    text = plan(
        "--prices", str(prices), "--cloud", "aws", "--benchmark", str(packaged_benchmark())
    )  # fmt: skip
    assert " EUR on demand" in text
    assert "not by yours" not in text
    assert planned("--core-speed", "2")["seconds"] < 0.6 * planned()["seconds"]


def test_files_of_others_give_no_orders_to_the_terminal(here: Path) -> None:
    prices, measured = here / "prices.toml", here / "measured.json"
    prices.write_text(
        PRICES.read_text("utf-8").replace('"USD"', r'"\u001b[31mX\n"'), "utf-8"
    )  # fmt: skip
    data = json.loads(packaged_benchmark().read_bytes())
    data["machine"]["cpu"] = "\x1b[2Jevil\nline"
    measured.write_text(json.dumps(data), "utf-8")
    options = ("--prices", str(prices), "--cloud", "aws")
    for text in (plan(*options, "--list"), plan(*options, "--benchmark", str(measured))):
        assert "\x1b" not in text and "\\x1b[31mX\\n" in text
    assert "\\x1b[2Jevil\\nline, 2 cores" in text


@pytest.mark.parametrize(("old", "new"), [("hour = 0.68", "hour = 1e308"), ("= 16", "= 99999999")])
def test_prices_of_no_meaning(here: Path, old: str, new: str) -> None:
    prices = here / "prices.toml"
    prices.write_text(PRICES.read_text("utf-8").replace(old, new, 1), "utf-8")
    options = ["plan", "--cloud", "aws", "--prices", str(prices)]
    result = CliRunner().invoke(cli, options, standalone_mode=False)
    assert isinstance(result.exception, ConfigurationError)
    assert "less than or equal to" in str(result.exception)


@pytest.mark.parametrize("value", [0.0, 1e12, 1e308])
def test_a_benchmark_of_nothing_and_of_everything(here: Path, value: float) -> None:
    def changed(found: object, name: str = "") -> object:
        if isinstance(found, dict):
            return {key: changed(one, key) for key, one in found.items()}
        if isinstance(found, list):
            return [changed(one, name) for one in found]
        return value if isinstance(found, float) and name != "wall_seconds" else found

    file = here / "measured.json"
    file.write_text(json.dumps(changed(json.loads(packaged_benchmark().read_bytes()))), "utf-8")
    for deadline in ((), ("--deadline", "5m", "--margin", "0")):
        options = ["plan", "--json", "--cloud", "aws", "--benchmark", str(file), *deadline]
        result = CliRunner().invoke(cli, options, standalone_mode=False)
        if value > 1e12:
            assert isinstance(result.exception, ConfigurationError), result.exception
        else:
            assert result.exception is None, result.exception
            assert "Infinity" not in result.stdout and "NaN" not in result.stdout


def test_the_listing_names_all_there_is() -> None:
    text = plan("--list")
    for name in (*configurations(), "cpu-2", "hosted", "c6i.4xlarge"):
        assert f"  {name} " in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--llm", "nonesuch"), "no LLM profile"),
        (("--profile", "nonesuch"), "no profile"),
        (("--machine", "nonesuch"), "no machine"),
        (("--benchmark", "nowhere.json"), "cannot read"),
        (("--prices", "nowhere.toml"), "cannot read"),
        (("--cascade-share", "5%"), "need --llm"),
        (("--margin", "100%"), "no time"),
        (("--read", "x"), "pages must be"),
        (("--llm", "benchmark"), "asked no LLM"),
        (("--spot",), "give --cloud or --machine"),
    ],
)
def test_what_cannot_be_planned_is_said(options: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(cli, ["plan", *options], standalone_mode=False)
    assert isinstance(result.exception, ConfigurationError), result.exception
    assert message in str(result.exception)


@pytest.mark.parametrize(
    "options",
    [
        ("--deadline", "7"), ("--deadline", "0d"), ("--deadline", "-1d"), ("--scanned", "110%"),
        ("--scanned", "nan"), ("--documents", "0"), ("--pages", "0"), ("--llm-rate", "0"),
        ("--core-speed", "0"), ("--machines", "0"), ("--workers", "100000000"),
        ("--cloud", "elsewhere"),
    ],
)  # fmt: skip
def test_values_that_mean_nothing_are_usage_errors(options: tuple[str, ...]) -> None:
    assert CliRunner().invoke(cli, ["plan", *options]).exit_code == 2


@pytest.mark.parametrize("option", ["--pages", "--core-speed", "--llm-rate"])
def test_numbers_at_the_edge(option: str) -> None:
    for value in ("inf", "nan", "1e-300", "1e300"):
        assert CliRunner().invoke(cli, ["plan", "--llm", "rtx4090", option, value]).exit_code == 2
    for value in ("1e-6", "1e9"):
        found = planned("--llm", "rtx4090", option, value)
        assert 0 < found["seconds"] < float("inf")
