import csv
import io
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from doc_classify.errors import ConfigurationError, MissingDependencyError, StorageError
from doc_classify.export import (
    FIELDS,
    Format,
    export_results,
    format_of,
    row_to_dict,
    run_to_dict,
    to_json,
    write_rows,
)
from doc_classify.export.formats import neutralise
from doc_classify.export.rows import filter_to_dict
from doc_classify.records import (
    CategoryStats,
    Classification,
    Extraction,
    Failure,
    FileStatus,
    Outcome,
    Page,
    Problem,
    RunStats,
    Source,
    path_to_uri,
    uri_to_path,
)
from doc_classify.storage import open_store
from doc_classify.storage.base import Hashed, ResultFilter, ResultRow, RunInfo, RunSpec

ENDINGS = [".json", ".jsonl", ".csv", ".parquet"]
FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "  =1",
    "'=1",
    '"=1',
    "\u00a0=1",
]
FORMULAS += [
    "＝1+1",
    "＋1",
    "－1",
    "＠A1",
    "﹦1",
    "\u2212 1",
    "\ufeff=1",
    "\u200b=1",
    "“=1",
    "\x00=1",
]
HARMLESS = ["", "a=b", "1-2", "/d/x", "(=1)", "'", '"quoted"', "  plain", "日本", "€ 5", "#REF"]

SPEC = RunSpec(
    source="/documents",
    door="test",
    fingerprint="f" * 16,
    extraction_key="e" * 16,
    classifier="embedded",
    categories=("a", "b"),
    settings={"workers": 2, "rate": float("nan"), "folder": Path("/x")},
)
STATS = RunStats(
    run_id="r1",
    seen=3,
    classified=1,
    failed=1,
    categories={"a": CategoryStats(files=1, score_sum=0.5, score_count=1)},
    failures={"damaged": 1},
)
INFO = RunInfo("r1", SPEC, "finished", "2024-05-01T10:00:00+00:00", "h", "f", STATS)


class StoreDouble:
    """A double of the store: gives out the rows it was made with."""

    def __init__(self, rows=(), info=INFO):
        self.rows = rows
        self.info = info
        self.asked = []

    def run(self, run_id=None):
        return self.info if self.info and self.info.run_id.startswith(run_id) else None

    def results(self, run_id, only=None):
        self.asked.append((run_id, only))
        yield from self.rows


def row(name: str = "x.pdf", **changes) -> ResultRow:
    values = {
        "uri": path_to_uri(f"/d/{name}"),
        "status": FileStatus.CLASSIFIED,
        "sha256": "ab" * 32,
        "size": 1234,
        "media_type": "application/pdf",
        "category": "a",
        "score": 0.75,
        "confidence": 0.9,
        "scores": (("a", 0.75), ("b", 0.25)),
        "page_count": 3,
        "pages_read": 2,
        "ocr_pages": 1,
        "title": "A title",
        "attachments": ("one.txt", "two; three.txt"),
        "problems": (Problem("page", "page 3 is damaged", 3),),
        "classifier": "embedded",
        "run_id": "r1",
        "processed_at": "2024-05-01T10:00:00.123+00:00",
    }
    return ResultRow(**(values | changes))


def hostile_rows() -> list[ResultRow]:
    return [
        row("new\nline,\r\n\"quoted\" 'x'.pdf", title='a,"b"\r\n\nc', author="\r"),
        row("\udcff\udc80 not utf-8.pdf", title="lone \ud800 pair \ud83d\ude00", language="\udfff"),
        row(
            "=cmd|' /C calc'!A0", title="=HYPERLINK(1)", category="@x", reasoning="-1", created="+1"
        ),
        row("nul.pdf", title="a\0b", attachments=("=1\0", "\ud800", "\n")),
        row("big.pdf", title="“ü” " * 250_000, problems=(Problem("k", "x" * 1_000_000),)),
        row("nan.pdf", score=float("nan"), confidence=float("inf"), scores=(("a", float("-inf")),)),
        row("terminal \x1b[31m\x9b\u202e.pdf", title="\x1b\x7f\x9b31m\u2028\u202e\x85"),
        row(
            "failed.pdf",
            status=FileStatus.FAILED,
            failure=Failure("damaged", "=broken"),
            category=None,
            score=None,
            confidence=None,
            scores=(),
            attachments=(),
            problems=(),
            needs_review=True,
            truncated=True,
        ),
        ResultRow("https://example.org/ü \ud800?x=%00", FileStatus.PENDING),
        row("copy.pdf", status=FileStatus.DUPLICATE, duplicate_of=path_to_uri("/d/x\n.pdf")),
    ]


