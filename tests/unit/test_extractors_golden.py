"""One small document per format, against the text expected of it; and a corpus of real files.

The sources are generated, the same bytes every time; the expected texts lie in
``tests/golden/formats``. To write them anew after a deliberate change, set UPDATE_GOLDEN=1 and
read the difference.
"""

import os
import random
from pathlib import Path

import pytest

from doc_classify.dataset.compose import compose
from doc_classify.dataset.writers import WRITERS
from doc_classify.errors import ExtractionError
from doc_classify.extraction import Document, extract
from doc_classify.extraction.options import ExtractionOptions, PageSelection
from doc_classify.sniffing import sniff

GOLDEN = Path(__file__).parents[1] / "golden" / "formats"
CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "formats"
ALL = ExtractionOptions(pages=PageSelection(None, 0))
OTHERS = sorted(set(WRITERS) - {"pdf"})


def shown(extraction):
    lines = [
        f"type: {extraction.media_type}",
        f"engine: {extraction.engine}",
        f"pages: {len(extraction.pages)} of {extraction.page_count}",
        f"title: {extraction.title}",
        f"author: {extraction.author}",
        f"created: {extraction.created}",
        f"language: {extraction.language}",
        f"attachments: {', '.join(extraction.attachments)}",
        "",
        extraction.text.replace("\f", "\n---- page ----\n"),
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("extension", OTHERS)
def test_golden(extension, tmp_path):
    rng = random.Random(20)
    content = compose(rng, "invoices", "de", 1)
    data, count = WRITERS[extension](content, rng)
    path = tmp_path / f"document.{extension}"
    path.write_bytes(data)
    extraction = extract(Document(path, path.name, sniff(path)), ALL)
    assert extraction.problems == ()
    assert not extraction.truncated
    if extension not in ("xls", "xlsx"):
        assert extraction.page_count == count
    golden = GOLDEN / f"{extension}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(shown(extraction), "utf-8")
    assert shown(extraction) == golden.read_text("utf-8")


@pytest.mark.parametrize("extension", OTHERS)
@pytest.mark.parametrize("language", ["en", "de", "fr"])
def test_every_word_of_the_source_is_read(extension, language, tmp_path):
    rng = random.Random(5)
    content = compose(rng, "reports", language, 2)
    path = tmp_path / f"document.{extension}"
    path.write_bytes(WRITERS[extension](content, rng)[0])
    text = extract(Document(path, path.name, sniff(path)), ALL).text
    if extension in ("xls", "xlsx", "ods", "csv"):
        return  # sheets write numbers and dates in their own way
    words = {word for line in content.lines() for word in line.split() if word.isalpha()}
    missing = [word for word in words if word not in text]
    assert len(missing) <= len(words) * 0.02, missing


REAL = {
    "markitdown/test.docx": "Enabling Next-Gen LLM Applications",
    "markitdown/test.pptx": "AutoGen: Enabling Next-Gen LLM Applications",
    "markitdown/test.xlsx": "6ff4173b-42a5-4784-9b19-f49caff4d93d",
    "markitdown/test.xls": "6ff4173b-42a5-4784-9b19-f49caff4d93d",
    "markitdown/test.epub": "This is a blockquote for testing",
    "markitdown/test_mskanji.csv": "佐藤太郎",
    "markitdown/test_outlook_msg.msg": "This is the body of the test email message",
    "markitdown/test_wikipedia.html": "Microsoft Corporation",
    "markitdown/test_rss.xml": "The Official Microsoft Blog",
    "markitdown/equations.docx": "sinθ",
}


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of real files is not here")
@pytest.mark.parametrize("name", REAL)
def test_real_files(name):
    path = CORPUS / name
    assert REAL[name] in extract(Document(path, path.name, sniff(path)), ALL).text


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of real files is not here")
def test_all_real_office_files_are_read():
    for path in sorted(CORPUS.rglob("*")):
        if path.suffix in (".odt", ".docx", ".txt", ".html", ".md", ".csv") and path.is_file():
            try:
                assert extract(Document(path, path.name, sniff(path)), ALL).text, path
            except ExtractionError:
                assert path.stat().st_size == 0, path
