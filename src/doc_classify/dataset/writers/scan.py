"""Scans: pages drawn as images, a little crooked, grey and noisy, as they come from a scanner."""

from __future__ import annotations

import io
import random
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from doc_classify.dataset.layout import Look, Sheet, set_pages
from doc_classify.dataset.model import Content
from doc_classify.dataset.writers.pdf import vera_font, write_image_pdf

DPI = 150
_UPSIDE_DOWN = 0.04


@lru_cache(maxsize=64)
def _font(vera: bool, bold: bool, pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.truetype(vera_font(bold), pixels) if vera else ImageFont.load_default(pixels)


def draw_pages(content: Content, rng: random.Random) -> tuple[list[Image.Image], Look]:
    """The document's pages as grey images."""
    look = Look.draw(rng, content)
    scale = DPI / 72
    # Pillow's own font has neither accents nor currency signs.
    plain = content.title.isascii() and all(line.isascii() for line in content.lines())
    vera = rng.random() < 0.4 or not plain

    def measure(text: str, bold: bool, size: float) -> float:
        return _font(vera, bold, round(size * scale)).getlength(text) / scale

    noise = np.random.Generator(np.random.PCG64(rng.getrandbits(64)))
    sheets = set_pages(content, look, measure)
    angle = rng.gauss(0, 0.5)
    upside_down = rng.random() < _UPSIDE_DOWN
    strength = rng.uniform(2, 11)
    pages = []
    for sheet in sheets:
        page = _draw(sheet, look, scale, vera)
        if upside_down:
            page = page.rotate(180)
        turn = angle + rng.gauss(0, 0.15)
        page = page.rotate(turn, Image.Resampling.BICUBIC, fillcolor=250)
        if strength > 7:
            page = page.filter(ImageFilter.GaussianBlur(0.5))
        pages.append(_grain(page, noise, strength))
    return pages, look


def _draw(sheet: Sheet, look: Look, scale: float, vera: bool) -> Image.Image:
    page = Image.new("L", (round(look.paper[0] * scale), round(look.paper[1] * scale)), 250)
    draw = ImageDraw.Draw(page)
    for rule in sheet.rules:
        ends = (rule.x1 * scale, rule.y1 * scale, rule.x2 * scale, rule.y2 * scale)
        draw.line(ends, fill=70, width=2)
    for text in sheet.texts:
        font = _font(vera, text.bold, round(text.size * scale))
        draw.text((text.x * scale, text.y * scale), text.text, fill=25, font=font, anchor="ls")
    return page


def _grain(page: Image.Image, noise: np.random.Generator, strength: float) -> Image.Image:
    pixels = np.asarray(page, dtype=np.float32)
    # One tile of noise, repeated: a page full of fresh numbers takes three times as long.
    tile = noise.normal(0, strength, (256, 256)).astype(np.float32)
    rows, columns = pixels.shape
    repeated = np.tile(tile, (rows // 256 + 1, columns // 256 + 1))[:rows, :columns]
    return Image.fromarray(np.clip(pixels + repeated, 0, 255).astype(np.uint8))


def write_scan(content: Content, rng: random.Random, extension: str) -> tuple[bytes, int]:
    """A scan in one of ``SCAN_FORMATS``, and its number of pages.

    Images have one page, the first; only TIFF files have them all.
    """
    pages, look = draw_pages(content, rng)
    out = io.BytesIO()
    if extension == "pdf":
        return write_image_pdf(content, [_jpeg(page, rng) for page in pages], look.paper), len(
            pages
        )
    if extension == "tiff":
        fax = [page.point(lambda value: 255 * (value > 150), mode="1") for page in pages]
        fax[0].save(
            out,
            "TIFF",
            compression="group4",
            save_all=True,
            append_images=fax[1:],
            dpi=(DPI, DPI),
        )
        return out.getvalue(), len(pages)
    if extension in {"bmp", "gif", "webp"}:
        # The quality is of WebP alone; the others have no choice.
        pages[0].save(out, extension.upper(), quality=rng.randint(45, 80))
        return out.getvalue(), 1
    if extension == "png":
        # Sixteen even greys; a palette made to fit would spend them all on the noise.
        pages[0].point(lambda value: value // 16 * 17).save(out, "PNG", dpi=(DPI, DPI))
        return out.getvalue(), 1
    return _jpeg(pages[0], rng), 1


def _jpeg(page: Image.Image, rng: random.Random) -> bytes:
    out = io.BytesIO()
    page.save(out, "JPEG", quality=rng.randint(45, 80), dpi=(DPI, DPI))
    return out.getvalue()
