"""Cleaning of what extractors read: text that any database, terminal and model takes.

Every function takes time linear in its input, whatever a document was built to provoke.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_METADATA_LENGTH = 500
_NAME_LENGTH = 255
_NAMES = 1_000

_LINE_ENDS = re.compile("\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")
# Hangul fillers, the Braille blank and the typographic spaces look like a space: be one.
_BLANKS = re.compile("[\xa0\u115f\u1160\u1680\u2000-\u200a\u202f\u205f\u2800\u3000\u3164\uffa0]")
_NONCHARACTERS = "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f"  # controls
    "\xad\u034f\u061c\u17b4\u17b5\u180b-\u180f"  # soft hyphen and other joiners
    "\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"  # zero width, bidirectional controls
    "\ufe00-\ufe0f\ufeff\ufff0-\ufffb\ufdd0-\ufdef"  # selectors, byte order mark
    "\U000e0000-\U000e0fff"  # tags and more selectors: text hidden from readers
    + _NONCHARACTERS
    + "]"
    # Joiners are orthography between Arabic and Indic letters, and hidden marks elsewhere.
    + "|(?<![\u0600-\u0dff])[\u200c\u200d]|[\u200c\u200d](?![\u0600-\u0dff])"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_TIME = re.compile(
    r"\d{4}(?:-\d\d(?:-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?)?)?"
)
_LANGUAGE = re.compile(r"([A-Za-z]{2})(?:[-_].*)?")


def clean_text(text: str) -> str:
    """Text without anything invisible, lines ended by a line feed, one blank line at most.

    Tabs stay, for they separate the cells of tables.
    """
    if not text.isascii():
        if _SURROGATE.search(text):
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        text = _BLANKS.sub(" ", text)
    text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))
    lines: list[str] = []
    blank = True
    for line in text.split("\n"):
        line = line.rstrip()
        if line or not blank:
            lines.append(line)
        blank = not line
    if lines and not lines[-1]:
        lines.pop()
    return "\n".join(lines)


def clean_line(text: str | None, length: int = _METADATA_LENGTH) -> str | None:
    """One line of at most ``length`` characters; None where nothing is left."""
    if not text:
        return None
    line = " ".join(clean_text(str(text)[: length * 4]).split())
    if len(line) > length:
        line = line[: length - 1].rstrip() + "…"
    return line or None


def clean_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of attachments, bounded in length and number."""
    cleaned: list[str] = []
    for name in names:
        line = clean_line(name, _NAME_LENGTH)
        if line:
            cleaned.append(line)
        if len(cleaned) == _NAMES:
            break
    return tuple(cleaned)


def clean_time(text: str | None) -> str | None:
    """An ISO 8601 timestamp, or None where it is none."""
    line = clean_line(text, 60)
    return line if line and _TIME.fullmatch(line) else None


def clean_language(text: str | None) -> str | None:
    """The ISO 639-1 code of a language tag such as ``en-US``, or None."""
    match = _LANGUAGE.fullmatch(clean_line(text, 60) or "")
    return match[1].lower() if match else None
