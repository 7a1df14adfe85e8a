"""Text from images, by Tesseract.

English ships with the package; other languages are taken from where the system keeps Tesseract's
data. A process keeps one engine per set of languages, for loading one takes longer than a page.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doc_classify.errors import ConfigurationError, DamagedError
from doc_classify.extraction.options import ExtractionOptions

if TYPE_CHECKING:
    from PIL import Image

SHIPPED = Path(__file__).resolve().parent.parent / "data"
_SYSTEM = (
    "/usr/share/tesseract-ocr/*/tessdata",
    "/usr/share/tessdata",
    "/usr/share/tesseract/tessdata",
    "/usr/local/share/tessdata",
    "/opt/homebrew/share/tessdata",
    "/opt/local/share/tessdata",
)
_LANGUAGES = re.compile(r"[A-Za-z0-9_]+(?:\+[A-Za-z0-9_]+)*", re.ASCII)
_SUFFIX = ".traineddata"
_DOUBTFUL = 60
"""Mean confidence, out of 100, under which the page may be upside down."""
_MIN_SIDE = 3
"""Tesseract refuses images that are smaller, in pixels."""
_MAX_SIDE = 32_000
"""Its coordinates are 16 bits wide."""

_engines: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read from one image.

    ``confidence`` is Tesseract's mean over the words, 0 to 100. ``turned``: the image was upside
    down.
    """

    text: str
    confidence: int
    turned: bool = False


def read(image: Image.Image, options: ExtractionOptions, dpi: int) -> Reading:
    """Read an image of mode ``L``; once more upside down, should the first result be doubtful.

    Raises:
        ConfigurationError: a language is not installed.
        DamagedError: the engine refuses the image.
    """
    width, height = image.size
    engine = _engine(options.ocr_languages)
    if min(width, height) < _MIN_SIDE:
        return Reading("", 0)
    if max(width, height) > _MAX_SIDE:
        factor = _MAX_SIDE / max(width, height)
        width, height = max(_MIN_SIDE, int(width * factor)), max(_MIN_SIDE, int(height * factor))
        image = image.resize((width, height))
        dpi = round(dpi * factor)
    data = image.tobytes()
    first = _recognise(engine, data, width, height, dpi)
    if not first.text or first.confidence >= _DOUBTFUL:
        return first
    # The bytes of a grey image backwards are the image turned by 180 degrees.
    second = _recognise(engine, data[::-1], width, height, dpi)
    if second.confidence > first.confidence:
        return Reading(second.text, second.confidence, turned=True)
    return first


def check_languages(languages: str) -> None:
    """Make sure that all ``languages`` are installed, without loading them.

    Raises:
        ConfigurationError: one is not, or the codes are not joined by ``+``.
    """
    _locate(languages)


def _recognise(engine: Any, data: bytes, width: int, height: int, dpi: int) -> Reading:
    try:
        engine.SetImageBytes(data, width, height, 1, width)
        engine.SetSourceResolution(dpi)
        text = engine.GetUTF8Text().strip()
        return Reading(text, engine.MeanTextConf())
    except RuntimeError as error:
        raise DamagedError(f"the image cannot be read by OCR: {error}") from error
    finally:
        engine.Clear()
        engine.ClearAdaptiveClassifier()  # a document must not depend on the one before it


def _engine(languages: str) -> Any:
    """The process's engine for these languages."""
    engine = _engines.get(languages)
    if engine is None:
        files = _locate(languages)
        folders = {file.parent for file in files}
        if len(folders) == 1:
            engine = _start(folders.pop(), languages)
        else:  # Tesseract takes one folder only, and reads it only now
            with tempfile.TemporaryDirectory(prefix="doc-classify-") as folder:
                for file in files:
                    (Path(folder) / file.name).symlink_to(file)
                engine = _start(Path(folder), languages)
        _engines[languages] = engine
    return engine


def _start(folder: Path, languages: str) -> Any:
    os.environ.setdefault("OMP_THREAD_LIMIT", "1")  # its own threads slow it down
    import tesserocr

    try:
        return tesserocr.PyTessBaseAPI(
            path=f"{folder}{os.sep}",
            lang=languages,
            psm=tesserocr.PSM.AUTO,
            oem=tesserocr.OEM.LSTM_ONLY,
            variables={"debug_file": os.devnull},
        )
    except RuntimeError as error:
        raise ConfigurationError(
            f"Tesseract's data for {languages!r} in {folder} cannot be loaded: {error}"
        ) from error


def _locate(languages: str) -> list[Path]:
    """The data file of each language: all from one folder where one has them all."""
    if not _LANGUAGES.fullmatch(languages):
        raise ConfigurationError(
            f"OCR languages must be Tesseract codes joined by '+', such as 'eng+deu', "
            f"got {languages!r}"
        )
    names = list(dict.fromkeys(languages.split("+")))
    folders = _folders()
    found: dict[str, list[Path]] = {
        name: [path for folder in folders if (path := folder / f"{name}{_SUFFIX}").is_file()]
        for name in names
    }
    for name, paths in found.items():
        if not paths:
            raise ConfigurationError(
                f"Tesseract's data for the language {name!r} is not installed; get it with "
                f"'apt install tesseract-ocr-{name.replace('_', '-')}' (Debian, Ubuntu), "
                f"'brew install tesseract-lang' (macOS), or put {name}{_SUFFIX} into a folder "
                f"and name that folder in TESSDATA_PREFIX"
            )
    for folder in folders:
        if all(any(path.parent == folder for path in paths) for paths in found.values()):
            return [folder / f"{name}{_SUFFIX}" for name in names]
    return [paths[0] for paths in found.values()]


def _folders() -> list[Path]:
    """Where to look for data: what the user named first, then our own, then the system's."""
    folders = []
    if prefix := os.environ.get("TESSDATA_PREFIX"):
        folders += [Path(prefix), Path(prefix) / "tessdata"]
    folders.append(SHIPPED)
    for pattern in _SYSTEM:
        folders += sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)
    return folders
