"""From bytes to text where nobody says for certain which encoding it is."""

from __future__ import annotations

import codecs
import re

from doc_classify.sniffing import bom_encoding

_SAMPLE = 65_536
_HIGH_BYTE = re.compile(rb"[\x80-\xff]")
_WESTERN = ("Windows-1252", "ISO-8859-1", "iso8859-15")
_FEW = 100
_NEARLY = 0.85
_REFUSED = frozenset(
    ["idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf-7", "mbcs"]
)


def decode(data: bytes, declared: str | None = None, *, cut: bool = False) -> str:
    """Decode text: byte order mark, strict UTF-8, the ``declared`` encoding, then detection.

    Never fails: bytes that mean nothing become U+FFFD. ``cut`` says that the data end in the
    middle, so that half a character at the end is no fault.
    """
    mark = bom_encoding(data)
    if mark:
        return data[mark[1] :].decode(mark[0], "replace")
    if b"\x1b$" in data or b"\x1b(" in data:  # ISO 2022 is made of ASCII bytes alone
        for encoding in ("iso2022_jp_2", "iso2022_kr"):
            text = _strict(data, encoding, cut)
            if text is not None:
                return text
    text = _strict(data, "utf-8", cut)
    if text is not None:
        return text
    if declared and is_text_encoding(declared):
        text = _strict(data, declared, cut)
        if text is not None:
            return text
    encoding = _detect(data) or "cp1252"
    text = _strict(data, encoding, cut)
    return text if text is not None else data.decode(encoding, "replace")


def is_text_encoding(name: str) -> bool:
    """Whether ``name`` is a codec fit for decoding documents of unknown origin."""
    try:
        info = codecs.lookup(name.strip().lower())
    except (LookupError, ValueError, UnicodeError):
        return False
    return bool(getattr(info, "_is_text_encoding", False)) and info.name not in _REFUSED


def _strict(data: bytes, encoding: str, cut: bool) -> str | None:
    try:
        return codecs.getincrementaldecoder(encoding)("strict").decode(data, final=not cut)
    except (UnicodeError, LookupError):
        return None


def _detect(data: bytes) -> str | None:
    import chardet

    # Detection has nothing to go by in plain ASCII: begin shortly before the first high byte.
    first = _HIGH_BYTE.search(data)
    start = max(0, first.start() - 1024) if first else 0
    found = chardet.detect_all(data[start : start + _SAMPLE])
    scores: dict[str, float] = {}
    for guess in found:
        encoding = guess["encoding"]
        if encoding and is_text_encoding(encoding):
            scores.setdefault(encoding, float(guess["confidence"]))
    if not scores:
        return None
    best = max(scores, key=lambda encoding: scores[encoding])
    # A few accents fit many encodings nearly as well: then the most common one is meant.
    western = max(scores.get(encoding, 0.0) for encoding in _WESTERN)
    if len(_HIGH_BYTE.findall(data[start : start + _SAMPLE])) < _FEW and (
        western >= _NEARLY * scores[best]
    ):
        return "cp1252"
    return best
