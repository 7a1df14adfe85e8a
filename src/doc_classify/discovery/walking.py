"""The walk: every file below a folder, lazily, in an order that is always the same.

A folder can also be a prefix in an object store (:mod:`.objects`).

In each folder the files come first, sorted by the bytes of their names, then the folders, each
with all that is in it. One folder's names are in memory at a time, and the folders still to come.
What is met is reported as one of three: a :class:`~doc_classify.records.Source` to take, a
:class:`~doc_classify.records.Rejected` that cannot be taken, a :class:`Skipped` that is no
document by its name. Nothing is passed over in silence.
"""

# Plain strings and os.path on purpose: a Path object per file would cost more than the walk.
# ruff: noqa: PTH100, PTH116, PTH118, PTH119

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from doc_classify.discovery import objects
from doc_classify.discovery.names import Skipped, file_skip_reason, folder_skip_reason
from doc_classify.errors import ConfigurationError
from doc_classify.records import (
    OBJECT_SCHEMES,
    Rejected,
    Source,
    display_name,
    is_object_uri,
    path_to_uri,
    uri_to_path,
)

Found = Source | Rejected | Skipped

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STOP_EVERY = 1024


class StopSignal(Protocol):
    """What can ask a count to stop: a :class:`threading.Event`, for one."""

    def is_set(self) -> bool:
        """Whether to stop."""
        ...


def location(given: str | os.PathLike[str]) -> Path | str:
    """What was given as text, as one of two: the URL of an object store, or else a path.

    A path must not be made of the URL: that would take one of its slashes.

    Raises:
        ConfigurationError: the URL is none.
    """
    if isinstance(given, str) and is_object_uri(given):
        return objects.check_url(given)
    path = Path(given)
    if path.parts and f"{path.parts[0]}//" in OBJECT_SCHEMES and not path.exists():
        raise ConfigurationError("the URL of an object store is given as text, not as a Path")
    return path


def of_uri(uri: str) -> Path | str:
    """The location of a :class:`~doc_classify.records.Source`."""
    return uri if is_object_uri(uri) else Path(uri_to_path(uri))


def look_at(uri: str) -> Source | Rejected:
    """What stands now where a :class:`~doc_classify.records.Source` was seen."""
    if is_object_uri(uri):
        return objects.look_at(uri)
    path = uri_to_path(uri)
    return _inspect(path, path, follow_into=None)


def walk(root: Path | str, *, recursive: bool = True) -> Iterator[Found]:
    """Find the documents below ``root``, or ``root`` itself if it is a file.

    ``root`` is a folder, or the URL of a prefix or object (``s3://bucket/prefix``).

    Symbolic links to files inside the tree are followed; those that leave it, lead nowhere or to
    a folder are rejected. The root may be a link, for it was named on purpose; for the same
    reason a root that is a file is taken whatever its name.

    Raises:
        ConfigurationError: at once, not on the first step: ``root`` is missing or unreadable.
        SourceUnreadableError: an object store does not answer; this can happen at any step.
    """
    root = location(root)
    if isinstance(root, str):
        return objects.walk_objects(root, recursive=recursive)
    path, is_folder = _check_root(root)
    if is_folder:
        return _walk_folder(path, recursive)
    return iter((_inspect(path, path, follow_into=None),))


def of_paths(paths: Iterable[Path | str]) -> Iterator[Found]:
    """The same for a list of files and URLs of objects, in the order given.

    Names are judged as in :func:`walk`, since lists often come from wildcards; links are followed
    wherever they lead, since there is no tree that they could leave.
    """
    for given in paths:
        place = location(given)
        if isinstance(place, str):
            name = objects.object_name(place)
            reason = file_skip_reason(name)
            yield Skipped(place, reason) if reason else objects.look_at(place)
            continue
        path = _absolute(place)
        if reason := file_skip_reason(os.path.basename(path)):
            yield Skipped(path_to_uri(path), reason)
        else:
            yield _inspect(path, path, follow_into=None)


def count(root: Path | str, recursive: bool = True, stop: StopSignal | None = None) -> int:
    """How many sources :func:`walk` would give, without asking for each file's size.

    For the total of a progress bar: files that change meanwhile are not looked at twice. When
    ``stop`` is set, the number counted so far comes back soon.

    Raises:
        ConfigurationError: ``root`` is missing or unreadable.
        SourceUnreadableError: an object store does not answer.
    """
    root = location(root)
    if isinstance(root, str):
        return objects.count_objects(root, recursive=recursive, stop=stop)
    path, is_folder = _check_root(root)
    if not is_folder:
        return 1
    real_root = os.path.realpath(path)
    folders = [path]
    total = 0
    while folders:
        folder = folders.pop()
        try:
            with (
                _Folder(folder, is_root=folder == path) as opened,
                os.scandir(opened.fd) as entries,
            ):
                for number, entry in enumerate(entries):
                    if stop is not None and number % _STOP_EVERY == 0 and stop.is_set():
                        return total
                    name = entry.name
                    full = os.path.join(folder, name)
                    if entry.is_dir(follow_symlinks=False):
                        if recursive and folder_skip_reason(name) is None:
                            folders.append(full)
                    elif file_skip_reason(name) is not None:
                        continue
                    elif entry.is_symlink():
                        found = _inspect(full, name, follow_into=real_root, dir_fd=opened.fd)
                        total += isinstance(found, Source)
                    else:
                        total += entry.is_file(follow_symlinks=False)
        except OSError:
            continue  # the walk reports it
    return total


