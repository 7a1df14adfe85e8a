from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from doc_classify.errors import (
    ConfigurationError,
    DamagedError,
    EmptyDocumentError,
    ExtractionError,
    LimitExceededError,
    NoTextError,
    SourceUnreadableError,
)
from doc_classify.extraction import Document, ocr
from doc_classify.extraction.image import ImageExtractor
from doc_classify.extraction.options import ExtractionOptions, PageSelection
from doc_classify.records import Extraction

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
ALL = ExtractionOptions(pages=PageSelection.parse("all"))
WORDS = "Invoice for thirty wooden chairs"


def picture(*lines: str, size: tuple[int, int] = (900, 300)) -> Image.Image:
    image = Image.new("L", size, 255)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines or (WORDS, "Payment is due in April")):
        draw.text((60, 60 + 70 * number), line, font=ImageFont.load_default(size=40), fill=0)
    return image


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path):
    def read(data: bytes, kind: str, options: ExtractionOptions = ALL) -> Extraction:
        path = tmp_path / "scan"
        path.write_bytes(data)
        return ImageExtractor().extract(Document(path, "scan", f"image/{kind}"), options)

    return read


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "gif", "bmp", "webp"])
def test_formats(read, kind):
    found = read(encode(picture(), kind), kind)
    assert WORDS in found.text
    assert found.media_type == f"image/{kind}" and found.engine == "image"
    assert found.ocr_pages == 1 and found.problems == ()
    assert found.page_count == (1 if kind == "tiff" else None)


def transparent(image: Image.Image) -> Image.Image:
    """Black ink on nothing, as drawing programs write it."""
    black = Image.new("L", image.size, 0)
    return Image.merge("LA", (black, image.point(lambda value: 255 - value)))


def deep(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("kind", "convert"),
    [
        ("png", lambda image: image.convert("1")),
        ("png", lambda image: image.convert("RGB").quantize(4)),
        ("png", lambda image: image.convert("RGB")),
        ("png", transparent),
        ("png", lambda image: transparent(image).convert("RGBA")),
        ("png", deep),
        ("tiff", deep),
        ("tiff", lambda image: image.convert("F")),
        ("tiff", lambda image: image.convert("I")),
        ("tiff", lambda image: image.convert("CMYK")),
        ("jpeg", lambda image: image.convert("CMYK")),
        ("jpeg", lambda image: image.convert("RGB")),
        ("webp", lambda image: transparent(image).convert("RGBA")),
    ],
)
def test_kinds_of_pixels(read, kind, convert):
    assert WORDS in read(encode(convert(picture()), kind), kind).text


def test_transparent_colour_of_a_palette(read):
    image = picture().convert("RGB").quantize(2)
    pixel = image.getpixel((0, 0))
    assert WORDS in read(encode(image, "gif", transparency=pixel), "gif").text


def test_orientation_in_exif(read):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    data = encode(picture().rotate(90, expand=True), "jpeg", exif=exif)
    assert WORDS in read(data, "jpeg").text


def test_upside_down(read):
    assert WORDS in read(encode(picture().rotate(180), "png"), "png").text


def pages(count: int) -> list[Image.Image]:
    return [picture(f"This is page number {n} of the fax") for n in range(1, count + 1)]


def test_pages_of_tiff(read):
    first, *others = pages(6)
    data = encode(first, "tiff", save_all=True, append_images=others, compression="tiff_lzw")
    found = read(data, "tiff", ExtractionOptions(pages=PageSelection(2, 1)))
    assert [page.number for page in found.pages] == [1, 2, 6]
    assert found.page_count == 6
    assert "number 6" in found.pages[2].text


