"""What ``docs/capacity.md`` shows is what the planner says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from doc_classify.cli import cli
from doc_classify.settings import Settings, environment_variable

DOCUMENT = (Path(__file__).parents[2] / "docs" / "capacity.md").read_text("utf-8")
BLOCKS = re.findall(r"```text\n\$ doc-classify (plan [^\n]*)\n(.*?)```", DOCUMENT, re.DOTALL)
ROWS = re.findall(
    r"^\| `([\w-]+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) ?\|$", DOCUMENT, re.MULTILINE
)


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(environment_variable(field), raising=False)
    monkeypatch.chdir(tmp_path)


def said(command: str) -> str:
    result = CliRunner().invoke(cli, shlex.split(command), standalone_mode=False)
    assert result.exception is None
    return result.stdout


@pytest.mark.parametrize(("command", "lines"), BLOCKS)
def test_a_plan_that_is_shown(command: str, lines: str) -> None:
    text = said(command).splitlines()
    for line in lines.splitlines():
        assert line in text


@pytest.mark.parametrize(("name", "embedded", "bottleneck", "llm", "week"), ROWS)
def test_a_row_of_the_named_fleets(
    name: str, embedded: str, bottleneck: str, llm: str, week: str
) -> None:
    text = said(f"plan --scanned 10% --profile {name} --deadline 7d")
    assert f"Time          {embedded} [" in text
    assert f"Bottleneck    {bottleneck}\n" in text
    asked = said(f"plan --scanned 10% --profile {name} --llm rtx4090-3b")
    assert f"Time          {llm} [" in asked
    if week.strip():
        on_demand, spot = re.match(r"([\d,]+) / ([\d,]+)", week).groups()
        kept = re.search(r"deadline: ([\d,.]+) on demand, ([\d,.]+) on spot", text)
        rounded = [f"{float(money.replace(',', '')):,.0f}" for money in kept.groups()]
        assert rounded == [on_demand, spot]


def test_the_document_shows_plans() -> None:
    assert len(BLOCKS) >= 4 and len(ROWS) == 8


def test_its_arithmetic() -> None:
    """The figures that do not add up, and those beside them."""
    assert round(500_000 / 168) == 2_976 and 826 * 168 == 138_768
    assert (round(2_976 / 360), round(2_976 / 180)) == (8, 17)
    assert round(8.11 * 12.34) == 100
    assert round(500_000 / (8 / 12.34) / 86_400, 1) == 8.9
    assert round(500_000 / 8.11 / 3_600, 1) == 17.1
    assert [round(500_000 / rate) for rate in (15_000, 10_000, 30_000, 20_000)] == [33, 50, 17, 25]
    assert round(0.68 * 10 * 168) == 1_142 and round(1.36 * 20 * 168) == 4_570
    assert round(0.435 * 168) == 73
    assert 2_000 - round(0.7 * 1_400) == 1_020
    assert "500,000 / 15,000 to 10,000 are 33 to 50 hours" in DOCUMENT
    assert round(500_000 * (1_200 * 0.10 + 5 * 0.40) / 1e6) == 61
