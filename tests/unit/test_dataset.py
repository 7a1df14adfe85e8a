"""The data set generator: reproducible, complete, and every file what its label says."""

import csv
import email
import email.policy
import hashlib
import io
import json
import mailbox
import os
import random
import re
import subprocess
import sys
import xml.dom.minidom
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from doc_classify.dataset import (
    CATEGORIES,
    FORMATS,
    LABELS_NAME,
    DatasetOptions,
    generate,
    read_labels,
    summarise,
)
from doc_classify.dataset import generator as generator_module
from doc_classify.dataset.compose import LANGUAGES, compose
from doc_classify.dataset.grammar import expand, tidy
from doc_classify.dataset.hostile import KEEPS_CATEGORY, KINDS
from doc_classify.dataset.writers import RARE_FORMATS, WRITERS
from doc_classify.discovery import walk
from doc_classify.errors import ConfigurationError, MissingDependencyError
from doc_classify.extraction import Document, extract
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.records import Source, uri_to_path
from doc_classify.sniffing import sniff

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/create_test_dataset.py"


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "demo"
    generate(folder, DatasetOptions())
    return folder


def run_script(*arguments, hash_seed="0"):
    return subprocess.run(
        [sys.executable, "-W", "error", SCRIPT, *map(str, arguments)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_default_shows_everything(demo):
    labels = read_labels(demo)
    assert len(labels) == 100
    assert {label.format for label in labels} == set(FORMATS)
    assert sum(label.scanned for label in labels) == 5
    assert sum(bool(label.hostile) for label in labels) == 3
    assert sum(bool(label.duplicate_of) for label in labels) == 2
    per_category = Counter(label.category for label in labels)
    assert set(per_category) == {*CATEGORIES, ""}
    assert all(10 <= per_category[name] <= 20 for name in CATEGORIES)
    assert summarise(labels).startswith("100 files (")


def test_labels_are_complete_and_no_document(demo):
    labels = read_labels(demo)
    found = {
        os.path.relpath(uri_to_path(one.uri), demo) for one in walk(demo) if isinstance(one, Source)
    }
    assert found == {label.path for label in labels}
    assert not any(Path(label.path).is_absolute() for label in labels)
    with (demo / LABELS_NAME).open(newline="") as file:
        assert next(csv.reader(file)) == [
            "path", "category", "format", "pages", "scanned", "hostile", "duplicate_of",
        ]  # fmt: skip


def test_no_two_alike_save_the_duplicates(demo):
    labels = {label.path: label for label in read_labels(demo)}
    found = digests(demo)
    for path, label in labels.items():
        if label.duplicate_of:
            assert found[path] == found[label.duplicate_of]
    originals = [found[path] for path, label in labels.items() if not label.duplicate_of]
    assert len(set(originals)) == len(originals)


def test_same_seed_same_bytes_in_any_process(demo, tmp_path):
    for number, hash_seed in enumerate(("1", "2")):
        output = tmp_path / hash_seed
        done = run_script("--output", output, "--workers", number + 1, hash_seed=hash_seed)
        assert done.returncode == 0, done.stderr
        assert "100 of 100 files" in done.stderr
        assert str(output / LABELS_NAME) in done.stdout
        assert digests(output) == digests(demo)


def test_another_seed_gives_other_documents(demo, tmp_path):
    generate(tmp_path, DatasetOptions(seed=1, hostile=0))  # an empty file is always the same
    assert not set(digests(tmp_path).values()) & set(digests(demo).values())


def test_second_run_replaces_the_first_but_nothing_else(tmp_path):
    generate(tmp_path, DatasetOptions(count=20, formats=("txt",), seed=1))
    labels = generate(tmp_path, DatasetOptions(count=5, formats=("md",), seed=2))
    assert len(digests(tmp_path)) == len(labels) + 1
    assert all(path.suffix != ".txt" for path in tmp_path.rglob("*"))
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigurationError, match="not of an earlier data set"):
        generate(tmp_path, DatasetOptions(count=5))
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_edited_labels_remove_nothing_outside(tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("keep")
    folder = tmp_path / "set"
    generate(folder, DatasetOptions(count=3, formats=("txt",), hostile=0))
    with (folder / LABELS_NAME).open("a") as file:
        file.write("../precious.txt,other,txt,,0,,\n")
    generate(folder, DatasetOptions(count=3, formats=("txt",), hostile=0))
    assert precious.exists()


def test_what_was_made_before_an_interruption_is_labelled(tmp_path):
    def interrupt(done, total):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, DatasetOptions(count=20, formats=("txt",)), interrupt)
    assert len(read_labels(tmp_path)) == 7
    assert len(generate(tmp_path, DatasetOptions(count=2, formats=("txt",)))) == 2


def open_file(data: bytes, extension: str) -> str:
    """All text that the format's reference library finds."""
    stream = io.BytesIO(data)
    match extension:
        case "pdf":
            import pypdfium2

            pages = list(pypdfium2.PdfDocument(data))
            return "\n".join(page.get_textpage().get_text_bounded() for page in pages)
        case "docx":
            import docx

            document = docx.Document(stream)
            cells = [cell for table in document.tables for cell in table._cells]
            return "\n".join(part.text for part in [*document.paragraphs, *cells])
        case "pptx":
            import pptx

            shapes = [shape for slide in pptx.Presentation(stream).slides for shape in slide.shapes]
            tables = [shape.table for shape in shapes if shape.has_table]
            cells = [cell for table in tables for cell in table.iter_cells()]
            frames = [shape for shape in shapes if shape.has_text_frame]
            return "\n".join(part.text_frame.text for part in [*frames, *cells])
        case "xlsx":
            import openpyxl

            [sheet, *_] = openpyxl.load_workbook(stream)
            return "\n".join(str(cell) for row in sheet.values for cell in row if cell is not None)
        case "xls" | "ods":
            import python_calamine

            book = python_calamine.CalamineWorkbook.from_filelike(stream)
            return "\n".join(str(cell) for row in book.get_sheet_by_index(0).to_python()
                             for cell in row)  # fmt: skip
        case "odt" | "odp":
            import odf.opendocument
            import odf.teletype

            loaded = odf.opendocument.load(stream)
            return odf.teletype.extractText(loaded.body)
        case "epub":
            with zipfile.ZipFile(stream) as archive:
                assert archive.testzip() is None
                assert archive.infolist()[0].filename == "mimetype"
                assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED
                return text_of(archive.read("OEBPS/chapter.xhtml"))
        case "xml":
            return text_of(data)
        case "html":
            from lxml import html

            return html.fromstring(data).text_content()
        case "eml":
            return mail_text(email.message_from_bytes(data, policy=email.policy.default))
        case "rtf":
            from striprtf.striprtf import rtf_to_text

            return rtf_to_text(data.decode("ascii"))
        case "json":
            return json.dumps(json.loads(data), ensure_ascii=False)
    for encoding in ("utf-16",) if data.startswith(b"\xff\xfe") else ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise AssertionError("no known encoding")


def text_of(xml_bytes: bytes) -> str:
    def inner(node):
        return (node.data if node.nodeType == node.TEXT_NODE else "") + " ".join(
            map(inner, node.childNodes)
        )

    return inner(xml.dom.minidom.parseString(xml_bytes))


def mail_text(message) -> str:
    assert not message.defects
    body = message.get_body(("plain",))
    return f"{message['Subject']}\n{message['From']}\n{body.get_content()}"


@pytest.mark.parametrize("extension", [name for name in WRITERS if name != "mbox"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_format_opens_and_holds_the_text(extension, language):
    for number, category in enumerate(CATEGORIES):
        content = compose(random.Random(f"{number}{extension}"), category, language, 1 + number % 3)
        data, _ = WRITERS[extension](content, random.Random(number))
        text = "".join(open_file(data, extension).split())
        wanted = content.title.split() + " ".join(content.lines()).split()
        # Some letters are lost in narrow encodings, signs in markup, words at the end of lines.
        missing = [word for word in wanted if word.isascii() and word.isalpha() and
                   word not in text]  # fmt: skip
        assert len(missing) <= len(wanted) / 50 + 1, (category, missing)


def test_mailboxes_open(tmp_path):
    content = compose(random.Random(1), "correspondence", "en", 2)
    data, messages = WRITERS["mbox"](content, random.Random(2))
    (tmp_path / "box").write_bytes(data)
    box = mailbox.mbox(tmp_path / "box")
    try:
        assert len(box) == messages > 1
        assert box[0]["Subject"]
    finally:
        box.close()


def test_some_messages_have_attachments(tmp_path):
    labels = generate(tmp_path, DatasetOptions(count=40, formats=("eml",), hostile=0))
    messages = [
        email.message_from_bytes((tmp_path / label.path).read_bytes(), policy=email.policy.default)
        for label in labels
    ]
    attached = [part for message in messages for part in message.iter_attachments()]
    assert 4 <= len(attached) <= 25
    assert {part.get_content_type() for part in attached} == {"text/plain", "application/pdf"}


def test_scans_are_images_without_text(tmp_path):
    import pypdfium2
    from PIL import Image

    formats = ("pdf", "png", "jpg", "tiff")
    labels = generate(tmp_path, DatasetOptions(count=8, formats=formats, scanned=1, hostile=0))
    assert {label.format for label in labels} == set(formats)
    for label in labels:
        path = tmp_path / label.path
        assert label.scanned == 1
        if label.format == "pdf":
            with pypdfium2.PdfDocument(path) as pdf:
                assert len(pdf) == label.pages
                assert pdf[0].get_textpage().get_text_bounded() == ""
                assert len(list(pdf[0].get_objects())) == 1
        else:
            with Image.open(path) as image:
                assert getattr(image, "n_frames", 1) == label.pages
                grey = image.convert("L")
                assert image.width > 1000
                assert sum(grey.histogram()[:110]) > 1000  # there is ink


def test_pages_follow_the_mean_that_was_asked_for(tmp_path):
    import pypdfium2

    options = DatasetOptions(count=40, formats=("pdf",), scanned=0, hostile=0, duplicates=0)
    short = generate(tmp_path / "short", options)
    long_options = DatasetOptions(
        count=40, formats=("pdf",), scanned=0, hostile=0, duplicates=0, pages=10
    )
    long = generate(tmp_path / "long", long_options)
    mean = [sum(label.pages for label in labels) / len(labels) for labels in (short, long)]
    assert 1 < mean[0] < 4
    assert 6 < mean[1] < 15
    with pypdfium2.PdfDocument(tmp_path / "long" / long[0].path) as pdf:
        assert len(pdf) == long[0].pages


def test_hostile_files_are_what_they_are_called(tmp_path):
    import openpyxl
    import pypdfium2

    labels = generate(tmp_path, DatasetOptions(count=40, hostile=0.5, scanned=0))
    hostile = [label for label in labels if label.hostile]
    assert {label.hostile for label in hostile} == set(KINDS)
    assert len(hostile) == 20
    for label in hostile:
        path = tmp_path / label.path
        assert bool(label.category) == (label.hostile in KEEPS_CATEGORY)
        match label.hostile:
            case "encrypted_pdf":
                with pytest.raises(pypdfium2.PdfiumError, match="password"):
                    pypdfium2.PdfDocument(path)
            case "zip_bomb":
                with zipfile.ZipFile(path) as archive:
                    [part] = [one for one in archive.infolist() if "document" in one.filename]
                    assert part.file_size > 500_000_000
                    with archive.open(part) as stream:
                        assert stream.read(400).endswith(b"AAAA")
                assert path.stat().st_size < 1_000_000
            case "xml_bomb":
                assert path.stat().st_size < 5_000
            case "deep_xml":
                assert path.read_bytes().count(b"</") == 300_000
            case "wrong_extension":
                assert path.suffix != f".{label.format}"
            case "sparse_sheet":
                book = openpyxl.load_workbook(path, read_only=True)
                assert b"XFD1048576" in zipfile.ZipFile(path).read("xl/worksheets/sheet1.xml")
                book.close()
    assert sum((tmp_path / label.path).stat().st_size == 0 for label in labels) == 1


def test_choice_of_formats_and_categories(tmp_path):
    options = DatasetOptions(
        count=12, formats=("csv", "epub"), categories=("contracts", "research"), duplicates=0.25
    )
    labels = generate(tmp_path, options)
    assert {label.format for label in labels} == {"csv", "epub"}
    assert {label.category for label in labels} == {"contracts", "research"}
    assert sum(bool(label.duplicate_of) for label in labels) == 3


@pytest.mark.parametrize("count", [1, 2, 7])
def test_small_sets(tmp_path, count):
    assert len(generate(tmp_path, DatasetOptions(count=count))) == count


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "count must be at least 1"),
        (["--count", "2000000000"], "count must be at most 1,000,000"),
        (["--workers", "5000"], "workers must be at most 256"),
        (["--formats", "pdf,wps"], "unknown format 'wps'"),
        (["--categories", "poems"], "unknown category 'poems'"),
        (["--hostile", "1.5"], "share between 0 and 1"),
        (["--hostile", "0.7", "--duplicates", "0.7"], "more than 1"),
        (["--formats", "txt", "--scanned", "0.5"], "scans need one of"),
        (["--pages", "0"], "pages must lie between"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path, arguments, message):
    done = run_script("--output", tmp_path / "set", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(generator_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"reportlab.*doc-classify\[dataset\]"):
        generate(tmp_path / "set", DatasetOptions(formats=("pdf",)))
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("category", CATEGORIES)
def test_text_is_whole(category, language):
    texts = set()
    for number in range(60):
        content = compose(random.Random(number), category, language, 1 + number % 4)
        text = "\n".join([content.title, *content.lines()])
        texts.add(text)
        assert not set("[]{}|") & set(text), text
        assert "  " not in text
        assert content.words > 15
    assert len(texts) == 60


def test_grammar():
    rng = random.Random(0)
    made = {expand("[a|b[c|{x}]|]!", rng, str.upper) for _ in range(200)}
    assert made == {"a!", "bc!", "bX!", "!"}
    assert tidy("one , two .", "en") == "One, two."
    assert tidy("of Acme Inc..", "en") == "Of Acme Inc."
    assert tidy("quoi ?", "fr") == "Quoi ?"


KEYWORDS = (
    {
        "invoices": "invoices invoice payment amount due total vat",
        "contracts": "contracts contract agreement party parties clause termination",
        "reports": "reports report quarter results summary findings performance",
        "correspondence": "correspondence dear regards sincerely letter thank wrote",
        "research": "research study method abstract hypothesis data experiment",
        "compliance": "compliance policy regulation audit risk gdpr procedure",
        "other": "other recipe menu news minutes invitation manual",
    },
    {
        "invoices": "invoices invoice bill due iban total receipt",
        "contracts": "contracts contract agreement parties hereby clause term",
        "reports": "reports report quarterly summary progress incident revenue",
        "correspondence": "correspondence dear regards sincerely thanks yours hello",
        "research": "research abstract study results methods references university",
        "compliance": "compliance policy gdpr audit controls regulation data",
        "other": "other recipe travel news manual job story",
    },
)


@pytest.mark.parametrize("keywords", KEYWORDS, ids=("one", "another"))
def test_a_list_of_keywords_does_not_solve_it(keywords):
    lists = {name: text.split() for name, text in keywords.items()}
    hits = Counter()
    count = 700
    for number in range(count):
        rng = random.Random(f"keywords/{number}")
        category = CATEGORIES[number % len(CATEGORIES)]
        language = rng.choices(LANGUAGES, (82, 10, 8))[0]
        content = compose(rng, category, language, 1 + number % 3)
        text = "\n".join((content.title, *content.lines())).lower()
        words = Counter(re.findall(r"[a-z]+", text))
        for weigh in (sum, lambda found: sum(map(bool, found))):  # all of them, or each once
            best = max(lists, key=lambda name: weigh([words[word] for word in lists[name]]))
            hits[weigh is sum] += best == category
    assert max(hits.values()) / count < 0.7
    assert min(hits.values()) / count > 0.4  # it is no gibberish either


def test_rare_formats_are_read(tmp_path):
    options = DatasetOptions(count=8, formats=RARE_FORMATS, scanned=0.75, hostile=0, duplicates=0)
    for label in generate(tmp_path, options):
        path = tmp_path / label.path
        found = extract(Document(path, path.name, sniff(path)), ExtractionOptions())
        assert len(found.text) > 200
        assert bool(found.ocr_pages) == bool(label.scanned)


def test_the_command_reports_as_json(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "doc_classify", "dataset", "--count", "3", "--formats", "txt,MD",
         "--output", tmp_path / "set", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["files"] == 3
    assert report["options"]["formats"] == ["txt", "md"]
    assert Path(report["labels"]).exists()
