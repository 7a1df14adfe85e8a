"""Text from pictures of text, by Tesseract.

The fast English model ships with the package; models of other languages are taken from where the
system keeps them. An engine is made when the first picture of a process needs it and then kept:
loading its model costs as much as reading a page. Not thread-safe, as Tesseract is not.
"""

from __future__ import annotations

import functools
import glob
import os
import re
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doc_classify.errors import ConfigurationError, TimeLimitError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 20_000_000
"""More than this (A3 at 300 dpi is 17 million) takes minutes and gigabytes and reads no better."""
MAX_SIDE = 32_000
"""Tesseract counts pixels in 16 bits."""

ILLEGIBLE = "there seems to be text, but OCR cannot make it out"
"""What to say of a picture whose reading is not ``legible``."""

_MIN_SIDE = 8
_TIMEOUT_MS = 25_000
"""A page takes half a second. Some halftones take minutes, which the other pages shall not pay."""

# Mean confidence of the words, 0 to 100. Clean pages reach 85 to 95, poor ones of which half the
# words are right about 55; pages that are upside down, and pictures without text, 25 to 37.
_DOUBTFUL = 60
_HOPELESS = 40

_SHIPPED = Path(__file__).parents[1] / "data"
_SYSTEM = (
    "/usr/share/tesseract-ocr/*/tessdata",
    "/usr/share/tesseract-ocr/tessdata",
    "/usr/share/tessdata",
    "/usr/share/tesseract/tessdata",
    "/usr/local/share/tessdata",
    "/opt/homebrew/share/tessdata",
    "/opt/local/share/tessdata",
)
_SUFFIX = ".traineddata"
# Models of whole scripts lie in a subfolder: script/Latin.
_LANGUAGE = re.compile(r"(?:script/)?[A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read from a picture.

    Attributes:
        text: the text, empty where there is none or nothing of it is reliable.
        confidence: mean of the words, 0 to 100, of the engine's own making.
        legible: False if there was something like text that could not be read.
    """

    text: str
    confidence: int
    legible: bool = True


def check_languages(languages: str) -> None:
    """Make sure that the models of ``languages`` (``eng+deu``) are there, without loading them.

    Raises:
        ConfigurationError: one is missing; the message says how to get it.
    """
    _models(languages)


def read(image: Image.Image, languages: str, dpi: int) -> Reading:
    """Read a picture in shades of grey (mode ``L``) of at most ``MAX_PIXELS``.

    Knowing ``dpi``, its resolution in dots per inch, Tesseract finds up to a third more lines on
    poor scans than by its own guess.

    A page on its side is recognised by Tesseract; one that is upside down shows in words that
    it trusts little, and is then read the other way round.

    Raises:
        ConfigurationError: a language's model is missing or cannot be loaded.
        TimeLimitError: the picture took too long.
    """
    if min(image.size) < _MIN_SIDE:
        return Reading("", 0)
    text, confidence = _recognise(image, languages, dpi)
    if text and confidence < _DOUBTFUL:
        turned = image.transpose(_rotate_180())
        text, confidence = max(
            (text, confidence), _recognise(turned, languages, dpi), key=lambda result: result[1]
        )
    if text and confidence < _HOPELESS:
        return Reading("", confidence, legible=False)
    return Reading(text, confidence)


def _rotate_180() -> Image.Transpose:
    from PIL.Image import Transpose

    return Transpose.ROTATE_180


def _recognise(image: Image.Image, languages: str, dpi: int) -> tuple[str, int]:
    engine = _engine(languages)
    # What one page taught must not change how the next is read.
    engine.ClearAdaptiveClassifier()
    engine.SetImageBytes(image.tobytes(), image.width, image.height, 1, image.width)
    engine.SetSourceResolution(dpi)
    try:
        if not engine.Recognize(_TIMEOUT_MS):
            raise TimeLimitError("reading the image by OCR takes too long")
        text: str = engine.GetUTF8Text().strip()
        return text, engine.MeanTextConf() if text else 0
    finally:
        engine.Clear()


@functools.cache
def _engine(languages: str) -> Any:
    """The engine of these languages, made once in a process."""
    models = _models(languages)
    # Threads within one page slow each other down where every core has a worker. OpenMP reads
    # this when it is loaded.
    os.environ.setdefault("OMP_THREAD_LIMIT", "1")
    import tesserocr

    with ExitStack() as stack:
        folders = {_folder(name, path) for name, path in models.items()}
        if len(folders) == 1:
            folder = folders.pop()
        else:
            # Tesseract looks in one folder only: give it one that links to all of them. It is
            # needed no longer than the models take to be loaded.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tessdata-")))
            _link_models(folder)
        try:
            return tesserocr.PyTessBaseAPI(
                path=f"{folder}{os.sep}",
                lang=languages,
                oem=tesserocr.OEM.LSTM_ONLY,
                psm=tesserocr.PSM.AUTO,
                variables={"debug_file": os.devnull},
            )
        except RuntimeError as error:
            files = ", ".join(map(str, models.values()))
            raise ConfigurationError(
                f"the OCR models of {languages!r} cannot be loaded, they may be damaged or made "
                f"for another version of Tesseract: {files}"
            ) from error


def _models(languages: str) -> dict[str, Path]:
    """The model file of each language.

    Raises:
        ConfigurationError: one is missing, or the text is not a list of languages.
    """
    folders = _folders()
    models = {}
    for name in languages.split("+"):
        if not _LANGUAGE.fullmatch(name):
            raise ConfigurationError(
                f"OCR languages must be Tesseract codes joined by +, such as eng+deu, "
                f"got {languages!r}"
            )
        found = (folder / f"{name}{_SUFFIX}" for folder in folders)
        path = next((path for path in found if path.is_file()), None)
        if path is None:
            package = (
                "tesseract-ocr-" + name.replace("script/", "script-").replace("_", "-").lower()
            )
            raise ConfigurationError(
                f"the OCR language {name!r} is not installed; install it (Debian, Ubuntu: "
                f"apt-get install {package}), or put {name}{_SUFFIX} from "
                f"https://github.com/tesseract-ocr/tessdata_fast into a folder and name that in "
                f"TESSDATA_PREFIX. Looked in: {', '.join(map(str, folders))}"
            )
        models[name] = path
    return models


def _folders() -> list[Path]:
    """Where models may lie: what the user names, what we ship, what the system has."""
    folders = []
    if prefix := os.environ.get("TESSDATA_PREFIX"):
        # The folder itself, or as older versions had it, the one above.
        folders += [Path(prefix), Path(prefix, "tessdata")]
    folders.append(_SHIPPED)
    for pattern in _SYSTEM:
        folders += [Path(name) for name in sorted(glob.glob(pattern), reverse=True)]  # noqa: PTH207
    return [folder for folder in folders if folder.is_dir()]


def _folder(name: str, model: Path) -> Path:
    """The folder of models that ``model`` is ``name`` of."""
    return model.parents[name.count("/")]


def _link_models(target: Path) -> None:
    """Link every model into ``target``: a model may ask for others, such as those of scripts."""
    (target / "script").mkdir()
    for folder in _folders():
        for model in (*folder.glob(f"*{_SUFFIX}"), *folder.glob(f"script/*{_SUFFIX}")):
            link = target / model.relative_to(folder)
            if not link.exists():
                link.symlink_to(model.resolve())
