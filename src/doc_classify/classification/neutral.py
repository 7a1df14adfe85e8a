"""A document's text as a language model may see it: unable to be anything but text.

Documents are hostile: one may carry the marks by which a chat template tells who is speaking, the
tag that ends the document in our prompt, or instructions that no reader sees. Engines look for
their marks in the whole rendered prompt, the document included, so here none is left of those that
we know: they have angle brackets, capitals in square brackets, or brackets beside a tilde. What
remains is words, and words can at worst talk a model into a wrong category (OWASP Top 10 for LLM
Applications, LLM01: prompt injection).

Every expression here takes time linear in the text, whatever that was made to provoke.
"""

from __future__ import annotations

import re
import unicodedata

_LOOKALIKES = {
    # < and > in their forms: ASCII, small, full width (DeepSeek's marks have full-width bars).
    **dict.fromkeys("<﹤＜", "‹"),
    **dict.fromkeys(">﹥＞", "›"),
    "｜": "|",
    **dict.fromkeys("\u115f\u1160\u2800\u3164\uffa0", " "),  # letters that look like a space
    "\u034f": "",
    **{chr(point): "" for point in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))},
}
_HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs"}
"""Unicode categories of what no reader sees: controls, formats, unassigned, private, surrogates."""

_SQUARE = re.compile(r"\[ ?(/? ?[A-Za-z_]{3,40}) ?\]")
_CAPITALS = re.compile("[A-Z]{3}")
"""Both together: marks such as [INST], [/INST], [TOOL_CALLS], [gMASK]."""
_TILDE = re.compile(r"\](?=~)|(?<=~)\[")
"""Brackets of marks such as ]~b] and [e~[."""
_BLANKS = re.compile(r"[^\S\n ][^\S\n]*| [^\S\n]+")
"""Any but a single space."""
_BLANK_LINES = re.compile(r" ?\n(?: ?\n)+ ?")


def neutralised(text: str) -> str:
    """The text without marks, tags and hidden characters; runs of blanks are shortened."""
    text = text.replace("\f", "\n")
    table = {ord(char): new for char in set(text) if (new := _replacement(char)) is not None}
    if table:
        text = text.translate(table)
    text = _BLANK_LINES.sub("\n\n", _BLANKS.sub(" ", text)).strip()
    return _TILDE.sub("|", _SQUARE.sub(_rounded, text))


def neutralised_line(text: str, length: int) -> str:
    """One line of at most ``length`` characters, neutralised."""
    line = " ".join(neutralised(text[: 4 * length]).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _rounded(mark: re.Match[str]) -> str:
    return f"({mark[1]})" if _CAPITALS.search(mark[1]) else mark[0]


def _replacement(char: str) -> str | None:
    """What stands for a character; None for itself."""
    if char in "\n\t ":
        return None
    if char in _LOOKALIKES:
        return _LOOKALIKES[char]
    category = unicodedata.category(char)
    if category in ("Zl", "Zp"):
        return "\n"
    if category == "Zs":
        return " "
    return "" if category in _HIDDEN else None
