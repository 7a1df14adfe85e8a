"""Images, read with Pillow and then by OCR."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from doc_classify.errors import (
    DamagedError,
    DocClassifyError,
    EmptyDocumentError,
    ExtractionError,
    LimitExceededError,
    NoTextError,
    SourceUnreadableError,
)
from doc_classify.extraction.base import Document
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.records import Extraction, Page, Problem

if TYPE_CHECKING:
    from PIL import Image

_FORMATS = {
    "image/png": ["PNG"],
    "image/jpeg": ["JPEG", "MPO"],
    "image/tiff": ["TIFF"],
    "image/gif": ["GIF"],
    "image/bmp": ["BMP"],
    "image/webp": ["WEBP"],
}
_PAGED = "TIFF"
"""The one format whose frames are pages; those of the others are moments or variants."""
_PLAUSIBLE_DPI = range(150, 2401)
"""What scanners write; the 72 and 96 of other programs say nothing about the picture."""
_LEAST_DPI = 45
_FLATTENED = (1.3, 4.5)
"""Dots to lines of a fax: 204 to 98, in the early days 204 to 49."""
_PAGE_INCHES = 11.7
"""The long side of an A4 page, taken for images that do not say how large they are."""
_MAX_BAD_PAGES = 100


class ImageExtractor:
    """Reads the text of images by OCR, each page of a multi-page TIFF file."""

    name: ClassVar[str] = "image"
    media_types: ClassVar[frozenset[str]] = frozenset(_FORMATS)
    extra: ClassVar[str | None] = None

    def extract(self, document: Document, options: ExtractionOptions) -> Extraction:
        """Read the image, or the pages that the options select.

        Raises:
            NoTextError: OCR is switched off.
            LimitExceededError: the image has more pixels than allowed.
            DamagedError: nothing can be decoded.
            EmptyDocumentError: the file has no bytes.
            ConfigurationError: a language for OCR is not installed.
        """
        if not options.ocr:
            raise NoTextError("the text of an image is read by OCR, which is switched off")
        problems: list[Problem] = []
        with _decoding(), _open(document) as image:
            paged = image.format == _PAGED
            count = _count_pages(image, problems) if paged else 1
            pages, truncated = _read_pages(image, count or 1, options, problems)
        return Extraction(
            media_type=document.media_type,
            pages=tuple(pages),
            engine=self.name,
            page_count=count if paged else None,
            problems=tuple(problems),
            truncated=truncated,
        )


@contextmanager
def _decoding() -> Iterator[None]:
    """Let this module, not the library, judge sizes and oddities."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _open(document: Document) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    _check_readable(document.path)
    try:
        return Image.open(document.path, formats=_FORMATS[document.media_type])
    except UnidentifiedImageError as error:
        raise DamagedError("the image is damaged: it cannot be recognised") from error
    except MemoryError:
        raise
    except Exception as error:  # the parsers of headers raise whatever they trip over
        raise _damaged(error) from error


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise EmptyDocumentError("the file is empty")
    except OSError as error:
        raise SourceUnreadableError(f"cannot read the file: {error.strerror or error}") from error


def _count_pages(image: Image.Image, problems: list[Problem]) -> int | None:
    """Pages of a paged image; None, and a problem, where the chain of pages is broken."""
    try:
        return max(1, int(getattr(image, "n_frames", 1)))
    except MemoryError:
        raise
    except Exception as error:
        # The first page is there all the same.
        detail = str(error) or type(error).__name__
        problems.append(Problem("damaged", f"the pages behind the first are lost: {detail}"))
        return None


def _read_pages(
    image: Image.Image, count: int, options: ExtractionOptions, problems: list[Problem]
) -> tuple[list[Page], bool]:
    from doc_classify.extraction import ocr

    pages: list[Page] = []
    characters = 0
    failure: ExtractionError | None = None
    for index in options.pages.indices(count):
        if characters > options.max_characters:
            return pages, True
        try:
            grey, dpi = _load(image, index, options)
            reading = ocr.read(grey, options.ocr_languages, dpi)
        except ExtractionError as error:
            failure = failure or error
            problems.append(Problem(error.kind, str(error), index + 1))
            if len(problems) == _MAX_BAD_PAGES:
                break
            continue
        if not reading.legible:
            problems.append(Problem(NoTextError.kind, ocr.ILLEGIBLE, index + 1))
        pages.append(Page(index + 1, reading.text, ocr=True))
        characters += len(reading.text)
    if failure and not pages:
        raise failure
    return pages, False


