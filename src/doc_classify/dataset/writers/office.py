"""Office Open XML text and slides, through python-docx and python-pptx."""

from __future__ import annotations

import io
import random
from typing import Any

from doc_classify.dataset.grammar import pick
from doc_classify.dataset.model import (
    Content,
    Fields,
    Heading,
    Listing,
    Paragraph,
    Table,
    block_lines,
)
from doc_classify.dataset.writers.zipped import with_fixed_times
from doc_classify.errors import MissingDependencyError

_LINES_PER_SLIDE = 9


def _properties(properties: Any, content: Content) -> None:
    properties.title = content.title
    properties.author = content.author
    properties.last_modified_by = content.author
    properties.subject = content.reference
    properties.language = content.language
    properties.comments = ""
    properties.created = content.written
    properties.modified = content.written
    properties.revision = 1


def write_docx(content: Content, rng: random.Random) -> tuple[bytes, None]:
    """A Word document."""
    try:
        import docx
    except ImportError as error:
        raise MissingDependencyError("python-docx", "dataset", "write DOCX files") from error
    document = docx.Document()
    _properties(document.core_properties, content)
    document.styles["Normal"].font.name = pick(rng, ("Calibri", "Arial", "Georgia", "Cambria"))
    document.add_heading(content.title, 0)
    for block in content.blocks:
        match block:
            case Heading(text):
                # Style identifiers set directly: looking names up takes half of all the time.
                document.add_paragraph(text)._p.style = "Heading1"
            case Paragraph(text):
                document.add_paragraph(text)
            case Listing(items, numbered):
                for item in items:
                    paragraph = document.add_paragraph(item)
                    paragraph._p.style = "ListNumber" if numbered else "ListBullet"
            case Fields(pairs):
                for label, value in pairs:
                    paragraph = document.add_paragraph()
                    paragraph.add_run(f"{label}: ").bold = True
                    paragraph.add_run(value)
            case Table(header, rows):
                table = document.add_table(len(rows) + 1, len(header), "Table Grid")
                # All cells at once: table.cell() walks the whole table every time.
                texts = (cell for row in (header, *rows) for cell in row)
                for cell, text in zip(table._cells, texts, strict=True):
                    cell.paragraphs[0].add_run(text)
    if rng.random() < 0.4:
        document.sections[0].header.paragraphs[0].text = content.organisation
        document.sections[0].footer.paragraphs[0].text = content.reference
    out = io.BytesIO()
    document.save(out)
    return with_fixed_times(out.getvalue()), None


def write_pptx(content: Content, rng: random.Random) -> tuple[bytes, int]:
    """A presentation, and its number of slides."""
    try:
        import pptx
        from pptx.util import Inches, Pt
    except ImportError as error:
        raise MissingDependencyError("python-pptx", "dataset", "write PPTX files") from error
    deck = pptx.Presentation()
    _properties(deck.core_properties, content)
    first = deck.slides.add_slide(deck.slide_layouts[0])
    first.shapes.title.text = content.title
    first.placeholders[1].text = f"{content.author}\n{content.organisation}"
    heading, lines = content.title, list[str]()

    def flush() -> None:
        while lines:
            slide = deck.slides.add_slide(deck.slide_layouts[1])
            slide.shapes.title.text = heading
            slide.placeholders[1].text = "\n".join(lines[:_LINES_PER_SLIDE])
            del lines[:_LINES_PER_SLIDE]

    for block in content.blocks:
        match block:
            case Heading(text) if 0 < len(lines) < _LINES_PER_SLIDE // 2:
                lines.append(text)  # a short section goes on the same slide
            case Heading(text):
                flush()
                heading = text
            case Table(header, rows) if len(rows) <= 12:
                flush()
                slide = deck.slides.add_slide(deck.slide_layouts[5])
                slide.shapes.title.text = heading
                size = (Inches(0.5), Inches(1.6), Inches(9), Inches(0.35 * (len(rows) + 1)))
                table = slide.shapes.add_table(len(rows) + 1, len(header), *size).table
                for number, row in enumerate((header, *rows)):
                    for column, text in enumerate(row):
                        frame = table.cell(number, column).text_frame
                        frame.text = text
                        frame.paragraphs[0].font.size = Pt(12)
            case _:
                lines += block_lines(block)
    flush()
    if rng.random() < 0.5:
        first.notes_slide.notes_text_frame.text = f"{content.reference}, {content.sender[1]}"
    out = io.BytesIO()
    deck.save(out)
    return with_fixed_times(out.getvalue()), len(deck.slides)
