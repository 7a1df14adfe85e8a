"""How fast each way of running is on this machine, and what the planner makes of it for others.

Usage::

    python -m benchmarks.scaling [--documents N] [--pages N] [--repeat N]   # measure, plan, write
    python -m benchmarks.scaling --tables          # plan anew from what was measured, and write

Measured with generated documents, in turn: one worker process, one for each core; the same with an
LLM double (which answers after a fixed time, several at a time), every worker waiting for its
answer and with many requests in flight; and Celery workers with a PostgreSQL and a Redis of their
own. From the result of ``doc-classify benchmark`` the planner computes the configurations with
names. All of it goes to ``benchmarks/results/``, and from there into the tables of
``docs/scaling-guide.md``, which stand between two comments: a test holds both in step.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

RESULTS = ROOT / "benchmarks" / "results"
SCALING, BENCHMARK = RESULTS / "scaling.json", RESULTS / "scaling-benchmark.json"
GUIDE = ROOT / "docs" / "scaling-guide.md"
PROGRAM = Path(sys.executable).with_name("doc-classify")
QUIET_LOAD = 0.5
"""Load of one minute, before the measurement, up to which the machine counts as quiet."""

TARGETS: dict[str, tuple[str, str, str]] = {
    "single": ("Single-threaded", "180-360", "58-116 days"),
    "parallel": ("Parallel (8 cores)", "1,500-2,000", "10-14 days"),
    "async-parallel": ("Async + parallel", "3,000-4,000", "5-7 days"),
    "distributed-4": ("Distributed (4 workers)", "6,000-8,000", "2.5-3.5 days"),
    "distributed-10": ("Distributed (10 workers)", "15,000-20,000", "1-1.5 days"),
    "minimal": ("Cloud, minimal", "10,000-15,000", "2-3 days"),
    "recommended": ("Cloud, recommended", "20,000-30,000", "1-2 days"),
    "premium": ("Cloud, premium", "50,000-70,000", "< 1 day"),
}
"""What was asked for, by the planner's name: title, documents an hour, time for 500,000."""

LLM = "rtx4090-3b"
"""Of the planner's language models: a small one on one graphics card. Its speed was published by
others."""

Report = dict[str, Any]


