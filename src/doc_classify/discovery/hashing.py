"""The streamed hash that identifies a document, with the proof that it is of one moment."""

from __future__ import annotations

import hashlib
import os
import stat

from doc_classify.errors import SourceChangedError, SourceUnreadableError
from doc_classify.records import Source, display_name, uri_to_path

# Opening a pipe waits for a writer unless O_NONBLOCK says not to; regular files ignore it.
_OPEN_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def hash_file(source: Source) -> str:
    """SHA-256 of the bytes of ``source``, as hexadecimal digits.

    Size and modification time must be those of ``source`` before and after, so that the digest is
    of the file that was listed and not of a mixture of two versions. Links are followed: the walk
    has decided which of them may be, and one that was swapped since fails the same comparison.

    Raises:
        SourceChangedError: the file vanished, or is not the one that was listed.
        SourceUnreadableError: the operating system would not give its bytes.
    """
    name = display_name(source.uri)
    try:
        fd = os.open(uri_to_path(source.uri), _OPEN_FILE)
        with os.fdopen(fd, "rb", buffering=0) as file:
            _check(fd, source, name)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            _check(fd, source, name)
    except FileNotFoundError:
        raise SourceChangedError(f"{name} vanished after it was listed") from None
    except OSError as error:
        raise SourceUnreadableError(f"cannot read {name}: {error.strerror or error}") from error
    return digest


def _check(fd: int, source: Source, name: str) -> None:
    now = os.fstat(fd)
    if not stat.S_ISREG(now.st_mode):
        raise SourceChangedError(f"{name} was replaced by something that is not a file")
    if (now.st_size, now.st_mtime_ns) != (source.size, source.mtime_ns):
        raise SourceChangedError(
            f"{name} changed after it was listed: {source.size} bytes then, {now.st_size} now"
            if now.st_size != source.size
            else f"{name} changed after it was listed: it was written to"
        )