def strict_json(text: str | bytes):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def written(rows, form) -> bytes:
    stream = io.BytesIO()
    write_rows(rows, stream, form)
    return stream.getvalue()


def read_csv(data: bytes) -> list[dict[str, str]]:
    limit = csv.field_size_limit(10**9)
    try:
        return list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))
    finally:
        csv.field_size_limit(limit)


def read_parquet(data: bytes):
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(io.BytesIO(data))


def leftovers(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# --- rows as plain values


def test_the_fields_are_those_of_the_list_in_its_order():
    assert list(row_to_dict(row())) == list(FIELDS)
    assert list(row_to_dict(ResultRow("file:///x", FileStatus.PENDING))) == list(FIELDS)


def test_the_documentation_names_every_field_and_no_other():
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    fields, run, stats = (
        re.findall(r"^\| `(\w+)` \|", part, re.M)
        for part in re.search(
            r"^## Fields of a result$(.*)^## The run$(.*)^### `stats`$(.*)^## Formats$",
            text,
            re.M | re.S,
        ).groups()
    )
    assert fields == list(FIELDS)
    described = run_to_dict(INFO)
    assert run == list(described)
    assert sorted(stats) == sorted(described["stats"])


def test_a_row_as_values():
    values = row_to_dict(row("a\n\udcff.pdf", failure=Failure("damaged", "it is")))
    assert values["path"] == "/d/a\\n\\xff.pdf"
    assert values["uri"] == "file:///d/a%0A%FF.pdf"
    assert uri_to_path(values["uri"]) == "/d/a\n\udcff.pdf"
    assert values["status"] == "classified"
    assert type(values["status"]) is str
    assert values["scores"] == {"a": 0.75, "b": 0.25}
    assert (values["error_kind"], values["error_message"]) == ("damaged", "it is")
    assert values["problems"] == [{"kind": "page", "message": "page 3 is damaged", "page": 3}]


def test_text_and_numbers_that_formats_do_not_take_are_replaced():
    values = row_to_dict(
        row(title="\ud83d\ude00 \ud800 \0", score=float("nan"), scores=(("a", float("inf")),))
    )
    assert values["title"] == "😀 \ufffd \ufffd"
    assert values["score"] is None
    assert values["scores"] == {"a": None}


def test_a_run_as_values():
    values = strict_json(to_json(run_to_dict(INFO)))
    assert values["settings"] == {"workers": 2, "rate": None, "folder": "/x"}
    assert values["stats"]["pending"] == 1
    assert values["stats"]["categories"] == {
        "a": {"files": 1, "mean_score": 0.5, "mean_confidence": None}
    }


def test_a_filter_as_values():
    assert filter_to_dict(None) is None
    assert filter_to_dict(ResultFilter()) is None
    only = ResultFilter(
        statuses=frozenset({FileStatus.FAILED, FileStatus.CLASSIFIED}), failed=True, limit=0
    )
    assert filter_to_dict(only) == {
        "statuses": ["classified", "failed"],
        "failed": True,
        "limit": 0,
    }


@given(st.text())
@example("\x7f\x85\x9b\u2028\u2029\u202e\u2066é日")
def test_json_is_one_line_without_control_characters_and_reads_back(text):
    line = to_json({"x": text}) if text.isprintable() else to_json({text: text})
    assert len(line.splitlines()) == 1
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e]", line)
    assert list(strict_json(line).values()) == [text]


