from __future__ import annotations

import shutil

import pytest
from PIL import Image, ImageDraw, ImageFont

from doc_classify.errors import ConfigurationError, TimeLimitError
from doc_classify.extraction import ocr
from doc_classify.extraction.options import ExtractionOptions

LANGUAGES = ExtractionOptions().ocr_languages
DPI = 200


def page(*lines: str) -> Image.Image:
    image = Image.new("L", (1200, 800), 255)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((80, 80 + 60 * number), line, font=ImageFont.load_default(size=36), fill=0)
    return image


SAMPLE = page("The board approved the budget", "for the coming year without debate")


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    """An otherwise bare system with the folder that TESSDATA_PREFIX names."""
    monkeypatch.setattr(ocr, "_SYSTEM", ())
    monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))
    ocr._engine.cache_clear()
    yield tmp_path
    ocr._engine.cache_clear()


def test_reads():
    reading = ocr.read(SAMPLE, LANGUAGES, DPI)
    assert reading.text.split() == [
        *["The", "board", "approved", "the", "budget"],
        *["for", "the", "coming", "year", "without", "debate"],
    ]
    assert reading.confidence > 80 and reading.legible


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_pages(degrees):
    turned = SAMPLE.rotate(degrees, expand=True)
    assert "approved the budget" in ocr.read(turned, LANGUAGES, DPI).text


def test_a_page_does_not_depend_on_the_one_before():
    first = ocr.read(SAMPLE, LANGUAGES, DPI)
    ocr.read(page("Qwx zzkp 77 vvwm " * 2), LANGUAGES, DPI)
    assert ocr.read(SAMPLE, LANGUAGES, DPI) == first


def test_nothing_to_read():
    for size in ((1, 1), (5, 900), (400, 400)):
        assert ocr.read(Image.new("L", size, 255), LANGUAGES, DPI) == ocr.Reading("", 0)


def test_untrusted_text_is_left_out(monkeypatch):
    monkeypatch.setattr(ocr, "_recognise", lambda *_: ("|~ eo .", 30))
    assert ocr.read(SAMPLE, LANGUAGES, DPI) == ocr.Reading("", 30, legible=False)


def test_better_of_both_ways_up(monkeypatch):
    results = [("uopun", 35), ("London", 90)]
    monkeypatch.setattr(ocr, "_recognise", lambda *_: results.pop(0))
    assert ocr.read(SAMPLE, LANGUAGES, DPI).text == "London"


def test_time_limit(monkeypatch):
    lines = ["An unhurried page that says the same thing over and over"] * 11
    monkeypatch.setattr(ocr, "_TIMEOUT_MS", 1)
    with pytest.raises(TimeLimitError):
        ocr.read(page(*lines), LANGUAGES, DPI)
    monkeypatch.undo()
    assert "unhurried" in ocr.read(page(*lines), LANGUAGES, DPI).text


def test_one_engine_for_a_set_of_languages():
    assert ocr._engine("eng") is ocr._engine("eng")


@pytest.mark.parametrize("languages", ["", "+", "eng+", "../eng", "eng deu", "eng\n", "script/"])
def test_malformed_languages(languages):
    with pytest.raises(ConfigurationError, match="joined by"):
        ocr.check_languages(languages)


def test_missing_language_says_how_to_get_it():
    with pytest.raises(ConfigurationError, match="tesseract-ocr-chi-xyz") as caught:
        ocr.check_languages("eng+chi_xyz")
    assert "'chi_xyz'" in str(caught.value) and "TESSDATA_PREFIX" in str(caught.value)


def test_languages_of_the_system(data_folder):
    shutil.copy(ocr._SHIPPED / "eng.traineddata", data_folder / "own.traineddata")
    assert "approved" in ocr.read(SAMPLE, "own", DPI).text


def test_languages_from_several_folders(data_folder):
    shutil.copy(ocr._SHIPPED / "eng.traineddata", data_folder / "own.traineddata")
    ocr.check_languages("eng+own")
    assert "approved" in ocr.read(SAMPLE, "eng+own", DPI).text


def test_damaged_model(data_folder):
    (data_folder / "own.traineddata").write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match="damaged"):
        ocr.read(SAMPLE, "own", DPI)
