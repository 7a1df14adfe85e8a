"""The type of a file, told from its bytes.

Names lie, so a name is consulted only to tell one kind of plain text from another. Whatever the
bytes are, only a bounded number of them is read: the head, and of containers the directory.
"""

from __future__ import annotations

import codecs
import io
import os
import re
from pathlib import Path, PurePath
from typing import BinaryIO

from doc_classify.sniffing_containers import sniff_ole, sniff_zip

EMPTY = "application/x-empty"
UNKNOWN = "application/octet-stream"
_HEAD = 65_536
_PDF_WINDOW = 1024

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),
    (b"MM\0+", "image/tiff"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"{\\rtf", "application/rtf"),
    (b"\x1f\x8b", "application/gzip"),
    (b"BZh", "application/x-bzip2"),
    (b"\xfd7zXZ\0", "application/x-xz"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"SQLite format 3\0", "application/vnd.sqlite3"),
    (b"\xffWPC", "application/vnd.wordperfect"),
    (b"%!PS", "application/postscript"),
    (b"\x7fELF", "application/x-executable"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"\x1a\x45\xdf\xa3", "video/x-matroska"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "image/heic"),
    **dict.fromkeys((b"avif", b"avis"), "image/avif"),
    b"M4A ": "audio/mp4",
    b"qt  ": "video/quicktime",
}
_MOST_CONTROLS = 0.2  # of old posts and printer files; other binary data is no pure ASCII
_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})

_TEXT_SUFFIXES = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".tab": "text/tab-separated-values",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".ndjson": "application/jsonl",
    ".html": "text/html",
    ".htm": "text/html",
}

_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml"
_SLIDES = "application/vnd.openxmlformats-officedocument.presentationml"
_SHEET = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_ODF = "application/vnd.oasis.opendocument"
_NAMES = {
    EMPTY: "empty file",
    UNKNOWN: "unknown binary data",
    "application/pdf": "PDF document",
    f"{_WORD}.document": "Word document",
    f"{_WORD}.template": "Word template",
    "application/vnd.ms-word.document.macroEnabled.12": "Word document with macros",
    "application/vnd.ms-word.template.macroEnabled.12": "Word template with macros",
    "application/msword": "Word 97-2003 document",
    f"{_SLIDES}.presentation": "PowerPoint presentation",
    f"{_SLIDES}.slideshow": "PowerPoint slide show",
    f"{_SLIDES}.template": "PowerPoint template",
    "application/vnd.ms-powerpoint": "PowerPoint 97-2003 presentation",
    "application/vnd.ms-powerpoint.presentation.macroEnabled.12": "PowerPoint with macros",
    "application/vnd.ms-powerpoint.slideshow.macroEnabled.12": "PowerPoint show with macros",
    "application/vnd.ms-powerpoint.template.macroEnabled.12": "PowerPoint template with macros",
    f"{_SHEET}.sheet": "Excel workbook",
    f"{_SHEET}.template": "Excel template",
    "application/vnd.ms-excel.sheet.macroEnabled.12": "Excel workbook with macros",
    "application/vnd.ms-excel.template.macroEnabled.12": "Excel template with macros",
    "application/vnd.ms-excel.sheet.binary.macroEnabled.12": "binary Excel workbook",
    "application/vnd.ms-excel": "Excel 97-2003 workbook",
    f"{_ODF}.text": "OpenDocument text",
    f"{_ODF}.spreadsheet": "OpenDocument spreadsheet",
    f"{_ODF}.presentation": "OpenDocument presentation",
    f"{_ODF}.graphics": "OpenDocument drawing",
    "application/epub+zip": "EPUB book",
    "application/vnd.ms-outlook": "Outlook message",
    "application/x-ole-encrypted": "Office document with a password",
    "application/x-ole-storage": "OLE container",
    "message/rfc822": "e-mail message",
    "application/mbox": "mailbox",
    "application/rtf": "rich text (RTF)",
    "text/html": "HTML page",
    "application/xhtml+xml": "XHTML page",
    "application/xml": "XML document",
    "text/plain": "plain text",
    "text/markdown": "Markdown text",
    "text/csv": "CSV table",
    "text/tab-separated-values": "TSV table",
    "application/json": "JSON data",
    "application/jsonl": "JSON lines",
    "image/png": "PNG image",
    "image/jpeg": "JPEG image",
    "image/tiff": "TIFF image",
    "image/gif": "GIF image",
    "image/bmp": "BMP image",
    "image/webp": "WebP image",
    "image/heic": "HEIC image",
    "image/avif": "AVIF image",
    "audio/mpeg": "MP3 audio",
    "audio/mp4": "MPEG-4 audio",
    "audio/wav": "WAV audio",
    "audio/ogg": "Ogg audio or video",
    "audio/flac": "FLAC audio",
    "video/mp4": "MPEG-4 video",
    "video/quicktime": "QuickTime video",
    "video/x-matroska": "Matroska video",
    "video/x-msvideo": "AVI video",
    "application/zip": "ZIP archive",
    "application/x-tar": "tar archive",
    "application/x-7z-compressed": "7-Zip archive",
    "application/vnd.rar": "RAR archive",
    "application/x-bzip2": "bzip2 archive",
    "application/x-xz": "xz archive",
    "application/vnd.wordperfect": "WordPerfect document",
    "application/gzip": "gzip archive",
    "application/x-executable": "program",
    "application/postscript": "PostScript document",
    "application/vnd.sqlite3": "SQLite database",
}


def sniff(path: str | os.PathLike[str], name: str | None = None) -> str:
    """The media type of a file.

    ``name`` is what the document is called, where that is not the name of the file.

    Raises:
        OSError: the file cannot be opened or read.
    """
    with Path(path).open("rb") as file:
        return _sniff(file, Path(path).name if name is None else name)


