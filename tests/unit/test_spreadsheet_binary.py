"""Binary workbooks: xlsb made by hand from [MS-XLSB], and compound files with broken chains."""

import contextlib
import io
import random
import struct
import zipfile

import pytest

from doc_classify.dataset.compose import compose
from doc_classify.dataset.writers import WRITERS
from doc_classify.errors import DamagedError, ExtractionError, LimitExceededError
from doc_classify.extraction import Document, extract
from doc_classify.extraction.compound import check_compound
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.sniffing import sniff

RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
XLSB = "application/vnd.ms-excel.sheet.binary.macroEnabled"


def record(kind, body=b""):
    number = bytes([kind]) if kind < 128 else bytes([kind & 0x7F | 0x80, kind >> 7])
    size, length = b"", len(body)
    while True:
        length, low = length >> 7, length & 0x7F
        size += bytes([low | (0x80 if length else 0)])
        if not length:
            return number + size + body


def wide(text):
    return struct.pack("<I", len(text)) + text.encode("utf-16-le")


def relations(kind, target):
    return (
        f'<Relationships xmlns="{PACKAGE}"><Relationship Id="rId1" Type="{RELATION}/{kind}"'
        f' Target="{target}"/></Relationships>'
    )


def xlsb(cells):
    """A workbook with one sheet; ``cells`` are (row, column, number or text)."""
    bundle = struct.pack("<II", 0, 1) + wide("rId1") + wide("First")
    book = record(131) + record(143) + record(156, bundle) + record(144) + record(132)
    last = struct.pack("<IIII", 0, max(c[0] for c in cells), 0, max(c[1] for c in cells))
    sheet = record(129) + record(148, last) + record(145)
    for row, column, value in cells:
        sheet += record(0, struct.pack("<I", row) + bytes(13))
        if isinstance(value, float):
            sheet += record(5, struct.pack("<IId", column, 0, value))
        else:
            sheet += record(6, struct.pack("<II", column, 0) + wide(value))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "[Content_Types].xml", f'<Types><Override ContentType="{XLSB}.main"/></Types>'
        )
        archive.writestr("_rels/.rels", relations("officeDocument", "xl/workbook.bin"))
        archive.writestr("xl/workbook.bin", book)
        archive.writestr(
            "xl/_rels/workbook.bin.rels", relations("worksheet", "worksheets/sheet1.bin")
        )
        archive.writestr("xl/worksheets/sheet1.bin", sheet + record(146) + record(130))
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path):
    def run(data):
        path = tmp_path / "book"
        path.write_bytes(data)
        return extract(Document(path, "book", sniff(path)), ExtractionOptions())

    return run


def test_binary_workbook(read):
    result = read(xlsb([(0, 0, "hello"), (1, 2, 2.5)]))
    assert result.media_type == f"{XLSB}.12"
    assert result.text == "First\nhello\n\t\t2.5"
    assert result.page_count == 1


def test_cells_far_apart(read):
    with pytest.raises(LimitExceededError, match="1,048,576 x 16,384"):
        read(xlsb([(0, 0, 1.0), (1048575, 16383, 1.0)]))


def test_mutated_records(read):
    rng = random.Random(8)
    data = xlsb([(row, column, "text") for row in range(9) for column in range(5)])
    for _ in range(200):
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
            for name in old.namelist():
                part = bytearray(old.read(name))
                for _ in range(rng.choice((0, 1, 5)) if name.endswith(".bin") else 0):
                    part[rng.randrange(len(part))] = rng.randrange(256)
                new.writestr(name, bytes(part))
        with contextlib.suppress(ExtractionError):
            read(buffer.getvalue())


@pytest.fixture
def old():
    rng = random.Random(2)
    data = WRITERS["xls"](compose(rng, "reports", "en", 1), rng)[0]
    check_compound(data)
    return bytearray(data)


def table_at(data):
    """Where the table of sectors begins: its first sector stands in the header."""
    return 512 * (struct.unpack_from("<76xI", data)[0] + 1)


def test_chains_in_a_circle(old, read):
    start = struct.unpack_from("<48xI", old)[0]
    struct.pack_into("<I", old, table_at(old) + 4 * start, start)
    with pytest.raises(DamagedError, match="circle"):
        read(bytes(old))
    with pytest.raises(DamagedError, match="circle"):
        check_compound(bytes(old))


def test_circle_of_tables(old):
    struct.pack_into("<II", old, 68, 3, 1)
    struct.pack_into("<I", old, 512 * 4 + 508, 3)
    with pytest.raises(DamagedError, match="circle"):
        check_compound(bytes(old))


def test_streams_longer_than_the_file(old, read):
    start = struct.unpack_from("<48xI", old)[0]
    directory = 512 * (start + 1)
    for at in range(directory, directory + 512, 128):
        struct.pack_into("<I", old, at + 120, 0xFFFFFFF0)
    with pytest.raises(DamagedError, match="longer"):
        read(bytes(old))


@pytest.mark.parametrize("seed", range(3))
def test_mutated_tables_of_sectors(old, read, seed):
    rng = random.Random(seed)
    places = [
        *range(44, 512, 4),
        *range(table_at(old), table_at(old) + 512, 4),
        *range(512 * (struct.unpack_from("<48xI", old)[0] + 1), len(old) - 4, 4),
    ]
    for _ in range(60):
        mutant = bytearray(old)
        for _ in range(rng.choice((1, 2, 6))):
            value = rng.choice((0, 1, 2, 7, 0xFFFFFFFE, 0xFFFFFFFF, rng.randrange(2**32)))
            struct.pack_into("<I", mutant, rng.choice(places), value)
        with contextlib.suppress(ExtractionError):
            read(bytes(mutant))
