"""The types that hide in containers: ZIP archives and OLE compound files.

Both directories are read by hand and within bounds: the usual libraries believe the counts and
offsets that a hostile file states.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

ZIP = "application/zip"
_DIRECTORY_BYTES = 1_000_000
_TAIL = 66_000  # an end record with the longest comment
_PART_BYTES = 300_000

_OPENXML = "application/vnd.openxmlformats-officedocument."
_MAIN_TYPES = {
    f"{_OPENXML}wordprocessingml.document": f"{_OPENXML}wordprocessingml.document",
    f"{_OPENXML}wordprocessingml.template": f"{_OPENXML}wordprocessingml.template",
    f"{_OPENXML}presentationml.presentation": f"{_OPENXML}presentationml.presentation",
    f"{_OPENXML}presentationml.slideshow": f"{_OPENXML}presentationml.slideshow",
    f"{_OPENXML}presentationml.template": f"{_OPENXML}presentationml.template",
    f"{_OPENXML}spreadsheetml.sheet": f"{_OPENXML}spreadsheetml.sheet",
    f"{_OPENXML}spreadsheetml.template": f"{_OPENXML}spreadsheetml.template",
    **{
        f"application/vnd.ms-{kind}.macroEnabled": f"application/vnd.ms-{kind}.macroEnabled.12"
        for kind in (
            "word.document",
            "word.template",
            "powerpoint.presentation",
            "powerpoint.slideshow",
            "powerpoint.template",
            "excel.sheet",
            "excel.template",
            "excel.sheet.binary",
        )
    },
}
_FOLDERS = (
    ("word/", f"{_OPENXML}wordprocessingml.document"),
    ("ppt/", f"{_OPENXML}presentationml.presentation"),
    ("xl/", f"{_OPENXML}spreadsheetml.sheet"),
)
_MAIN = re.compile(rb"ContentType\s*=\s*[\"']([\w.+/-]{1,150})\.main(?:\+xml)?[\"']")
_OPENDOCUMENT = re.compile(
    r"application/(?:epub\+zip|vnd\.oasis\.opendocument\.[a-z]{1,30}(?:-template)?)"
)


@dataclass(frozen=True)
class _Entry:
    name: str
    method: int
    compressed: int
    offset: int


def sniff_zip(file: BinaryIO, head: bytes) -> str:
    """The media type of a file that begins as a ZIP archive."""
    # The first parts tell of a truncated archive, and of one whose directory is too long.
    entries = {entry.name: entry for entry in _local(head)}
    directory = {entry.name: entry for entry in _central(file)}
    entries |= directory
    declared = _part(file, entries.get("mimetype")).decode("latin-1").strip()
    if _OPENDOCUMENT.fullmatch(declared):
        return declared
    if "META-INF/container.xml" in entries:
        return "application/epub+zip"
    for match in _MAIN.finditer(_part(file, entries.get("[Content_Types].xml"))):
        found = _MAIN_TYPES.get(match[1].decode("latin-1"))
        if found:
            return found
    for folder, media_type in _FOLDERS:
        if any(name.startswith(folder) for name in entries):
            # The parts that tell for sure often come last, where a truncated file has none.
            return media_type if _has_office_parts(entries) or not directory else ZIP
    return ZIP


def _has_office_parts(entries: dict[str, _Entry]) -> bool:
    return "[Content_Types].xml" in entries or "_rels/.rels" in entries


def _central(file: BinaryIO) -> Iterator[_Entry]:
    """Entries of the central directory, as far as it is whole and within bounds."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 22 > len(tail):
        return
    length, offset = struct.unpack_from("<II", tail, at + 12)
    end = size - len(tail) + at
    start = offset if offset + length <= end else max(0, end - length)
    file.seek(start)
    data = file.read(min(length, _DIRECTORY_BYTES))
    at = 0
    while at + 46 <= len(data) and data[at : at + 4] == b"PK\x01\x02":
        method, compressed = struct.unpack_from("<10xH8xI", data, at)
        names, extra, comment = struct.unpack_from("<28xHHH", data, at)
        (offset,) = struct.unpack_from("<42xI", data, at)
        name = data[at + 46 : at + 46 + names].decode("utf-8", "replace").replace("\\", "/")
        yield _Entry(name, method, compressed, offset)
        at += 46 + names + extra + comment