def _absolute(path: Path | str) -> str:
    # ".." after a link leads to the parent of the link's target: only the system can resolve it.
    text = os.fspath(path)
    try:
        return os.path.realpath(text) if ".." in Path(text).parts else os.path.abspath(text)
    except (OSError, ValueError):
        return text


def _check_root(root: Path) -> tuple[str, bool]:
    """The root's absolute path, and whether it is a folder."""
    path = _absolute(root)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise ConfigurationError(f"{display_name(path)} does not exist") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{display_name(path)} cannot be read: {_reason(error)}"
        ) from error
    if stat.S_ISDIR(mode):
        if not os.access(path, os.R_OK | os.X_OK):
            raise ConfigurationError(f"the folder {display_name(path)} may not be read")
        return path, True
    if not stat.S_ISREG(mode):
        raise ConfigurationError(f"{display_name(path)} is neither a file nor a folder")
    if not os.access(path, os.R_OK):
        raise ConfigurationError(f"the file {display_name(path)} may not be read")
    return path, False


class _Folder:
    """A folder held open, so that its files are looked up in it and not by its path again."""

    def __init__(self, path: str, *, is_root: bool) -> None:
        # Only the root may be a link; any other folder that is one now was swapped meanwhile.
        self.fd = os.open(path, _OPEN_FOLDER & ~os.O_NOFOLLOW if is_root else _OPEN_FOLDER)

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)


def _walk_folder(root: str, recursive: bool) -> Iterator[Found]:
    real_root = os.path.realpath(root)
    folders = [root]
    while folders:
        path = folders.pop()
        try:
            folder = _Folder(path, is_root=path == root)
        except OSError as error:
            yield _rejected(path, error, "folder")
            continue
        with folder:
            try:
                files, subfolders = _list(folder.fd)
            except OSError as error:
                yield _rejected(path, error, "folder")
                continue
            for name in files:
                full = os.path.join(path, name)
                if reason := file_skip_reason(name):
                    yield Skipped(path_to_uri(full), reason)
                else:
                    yield _inspect(full, name, follow_into=real_root, dir_fd=folder.fd)
        if not recursive:
            continue
        entered = []
        for name in subfolders:
            full = os.path.join(path, name)
            if reason := folder_skip_reason(name):
                yield Skipped(path_to_uri(full), reason)
            else:
                entered.append(full)
        folders.extend(reversed(entered))


def _list(fd: int) -> tuple[list[str], list[str]]:
    """The names in a folder, sorted: what is no folder, and the folders."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    files.sort(key=os.fsencode)
    folders.sort(key=os.fsencode)
    return files, folders


def _inspect(
    path: str, name: str, *, follow_into: str | None, dir_fd: int | None = None
) -> Source | Rejected:
    """What stands at ``path``, looked up as ``name`` in the open folder ``dir_fd``.

    ``follow_into`` is the real path of the tree that links may not leave, None for no limit.
    """
    try:
        found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            return _follow(path, follow_into)
    except (OSError, ValueError) as error:
        return _rejected(path, error, "file")
    return _source(path, found)


def _follow(path: str, follow_into: str | None) -> Source | Rejected:
    uri = path_to_uri(path)
    try:
        target = os.path.realpath(path, strict=True)
        found = os.stat(target)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return Rejected(uri, "link_broken", "the symbolic link leads back to itself")
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return Rejected(uri, "link_broken", "the symbolic link leads to nothing")
        return _rejected(path, error, "link's target")
    shown = display_name(target)
    if follow_into is not None and os.path.commonpath((follow_into, target)) != follow_into:
        return Rejected(uri, "link_outside", f"the symbolic link leaves the folder: {shown}")
    if stat.S_ISDIR(found.st_mode):
        return Rejected(uri, "link_to_folder", f"the symbolic link leads to a folder: {shown}")
    return _source(path, found)


def _source(path: str, found: os.stat_result) -> Source | Rejected:
    if stat.S_ISREG(found.st_mode):
        return Source(path_to_uri(path), found.st_size, found.st_mtime_ns)
    return Rejected(path_to_uri(path), "not_a_file", f"not a file but {_type(found.st_mode)}")


def _type(mode: int) -> str:
    for test, name in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    ):
        if test(mode):
            return name
    return "something unknown"


def _rejected(path: str, error: OSError | ValueError, what: str) -> Rejected:
    uri = path_to_uri(path)
    if isinstance(error, FileNotFoundError):
        return Rejected(uri, "vanished", f"the {what} is not there (any more)")
    return Rejected(uri, "unreadable", f"the {what} cannot be read: {_reason(error)}")


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