def _load(image: Image.Image, index: int, options: ExtractionOptions) -> tuple[Image.Image, int]:
    """One page as a grey image, upright and of the resolution that OCR reads best, and that."""
    from PIL import ImageOps

    try:
        if index:
            image.seek(index)
        _check_pixels(image, options)
        if image.format == "JPEG":
            image.draft("L", image.size)  # skip the colours while decoding
        dpi = _stated_dpi(image)
        image.load()
        grey = _squared(_grey(image), *_resolution(image))
        upright = ImageOps.exif_transpose(grey) if index == 0 else grey
        return _resize(upright, dpi, options)
    except (DocClassifyError, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise _damaged(error) from error


def _check_pixels(image: Image.Image, options: ExtractionOptions) -> None:
    width, height = image.size
    if width * height > options.max_image_pixels:
        raise LimitExceededError(
            f"the image has {width} x {height} pixels, more than the "
            f"{options.max_image_pixels:,} allowed"
        )


def _damaged(error: Exception) -> DamagedError:
    return DamagedError(f"the image is damaged: {error or type(error).__name__}")


def _stated_dpi(image: Image.Image) -> int | None:
    """The resolution that the file states, where it can be believed."""
    dpi = round(max(_resolution(image)))
    return dpi if dpi in _PLAUSIBLE_DPI else None


def _resolution(image: Image.Image) -> tuple[float, float]:
    """Dots per inch across and down as the file states them, zeros where it does not."""
    try:
        across, down = (float(dots) for dots in image.info["dpi"])
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError):
        return 0.0, 0.0
    return (across, down) if math.isfinite(across + down) else (0.0, 0.0)


def _squared(image: Image.Image, across: float, down: float) -> Image.Image:
    """Give a fax its height back: its lines are two or four times as far apart as its dots."""
    from doc_classify.extraction import ocr

    if not (down >= _LEAST_DPI and _FLATTENED[0] <= across / down <= _FLATTENED[1]):
        return image
    width, height = image.width, round(image.height * across / down)
    if width * height > ocr.MAX_PIXELS:
        width, height = max(1, round(image.width * down / across)), image.height
    return image.resize((width, height))


def _grey(image: Image.Image) -> Image.Image:
    """The image in shades of grey, on white where it is transparent."""
    from PIL import Image

    mode = image.mode
    if mode.startswith(("I", "F")):
        return _grey_of_deep(image)
    if "transparency" in image.info or mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        layered = image.convert("RGBA").convert("LA")
        grey = Image.new("L", layered.size, 255)
        grey.paste(layered.getchannel("L"), mask=layered.getchannel("A"))
        return grey
    if mode == "LAB":
        return image.getchannel("L")
    return image if mode == "L" else image.convert("L")


def _grey_of_deep(image: Image.Image) -> Image.Image:
    """Sixteen or more bits, or fractions: the range that is used, spread over 0 to 255."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image, dtype=np.float32)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16") and high > 255:
        low, high = 0.0, 65_535.0 if high > 4_095 else high
    scale = 255.0 / (high - low) if high > low else 0.0
    return Image.fromarray(((values - low) * scale).astype(np.uint8))


def _resize(
    image: Image.Image, dpi: int | None, options: ExtractionOptions
) -> tuple[Image.Image, int]:
    """Bring letters to the size of a page scanned at ``options.ocr_dpi``.

    An image that does not say how large it is counts as a page where its long side has more
    than twice the pixels of one, and is doubled where that has less than half, as pictures of
    screens have.
    """
    from PIL import Image

    from doc_classify.extraction import ocr

    wanted = options.ocr_dpi
    side = max(image.size)
    factor = 1.0
    if dpi is not None:
        factor = wanted / dpi if dpi > 1.25 * wanted else 1.0
    elif side > 2 * _PAGE_INCHES * wanted:
        factor = 2 * _PAGE_INCHES * wanted / side
    elif side < _PAGE_INCHES * wanted / 2:
        factor = 2.0
    factor = min(
        factor, ocr.MAX_SIDE / side, math.sqrt(ocr.MAX_PIXELS / (image.width * image.height))
    )
    if factor == 1.0:
        return image, dpi or wanted
    size = (max(1, int(image.width * factor)), max(1, int(image.height * factor)))
    resized = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    return resized, min(wanted, round((dpi or wanted) * factor)) or 1