def _local(head: bytes) -> Iterator[_Entry]:
    """Entries whose own headers stand in the head of the file."""
    at = head.find(b"PK\x03\x04")
    while at >= 0 and at + 30 <= len(head):
        method, compressed = struct.unpack_from("<8xH8xI", head, at)
        (names,) = struct.unpack_from("<26xH", head, at)
        name = head[at + 30 : at + 30 + names].decode("utf-8", "replace").replace("\\", "/")
        yield _Entry(name, method, compressed, at)
        at = head.find(b"PK\x03\x04", at + 30 + names)


def _part(file: BinaryIO, entry: _Entry | None) -> bytes:
    """The beginning of a part, unpacked; empty where that is not possible."""
    if entry is None:
        return b""
    file.seek(entry.offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        return b""
    names, extra = struct.unpack_from("<HH", header, 26)
    file.seek(names + extra, os.SEEK_CUR)
    data = file.read(min(entry.compressed or _PART_BYTES, _PART_BYTES))
    if entry.method == 0:
        return data
    with suppress(zlib.error):
        return zlib.decompressobj(-15).decompress(data, _PART_BYTES)
    return b""


_OLE_TYPES = (
    ("EncryptedPackage", "application/x-ole-encrypted"),
    ("__properties_version1.0", "application/vnd.ms-outlook"),
    ("WordDocument", "application/msword"),
    ("PowerPoint Document", "application/vnd.ms-powerpoint"),
    ("Workbook", "application/vnd.ms-excel"),
    ("Book", "application/vnd.ms-excel"),
)
_OLE_SECTORS = 256
_ENTRY_SIZE = 128
_NO_ENTRY = 0xFFFFFFFF


def sniff_ole(file: BinaryIO, head: bytes) -> str:
    """The media type of an OLE compound file, from the streams in its root."""
    directory = _directory(file, head)
    names = set(_root_names(directory)) or set(_all_names(directory))
    for name, media_type in _OLE_TYPES:
        if name in names:
            return media_type
    for name, media_type in _OLE_TYPES[:-1]:  # damaged or very large: the bytes still tell
        if name.encode("utf-16-le") + b"\0\0" in head + directory:
            return media_type
    return "application/x-ole-storage"


def _directory(file: BinaryIO, head: bytes) -> bytes:
    """The bytes of the directory, following the sector chain for a bounded length."""
    if len(head) < 512:
        return b""
    shift = struct.unpack_from("<30xH", head)[0]
    if shift not in (9, 12):
        return b""
    size = 1 << shift
    sector = struct.unpack_from("<48xI", head)[0]
    table = struct.unpack_from("<109I", head, 76)
    parts: list[bytes] = []
    seen: set[int] = set()
    while sector < 0xFFFFFFFA and sector not in seen and len(seen) < _OLE_SECTORS:
        seen.add(sector)
        file.seek((sector + 1) * size)
        parts.append(file.read(size))
        block, slot = divmod(sector, size // 4)
        if block >= len(table) or table[block] >= 0xFFFFFFFA:
            break
        file.seek((table[block] + 1) * size + 4 * slot)
        raw = file.read(4)
        sector = int.from_bytes(raw, "little") if len(raw) == 4 else _NO_ENTRY
    return b"".join(parts)


def _name(directory: bytes, index: int) -> str:
    at = index * _ENTRY_SIZE
    length = min(64, struct.unpack_from("<64xH", directory, at)[0])
    return directory[at : at + max(0, length - 2)].decode("utf-16-le", "replace")


def _root_names(directory: bytes) -> Iterator[str]:
    """Names directly in the root: what an embedded object is called says nothing."""
    count = len(directory) // _ENTRY_SIZE
    if not count:
        return
    waiting = [struct.unpack_from("<76xI", directory)[0]]
    seen: set[int] = set()
    while waiting:
        index = waiting.pop()
        if index >= count or index in seen:
            continue
        seen.add(index)
        yield _name(directory, index)
        waiting += struct.unpack_from("<68xII", directory, index * _ENTRY_SIZE)


def _all_names(directory: bytes) -> Iterator[str]:
    for index in range(len(directory) // _ENTRY_SIZE):
        yield _name(directory, index)
