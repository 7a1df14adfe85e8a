"""Files that a careful reader must survive: each kind damaged or dangerous in its own way."""

from __future__ import annotations

import random
import struct
import zlib
from functools import cache

from doc_classify.dataset.grammar import pick
from doc_classify.dataset.model import Content
from doc_classify.dataset.writers import WRITERS
from doc_classify.dataset.writers.pdf import write_pdf
from doc_classify.errors import MissingDependencyError

ANY = tuple(WRITERS)
_BINARY = ("pdf", "docx", "pptx", "xlsx", "xls", "odt", "ods", "odp", "epub")

KINDS: dict[str, tuple[str, ...]] = {
    "empty": ANY,
    "encrypted_pdf": ("pdf",),
    "zip_bomb": ("docx",),
    "truncated": _BINARY,
    "xml_bomb": ("xml",),
    "wrong_extension": ANY,
    "garbage": _BINARY,
    "deep_xml": ("xml",),
    "sparse_sheet": ("xlsx",),
}
"""The kinds, each with the formats that it comes in."""

KEEPS_CATEGORY = frozenset({"encrypted_pdf", "truncated", "wrong_extension"})
"""The kinds that still are, or were, a document of some category."""

_BOMB_MEGABYTES = 512
_DEPTH = 300_000
_MAGIC = {"pdf": b"%PDF-1.7\n", "xls": bytes.fromhex("d0cf11e0a1b11ae1")}


def make_hostile(
    kind: str, extension: str, content: Content, rng: random.Random, first: bool
) -> bytes:
    """A hostile file of this kind; ``first`` says that it is the first of its kind."""
    match kind:
        case "empty":
            # Only one file can have no bytes without being a copy: others are blank.
            return (
                b"" if first else "".join(rng.choices(" \t\r\n", k=rng.randint(60, 400))).encode()
            )
        case "encrypted_pdf":
            return write_pdf(content, rng, password=f"{rng.getrandbits(64):016x}")[0]
        case "truncated":
            data = WRITERS[extension](content, rng)[0]
            return data[: int(len(data) * rng.uniform(0.15, 0.6))]
        case "wrong_extension":
            return WRITERS[extension](content, rng)[0]
        case "garbage":
            return _MAGIC.get(extension, b"PK\x03\x04") + rng.randbytes(rng.randint(2_000, 60_000))
        case "zip_bomb":
            return _zip_bomb(content.reference)
        case "xml_bomb":
            return _xml_bomb(rng)
        case "deep_xml":
            tag = "".join(rng.choices("abcdefgh", k=4))
            text = f"<{tag}>" * _DEPTH + content.reference + f"</{tag}>" * _DEPTH
            return text.encode()
        case "sparse_sheet":
            return _sparse_sheet(content, rng)
    raise ValueError(f"unknown kind {kind!r}")


def wrong_extension(extension: str, rng: random.Random) -> str:
    """An extension that a file of this format should not have."""
    return pick(rng, [other for other in ("pdf", "docx", "xlsx", "txt", "html", "doc", "jpg", "dat")
                      if other != extension])  # fmt: skip


def _xml_bomb(rng: random.Random) -> bytes:
    name = "".join(rng.choices("lmnopqr", k=5))
    lines = ['<?xml version="1.0"?>', "<!DOCTYPE document [", f'<!ENTITY {name}0 "{name * 4}">']
    lines += (f'<!ENTITY {name}{n} "{f"&{name}{n - 1};" * 10}">' for n in range(1, 10))
    return "\n".join([*lines, "]>", f"<document>&{name}9;</document>", ""]).encode()


def _sparse_sheet(content: Content, rng: random.Random) -> bytes:
    try:
        import openpyxl  # noqa: F401 - the check comes before the writer's own
    except ImportError as error:
        raise MissingDependencyError("openpyxl", "dataset", "write XLSX files") from error
    from doc_classify.dataset.writers.zipped import with_fixed_times

    data, _ = WRITERS["xlsx"](content, rng)
    row = b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>'

    def stretch(name: str, part: bytes) -> bytes:
        if name != "xl/worksheets/sheet1.xml":
            return part
        return part.replace(b"</sheetData>", row)

    return with_fixed_times(data, stretch)


@cache
def _bomb_part() -> tuple[bytes, int, int]:
    """A part that unpacks to half a gigabyte: deflated bytes, checksum, size.

    After a full flush the compressor knows nothing of what came before, so the compressed block
    can be repeated as it is instead of being made again five hundred times.
    """
    head = (
        b'<?xml version="1.0" encoding="UTF-8"?><w:document xmlns:w="http://schemas.'
        b'openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>'
    )
    tail = b"</w:t></w:r></w:p></w:body></w:document>"
    block = b"A" * (1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = [packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)]
    packed += [packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)] * _BOMB_MEGABYTES
    packed.append(packer.compress(tail) + packer.flush())
    checksum = zlib.crc32(head)
    for _ in range(_BOMB_MEGABYTES):
        checksum = zlib.crc32(block, checksum)
    checksum = zlib.crc32(tail, checksum)
    return b"".join(packed), checksum, len(head) + len(tail) + _BOMB_MEGABYTES * len(block)


def _zip_bomb(reference: str) -> bytes:
    types = (
        b'<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/'
        b'content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-'
        b'package.relationships+xml"/><Override PartName="/word/document.xml" ContentType="'
        b"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
        b'"/></Types>'
    )
    relations = (
        b'<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/'
        b'2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/'
        b'officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>'
        b"</Relationships>"
    )
    parts = [
        (b"[Content_Types].xml", *_stored(types)),
        (b"_rels/.rels", *_stored(relations)),
        (b"word/document.xml", 8, *_bomb_part()),
        (b"reference.txt", *_stored(reference.encode())),
    ]
    out, directory = bytearray(), bytearray()
    for name, method, data, checksum, size in parts:
        common = struct.pack(
            "<HHHHHIIIHH", 20, 0, method, 0, 0x21, checksum, len(data), size, len(name), 0
        )
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + common
        directory += struct.pack("<HHHII", 0, 0, 0, 0, len(out)) + name
        out += b"PK\x03\x04" + common + name + data
    end = struct.pack("<HHHHIIH", 0, 0, len(parts), len(parts), len(directory), len(out), 0)
    return bytes(out + directory + b"PK\x05\x06" + end)


def _stored(data: bytes) -> tuple[int, bytes, int, int]:
    return 0, data, zlib.crc32(data), len(data)
