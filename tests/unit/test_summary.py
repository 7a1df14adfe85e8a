"""The table at the end of a run: every file accounted for, nothing from documents let loose."""

from __future__ import annotations

import io

import pytest

from doc_classify.records import CategoryStats, RunStats
from doc_classify.runners.parallel import ParallelDocumentProcessor
from doc_classify.summary import duration, print_summary, summary_lines


def printed(stats: RunStats, **options) -> str:
    file = io.StringIO()
    print_summary(stats, file, **options)
    return file.getvalue()


def full(**changes) -> RunStats:
    stats = RunStats(
        run_id="r",
        seen=1_107,
        classified=1_000,
        failed=4,
        duplicates=50,
        already_done=30,
        already_failed=2,
        unsupported=20,
        skipped=7,
        with_problems=6,
        needs_review=5,
        pages=3_000,
        ocr_pages=9,
        total_processing_time=100.4,
        workers=2,
        categories={
            "letters": CategoryStats(300, score_sum=150, score_count=300),
            "invoices": CategoryStats(700, score_sum=630, score_count=700),
        },
        failures={"damaged": 3, "encrypted": 1},
        unsupported_types={"link_outside": 1, "unsupported": 19},
    )
    for name, value in changes.items():
        setattr(stats, name, value)
    return stats


def test_every_file_is_accounted_for():
    text = printed(full())
    assert (
        "1,107 files seen = 1,000 classified + 50 duplicates + 30 already done + 20 unsupported "
        "+ 4 failed + 3 not reached"
    ) in text
    assert "7 hidden or temporary files skipped" in text
    assert "2 of those done already had failed" in text
    assert "6 classified although a part could not be read" in text
    assert "5 with too little evidence, for review" in text
    assert "100.4 s with 2 workers: 10.0 documents/s, 29.9 pages/s (3,000 pages read, 9 of" in text
    assert "500,000 documents like these: about 13.9 h" in text


def test_scores_are_not_called_confidence():
    text = printed(full())
    assert "Mean score (uncalibrated)" in text
    assert "confidence" not in text
    largest, smaller = [line for line in text.splitlines() if line[:8] in ("invoices", "letters ")]
    assert largest.split() == ["invoices", "700", "0.90"]
    assert smaller.split() == ["letters", "300", "0.50"]


def test_calibrated_results_have_a_confidence():
    item = CategoryStats(2, score_sum=1, score_count=2, confidence_sum=1.5, confidence_count=2)
    text = printed(full(categories={"letters": item, "none": CategoryStats(1)}))
    assert "Mean confidence" in text
    assert "0.75" in text
    assert [line.split() for line in text.splitlines() if line.startswith("none")] == [
        ["none", "1", "-"]
    ]


def test_failures_by_kind_with_examples():
    text = printed(full(), failed_examples=[("a.pdf", "damaged", "no end"), ("b.pdf", "x", "y")])
    assert "failed: damaged" in text
    assert "unsupported: type of file" in text
    assert "unsupported: link_outside" in text
    assert "  a.pdf: damaged: no end\n" in text
    assert "  ... and 2 more" in text


@pytest.mark.parametrize(
    "hostile", ["[bold]x[/bold]", "[/]", "\x1b[2J\x07", "a\nb\rc", "\u202etxt.exe", "\ud800"]
)
def test_texts_from_documents_are_only_text(hostile):
    stats = full(categories={hostile: CategoryStats(1)} if hostile.isprintable() else {})
    text = printed(stats, failed_examples=[(hostile, "damaged", hostile)])
    assert not any(c in text for c in "\x1b\x07\r\u202e\ud800")
    lines = [line for line in text.splitlines() if ": damaged: " in line]
    assert len(lines) == 1
    if hostile.startswith("["):
        assert lines[0] == f"  {hostile}: damaged: {hostile}"


def test_nothing_is_projected_from_nothing():
    done = RunStats(seen=9, already_done=9, total_processing_time=0.1, workers=2)
    assert summary_lines(done) == [
        "9 files seen = 0 classified + 0 duplicates + 9 already done + 0 unsupported + 0 failed",
        "Everything was done already; --force does it again.",
    ]
    assert "500,000" not in printed(RunStats())
    few = RunStats(seen=2, classified=2, total_processing_time=0.1, workers=2)
    assert "500,000" not in printed(few)


def test_the_processor_prints_the_same():
    file = io.StringIO()
    with ParallelDocumentProcessor() as processor:
        processor.stats = full()
        processor.print_summary(file)
    assert file.getvalue() == printed(full())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (100, "2 min"),
        (5_399, "90 min"),
        (5_400, "1.5 h"),
        (18_000, "5.0 h"),
        (864_000, "10 days"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