# --- formulas


@pytest.mark.parametrize("text", FORMULAS)
def test_what_a_spreadsheet_could_take_for_a_formula_gets_an_apostrophe(text):
    assert neutralise(text) == "'" + text


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays(text):
    assert neutralise(text) == text


@given(st.text(alphabet="'=+-@ \ta\n＝", max_size=6))
def test_added_apostrophes_can_be_told_from_all_others(text):
    cell = neutralise(text)
    back = cell[1:] if neutralise(cell) != cell else cell
    assert back == text


def test_no_text_cell_of_a_row_starts_a_formula():
    for formula in FORMULAS:
        evil = row(
            category=formula,
            reasoning=formula,
            failure=Failure(formula, formula),
            duplicate_of=formula,
            media_type=formula,
            title=formula,
            author=formula,
            created=formula,
            modified=formula,
            language=formula,
            attachments=(formula,),
            problems=(Problem(formula, formula),),
            scores=((formula, 1.0),),
            classifier=formula,
        )
        (cells,) = read_csv(written([replace(evil, uri=formula)], "csv"))
        for name, cell in cells.items():
            # Our own numbers and JSON aside, everything is text and was neutralised.
            assert not re.match(r"[\s\"\u200b\ufeff\u201c]*[=+\-@＝＋－＠﹦\u2212]", cell), name


def test_numbers_of_ours_are_not_touched():
    (cells,) = read_csv(written([row(score=-1e-7, size=-5, confidence=1.0)], "csv"))
    assert (cells["score"], cells["size"], cells["confidence"]) == ("-1e-07", "-5", "1.0")


# --- formats


def test_the_ending_says_the_format():
    assert format_of(Path("a.JSON")) is Format.JSON
    assert format_of(Path("a.b.ndjson")) is Format.JSONL
    for name in ("results", "results.xlsx", ".json", "x.json.gz"):
        with pytest.raises(ConfigurationError, match=r"\.parquet"):
            format_of(Path(name))
    with pytest.raises(ConfigurationError, match="xml"):
        write_rows([], io.BytesIO(), "xml")


def test_json_lines_round_trip():
    rows = hostile_rows()
    data = written(rows, Format.JSONL)
    lines = data.decode().splitlines()  # also those that split at U+2028 find whole lines
    assert [strict_json(line) for line in lines] == [row_to_dict(item) for item in rows]


def test_json_round_trip(tmp_path):
    rows = hostile_rows()
    path = tmp_path / "results.json"
    only = ResultFilter(category="a")
    store = StoreDouble(rows)
    assert export_results(store, "r", path, only) == path
    assert store.asked == [("r1", only)]  # a beginning of the id was completed
    document = strict_json(path.read_bytes())
    assert document["format"] == "doc-classify-results/1"
    assert document["run"] == run_to_dict(INFO) | {"settings": document["run"]["settings"]}
    assert document["filter"] == {"category": "a"}
    assert document["results"] == [row_to_dict(item) for item in rows]


def test_csv_round_trip():
    rows = hostile_rows()
    data = written(rows, "csv")
    assert data.startswith(",".join(FIELDS).encode() + b"\r\n")
    assert data.endswith(b"\r\n")
    found = read_csv(data)
    assert len(found) == len(rows)
    for cells, item in zip(found, rows, strict=True):
        values = row_to_dict(item)
        assert list(cells) == list(FIELDS)
        assert cells["uri"] == values["uri"]
        assert cells["title"] == neutralise(values["title"] or "")
        assert cells["author"] == neutralise(values["author"] or "")
        assert json.loads(cells["scores"]) == values["scores"]
        assert json.loads(cells["attachments"]) == values["attachments"]
        assert json.loads(cells["problems"]) == values["problems"]
        assert cells["truncated"] == ("true" if item.truncated else "false")
        assert cells["score"] == ("" if values["score"] is None else "0.75")


