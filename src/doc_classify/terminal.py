"""Text from elsewhere, made safe to show: on a terminal, in a log, in an error message."""

from __future__ import annotations

import os

from doc_classify.records import display_name

_LONGEST = 400


def one_line(text: str) -> str:
    """A message as one line that no terminal takes for a command.

    Documents and other programs have a say in messages: control characters, line ends and what
    turns the direction of writing around are shown as backslash escapes, long texts are cut.
    """
    text = " ".join(text.split())
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 1] + "…"
    return escaped(text)


def escaped(text: str) -> str:
    """A line as it is, its spaces and its length too, without what a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path, which may hold any bytes, as text to show."""
    return display_name(os.fspath(path))
