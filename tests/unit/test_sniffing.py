"""Types are told from bytes; names refine plain text and nothing else."""

import io
import random
import struct
import time
import zipfile

import pytest

from doc_classify.dataset.compose import compose
from doc_classify.dataset.writers import WRITERS
from doc_classify.sniffing import describe, sniff, sniff_bytes

OOXML = "application/vnd.openxmlformats-officedocument"
ODF = "application/vnd.oasis.opendocument"
WRITTEN = {
    "pdf": "application/pdf",
    "docx": f"{OOXML}.wordprocessingml.document",
    "pptx": f"{OOXML}.presentationml.presentation",
    "xlsx": f"{OOXML}.spreadsheetml.sheet",
    "xls": "application/vnd.ms-excel",
    "odt": f"{ODF}.text",
    "ods": f"{ODF}.spreadsheet",
    "odp": f"{ODF}.presentation",
    "epub": "application/epub+zip",
    "html": "text/html",
    "xml": "application/xml",
    "eml": "message/rfc822",
    "mbox": "application/mbox",
    "rtf": "application/rtf",
}


@pytest.mark.parametrize("extension", WRITTEN)
def test_written_documents_are_known_whatever_their_name(extension):
    rng = random.Random(3)
    data, _ = WRITERS[extension](compose(rng, "reports", "en", 1), rng)
    for name in ("", f"a.{extension}", "a.txt", "a.csv", "a.pdf"):
        assert sniff_bytes(data, name) == WRITTEN[extension]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "application/x-empty"),
        (b"\x89PNG\r\n\x1a\n....", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"II*\0\x08\0\0\0", "image/tiff"),
        (b"GIF89a....", "image/gif"),
        (b"BM" + bytes(12) + struct.pack("<I", 40) + bytes(40), "image/bmp"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"junk before\n%PDF-1.4\n1 0 obj\n<<>>", "application/pdf"),
        (b"The header %PDF-1.4 opens every PDF.", "text/plain"),
        ("Grüße".encode("utf-16"), "text/plain"),
        ("Grüße".encode("utf-32"), "text/plain"),
        ("Grüße aus Köln".encode("latin-1"), "text/plain"),
        ("Привет, мир".encode("cp1251"), "text/plain"),
        ("日本語".encode("shift_jis"), "text/plain"),
        ("日本語".encode("iso2022_jp"), "text/plain"),
        (random.Random(1).randbytes(5000), "application/octet-stream"),
        (b"\0\1\2\3", "application/octet-stream"),
        (b"cipher \2\2 text of old" * 50, "text/plain"),
        (b"<?xml version='1.0'?><a/>", "application/xml"),
        ("<?xml version='1.0'?><a/>".encode("utf-16"), "application/xml"),
        (b"<?xml version='1.0'?><!-- x --><html xmlns='x'/>", "application/xhtml+xml"),
        (b"\n <!-- c --><!DOCTYPE HTML><p>x", "text/html"),
        (b"From: a\nTo: b\nSubject: memo\n\nplain memo", "text/plain"),
        (b"Message-ID: <a@b>\nFrom: a\n\nx", "message/rfc822"),
        (b"From a@b Thu Jan  1 00:00:00 1970\nFrom: a\n\nx", "application/mbox"),
        (b"From a@b Thu Jan\nFrom: a\n\nx", "text/plain"),
        (b"\x1f\x8b\x08", "application/gzip"),
        (b"\0\0\0\x18ftypheic\0\0", "image/heic"),
        (b"\0\0\0\x18ftypmp42\0\0", "video/mp4"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
        (b"a.txt".ljust(257, b"\0") + b"ustar\x0000", "application/x-tar"),
    ],
)
def test_bytes(data, expected):
    assert sniff_bytes(data) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.md", "text/markdown"),
        ("a.CSV", "text/csv"),
        ("a.tsv", "text/tab-separated-values"),
        ("a.json", "application/json"),
        ("a.jsonl", "application/jsonl"),
        ("a.docx", "text/plain"),
        ("a.pdf", "text/plain"),
        ("../../a", "text/plain"),
    ],
)
def test_names_refine_plain_text(name, expected):
    assert sniff_bytes(b"one, two\n", name) == expected