def test_parquet_round_trip():
    rows = hostile_rows()
    table = read_parquet(written(rows, "parquet")).read()
    table.validate(full=True)
    for found, item in zip(table.to_pylist(), rows, strict=True):
        values = row_to_dict(item)
        assert dict(found.pop("scores")) == values.pop("scores")
        at, expected = found.pop("processed_at"), values.pop("processed_at")
        assert at == (expected and datetime(2024, 5, 1, 10, 0, 0, 123000, tzinfo=UTC))
        assert found == values


def test_parquet_columns_are_typed_whatever_the_rows_hold():
    import pyarrow as pa

    problem = pa.struct([("kind", pa.string()), ("message", pa.string()), ("page", pa.int64())])
    expected = {
        "path": pa.string(),
        "score": pa.float64(),
        "needs_review": pa.bool_(),
        "scores": pa.map_(pa.string(), pa.float64()),
        "size": pa.int64(),
        "attachments": pa.list_(pa.string()),
        "problems": pa.list_(problem),
        "processed_at": pa.timestamp("us", tz="UTC"),
    }
    for rows in ([], [ResultRow("file:///x", FileStatus.PENDING)], hostile_rows()):
        schema = read_parquet(written(rows, "parquet")).schema_arrow
        assert schema.names == list(FIELDS)
        assert {name: schema.field(name).type for name in expected} == expected


def test_parquet_times_that_are_none_are_empty():
    rows = [row(processed_at="soon"), row(processed_at="2024-05-01T12:00:00+02:00")]
    rows.append(row(processed_at="2024-05-01T10:00:00"))
    times = read_parquet(written(rows, "parquet")).read()["processed_at"].to_pylist()
    assert times == [None, *[datetime(2024, 5, 1, 10, tzinfo=UTC)] * 2]


def test_parquet_row_groups_are_bounded_in_rows_and_in_size(tmp_path):
    path = tmp_path / "r.parquet"
    export_results(StoreDouble([row(f"{n}") for n in range(12_000)]), "r1", path)
    file = read_parquet(path.read_bytes())
    groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert groups == [5000, 5000, 2000]
    metadata = file.schema_arrow.metadata
    assert json.loads(metadata[b"doc_classify.run"])["run_id"] == "r1"
    assert json.loads(metadata[b"doc_classify.filter"]) is None

    big = row(reasoning="x" * 10_000_000, problems=(Problem("k", "y" * 7_000_000),))
    assert read_parquet(written([big, row(), row()], "parquet")).num_row_groups == 2


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"doc-classify\[parquet\]"):
        export_results(StoreDouble(), "r1", tmp_path / "new" / "r.parquet")
    assert leftovers(tmp_path) == []