def main() -> None:
    """Measure, plan and write, or only plan and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--documents", type=int, default=240)
    parser.add_argument("--pages", type=float, default=10, help="of a document, on average")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds of the LLM double")
    parser.add_argument("--slots", type=int, default=8, help="requests it works on at a time")
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if arguments.tables:
        report = json.loads(SCALING.read_bytes())
    else:
        RESULTS.mkdir(exist_ok=True)
        report = measure(arguments)
    pages = report["documents"]["pages"]
    report["planned"] = {name: planned(name, pages) for name in TARGETS}
    report["planned_with_llm"] = {name: planned(name, pages, "--llm", LLM) for name in TARGETS}
    SCALING.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    GUIDE.write_text(with_tables(GUIDE.read_text("utf-8"), report), "utf-8")


# --- measuring ----------------------------------------------------------------------------------


def measure(arguments: argparse.Namespace) -> Report:
    """Everything, with what it was measured on."""
    load = os.getloadavg()[0]
    report: Report = {
        "command": shlex.join(["python", "-m", "benchmarks.scaling", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "load_before": load,
        "documents": {
            "count": arguments.documents,
            "pages": arguments.pages,
            "seed": 1,
        },
        "llm": {"seconds": arguments.latency, "slots": arguments.slots},
    }
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        documents = folder / "documents"
        run("dataset", "--output", documents, "--count", arguments.documents, "--seed", 1,
            "--pages", arguments.pages, "--duplicates", 0)  # fmt: skip
        found = benchmark(folder, documents, arguments, f"1,{cores}")
        BENCHMARK.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        report["machine"] = {
            name: found["machine"][name] for name in ("cpu", "cores", "memory_bytes", "system")
        }
        one, all_ = (rates(operation) for operation in found["operations"])
        report["measured"] = {
            "single": row("embedded, 1 process", one),
            "parallel": row(f"embedded, {cores} processes", all_),
            **with_llm(folder, documents, arguments, cores),
            "distributed": row(
                f"embedded, Celery, {cores} processes", distributed(folder, documents, arguments)
            ),
        }
    report["load_after"] = os.getloadavg()[0]
    report["quiet"] = load <= QUIET_LOAD
    return report


def run(*words: object, **variables: str) -> str:
    """Run a command of ours in a folder without settings; returns what it prints."""
    command = [str(PROGRAM), *map(str, words)]
    environment = os.environ | {"DOC_CLASSIFY_CLASSIFIER": "embedded"} | variables
    done = subprocess.run(  # noqa: S603 (ours)
        command, check=False, stdout=subprocess.PIPE, env=environment, text=True, cwd=RESULTS
    )
    if done.returncode not in (0, 1):  # 1: documents that are meant to fail
        sys.exit(f"{shlex.join(command)}: exit code {done.returncode}")
    return done.stdout


def benchmark(
    folder: Path,
    documents: Path,
    arguments: argparse.Namespace,
    workers: str,
    *options: object,
    **variables: str,
) -> Report:
    """What ``doc-classify benchmark`` writes."""
    output = folder / "results"
    run("benchmark", documents, "--operations", "end_to_end", "--workers", workers, "--repeat",
        arguments.repeat, "--output-dir", output, *options, **variables)  # fmt: skip
    (file,) = output.glob("*.json")
    found: Report = json.loads(file.read_bytes())
    file.unlink()
    return found


def rates(operation: Mapping[str, Any]) -> list[float]:
    """Documents an hour of every pass."""
    return [one["files"] / one["wall_seconds"] * 3600 for one in operation["repeats"]]


def row(how: str, passes: list[float]) -> Report:
    """One way of running: the middle pass, and all of them."""
    return {
        "how": how,
        "documents_per_hour": round(statistics.median(passes)),
        "passes": [round(one) for one in passes],
    }


def with_llm(
    folder: Path, documents: Path, arguments: argparse.Namespace, cores: int
) -> dict[str, Report]:
    """With the double: as many requests as workers, and as many as are of use."""
    from tests.doubles.openai_process import double_process

    from doc_classify.taxonomy import DEFAULT_TAXONOMY

    found = {}
    says = DEFAULT_TAXONOMY.names[0]
    with double_process(slots=arguments.slots, latency=arguments.latency, says=says) as url:
        for name, limit in (("llm-waiting", cores), ("llm-async", 50)):
            result = benchmark(
                folder, documents, arguments, str(cores), "--classifier", "openai",
                "--max-concurrent", limit, OPENAI_BASE_URL=f"{url}/v1",
            )  # fmt: skip
            how = f"LLM double, {cores} processes, at most {limit} requests in flight"
            found[name] = row(how, rates(result["operations"][0]))
    return found


def distributed(folder: Path, documents: Path, arguments: argparse.Namespace) -> list[float]:
    """Celery workers, a process for each core, from submitting to the end of the run."""
    from benchmarks import distributed as many

    passes = []
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(many.own_redis(folder / "redis"))
        database = stack.enter_context(many.own_postgres(folder / "pg"))
        bench = many.Bench(folder, broker, database)
        for _ in range(arguments.repeat):
            bench.fresh()
            with many.Workers(bench, len(os.sched_getaffinity(0))):
                said = run("submit", documents, "--wait", "--poll-interval", 0.1, "--json")
            info = json.loads(said)
            begun, ended = (datetime.fromisoformat(info[name]) for name in ("started", "finished"))
            passes.append(info["stats"]["seen"] / (ended - begun).total_seconds() * 3600)
    return passes


def planned(name: str, pages: float, *options: str) -> Report:
    """What the planner computes for a configuration from the measurement."""
    words: list[object] = ["plan", "--profile", name, "--documents", 500_000, "--pages", pages]
    words += ["--benchmark", BENCHMARK.name, *options]
    return {
        "command": shlex.join(["doc-classify", *map(str, words)]),
        **of_plan(json.loads(run(*words, "--json"))),
    }


def of_plan(plan: Mapping[str, Any]) -> Report:
    """What the tables take from a plan."""
    rate, seconds = plan["estimate"]["rate"], plan["seconds"]
    return {
        "documents_per_hour": round(rate * 3600) if rate else None,
        "hours": round(seconds / 3600, 2) if seconds else None,
        "bottleneck": plan["estimate"]["bottleneck"],
    }


# --- writing ------------------------------------------------------------------------------------


def with_tables(text: str, report: Report) -> str:
    """The guide with its tables made anew from the results."""
    tables = {"measured": measured_table, "targets": targets_table, "machine": machine_line}

    def replaced(found: re.Match[str]) -> str:
        lines = "\n".join(tables[found[1]](report))
        return f"<!-- figures: {found[1]} -->\n{lines}\n<!-- end of figures -->"

    return FIGURES.sub(replaced, text)


FIGURES = re.compile(r"<!-- figures: (\w+) -->\n.*?<!-- end of figures -->", re.DOTALL)
"""Where figures stand in the guide; nowhere else."""


def machine_line(report: Report) -> list[str]:
    """What it was measured on, and with what command."""
    machine, documents = report["machine"], report["documents"]
    load = f"load {report['load_before']:.1f} before and {report['load_after']:.1f} after"
    state = "a quiet machine" if report["quiet"] else "a machine that others used as well"
    note = "" if report["quiet"] else " **Preliminary: to be measured again when it is quiet.**"
    return [
        f"Measured on {report['date']} on {state} ({load}): {machine['cores']} cores of "
        f"{machine['cpu']}, {machine['memory_bytes'] / 1e9:.0f} GB, {machine['system']}; "
        f"{documents['count']:,} generated documents of {documents['pages']:g} pages on average. "
        f"The LLM is a double that answers after {report['llm']['seconds']:g} s, "
        f"{report['llm']['slots']} at a time.{note}",
        "",
        "```text",
        report["command"],
        "```",
    ]


def measured_table(report: Report) -> list[str]:
    """The ways of running, as they were measured here."""
    rows = [
        f"| {one['how']} | {one['documents_per_hour']:,} | "
        f"{min(one['passes']):,} to {max(one['passes']):,} |"
        for one in report["measured"].values()
    ]
    return [
        "| measured here | documents/hour, middle pass | all passes |",
        "|---|---|---|",
        *rows,
    ]


def targets_table(report: Report) -> list[str]:
    """What was asked for beside what was measured here and what the planner computes."""
    measured, planned = report["measured"], report["planned"]
    here = {
        "single": "single",
        "parallel": "parallel",
        "async-parallel": "llm-async",
        "distributed-4": "distributed",
    }
    lines = [
        "| configuration | target: documents/hour | target: time | measured here | "
        "computed: documents/hour, time, limit | "
        f"computed with one LLM server ({LLM}): documents/hour, time |",
        "|---|---|---|---|---|---|",
    ]
    for name, (title, rate, time) in TARGETS.items():
        one, plan, llm = (
            measured.get(here.get(name, "")),
            planned[name],
            report["planned_with_llm"][name],
        )
        seen = f"{one['documents_per_hour']:,} ({one['how']})" if one else ""
        lines.append(
            f"| {title} | {rate} | {time} | {seen} | {shown(plan)}, {plan['bottleneck']} | "
            f"{shown(llm)} |"
        )
    return lines


def shown(plan: Report) -> str:
    """Rate and time of a plan."""
    if plan["documents_per_hour"] is None or plan["hours"] is None:
        return "not known"
    return f"{plan['documents_per_hour']:,}, {plan['hours']:,} h"


if __name__ == "__main__":
    main()
