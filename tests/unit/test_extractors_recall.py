"""Word and PowerPoint files beside the libraries made for them: no word of theirs is missing."""

import random
import re
from pathlib import Path

import docx
import pptx
import pytest

from doc_classify.dataset.compose import compose
from doc_classify.dataset.writers import WRITERS
from doc_classify.extraction import Document, extract
from doc_classify.extraction.options import ExtractionOptions, PageSelection
from doc_classify.sniffing import sniff

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus" / "formats"
REAL = sorted([*CORPUS.rglob("*.docx"), *CORPUS.rglob("*.pptx")])
ALL = ExtractionOptions(pages=PageSelection(None, 0), max_characters=5_000_000)


def by_docx(path):
    document = docx.Document(path)
    yield from (paragraph.text for paragraph in document.paragraphs)
    for table in document.tables:
        for row in table.rows:
            yield from (cell.text for cell in row.cells)
    for section in document.sections:
        for part in (section.header, section.footer):
            yield from (paragraph.text for paragraph in part.paragraphs)


def of_shapes(shapes):
    for shape in shapes:
        if shape.has_text_frame:
            yield shape.text_frame.text
        if shape.has_table:
            for row in shape.table.rows:
                yield from (cell.text for cell in row.cells)
        if hasattr(shape, "shapes"):
            yield from of_shapes(shape.shapes)


def by_pptx(path):
    for slide in pptx.Presentation(path).slides:
        yield from of_shapes(slide.shapes)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame:
            yield slide.notes_slide.notes_text_frame.text


def missing(path):
    library = by_docx if path.suffix == ".docx" else by_pptx
    theirs = set(re.findall(r"\w+", "\n".join(library(path))))
    ours = extract(Document(path, path.name, sniff(path)), ALL).text
    assert theirs
    return theirs - set(re.findall(r"\w+", ours))


@pytest.mark.parametrize("extension", ["docx", "pptx"])
@pytest.mark.parametrize("category", ["invoices", "contracts", "reports", "research"])
def test_generated_documents(tmp_path, extension, category):
    rng = random.Random(category)
    path = tmp_path / f"document.{extension}"
    path.write_bytes(WRITERS[extension](compose(rng, category, "en", 2), rng)[0])
    assert missing(path) == set()


@pytest.mark.skipif(not REAL, reason="the corpus of real files is not here")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_documents(path):
    assert missing(path) == set()
