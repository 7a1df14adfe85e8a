"""Hostile files: an error of ours or a result, in bounded time and memory; nothing else."""

import contextlib
import io
import random
import struct
import time
import zipfile

import openpyxl
import pytest

from doc_classify.dataset.compose import compose
from doc_classify.dataset.hostile import KINDS, make_hostile
from doc_classify.dataset.writers import WRITERS
from doc_classify.errors import (
    DamagedError,
    EncryptedError,
    ExtractionError,
    LimitExceededError,
)
from doc_classify.extraction import Document, extract
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.extraction.used_range import (
    UsedRange,
    check_ods,
    check_xls,
    check_xlsb,
    check_xlsx,
)
from doc_classify.sniffing import sniff_bytes

SECONDS = 10
OTHERS = sorted(set(WRITERS) - {"pdf"})


@pytest.fixture
def read(tmp_path):
    def run(data, name="f", media_type=None, **options):
        path = tmp_path / name
        path.write_bytes(data)
        document = Document(path, name, media_type or sniff_bytes(data, name))
        started = time.perf_counter()
        try:
            return extract(document, ExtractionOptions(**options))
        finally:
            assert time.perf_counter() - started < SECONDS

    return run


def written(extension, seed=1):
    rng = random.Random(seed)
    return WRITERS[extension](compose(rng, "reports", "en", 1), rng)[0]


