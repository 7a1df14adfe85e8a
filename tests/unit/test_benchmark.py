"""The figures of a benchmark agree with each other, and a comparison says only what it can."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from array import array
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doc_classify.benchmark import compare, report
from doc_classify.benchmark.measure import Wanted
from doc_classify.benchmark.result import (
    BenchmarkResult,
    Configuration,
    Data,
    Machine,
    Operation,
    Repeat,
    encode_result,
    read_result,
)
from doc_classify.benchmark.sampling import Observation
from doc_classify.benchmark.setting import ending_of, look_over
from doc_classify.benchmark.tally import Tally, distribution
from doc_classify.errors import ConfigurationError
from doc_classify.records import Timings, Usage


@given(st.lists(st.floats(0, 1e6), max_size=200))
def test_a_distribution_is_that_of_numpy(values):
    found = distribution(array("d", values))
    assert found.count == len(values)
    if values:
        assert found.total == pytest.approx(math.fsum(values))
        assert found.mean * found.count == pytest.approx(found.total)
        assert (found.minimum, found.maximum) == (min(values), max(values))
        assert found.p95 == pytest.approx(np.quantile(values, 0.95))
        assert found.minimum <= found.median <= found.p95 <= found.p99 <= found.maximum


def looked_at(wall: float, cpu: float = 1.0) -> Observation:
    with Observation() as seen:
        pass
    seen.wall, seen.cpu_children, seen.cpu_parent = wall, cpu, 0.1
    seen.quiet = replace(seen.quiet, complaints=())
    return seen


def one_pass(wall: float = 2.0, cpu: float = 1.0) -> Repeat:
    tally = Tally(extracts=True, classifies=True)
    tally.batch("hash", 4, 0.4, None)
    tally.batch("register", 4, 0.2, 0.1)
    tally.document(ending="pdf", size=1000, timings=Timings(0.5, 0.1, 0.7), pages=3, ocr_pages=2)
    tally.document(ending="pdf", size=500, timings=Timings(0.2, 0.1, 0.4), pages=1)
    tally.document(ending="", size=0, timings=Timings(0.01, 0.0, 0.02), failure="empty")
    tally.batch("record", 3, 0.6, 0.3)
    tally.rejected("docx", "unreadable")
    tally.duplicates += 1
    return tally.repeat(looked_at(wall, cpu), start=0.1, max_concurrent=50)


def test_figures_agree_with_each_other():
    repeat = one_pass()
    assert (repeat.files, repeat.failed, repeat.succeeded) == (4, 2, 2)
    assert repeat.rate * repeat.wall_seconds == pytest.approx(repeat.files)
    assert repeat.seconds_for(500_000) == pytest.approx(500_000 / repeat.rate)
    assert repeat.bytes_per_second * repeat.wall_seconds == pytest.approx(repeat.bytes)
    assert repeat.in_progress == pytest.approx((0.7 + 0.4 + 0.02) / 2.0)
    assert sum(group.files for group in repeat.formats.values()) == repeat.files
    assert repeat.text.files + repeat.ocr.files == repeat.files
    assert repeat.ocr.pages == 3
    assert repeat.ocr.extract_per_page == pytest.approx(0.5 / 3)
    assert repeat.stages["classify"].cpu.count == 2  # the failure did not come so far
    assert repeat.stages["hash"].cpu is None
    assert repeat.store_seconds == pytest.approx(0.2 / 4 + 0.6 / 3)
    assert repeat.failures == {"empty": 1, "unreadable": 1}
    assert repeat.llm is None


def test_an_llm_is_told_apart():
    tally = Tally(extracts=True, classifies=True, llm="llama")
    for seconds in (1.0, 3.0):
        tally.document(
            ending="txt", size=1, timings=Timings(0.1, seconds, 0.2), pages=1,
            usage=Usage(1, 100, 20, 2),
        )  # fmt: skip
    tally.document(ending="txt", size=1, timings=Timings(0.1, 0.0, 0.2), failure="empty")
    repeat = tally.repeat(looked_at(2.0), start=0.1, max_concurrent=8)
    assert repeat.llm is not None
    assert repeat.llm.seconds.count == 2
    assert repeat.llm.in_flight == pytest.approx(2.0)
    assert (repeat.llm.calls, repeat.llm.prompt_tokens, repeat.llm.cached_tokens) == (2, 200, 40)
    assert repeat.stages["classify"].cpu is None
    assert repeat.seconds.total == pytest.approx(4.6)
    assert repeat.text.classify is None


def result(*walls: float, fingerprint: str = "a", cpu: float = 1.0) -> BenchmarkResult:
    return BenchmarkResult(
        created="2026-01-01T00:00:00+00:00",
        version="0.1.0",
        command="doc-classify benchmark x",
        machine=Machine("cpu", 2, 10**9, "Linux", "x86_64", "3.11", {"numpy": "2.4"}),
        data=Data("x", 4, 1500, fingerprint * 64, {"pdf": 2, "": 1, "docx": 1}),
        configuration=Configuration("embedded", None, "sqlite", "3+1", True, "f"),
        operations=(
            Operation("end_to_end", 2, tuple(one_pass(wall, cpu) for wall in walls), True),
        ),
    )


def test_the_file_is_read_back_as_it_was(tmp_path):
    written = result(2.0, 1.0, 3.0)
    (tmp_path / "r.json").write_bytes(encode_result(written))
    assert read_result(tmp_path / "r.json") == written
    operation = written.operation("end_to_end")
    assert operation is not None
    assert operation.middle.wall_seconds == 2.0
    assert operation.rates == (4 / 3.0, 4 / 1.0)
    assert written.operation("end_to_end", 7) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (b"", "the whole: Invalid JSON"),
        (b"[1]", "no benchmark result"),
        (b'"schema":1', "schema"),
        (b'"wall_seconds":2.0', "wall_seconds"),
        (b'"files":4', "files"),
    ],
)
def test_files_that_are_no_results(tmp_path, change, message):
    written = encode_result(result(2.0)).replace(b": ", b":")
    broken = {
        b"": b"",
        b"[1]": b"[1]",
        b'"schema":1': written.replace(change, b'"schema":2'),
        b'"wall_seconds":2.0': written.replace(change, b'"wall_seconds":0'),
        b'"files":4': written.replace(change, b'"files":-4'),
    }[change]
    (tmp_path / "r.json").write_bytes(broken)
    with pytest.raises(ConfigurationError, match=message):
        read_result(tmp_path / "r.json")


def test_not_a_number_is_no_figure(tmp_path):
    (tmp_path / "r.json").write_bytes(encode_result(result(2.0)).replace(b"2.0", b"NaN"))
    with pytest.raises(ConfigurationError, match="no benchmark result"):
        read_result(tmp_path / "r.json")


def verdicts(old: BenchmarkResult, new: BenchmarkResult) -> dict[str, str]:
    return {one.quantity: one.verdict for one in compare.compare(old, new)}


def test_overlapping_repeats_are_noise():
    found = verdicts(result(2.0, 2.2, 2.4), result(2.1, 1.9, 1.8))
    assert found["operations per second"] == "noise"
    assert found["CPU seconds per file"] == "noise"


def test_repeats_apart_are_a_difference():
    old, new = result(2.0, 2.2, 2.4), result(1.0, 1.1, 1.2, cpu=2.0)
    found = verdicts(old, new)
    assert found["operations per second"] == "better"
    assert found["CPU seconds per file"] == "worse"
    [rate, *_] = compare.compare(old, new)
    assert rate.ratio == pytest.approx(2.0)
    assert (rate.low, rate.high) == pytest.approx((2.0 / 1.2, 2.4 / 1.0))


def test_two_repeats_tell_nothing():
    assert verdicts(result(2.0, 2.2), result(1.0, 1.1))["operations per second"] == "unknown"


def test_how_often_chance_alone_makes_a_difference():
    random = np.random.default_rng(0)
    apart = sum(
        verdicts(result(*random.uniform(1, 2, 4)), result(*random.uniform(1, 2, 4)))[
            "operations per second"
        ]
        != "noise"
        for _ in range(150)
    )
    assert apart / 150 < 0.1  # 2 / C(8, 4) = 0.029 is expected


def test_other_documents_are_not_compared_unasked():
    old, new = result(2.0), result(1.0, fingerprint="b")
    with pytest.raises(ConfigurationError, match="other documents"):
        compare.check_same_data(old.data, new.data, anyway=False)
    compare.check_same_data(old.data, new.data, anyway=True)
    assert any("OTHER DOCUMENTS" in line for line in compare.lines(old, new))


def test_what_else_differs_is_said():
    old, new = result(2.0), result(2.0)
    new = replace(new, machine=replace(new.machine, packages={"numpy": "2.5"}, cores=4))
    found = compare.notes(old, new)
    assert any("cores 2 -> 4" in line for line in found)
    assert any("numpy 2.4 -> 2.5" in line for line in found)


def test_the_report_has_the_usual_fields():
    text = "\n".join(report.lines(result(2.0, 1.0, 4.0)))
    for line in (
        "PERFORMANCE BENCHMARK RESULTS",
        "END_TO_END OPERATION:",
        "  Total Files: 4 (and 1 copy of another)",
        "  Success Rate: 2/4 (50.0%)",
        "  Operations per Second: 2.00",
        "  Estimated time for 500K documents: 69.4 hours",
    ):
        assert line.strip() in text
    for field in (
        "Average Processing Time: ", "Median Processing Time: ", "Total Throughput: ",
        "Peak Memory Usage: ", "Average CPU Usage: ",
    ):  # fmt: skip
        assert f"  {field}" in text
    assert "1.00 to 4.00 operations per second in 3 repeats" in text
    assert "unknown: measured once" in "\n".join(report.lines(result(2.0)))


# --- looking on -------------------------------------------------------------------------------


def test_children_are_counted():
    burn = (
        "import time\nheld = bytearray(60_000_000)\nend = time.process_time() + 0.4\n"
        "while time.process_time() < end: pass\n"
    )
    with Observation() as seen:
        subprocess.run([sys.executable, "-c", burn], check=True)
    assert 0.35 < seen.cpu_children < 2.0
    assert seen.wall >= 0.4
    assert seen.memory.peak_worker_bytes > 60_000_000
    assert seen.memory.peak_bytes > seen.memory.peak_worker_bytes
    assert seen.memory.kind in {"pss", "uss", "rss"}
    assert seen.cpu_engine is None


def test_shared_pages_are_not_counted_twice():
    """Children that share a big block with their parent: RSS would count it in each."""
    fork = (
        "import os, time\nheld = b'x' * 80_000_000\n"
        "for _ in range(3):\n    if not os.fork():\n        time.sleep(1.0); os._exit(0)\n"
        "for _ in range(3): os.wait()\n"
    )
    with Observation() as seen:
        subprocess.run([sys.executable, "-c", fork], check=True)
    if seen.memory.kind == "rss":
        pytest.skip("this system gives nothing better than RSS")
    own = psutil.Process().memory_info().rss
    assert seen.memory.peak_bytes < own + 160_000_000


def test_an_engine_that_runs_on_is_kept_apart():
    engine = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with Observation() as seen:
            deadline = time.monotonic() + 60  # on a machine that others use as well
            while psutil.Process(engine.pid).cpu_times().user < 0.4 and time.monotonic() < deadline:
                time.sleep(0.05)
        assert seen.cpu_engine is not None
        assert seen.cpu_engine > 0.1
        assert seen.cpu_children < 0.1
        assert seen.memory.peak_worker_bytes == 0
    finally:
        engine.kill()
        engine.wait()


def test_a_busy_machine_is_complained_of():
    # A child is ours; one whose parent has ended is not.
    started = subprocess.run(
        [sys.executable, "-c",
         "import subprocess, sys\n"
         "p = subprocess.Popen([sys.executable, '-c', 'import time\\nend = time.time() + 3\\n"
         "while time.time() < end: pass'], start_new_session=True, stdout=subprocess.DEVNULL)\n"
         "print(p.pid)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    stranger = psutil.Process(int(started.stdout))
    try:
        with Observation() as seen:
            time.sleep(0.6)
        assert seen.quiet.others > 0.05
        assert any("other processes" in complaint for complaint in seen.quiet.complaints)
    finally:
        stranger.kill()


# --- the documents ----------------------------------------------------------------------------


def test_equal_documents_have_equal_fingerprints(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        names = ["1.txt", "sub/2.PDF", "x"]
        for name in names if folder == "a" else reversed(names):
            (tmp_path / folder / name).write_text(name)
    first = look_over(tmp_path / "a", recursive=True)
    monkeypatch.chdir(tmp_path / "a")
    second = look_over(Path("../b"), recursive=True)
    assert first.fingerprint == second.fingerprint
    assert first.formats == {"txt": 1, "pdf": 1, "": 1}
    assert first.files == 3
    (tmp_path / "b/1.txt").rename(tmp_path / "b/3.txt")
    assert look_over(tmp_path / "b", recursive=True).fingerprint != first.fingerprint


def test_no_documents_no_measurement(tmp_path):
    with pytest.raises(ConfigurationError, match="no documents"):
        look_over(tmp_path, recursive=True)


@pytest.mark.parametrize(
    ("uri", "ending"),
    [("file:///a/b.PDF", "pdf"), ("file:///a.d/b", ""), ("file:///.hidden", "")],
)
def test_endings(uri, ending):
    assert ending_of(uri) == ending


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"operations": ("read",)}, "unknown operation 'read'"),
        ({"operations": ()}, "named once"),
        ({"workers": (2, 2)}, "named once"),
        ({"workers": (0,)}, "at least 1"),
        ({"repeats": 0}, "at least 1"),
    ],
)
def test_wishes_that_cannot_be_met(wanted, message):
    with pytest.raises(ConfigurationError, match=message):
        Wanted(**wanted)
