"""Which names are no documents: hidden, temporary, or left behind by an operating system."""

from __future__ import annotations

from dataclasses import dataclass

HIDDEN = "hidden"
TEMPORARY = "temporary"
SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something discovery passes by on purpose; a skipped folder counts as one.

    ``reason`` is one of ``hidden`` (dot files and folders), ``temporary`` (lock files, unfinished
    downloads, editors' copies) and ``system`` (``Thumbs.db``, ``__MACOSX`` ...).
    """

    uri: str
    reason: str


_TEMPORARY_PREFIXES = ("~$", ".~lock.")
_TEMPORARY_SUFFIXES = (
    ".tmp",
    ".temp",
    ".part",
    ".partial",
    ".crdownload",
    ".download",
    ".swp",
    ".swo",
    "~",
)
_SYSTEM_FILES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", ".localized", "icon\r"}
)
_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "$recycle.bin", "system volume information", "lost+found", "@eadir"}
)


def file_skip_reason(name: str) -> str | None:
    """Why a file of this name is skipped; None if it is a document for all we know."""
    folded = name.lower()
    if folded in _SYSTEM_FILES:
        return SYSTEM
    if _is_temporary(folded):
        return TEMPORARY
    return HIDDEN if name.startswith(".") else None


def folder_skip_reason(name: str) -> str | None:
    """Why a folder of this name is not entered; None if it is."""
    if name.lower() in _SYSTEM_FOLDERS:
        return SYSTEM
    return HIDDEN if name.startswith(".") else None


def _is_temporary(folded: str) -> bool:
    if folded.startswith("~wr"):  # Word's own: ~WRL0001.tmp, ~WRD0000.doc
        return folded[3:4] in {"l", "d", "a", "f"} and folded[4:8].isdigit()
    if folded.startswith("#") and folded.endswith("#") and len(folded) > 2:  # Emacs
        return True
    return folded.startswith(_TEMPORARY_PREFIXES) or folded.endswith(_TEMPORARY_SUFFIXES)