def test_pyarrow_is_not_imported_for_the_other_formats():
    code = (
        "import io, sys; from doc_classify.export import write_rows;"
        "[write_rows([], io.BytesIO(), form) for form in ('json', 'jsonl', 'csv')];"
        "assert 'pyarrow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_rows(tmp_path, ending):
    path = export_results(StoreDouble(), "r1", tmp_path / f"r{ending}")
    data = path.read_bytes()
    if ending == ".json":
        assert strict_json(data)["results"] == []
    elif ending == ".jsonl":
        assert data == b""
    elif ending == ".csv":
        assert read_csv(data) == []
    else:
        assert read_parquet(data).metadata.num_rows == 0


@pytest.mark.parametrize("form", list(Format))
def test_rows_go_through_a_pipe(form):
    code = (
        "import sys; from doc_classify.export import write_rows;"
        "from doc_classify.records import FileStatus;"
        "from doc_classify.storage.base import ResultRow;"
        "rows = (ResultRow(f'file:///{n}', FileStatus.PENDING) for n in range(100));"
        "assert write_rows(rows, sys.stdout.buffer, sys.argv[1]) == 100"
    )
    done = subprocess.run([sys.executable, "-c", code, form], check=True, stdout=subprocess.PIPE)
    assert b"file:///99" in done.stdout or form is Format.PARQUET
    if form is Format.PARQUET:
        assert read_parquet(done.stdout).metadata.num_rows == 100


GROWTH = """
import io, itertools, resource, sys
from doc_classify.export import write_rows
from doc_classify.records import FileStatus
from doc_classify.storage.base import ResultRow

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

row = ResultRow("file:///d/x.pdf", FileStatus.CLASSIFIED, category="a", scores=(("a", 0.5),))
write_rows([row], io.BytesIO(), sys.argv[1])  # imports are not what is measured
before = peak()
with open(sys.argv[2], "wb") as stream:
    assert write_rows(itertools.repeat(row, 200_000), stream, sys.argv[1]) == 200_000
print(peak() - before)
"""


@pytest.mark.parametrize("form", list(Format))
def test_memory_stays_flat_at_200_000_rows(tmp_path, form):
    path = tmp_path / "results"
    command = [sys.executable, "-c", GROWTH, form, path]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    # A row is about 2 KB as a dict: all of them would be 400 MB.
    assert int(done.stdout) < (64 if form is Format.PARQUET else 4)
    with path.open("rb") as file:
        if form is Format.PARQUET:
            assert read_parquet(file.read()).metadata.num_rows == 200_000
        else:
            extra = {Format.JSON: 3, Format.JSONL: 0, Format.CSV: 1}[form]
            assert sum(1 for _ in file) == 200_000 + extra


@pytest.mark.parametrize("form", [Format.JSON, Format.JSONL, Format.CSV])
def test_a_text_format_holds_one_row_at_a_time(tmp_path, form):
    with (tmp_path / "results").open("wb") as stream:
        write_rows([row()], stream, form)
        tracemalloc.start()
        try:
            write_rows((row(str(n), reasoning="x" * 100_000) for n in range(500)), stream, form)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 2 * 2**20


# --- the file appears whole or not at all


def broken(error: BaseException, after: int = 10):
    for number in range(after):
        yield row(str(number))
    raise error


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), StorageError("the database is away")])
def test_an_interrupted_export_leaves_the_old_file(tmp_path, ending, error):
    path = tmp_path / f"r{ending}"
    path.write_text("old")
    with pytest.raises(type(error)) as caught:
        export_results(StoreDouble(broken(error, 6000)), "r1", path)
    assert caught.value is error
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, ending):
    path = tmp_path / "r\n" / f"r{ending}"
    path.parent.mkdir()
    path.write_text("old")
    rows = [row(os.urandom(50).hex(), title=os.urandom(100).hex()) for _ in range(6000)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageError, match=rf"r\\n/r\{ending}: File too large"):
            export_results(StoreDouble(rows), "r1", path)
        made = tmp_path / "new" / "folders" / path.name
        with pytest.raises(StorageError):
            export_results(StoreDouble(rows), "r1", made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert leftovers(path.parent) == [path.name]
    assert leftovers(tmp_path) == ["r\n"]


@pytest.mark.parametrize("what", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_end(tmp_path, monkeypatch, what):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(*((os, "fsync") if what == "fsync" else (Path, "replace")), fail)
    path = tmp_path / "r.csv"
    path.write_text("old")
    with pytest.raises(StorageError, match=r"r\.csv: Input/output error"):
        export_results(StoreDouble([row()]), "r1", path)
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == ["r.csv"]


def test_a_killed_export_leaves_the_old_file(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from doc_classify.export.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as stream:\n"
        "    stream.write(b'x' * 10**6); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    export_results(StoreDouble([row()]), "r1", path)
    assert strict_json(path.read_text())["category"] == "a"


def test_folders_are_made_and_permissions_kept(tmp_path):
    path = tmp_path / "a" / "b" / "r.csv"
    export_results(StoreDouble([row()]), "r1", path)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o640)
    export_results(StoreDouble([row()]), "r1", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_name_as_long_as_names_may_be(tmp_path):
    path = tmp_path / ("n" * 251 + ".csv")
    assert export_results(StoreDouble([row()]), "r1", path).exists()
    with pytest.raises(StorageError, match="File name too long"):
        export_results(StoreDouble([row()]), "r1", tmp_path / "sub" / ("n" * 300 + ".csv"))
    assert leftovers(tmp_path) == [path.name]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "r.csv"
    link.symlink_to("real/r.csv")
    export_results(StoreDouble([row()]), "r1", link)
    assert link.is_symlink()
    assert leftovers(tmp_path / "real") == ["r.csv"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigurationError, match="a folder"):
        export_results(StoreDouble(), "r1", tmp_path / "folder.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        export_results(StoreDouble(), "r1", tmp_path / "pipe.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"r\.csv: .*directory"):
        export_results(StoreDouble(), "r1", tmp_path / "file" / "r.csv")
    assert leftovers(tmp_path) == ["file", "folder.csv", "pipe.csv"]


def test_a_write_protected_file_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "r.csv"
    path.write_text("old")
    monkeypatch.setattr(os, "access", lambda *_: False)  # nothing is protected from root
    with pytest.raises(StorageError, match="write-protected"):
        export_results(StoreDouble(), "r1", path)
    assert path.read_text() == "old"


def test_there_is_no_such_run(tmp_path):
    with pytest.raises(ConfigurationError, match="no run 'x'"):
        export_results(StoreDouble(), "x", tmp_path / "new" / "r.csv")
    assert leftovers(tmp_path) == []


def test_the_rows_are_closed_when_writing_fails(tmp_path):
    closed = []

    def rows():
        try:
            yield from (row(title="x" * 10_000) for _ in range(100))
        finally:
            closed.append(True)

    given = rows()
    store = StoreDouble()
    store.results = lambda *_: given
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(StorageError):
            export_results(store, "r1", tmp_path / "r.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert closed == [True]


# --- with the real store


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_of_the_real_store(tmp_path, ending):
    store = open_store(f"sqlite:///{tmp_path / 'ledger.db'}")
    try:
        run = store.start_run(replace(SPEC, settings={"workers": 2}))
        uris = [path_to_uri(f"/d/{name}") for name in ("=1\n.txt", "\udcff.txt", "z.txt")]
        hashes = [f"{number:064x}" for number in (1, 2, 1)]
        pairs = zip(uris, hashes, strict=True)
        seen = [Hashed(Source(uri, 10, 1), sha256) for uri, sha256 in pairs]
        first, second = store.register(run, seen).tasks
        found = Classification("a", 0.75, None, (("a", 0.75), ("b", 0.25)), reasoning="=why")
        text = Extraction("text/plain", (Page(1, "text"),), "text", title="@title\ud800")
        outcome = Outcome(first.document_id, first.file_id, found, extraction=text)
        failure = Failure("damaged", "it is damaged")
        store.record(run, [outcome, Outcome(second.document_id, second.file_id, failure=failure)])
        store.finish_run(run, "finished", 2.0)

        path = export_results(store, run[:-1], tmp_path / f"r{ending}")
        expected = [row_to_dict(item) for item in store.results(run)]
        failed = export_results(store, run, tmp_path / f"f{ending}", ResultFilter(failed=True))
    finally:
        store.close()
    data = path.read_bytes()
    assert [item["status"] for item in expected] == ["classified", "failed", "duplicate"]
    assert [item["category"] for item in expected] == ["a", None, "a"]
    if ending == ".json":
        document = strict_json(data)
        assert document["results"] == expected
        assert document["run"]["run_id"] == run
        assert document["run"]["stats"]["categories"]["a"]["files"] == 2
        assert [item["error_kind"] for item in strict_json(failed.read_bytes())["results"]] == [
            "damaged"
        ]
    elif ending == ".jsonl":
        assert [strict_json(line) for line in data.splitlines()] == expected
    elif ending == ".csv":
        cells = read_csv(data)
        assert [item["uri"] for item in cells] == uris
        assert cells[0]["path"] == "/d/=1\\n.txt"
        assert cells[0]["title"].startswith("'@title")
        assert cells[0]["reasoning"] == "'=why"
    else:
        table = read_parquet(data).read()
        assert table["uri"].to_pylist() == uris
        assert None not in table["processed_at"].to_pylist()
