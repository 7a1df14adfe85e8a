"""ZIP archives that may be hostile: sizes and counts are bounded while unpacking, not believed."""

from __future__ import annotations

import os
import posixpath
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO
from urllib.parse import unquote

from doc_classify.errors import DamagedError, EncryptedError, LimitExceededError

MAX_ENTRIES = 20_000
_DIRECTORY_BYTES = 10_000_000
_CHUNK = 65_536
_TAIL = 66_000
_MARKUP = (".xml", ".rels", ".xhtml", ".html", ".htm", ".opf", ".bin")


class Archive:
    """The parts of a ZIP file; all that is unpacked draws on one budget of bytes.

    Raises (on opening and on reading):
        DamagedError: not a whole archive.
        EncryptedError: a part needs a password.
        LimitExceededError: too many parts, or more unpacked bytes than the budget.
    """

    def __init__(self, path: Path, budget: int) -> None:
        self._budget = self._left = budget
        self._file = path.open("rb")
        try:
            _check_directory(self._file)
            self._zip = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, struct.error, NotImplementedError, ValueError) as error:
            self._file.close()
            raise DamagedError(
                "the archive inside the document is truncated or damaged: no readable directory"
            ) from error
        except BaseException:
            self._file.close()
            raise
        if len(self._zip.filelist) > MAX_ENTRIES:
            self._file.close()
            raise LimitExceededError(f"holds more than {MAX_ENTRIES} parts")
        self._parts = {_normal(info.filename): info for info in self._zip.filelist}

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return _normal(name) in self._parts

    def names(self) -> list[str]:
        """Names of all parts, as the archive writes them."""
        return [info.filename for info in self._zip.filelist]

    def check_markup(self) -> None:
        """Refuse an archive whose markup is stated to unpack to more than the budget.

        Pictures and films do not count: they are not unpacked.
        """
        size = sum(
            info.file_size for info in self._zip.filelist if info.filename.lower().endswith(_MARKUP)
        )
        if size > self._budget:
            raise self._over_budget()

    def _over_budget(self) -> LimitExceededError:
        return LimitExceededError(f"unpacks to more than {self._budget // 10**6} MB (zip bomb?)")

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a part, piece by piece."""
        info = self._parts.get(_normal(name))
        if info is None:
            raise DamagedError(f"the part {name} is missing")
        if info.flag_bits & 0x1:
            raise EncryptedError("protected by a password")
        # The readers of the other methods unpack without a bound, and offices do not write them.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DamagedError(f"the part {name} is packed in an unknown way")
        try:
            with self._zip.open(info) as part:
                while chunk := part.read(_CHUNK):
                    self._left -= len(chunk)
                    if self._left < 0:
                        raise self._over_budget()
                    yield chunk
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError) as error:
            raise DamagedError(f"the part {name} is damaged: {error}") from error
        except (NotImplementedError, RuntimeError) as error:
            raise DamagedError(f"the part {name} cannot be unpacked: {error}") from error

    def read(self, name: str, limit: int = 50_000_000) -> bytes:
        """All bytes of a part that has to be held in memory, hence the ``limit``."""
        pieces: list[bytes] = []
        size = 0
        for chunk in self.chunks(name):
            size += len(chunk)
            if size > limit:
                raise LimitExceededError(f"the part {name} is over {limit // 10**6} MB")
            pieces.append(chunk)
        return b"".join(pieces)


def resolve(base: str, target: str) -> str:
    """The part that a reference ``target`` in the part ``base`` means."""
    target = unquote(target.partition("#")[0])
    if target.startswith("/"):
        return target.lstrip("/")
    return posixpath.normpath(posixpath.join(posixpath.dirname(base), target))


def _normal(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").lower()


def _check_directory(file: BinaryIO) -> None:
    """Refuse a directory too long to be read: its size stands at the end of the file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    at = tail.rfind(b"PK\x05\x06")
    if at >= 0 and at + 22 <= len(tail):
        length = struct.unpack_from("<12xI", tail, at)[0]
        if length == 0xFFFFFFFF:
            length = size
        if min(length, size) > _DIRECTORY_BYTES:
            raise LimitExceededError("the directory of the archive is too long")
    file.seek(0)
