"""OpenDocument text, spreadsheets and slides, through odfpy."""

from __future__ import annotations

import io
import random
from typing import Any

from doc_classify.dataset.model import Content, Heading, Listing, Table, block_lines
from doc_classify.dataset.writers.sheets import grid
from doc_classify.dataset.writers.zipped import with_fixed_times
from doc_classify.errors import MissingDependencyError


def _open_document(kind: str, content: Content) -> Any:
    try:
        from odf import dc, element, meta, opendocument
    except ImportError as error:
        raise MissingDependencyError("odfpy", "dataset", "write OpenDocument files") from error
    # odfpy declares in every file the namespaces of all files written before it.
    element.Element.namespaces.clear()
    document = getattr(opendocument, f"OpenDocument{kind}")()
    document.meta.addElement(dc.Title(text=content.title))
    document.meta.addElement(meta.InitialCreator(text=content.author))
    document.meta.addElement(dc.Creator(text=content.author))
    document.meta.addElement(meta.CreationDate(text=content.written.isoformat()))
    document.meta.addElement(dc.Date(text=content.written.isoformat()))
    document.meta.addElement(dc.Language(text=content.language))
    return document


def _saved(document: Any) -> bytes:
    out = io.BytesIO()
    document.save(out)
    return with_fixed_times(out.getvalue())


def _table(rows: list[tuple[Any, ...]], name: str) -> Any:
    from odf import table, text

    made = table.Table(name=name)
    for row in rows:
        line = table.TableRow()
        for value in row:
            if isinstance(value, float):
                cell = table.TableCell(valuetype="float", value=str(value))
            else:
                cell = table.TableCell(valuetype="string")
            cell.addElement(text.P(text=str(value)))
            line.addElement(cell)
        made.addElement(line)
    return made


def write_odt(content: Content, rng: random.Random) -> tuple[bytes, None]:
    """A text document."""
    document = _open_document("Text", content)
    from odf import text

    document.text.addElement(text.H(outlinelevel=1, text=content.title))
    for number, block in enumerate(content.blocks):
        if isinstance(block, Heading):
            document.text.addElement(text.H(outlinelevel=2, text=block.text))
        elif isinstance(block, Table):
            document.text.addElement(_table([block.header, *block.rows], f"Table{number}"))
        elif isinstance(block, Listing):
            made = text.List()
            for item in block.items:
                entry = text.ListItem()
                entry.addElement(text.P(text=item))
                made.addElement(entry)
            document.text.addElement(made)
        else:
            for line in block_lines(block):
                document.text.addElement(text.P(text=line))
    return _saved(document), None


def write_ods(content: Content, rng: random.Random) -> tuple[bytes, int]:
    """A spreadsheet, and its number of sheets."""
    document = _open_document("Spreadsheet", content)
    rows = [row or ("",) for row in grid(content)]
    document.spreadsheet.addElement(_table(rows, "Sheet1"))
    return _saved(document), 1


def write_odp(content: Content, rng: random.Random) -> tuple[bytes, int]:
    """A presentation, and its number of slides."""
    document = _open_document("Presentation", content)
    from odf import draw, style, text

    layout = style.PageLayout(name="Layout")
    layout.addElement(style.PageLayoutProperties(pagewidth="28cm", pageheight="21cm"))
    document.automaticstyles.addElement(layout)
    master = style.MasterPage(name="Master", pagelayoutname=layout)
    document.masterstyles.addElement(master)
    lines = [content.title, content.organisation, *content.lines()]
    slides = [lines[start : start + 10] for start in range(0, len(lines), 10)]
    for number, shown in enumerate(slides, 1):
        page = draw.Page(name=f"Slide {number}", masterpagename=master)
        frame = draw.Frame(width="25cm", height="18cm", x="1.5cm", y="1.5cm")
        box = draw.TextBox()
        for line in shown:
            box.addElement(text.P(text=line))
        frame.addElement(box)
        page.addElement(frame)
        document.presentation.addElement(page)
    return _saved(document), len(slides)