def openxml(main, folder="word"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(
            "[Content_Types].xml", f'<Types><Override ContentType="{main}.main+xml"/></Types>'
        )
        archive.writestr(f"{folder}/document.xml", "<x/>")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        (f"{OOXML}.wordprocessingml.template",) * 2,
        (f"{OOXML}.presentationml.slideshow",) * 2,
        *(
            (
                f"application/vnd.ms-{kind}.macroEnabled",
                f"application/vnd.ms-{kind}.macroEnabled.12",
            )
            for kind in ("word.document", "powerpoint.presentation", "excel.sheet")
        ),
    ],
)
def test_variants_of_office_documents(main, expected):
    assert sniff_bytes(openxml(main)) == expected
    assert describe(expected) != expected


def test_other_archives_are_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/readme.txt", "x")
    assert sniff_bytes(buffer.getvalue()) == "application/zip"


def compound(names):
    """An OLE file with one directory sector chain and these streams in the root."""

    def entry(name, left=0xFFFFFFFF, right=0xFFFFFFFF, child=0xFFFFFFFF, kind=2):
        raw = name.encode("utf-16-le") + b"\0\0"
        return (raw.ljust(64, b"\0") + struct.pack("<HBBIII", len(raw), kind, 1, left, right, child)
                ).ljust(128, b"\0")  # fmt: skip

    entries = [entry("Root Entry", child=1, kind=5)]
    for index, name in enumerate(names, 1):
        entries.append(entry(name, right=index + 1 if index < len(names) else 0xFFFFFFFF))
    directory = b"".join(entries)
    directory += bytes(-len(directory) % 512)
    sectors = len(directory) // 512
    table = [0xFFFFFFFD, *range(2, sectors + 1), 0xFFFFFFFE]
    fat = struct.pack(f"<{len(table)}I", *table).ljust(512, b"\xff")
    header = bytearray(512)
    header[:8] = bytes.fromhex("d0cf11e0a1b11ae1")
    struct.pack_into("<H", header, 30, 9)
    struct.pack_into("<I", header, 48, 1)
    struct.pack_into("<109I", header, 76, 0, *([0xFFFFFFFF] * 108))
    return bytes(header) + fat + directory


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["WordDocument", "1Table"], "application/msword"),
        (["PowerPoint Document"], "application/vnd.ms-powerpoint"),
        (["a", "b", "c", "d", "e", "Workbook"], "application/vnd.ms-excel"),
        (["__nameid_version1.0", "__properties_version1.0"], "application/vnd.ms-outlook"),
        (["EncryptionInfo", "EncryptedPackage"], "application/x-ole-encrypted"),
        (["Anything"], "application/x-ole-storage"),
    ],
)
def test_compound_files(names, expected):
    assert sniff_bytes(compound(names)) == expected


@pytest.mark.parametrize("extension", ["docx", "xls", "epub", "pdf", "eml"])
def test_damaged_bytes_never_raise(extension):
    rng = random.Random(11)
    data, _ = WRITERS[extension](compose(rng, "invoices", "en", 1), rng)
    for _ in range(200):
        mutant = bytearray(data)
        for _ in range(rng.randint(1, 30)):
            mutant[rng.randrange(len(mutant))] = rng.randrange(256)
        assert sniff_bytes(bytes(mutant[: rng.randint(0, len(mutant))]))


def test_reads_files(tmp_path):
    path = tmp_path / "x.md"
    path.write_text("# Hello")
    assert sniff(path) == "text/markdown"
    with pytest.raises(OSError):
        sniff(tmp_path / "missing")


def test_describe():
    assert describe("application/pdf") == "PDF document"
    assert describe("x/y") == "x/y"
    assert describe(f"{ODF}.text-template") == "OpenDocument text"


@pytest.mark.parametrize(
    "data",
    [
        b"From a " + b"12:34" * 13_000,
        b"<?xml" + b" ?><?" * 13_000,
        b"<!--" * 16_000,
        b"<!-- -->" * 8_000,
        b"a:" * 32_000,
        b"PK\x03\x04" + (b"PK\x03\x04".ljust(26, b"\xff") + b"\xff\xff\0\0") * 2_000,
    ],
)
def test_hostile_heads_take_no_time(data):
    started = time.perf_counter()
    sniff_bytes(data, "a.eml")
    assert time.perf_counter() - started < 1
