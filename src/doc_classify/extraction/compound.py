"""OLE compound files ([MS-CFB]) whose chains of sectors are sound.

Engines follow the chains without looking back: one that runs in a circle, or a stream that states
to be longer than its file, has them ask for memory until the process is ended.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator

from doc_classify.errors import DamagedError

_LAST_SECTOR = 0xFFFFFFFA
_ENTRY = 128
_STREAM, _ROOT = 2, 5
_MINI = 4096
"""Streams shorter than this are kept in small sectors, with a table of their own."""


def check_compound(data: bytes) -> None:
    """Follow the chains of all streams.

    Raises:
        DamagedError: a chain or a stated length cannot be.
    """
    if len(data) < 512:
        raise DamagedError("not a whole file: even its header is cut")
    shift = struct.unpack_from("<30xH", data)[0]
    if shift not in (9, 12):
        raise DamagedError(f"sectors of 2^{shift} bytes")
    size = 1 << shift
    table = _table(data, size)
    directory, small = struct.unpack_from("<48xI8xI", data)
    small_table = _words(b"".join(_sector(data, n, size) for n in _chain(table, small)))
    entries = b"".join(_sector(data, n, size) for n in _chain(table, directory))
    for at in range(0, len(entries) - _ENTRY + 1, _ENTRY):
        kind = entries[at + 66]
        if kind not in (_STREAM, _ROOT):
            continue
        start, length = struct.unpack_from("<116xIQ", entries[at : at + _ENTRY])
        if size == 512:
            length &= 0xFFFFFFFF  # the upper half may be anything in the older version
        if length > len(data):
            raise DamagedError("a stream that is longer than the file")
        in_small = kind == _STREAM and length < _MINI
        for _ in _chain(small_table if in_small else table, start):
            pass


def _table(data: bytes, size: int) -> array[int]:
    """The table that says of each sector which one follows."""
    first, count = struct.unpack_from("<68xII", data)
    numbers = list(struct.unpack_from("<109I", data, 76))
    seen: set[int] = set()
    while first < _LAST_SECTOR and count:
        if first in seen:
            raise DamagedError("a chain of sectors that runs in a circle")
        seen.add(first)
        words = _words(_sector(data, first, size))
        if not words:
            break
        numbers += words[:-1]
        first = words[-1]
    return _words(b"".join(_sector(data, n, size) for n in numbers if n < _LAST_SECTOR))


def _chain(table: array[int], start: int) -> Iterator[int]:
    """Sectors from ``start`` on; it ends where the table does."""
    steps = 0
    while start < len(table):
        yield start
        start = table[start]
        steps += 1
        if steps > len(table):
            raise DamagedError("a chain of sectors that runs in a circle")


def _sector(data: bytes, number: int, size: int) -> bytes:
    return data[(number + 1) * size : (number + 2) * size]


def _words(data: bytes) -> array[int]:
    words = array("I")  # four bytes wherever this runs
    words.frombytes(data[: len(data) // 4 * 4])
    return words
