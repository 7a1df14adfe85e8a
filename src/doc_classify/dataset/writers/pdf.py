"""PDF files: set text, or the images of a scan, always the same bytes for the same document."""

from __future__ import annotations

import io
import random
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from doc_classify.dataset.layout import Look, Sheet, set_pages
from doc_classify.dataset.model import Content
from doc_classify.errors import MissingDependencyError

_NAMES = {
    "Helvetica": ("Helvetica", "Helvetica-Bold"),
    "Times": ("Times-Roman", "Times-Bold"),
    "Courier": ("Courier", "Courier-Bold"),
    "Vera": ("Vera", "VeraBd"),
}


@lru_cache(maxsize=1)
def _reportlab() -> Any:
    try:
        import reportlab.pdfgen.canvas
        from reportlab import rl_config
        from reportlab.pdfbase import pdfmetrics, ttfonts
    except ImportError as error:
        raise MissingDependencyError("reportlab", "dataset", "write PDF files") from error
    rl_config.useA85 = 0  # streams as bytes: a quarter smaller
    for name in _NAMES["Vera"]:
        pdfmetrics.registerFont(ttfonts.TTFont(name, f"{name}.ttf"))
    return reportlab


def vera_font(bold: bool) -> str:
    """Path of the TrueType font that reportlab brings, for pages that are drawn as images."""
    folder = Path(_reportlab().__file__).parent / "fonts"
    return str(folder / ("VeraBd.ttf" if bold else "Vera.ttf"))


def write_pdf(
    content: Content, rng: random.Random, password: str | None = None
) -> tuple[bytes, int]:
    """A PDF file with text and its number of pages; ``password`` opens it, where given."""
    look = Look.draw(rng, content)
    sheets = _set(content, look)
    return _render(content, look, sheets, password), len(sheets)


def _set(content: Content, look: Look) -> list[Sheet]:
    from reportlab.pdfbase.pdfmetrics import stringWidth

    _reportlab()
    regular, heavy = _NAMES[look.family]
    return set_pages(
        content, look, lambda text, bold, size: stringWidth(text, heavy if bold else regular, size)
    )


def _render(content: Content, look: Look, sheets: list[Sheet], password: str | None) -> bytes:
    """Draw the pages that were set."""
    out, canvas = _canvas(content, look.paper, password)
    regular, heavy = _NAMES[look.family]
    height = look.paper[1]
    for sheet in sheets:
        canvas.setLineWidth(0.4)
        for rule in sheet.rules:
            canvas.line(rule.x1, height - rule.y1, rule.x2, height - rule.y2)
        for text in sheet.texts:
            canvas.setFont(heavy if text.bold else regular, text.size)
            canvas.drawString(text.x, height - text.y, text.text)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def write_image_pdf(content: Content, images: list[bytes], paper: tuple[float, float]) -> bytes:
    """A PDF file whose pages are JPEG images, as scanners make it."""
    _reportlab()
    from reportlab.lib.utils import ImageReader

    out, canvas = _canvas(content, paper, None)
    for image in images:
        canvas.drawImage(ImageReader(io.BytesIO(image)), 0, 0, *paper)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def _canvas(
    content: Content, paper: tuple[float, float], password: str | None
) -> tuple[io.BytesIO, Any]:
    encryption = None
    reportlab = _reportlab()
    if password is not None:
        from reportlab.lib.pdfencrypt import StandardEncryption

        encryption = StandardEncryption(password, ownerPassword=password[::-1], strength=128)
    out = io.BytesIO()
    # "invariant" replaces the time stamp and the random file identifier by constants.
    canvas = reportlab.pdfgen.canvas.Canvas(
        out, pagesize=paper, invariant=1, pageCompression=1, encrypt=encryption
    )
    canvas.setTitle(content.title)
    canvas.setAuthor(content.author)
    canvas.setSubject(content.reference)
    _stamp(canvas, content.written)
    return out, canvas


def _stamp(canvas: Any, when: datetime) -> None:
    """Give the file the document's own date instead of the constant one."""
    document = canvas._doc
    stamp = document._timeStamp
    stamp.t = when.replace(tzinfo=UTC).timestamp()
    stamp.YMDhms = (when.year, when.month, when.day, when.hour, when.minute, when.second)