def test_a_fax_has_fewer_lines_than_dots(read):
    lines = [f"Line {number} of the fax that was sent to the warehouse" for number in range(20)]
    full = picture(*lines, size=(1728, 1500))
    flat = full.resize((1728, 1500 * 98 // 204)).point(lambda value: 255 * (value > 128), mode="1")
    text = read(encode(flat, "tiff", compression="group4", dpi=(204, 98)), "tiff").text
    assert sum(line in text for line in lines) >= 18


def test_a_bad_page_costs_itself(read):
    first, *others = pages(3)
    data = bytearray(encode(first, "tiff", save_all=True, append_images=others))
    with Image.open(io.BytesIO(data)) as image:
        image.seek(1)
        entry = image.tag_v2._offset  # of the second page's table of tags
    data[entry + 2 : entry + 62] = b"\xff" * 60
    found = read(bytes(data), "tiff")
    assert [page.number for page in found.pages] == [1]
    assert found.page_count is None  # how many there were cannot be told any more
    assert "pages behind the first are lost" in found.problems[0].message


def test_moments_of_an_animation_are_not_pages(read):
    first, *others = pages(3)
    found = read(encode(first, "gif", save_all=True, append_images=others), "gif")
    assert len(found.pages) == 1 and "number 1" in found.text


def test_too_many_pixels(read):
    image = Image.new("1", (3000, 3000))
    with pytest.raises(LimitExceededError, match="3000 x 3000"):
        read(encode(image, "png"), "png", ExtractionOptions(max_image_pixels=8_000_000))
    assert Image.MAX_IMAGE_PIXELS is not None


def test_bomb_is_not_unpacked(read):
    data = bytearray(encode(Image.new("1", (8, 8)), "bmp"))
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    with pytest.raises(LimitExceededError):
        read(bytes(data), "bmp")


def test_large_images_are_made_smaller(read, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        ocr, "read", lambda image, _, dpi: sizes.append((image.size, dpi)) or ocr.Reading("", 0)
    )
    read(encode(Image.new("L", (5000, 7000)), "png", dpi=(600, 600)), "png")
    read(encode(Image.new("L", (1654, 2339)), "png"), "png")
    read(encode(Image.new("L", (800, 600)), "png", dpi=(72, 72)), "png")
    read(encode(Image.new("1", (9000, 9000)), "png"), "png")
    read(encode(Image.new("1", (60_000, 4)), "png"), "png")
    (first, dpi), (second, _), (third, _), *others = sizes
    assert first[0] in (1666, 1667) and dpi == 200
    assert (second, third) == ((1654, 2339), (1600, 1200))
    assert all(max(size) <= ocr.MAX_SIDE for size, _ in others)
    assert all(size[0] * size[1] <= ocr.MAX_PIXELS for size, _ in others)


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "gif", "bmp", "webp"])
def test_truncated(read, kind):
    rng = np.random.default_rng(3)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, kind)
    for end in (1, 10, len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(DamagedError):
            read(data[:end], kind)


def test_mutations_stay_within_the_errors(read, monkeypatch):
    monkeypatch.setattr(ocr, "read", lambda *_: ocr.Reading("text", 90))
    rng = random.Random(11)
    small = picture(size=(120, 90))
    for kind in ("png", "jpeg", "tiff", "gif", "bmp", "webp"):
        data = encode(small, kind)
        for _ in range(150):
            mutated = bytearray(data)
            for _ in range(rng.choice((1, 5, 25))):
                mutated[rng.randrange(min(len(data), rng.choice((64, 10**6))))] = rng.randrange(256)
            try:
                assert read(bytes(mutated), kind).pages
            except ExtractionError as error:
                assert str(error)


def test_wrong_type_empty_and_missing(read, tmp_path):
    with pytest.raises(DamagedError):
        read(b"%!PS-Adobe-3.0\n", "png")
    with pytest.raises(EmptyDocumentError):
        read(b"", "png")
    with pytest.raises(SourceUnreadableError):
        ImageExtractor().extract(Document(tmp_path / "gone", "gone", "image/png"), ALL)


def test_without_ocr(read):
    with pytest.raises(NoTextError, match="OCR"):
        read(encode(picture(), "png"), "png", ExtractionOptions(ocr=False))


def test_missing_language(read):
    with pytest.raises(ConfigurationError, match="xyz"):
        read(encode(picture(), "png"), "png", ExtractionOptions(ocr_languages="xyz"))


def test_picture_without_text(read):
    found = read(encode(Image.new("L", (300, 300), 255), "png"), "png")
    assert found.text == "" and found.problems == ()


@pytest.mark.skipif(not CORPUS.is_dir(), reason="needs the real documents")
def test_real_files():
    kinds = {".png": "png", ".jpg": "jpeg", ".tiff": "tiff"}
    texts = {}
    for path in sorted((CORPUS / "formats").rglob("*")):
        if kind := kinds.get(path.suffix):
            document = Document(path, path.name, f"image/{kind}")
            texts[path.name] = ImageExtractor().extract(document, ALL).text
    assert "Multi-Agent Conversation" in texts["test.jpg"]
    assert "5bda1dd6" in texts["test_llm.jpg"]
    assert "assign it to yourself" in texts["page-0-QuickPDFImd32aa1ab.png"]
    assert texts["smile.png"] == ""
