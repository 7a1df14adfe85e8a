"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from doc_classify.errors import ConfigurationError, StorageError
from doc_classify.records import display_name

_T = TypeVar("_T")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes become the file at ``path`` once they are all safely on disk.

    They are written to a hidden file beside it. When anything goes wrong, that file is removed,
    with the folders made for it, and what was at ``path`` before stays. A symbolic link is
    followed, and the permissions of a file that is replaced are kept.

    Raises:
        ConfigurationError: something other than a file is at ``path``.
        StorageError: the disk does not take the file.
    """
    made: list[Path] = []
    temporary: Path | None = None
    try:
        target = Path(os.path.realpath(path))
        mode = _mode(target, path)
        made = _make_folders(target.parent)
        temporary = target.parent / f".doc-classify-{secrets.token_hex(8)}.tmp"
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            if mode is not None:
                with contextlib.suppress(OSError):  # not every file system has permissions
                    os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException as error:
        _clear_away(temporary, made)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise StorageError(f"cannot write {display_name(str(path))}: {reason}") from error
        raise
    _sync_folder(target.parent)


@contextlib.contextmanager
def closing(rows: Iterator[_T]) -> Iterator[Iterator[_T]]:
    """The rows; at the end, also an early one, what they hold (a connection) is given back."""
    try:
        yield rows
    finally:
        close = getattr(rows, "close", None)
        if close is not None:
            close()


def _mode(target: Path, path: Path) -> int | None:
    """The permissions of the file to be replaced, None if there is none."""
    try:
        found = target.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found):
        what = "a folder" if stat.S_ISDIR(found) else "not a regular file"
        raise ConfigurationError(f"cannot write {display_name(str(path))}: it is {what}")
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is write-protected")
    return stat.S_IMODE(found)


def _make_folders(folder: Path) -> list[Path]:
    """Make the folder and those above it; returns the new ones, innermost first."""
    missing = [item for item in (folder, *folder.parents) if not item.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        _clear_away(None, missing)
        raise
    return missing


def _clear_away(temporary: Path | None, folders: list[Path]) -> None:
    """Remove the file, and the folders as far as nobody else put something there."""
    if temporary is not None:
        with contextlib.suppress(OSError):
            temporary.unlink()
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _sync_folder(folder: Path) -> None:
    """Make the new name last; not every file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