def sniff_bytes(data: bytes, name: str = "") -> str:
    """The media type of ``data``; ``name`` tells kinds of plain text apart, no more."""
    return _sniff(io.BytesIO(data), name)


def describe(media_type: str) -> str:
    """What a person calls a type: "Word document". Unknown types are given back as they are."""
    known = _NAMES.get(media_type)
    if known is None and media_type.startswith(f"{_ODF}.") and media_type.endswith("-template"):
        known = _NAMES.get(media_type.removesuffix("-template"))
    return known or media_type


def bom_encoding(data: bytes) -> tuple[str, int] | None:
    """The codec that a byte order mark announces and the mark's length; None without one."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return encoding, len(mark)
    return None


def _sniff(file: BinaryIO, name: str) -> str:
    head = file.read(_HEAD)
    if not head:
        return EMPTY
    found = _by_magic(file, head)
    if found:
        return found
    text = _as_text(head)
    return UNKNOWN if text is None else _kind_of_text(text, name)


def _by_magic(file: BinaryIO, head: bytes) -> str | None:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return sniff_zip(file, head)
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return sniff_ole(file, head)
    if _is_pdf(head):
        return "application/pdf"
    for magic, media_type in _MAGIC:
        if head.startswith(magic):
            return media_type
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], UNKNOWN)
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/mp4")
    if head[257:262] == b"ustar":
        return "application/x-tar"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "image/bmp"
    if head[:2] == b"MZ" and b"\0" in head[:64]:
        return "application/x-executable"
    return None


def _is_pdf(head: bytes) -> bool:
    if head.startswith(b"%PDF-"):
        return True
    # Mail gateways and printers put lines before the header; prose may only mention it.
    at = head.find(b"%PDF-", 0, _PDF_WINDOW)
    return at > 0 and re.search(rb"\d \d{1,5} obj\b", head[at:]) is not None


def _as_text(head: bytes) -> str | None:
    """The head decoded roughly, or None where it is not text."""
    mark = bom_encoding(head)
    if mark:
        encoding, length = mark
        text = head[length:].decode(encoding, "replace")
        bad = text.count("\ufffd") + sum(c < " " and c not in "\t\n\r\f" for c in text)
        return text if bad <= len(text) // 50 else None
    if _share_of_controls(head) > (_MOST_CONTROLS if head.isascii() and 0 not in head else 0.01):
        return None
    try:
        return codecs.getincrementaldecoder("utf-8")("strict").decode(head)
    except UnicodeDecodeError:
        return head.decode("latin-1")


_NOT_CONTROLS = bytes(
    b for b in range(256) if (b >= 0x20 and b != 0x7F) or b in b"\b\t\n\v\f\r\x1a\x1b"
)


def _share_of_controls(head: bytes) -> float:
    return len(head.translate(None, _NOT_CONTROLS)) / len(head)


_PROLOGUE = re.compile(r"\s*(?:<\?[^>]{0,2000}\?>\s*|<!--.{0,8000}?-->\s*)*", re.DOTALL)
_HTML = re.compile(r"<(?:!doctype\s+html|html[\s>/])", re.IGNORECASE)
_HTML_FRAGMENT = re.compile(
    r"<(?:head|body|title|meta|script|style|table|div|h1|p|br)[\s>/]", re.IGNORECASE
)
_MBOX = re.compile(r"From \S{1,300} ([^\n]{1,300})\n[\w-]+:")
_CLOCK = re.compile(r"\d\d:\d\d")
_FIELD = re.compile(r"([!-9;-~]{1,70}):(?:[ \t]|\r?$)")
_PROOF_OF_MAIL = frozenset(
    [
        "message-id",
        "received",
        "mime-version",
        "return-path",
        "delivered-to",
        "x-mailer",
        "dkim-signature",
    ]
)
_MAIL_FIELDS = _PROOF_OF_MAIL | frozenset(
    [
        "from",
        "to",
        "cc",
        "bcc",
        "subject",
        "date",
        "reply-to",
        "sender",
        "content-type",
        "content-transfer-encoding",
    ]
)


def _kind_of_text(text: str, name: str) -> str:
    suffix = PurePath(name).suffix.lower()
    markup = _kind_of_markup(text, suffix)
    if markup:
        return markup
    separator = _MBOX.match(text)
    if separator and _CLOCK.search(separator[1]):
        return "application/mbox"
    if _is_mail(text, suffix == ".eml"):
        return "message/rfc822"
    return _TEXT_SUFFIXES.get(suffix, "text/plain")


def _kind_of_markup(text: str, suffix: str) -> str | None:
    start = text.lstrip()[:1]
    if start != "<":
        return None
    declared = text.lstrip().startswith("<?xml")
    prologue = _PROLOGUE.match(text)
    body = text[prologue.end() if prologue else 0 :][:2000]
    if _HTML.match(body):
        return "application/xhtml+xml" if declared else "text/html"
    if not declared and suffix != ".xml" and _HTML_FRAGMENT.match(body):
        return "text/html"
    if declared or re.match(r"<!DOCTYPE\s+\w", body) or suffix in (".xml", ".svg", ".rss"):
        return "application/xml"
    return None


def _is_mail(text: str, claimed: bool) -> bool:
    fields: set[str] = set()
    for line in text[:16_384].lstrip("\r\n").split("\n"):
        if not line.strip():
            break
        if line[0] in " \t" and fields:
            continue
        match = _FIELD.match(line)
        if match is None:
            return False
        fields.add(match[1].lower())
    known = fields & _MAIL_FIELDS
    return len(known) >= 2 and bool(claimed or known & _PROOF_OF_MAIL)
