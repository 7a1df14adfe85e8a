"""No figure stands in the scaling guide that was not measured, or computed from what was."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from benchmarks.scaling import (
    BENCHMARK,
    FIGURES,
    GUIDE,
    RESULTS,
    SCALING,
    TARGETS,
    of_plan,
    rates,
    row,
    with_tables,
)
from click.testing import CliRunner

from doc_classify.benchmark.result import read_result
from doc_classify.cli import cli

REPORT = json.loads(SCALING.read_bytes())
AGAIN = "made anew by: python -m benchmarks.scaling --tables"


def test_the_tables_are_those_of_the_results():
    text = GUIDE.read_text("utf-8")
    assert with_tables(text, REPORT) == text, AGAIN
    assert FIGURES.findall(text) == ["machine", "measured", "targets"]


def test_no_figure_stands_outside_of_the_tables():
    text = FIGURES.sub("", GUIDE.read_text("utf-8"))
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
    assert not re.findall(r".*\d.*", text)


def test_the_measured_rows_are_those_of_the_benchmark_result():
    read_result(BENCHMARK)  # it is one that the program takes
    operations = json.loads(BENCHMARK.read_bytes())["operations"]
    for name, operation in zip(("single", "parallel"), operations, strict=True):
        assert REPORT["measured"][name] == row(REPORT["measured"][name]["how"], rates(operation))
    assert {"llm-waiting", "llm-async", "distributed"} < set(REPORT["measured"])


def test_a_busy_machine_is_called_one():
    assert ("Preliminary" in GUIDE.read_text("utf-8")) is not REPORT["quiet"]
    assert REPORT["quiet"] is (REPORT["load_before"] <= 0.5)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind", ["planned", "planned_with_llm"])
def test_the_computed_columns_are_what_the_planner_computes_now(
    kind: str, name: str, monkeypatch: pytest.MonkeyPatch
):
    planned = dict(REPORT[kind][name])
    _, *words = shlex.split(planned.pop("command"))
    monkeypatch.chdir(RESULTS)
    done = CliRunner().invoke(cli, [*words, "--json"])
    assert not done.exception, done.output
    assert of_plan(json.loads(done.stdout)) == planned, AGAIN