def rezipped(data, change):
    """The archive with its parts as ``change(name, bytes)`` makes them."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("zip_bomb", LimitExceededError),
        ("xml_bomb", ExtractionError),
        ("deep_xml", LimitExceededError),
        ("sparse_sheet", LimitExceededError),
        ("truncated", ExtractionError),
    ],
)
def test_hostile_kinds_of_the_data_set(read, kind, expected):
    rng = random.Random(7)
    for extension in KINDS[kind]:
        if extension == "pdf":
            continue
        data = make_hostile(kind, extension, compose(rng, "other", "en", 1), rng, True)
        with pytest.raises(expected):
            read(data, f"f.{extension}")


@pytest.mark.parametrize("extension", ["docx", "pptx", "odt", "odp", "ods", "xlsx"])
def test_bombs_that_lie_about_their_size(read, extension):
    main = {"docx": "document.xml", "pptx": "slide1.xml", "xlsx": "sheet1.xml"}
    wanted = main.get(extension, "content.xml")
    bomb = rezipped(
        written(extension), lambda name, data: data + b" " * 30_000_000 * name.endswith(wanted)
    )
    assert len(bomb) < 500_000
    with pytest.raises(LimitExceededError, match="zip bomb"):
        read(bomb, max_unpacked_bytes=20_000_000)
    lying = bytearray(bomb)
    at = 0
    while (at := lying.find(b"PK\x01\x02", at)) >= 0:  # sizes in the central directory
        size = struct.unpack_from("<24xI", lying, at)[0]
        if size > 30_000_000:
            struct.pack_into("<I", lying, at + 24, size - 30_000_000)
        at += 4
    with contextlib.suppress(ExtractionError):
        assert read(bytes(lying), max_unpacked_bytes=20_000_000).text


def test_too_many_parts(read):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("[Content_Types].xml", "")
        for number in range(25_000):
            archive.writestr(f"word/{number}.xml", "")
    with pytest.raises(LimitExceededError, match="parts"):
        read(buffer.getvalue())


LAUGHS = '<!DOCTYPE r [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY a{n} "{f"&a{n - 1 if n > 1 else str()};" * 10}">' for n in range(1, 12)
)


@pytest.mark.parametrize(
    "inside",
    [
        LAUGHS + "]><r>&a11;</r>",
        LAUGHS + ']><r a="&a11;">x</r>',
        '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/hostname">]><r>a &x; b</r>',
        '<!DOCTYPE r [<!ENTITY % x SYSTEM "http://127.0.0.1:9/"> %x;]><r>a b</r>',
        '<!DOCTYPE r SYSTEM "http://127.0.0.1:9/x.dtd"><r>a b</r>',
        "<a>" * 300_000,
        "<a>" * 300_000 + "</a>" * 300_000,
        "<r>" + "".join(f"<t{n}/>" for n in range(50_000)) + "</r>",
        "<r" + "".join(f' a{n}="x"' for n in range(100_000)) + "/>",
    ],
)
def test_xml(read, inside):
    data = b"<?xml version='1.0'?>" + inside.encode()
    for name, packed in (
        ("f.xml", data),
        ("f.docx", rezipped(written("docx"), lambda n, d: data if "document.xml" in n else d)),
        ("f.odt", rezipped(written("odt"), lambda n, d: data if n == "content.xml" else d)),
        ("f.epub", rezipped(written("epub"), lambda n, d: data if n.endswith("opf") else d)),
    ):
        try:
            text = read(packed, name).text
        except ExtractionError:
            continue
        assert len(text) < 100_000
        assert "haha" not in text
        assert (name != "f.xml" or text in ("a b", "a\n\nb", "x")) is True


@pytest.mark.parametrize(
    "data",
    [
        b"<html>" + b"<div>" * 300_000 + b"x",
        b"<html>" + b"<a " * 300_000,
        b"<html>" + b"<table><tr><td>" * 20_000 + b"x",
        b"<html>" + b"<![CDATA[" * 100_000,
        b"<html>" + b"<!--" * 100_000,
        b"<html><p>" + b"&amp" * 200_000,
    ],
)
def test_html(read, data):
    with contextlib.suppress(ExtractionError):
        read(data, "f.html")


@pytest.mark.parametrize(
    "inside",
    [
        b"{" * 300_000,
        b"{\\pict " * 50_000,
        b'{\\field{\\*\\fldinst{HYPERLINK "' * 20_000,
        b"{\\fonttbl " + b"\\f1" * 50_000,
        b"\\u99999999999? \\u-99999? \\'zz",
        b"\\bin999999999 x",
        b"\\ansicpg99999 \\'e9",
        b"\\'e9" * 300_000,
    ],
)
def test_rtf(read, inside):
    with contextlib.suppress(ExtractionError):
        read(b"{\\rtf1 " + inside + b" text}", "f.rtf")


@pytest.mark.parametrize(
    "data",
    [
        b"Message-ID: <a@b>\nFrom: " + b"a@b.c, " * 200_000 + b"\n\nx",
        b"Message-ID: <a@b>\nSubject: =?utf-8?q?" + b"=C3=A9" * 200_000 + b"?=\n\nx",
        b"Message-ID: <a@b>\nTo: [[[ <\nFrom: =?x?q?\xff?= <\nDate: no\n"
        b"Content-Type: text/plain; charset=idna\n\nx\xff",
        b"Message-ID: <a@b>\nMIME-Version: 1.0\n"
        + b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(3000)
        ),
        b"From a@b Thu Jan  1 00:00:00 1970\nFrom: a\n\n" * 20_000,
    ],
)
def test_mail(read, data):
    with contextlib.suppress(ExtractionError):
        read(data, "f.eml")


@pytest.mark.parametrize("extension", OTHERS)
def test_truncations_and_mutations(read, extension):
    rng = random.Random(extension)
    data = written(extension)
    media_type = sniff_bytes(data, f"f.{extension}")
    for turn in range(60):
        mutant = bytearray(data)
        for _ in range(rng.choice((1, 5, 50))):
            mutant[rng.randrange(len(mutant))] = rng.randrange(256)
        if turn % 3 == 0:
            del mutant[rng.randrange(1, len(mutant)) :]
        with contextlib.suppress(ExtractionError):
            assert read(bytes(mutant), f"f.{extension}", media_type).text


@pytest.mark.parametrize("extension", ["docx", "xlsx", "odt", "epub"])
def test_mutated_parts_in_a_whole_archive(read, extension):
    """Archives whose sums are right, so that the XML inside is what is damaged."""
    rng = random.Random(extension)
    data = written(extension)

    def spoil(name, part):
        part = bytearray(part or b" ")
        for _ in range(rng.choice((0, 0, 3))):
            part[rng.randrange(len(part))] = rng.randrange(256)
        return bytes(part)

    for _ in range(40):
        with contextlib.suppress(ExtractionError):
            read(rezipped(data, spoil), media_type=sniff_bytes(data))


def test_encrypted_documents(read):
    with pytest.raises(EncryptedError):
        read(b"x", media_type="application/x-ole-encrypted")
    data = rezipped(
        written("odt"), lambda n, d: b"<x><encryption-data/></x>" if "manifest.xml" in n else d
    )
    with pytest.raises(EncryptedError):
        read(data)
    flagged = bytearray(written("docx"))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := flagged.find(mark, at + 1)) >= 0:
            flagged[at + offset] |= 1
    with pytest.raises(EncryptedError):
        read(bytes(flagged), media_type=sniff_bytes(written("docx")))


FAR = b'<c r="XFD1048576"><v/></c>'
FIRST = b'<row r="1"><c r="A1"><v>1</v></c></row>'


def sheet(cells):
    """A worksheet in pieces of a few bytes."""
    data = b"<worksheet xmlns:a-b='x'><sheetData>" + cells + b"</sheetData><margins/></worksheet>"
    return [data[at : at + 7] for at in range(0, len(data), 7)]


HIDDEN = {
    "plain": b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>',
    "bracket in a value": b'<row><c s=">" r="XFD1048576"><v>1</v></c></row>',
    "reference in a value": b"<row><c s=\"r='A1'\" r='XFD1048576'><v>1</v></c></row>",
    "prefix": b'<a-b:row><a-b:c r="XFD1048576"><a-b:v>1</a-b:v></a-b:c></a-b:row>',
    "quote in a comment": b'<!-- <c a=" --><row><c r="XFD1048576"><v>1</v></c></row>',
    "quote in a value": b'<row><c a=\'<c b="\'/><c r="XFD1048576"><v>1</v></c></row>',
    "line break": b'<row><c\nr="XFD1048576"\n><v>1</v></c></row>',
    "reference of another row": b'<row r="1048576"><c r="XFC1"><v/></c><c><v>1</v></c></row>',
    "beyond any sheet": b'<row><c r="AAAAXFD1048576"><v>1</v></c></row>',
    "row without end": b'<row r="99999999999999999999"><c><v>1</v></c></row>',
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_cells_far_apart_do_not_abort(read, kind):
    with pytest.raises((LimitExceededError, DamagedError)):
        check_xlsx(sheet(FIRST + HIDDEN[kind]), 1000)
    data = b"".join(sheet(FIRST + HIDDEN[kind]))
    with pytest.raises((LimitExceededError, DamagedError)):
        read(rezipped(workbook(), lambda n, d: data if "sheet1.xml" in n else d))


@pytest.mark.parametrize("place", ["odd/sheet1.dat", "worksheets/sheet1.png", "theme/theme9.xml"])
def test_sheets_in_odd_places_are_looked_at(read, place):
    data = b"".join(sheet(FIRST + HIDDEN["plain"]))
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook())) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            if "sheet1.xml" in name:
                new.writestr(f"xl/{place}", data)
            else:
                part = old.read(name).replace(b"worksheets/sheet1.xml", place.encode())
                new.writestr(name, part)
    with pytest.raises((LimitExceededError, DamagedError)):
        read(buffer.getvalue())


def workbook():
    buffer = io.BytesIO()
    openpyxl.Workbook().save(buffer)
    return buffer.getvalue()


def test_used_range_of_opendocument():
    def content(rows):
        return [b"<x><table:table>" + rows + b"</table:table></x>"]

    cell = b'<table:table-cell office:value-type="float" table:number-columns-repeated="%d"/>'
    row = b'<table:table-row table:number-rows-repeated="%d">%s</table:table-row>'
    empty = b'<table:table-cell table:number-columns-repeated="16384"/>'
    check_ods(content(row % (10, cell % 10 + empty) + row % (1_000_000, empty)), 100)
    for rows in (
        row % (11, cell % 10),
        row % (1, cell % 1) + row % (200, empty) + row % (1, cell % 1),
        row % (1, empty + cell % 1),
        row % (1, b'<table:table-cell a=">" office:value-type="x" '
               b'table:number-columns-repeated="16384"/>'),
        row % (1, cell % 60) + b"</table:table><table:table>" + row % (1, cell % 60),
    ):  # fmt: skip
        with pytest.raises(LimitExceededError):
            check_ods(content(rows), 100)
    with pytest.raises(DamagedError):
        check_ods(content(b'<table:table-row table:number-rows-repeated="-5"/>'), 100)


def test_used_range_without_end_of_a_tag():
    pieces = [b"<sheetData a='"] + [b"x" * 65_536] * 1000
    with pytest.raises(LimitExceededError, match="tag"):
        check_xlsx(pieces, 1)


def test_used_range():
    with pytest.raises(LimitExceededError):
        check_xlsx(sheet(b"<row><c><v>1</v></c></row>" * 2 + FAR), 1000)
    check_xlsx(sheet(b'<c r="A1"><v/></c><c r="XFD1048576" s="1"/>'), 1000)
    check_xlsx(sheet(FAR), 1)
    record = struct.pack("<BBIBBI", 0, 4, 0, 5, 4, 0) + struct.pack(
        "<BBIBBI", 0, 4, 1048575, 5, 4, 16383
    )
    with pytest.raises(LimitExceededError):
        check_xlsb(record, 2_000_000)
    cells = struct.pack("<HHHH", 0x0203, 4, 0, 0) + struct.pack("<HHHH", 0x0203, 4, 65535, 255)
    with pytest.raises(LimitExceededError):
        check_xls(cells, 2_000_000)
    begin, end = struct.pack("<HH", 0x0809, 0), struct.pack("<HH", 0x000A, 0)
    first, last = cells[:8], cells[8:]
    check_xls(begin + first + end + begin + last + end, 1)
    with pytest.raises(LimitExceededError):
        check_xls(begin + first + begin + last, 1000)
    with pytest.raises(LimitExceededError):
        check_xls(struct.pack("<HH2H4xH", 0x00BD, 10, 0, 0, 5000), 1000)
    check_xls(struct.pack("<HHIIHHH", 0x0200, 14, 0, 65_536, 0, 256, 0), 1000)
    check_xls(struct.pack("<HHIIHHH", 0x0200, 14, 0, 0, 0, 0, 0), 1000)
    for first, last in ((0, 2**31), (0xFF000000, 5)):
        with pytest.raises(DamagedError, match="larger"):
            check_xls(struct.pack("<HHIIHHH", 0x0200, 14, first, last, 0, 4, 0), 1000)
    with pytest.raises(DamagedError, match="strings"):
        check_xls(struct.pack("<HHII", 0x00FC, 8, 1, 2**30), 1000)
    with pytest.raises(EncryptedError):
        check_xls(struct.pack("<HH", 0x2F, 0), 1)
    used = UsedRange(4)
    used.add(10, 10)
    used.add(11, 11)
    with pytest.raises(LimitExceededError):
        used.add(9, 10)


def test_wrong_type(read):
    for media_type in ("application/vnd.ms-excel", "application/vnd.ms-outlook"):
        with pytest.raises(DamagedError):
            read(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000), media_type=media_type)
