"""Rich text (RTF)."""

from __future__ import annotations

import re
from typing import ClassVar

from doc_classify.errors import DamagedError, LimitExceededError
from doc_classify.extraction.base import Document
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.records import Extraction, Page

_MOST_BYTES = 50_000_000
_CODE_PER_CHARACTER = 8
# Pictures and embedded objects: hexadecimal digits without end, none of them text.
_BULK = re.compile(rb"[0-9A-Fa-f\s]{400,}+")
_BINARY = re.compile(rb"\\bin(\d{1,9}) ?")
_BRACE = re.compile(r"(?<!\\)[{}]")
_FONT = re.compile(r"\\f(\d{1,6})")
_FONT_CHARSET = re.compile(r"\\fcharset(\d{1,3})")
_FIELD = re.compile(r"(\\field)\{", re.IGNORECASE)
_UNICODE = re.compile(r"\\u(-?\d{5,10})")
_INFO = re.compile(r"\{\\(title|author)(?:\\[a-z]+-?\d* ?)*([^{}]{0,2000})\}")
_DATE = re.compile(
    r"\{\\(creatim|revtim)\\yr(\d{4})\\mo(\d{1,2})\\dy(\d{1,2})(?:\\hr(\d{1,2})\\min(\d{1,2}))?"
)


class RtfExtractor:
    """Reads the text of an RTF document."""

    name: ClassVar[str] = "rtf"
    media_types: ClassVar[frozenset[str]] = frozenset({"application/rtf"})
    extra: ClassVar[str | None] = None

    def extract(self, document: Document, options: ExtractionOptions) -> Extraction:
        """Take pictures out first, then read what is left."""
        with document.path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise LimitExceededError(f"over {_MOST_BYTES // 10**6} MB")
        if b"\\" not in data[1:]:
            raise DamagedError("not a readable rich text document")
        code = _BULK.sub(b" ", _without_binary(data)).decode("cp1252", "replace")
        most = 100_000 + options.max_characters * _CODE_PER_CHARACTER
        truncated = len(code) > most
        code = code[:most]
        dates = {match[1]: _iso(match) for match in _DATE.finditer(code[:100_000])}
        info = {match[1]: match[2] for match in _INFO.finditer(code[:100_000])}
        return Extraction(
            media_type=document.media_type,
            pages=(Page(1, _text(code)),),
            engine=self.name,
            title=_text("{\\rtf1 " + info["title"] + "}") if "title" in info else None,
            author=_text("{\\rtf1 " + info["author"] + "}") if "author" in info else None,
            created=dates.get("creatim"),
            modified=dates.get("revtim"),
            truncated=truncated,
        )


def rtf_text(data: bytes) -> str:
    """The text of RTF code that comes out of another document; the caller bounds its length."""
    return _text(_BULK.sub(b" ", _without_binary(data)).decode("cp1252", "replace"))


def _text(code: str) -> str:
    from striprtf.striprtf import rtf_to_text

    # The engine looks for links and fonts with patterns that can take forever. The targets of
    # links are not text; of the fonts it needs no more than their character sets.
    code = _simple_fonts(_FIELD.sub(r"\1 {", code))
    code = _UNICODE.sub(_valid, code)
    return str(rtf_to_text(code, errors="replace"))  # type: ignore[no-untyped-call]


def _valid(match: re.Match[str]) -> str:
    """A Unicode escape, or that of the replacement character where there is no such one."""
    return match[0] if -0x8000 <= int(match[1]) <= 0x10FFFF else r"\u65533"


def _simple_fonts(code: str) -> str:
    """The code with its table of fonts reduced to numbers and character sets."""
    start = code.find("\\fonttbl")
    if start < 0:
        return code
    depth, end = 1, len(code)
    for brace in _BRACE.finditer(code, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            end = brace.start()
            break
    fonts = []
    for entry in code[start:end].split(";"):
        number, charset = _FONT.search(entry), _FONT_CHARSET.search(entry)
        if number and charset:
            fonts.append(f"{{\\f{number[1]}\\fcharset{charset[1]} x;}}")
    rest = code[end:].replace("\\fonttbl", "")
    return code[:start] + "\\fonttbl" + "".join(fonts[:5_000]) + rest


def _without_binary(data: bytes) -> bytes:
    """The code without the raw bytes that a ``bin`` control word announces."""
    pieces: list[bytes] = []
    at = 0
    while match := _BINARY.search(data, at):
        pieces.append(data[at : match.start()])
        at = match.end() + int(match[1])
    pieces.append(data[at:])
    return b"".join(pieces)


def _iso(match: re.Match[str]) -> str:
    year, month, day = (int(match[group]) for group in (2, 3, 4))
    text = f"{year:04}-{month:02}-{day:02}"
    return f"{text}T{int(match[5]):02}:{int(match[6]):02}" if match[5] else text
