"""The one way in: errors by kind, text cleaned, nothing but our errors coming out."""

import errno
import re

import pytest

from doc_classify.errors import (
    ConfigurationError,
    DamagedError,
    EmptyDocumentError,
    EncryptedError,
    MissingDependencyError,
    NoTextError,
    OutOfMemoryError,
    SourceUnreadableError,
    UnsupportedTypeError,
)
from doc_classify.extraction import (
    Document,
    extract,
    supported_media_types,
)
from doc_classify.extraction.clean import clean_language, clean_line, clean_text, clean_time
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.extraction.registry import extractors
from doc_classify.records import Extraction, Page, Problem

TYPE = "application/x-test"


class Fake:
    name = "fake"
    media_types = frozenset({TYPE})
    extra = "fake"

    def __init__(self, answer):
        self.answer = answer

    def extract(self, document, options):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def read(monkeypatch, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x")

    def run(answer, **options):
        monkeypatch.setitem(extractors(), TYPE, Fake(answer))
        return extract(Document(path, "f", TYPE), ExtractionOptions(**options))

    return run


def found(*texts, **values):
    pages = tuple(Page(number, text) for number, text in enumerate(texts, 1))
    return Extraction(TYPE, pages, "fake", **values)


class PanicException(BaseException):
    pass


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("bad\n\x00thing"), DamagedError),
        (PanicException("called `unwrap()`"), DamagedError),
        (RecursionError(), DamagedError),
        (MemoryError(), OutOfMemoryError),
        (OSError("cannot identify"), DamagedError),
        (OSError(errno.ENOMEM, "no memory"), OutOfMemoryError),
        (OSError(errno.EIO, "I/O error"), SourceUnreadableError),
        (ModuleNotFoundError("x", name="engine.core"), MissingDependencyError),
        (EncryptedError("locked"), EncryptedError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (SystemExit(), SystemExit),
    ],
)
def test_surprises(read, raised, expected):
    with pytest.raises(expected) as caught:
        read(raised)
    assert caught.type is expected
    assert "\n" not in str(caught.value)


def test_types_without_extractor_and_empty_files(tmp_path):
    document = Document(tmp_path / "f", "f", "application/zip")
    with pytest.raises(UnsupportedTypeError, match=re.escape("ZIP archive (application/zip)")):
        extract(document, ExtractionOptions())
    document.media_type = "application/x-empty"
    with pytest.raises(EmptyDocumentError):
        extract(document, ExtractionOptions())


def test_missing_engine_without_extra(read, monkeypatch):
    monkeypatch.setattr(Fake, "extra", None)
    with pytest.raises(ConfigurationError, match="engine is not installed"):
        read(ModuleNotFoundError("x", name="engine"))


def test_text_is_bounded(read):
    result = read(found("a" * 60, "b" * 60, "c" * 60), max_characters=100)
    assert [page.text for page in result.pages] == ["a" * 60, "b" * 40]
    assert result.truncated
    assert not read(found("a" * 100), max_characters=100).truncated


def test_metadata_is_cleaned(read):
    result = read(
        found(
            "x",
            title=" a\r\n\u202eb\x00 ",
            author="",
            created="yesterday",
            modified="2024-01-02T03:04:05Z",
            language="de-AT",
            attachments=("a\nb.pdf", "\x00"),
            problems=(Problem("damaged", "p\n\x07q"),) * 200,
        )
    )
    assert (result.title, result.author, result.created) == ("a b", None, None)
    assert (result.modified, result.language) == ("2024-01-02T03:04:05Z", "de")
    assert result.attachments == ("a b.pdf",)
    assert len(result.problems) == 100
    assert result.problems[0].message == "p q"


@pytest.mark.parametrize("text", ["", " \n\t\f", "\u200b\ufeff\u00ad", "\u3164\u2800", "\x00\x01"])
def test_nothing_visible_is_no_text(read, text):
    with pytest.raises(NoTextError, match=r"read 2 pages with fake of 9; why"):
        read(found(text, text, page_count=9, problems=(Problem("damaged", "why"),)))


def test_clean_text():
    assert clean_text("a\r\nb\rc\fd\x0be\u2028f") == "a\nb\nc\nd\ne\nf"
    assert clean_text("a\n\n \n\n\nb\n\n") == "a\n\nb"
    assert clean_text("a\tb  \n") == "a\tb"
    assert clean_text("\ud83d\ude00 \ud83d!") == "😀 \ufffd!"
    assert clean_text("x\ufffe\uffff\U0001ffffy") == "xy"
    assert clean_text("pa\u00adper\u202e \u2066z\U000e0041") == "paper z"
    assert clean_text("می\u200cخواهم a\u200cb") == "می\u200cخواهم ab"
    assert clean_text("a\xa0b\u3000c") == "a b c"


@pytest.mark.parametrize("unit", [" ", "\n", "\u200c", "\r", "\x00", "\ud800", " \n"])
def test_cleaning_is_linear(unit):
    assert len(clean_text(unit * 1_000_000 + "x")) <= 1_000_001


def test_clean_lines_and_times():
    assert clean_line("x" * 600) == "x" * 499 + "…"
    assert clean_line(None) is None
    assert clean_time("2024-05") == "2024-05"
    assert clean_time("2024-05-01 10:00") == "2024-05-01 10:00"
    assert clean_time("1 May 2024") is None
    assert clean_language("eng") is None


def test_supported_media_types():
    assert {"text/plain", "application/pdf", "message/rfc822"} <= supported_media_types()
    assert "application/zip" not in supported_media_types()
