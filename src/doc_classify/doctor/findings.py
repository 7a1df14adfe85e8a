"""What a check says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from doc_classify.errors import DocClassifyError
from doc_classify.settings import Settings
from doc_classify.terminal import one_line

Status = Literal["ok", "warning", "missing", "absent"]
"""``warning``: it works, and yet something should be mended. ``missing``: what is configured cannot
do without it. ``absent``: it is not there, and is not needed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing, and what to do about it ("" for nothing)."""

    name: str
    status: Status
    found: str
    advice: str = ""

    @property
    def usable(self) -> bool:
        """Whether it works."""
        return self.status in ("ok", "warning")


def look(
    name: str,
    settings: Settings,
    check: Callable[[Settings], str],
    *,
    needed: bool = True,
    advice: str = "",
) -> Finding:
    """One check that gives a text, or raises what is the matter."""
    try:
        return Finding(name, "ok", check(settings))
    except (DocClassifyError, OSError, ImportError) as error:
        return Finding(name, "missing" if needed else "absent", one_line(str(error)), advice)


def judged(name: str, found: str, *advice: str) -> Finding:
    """A finding that is a warning where there is advice."""
    told = "; ".join(one for one in advice if one)
    return Finding(name, "warning" if told else "ok", one_line(found), told)
