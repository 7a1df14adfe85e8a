"""EPUB books: a chapter, in the order of reading, is a page."""

from __future__ import annotations

import re

from doc_classify.errors import DamagedError, EncryptedError
from doc_classify.extraction.archive import Archive, resolve
from doc_classify.extraction.markup import parse_tree
from doc_classify.extraction.web import html_text
from doc_classify.extraction.zipped.parts import Found

_CHAPTER = re.compile(r".*\.x?html?", re.IGNORECASE)
_CIPHER = re.compile(rb"EncryptionMethod[^>]*Algorithm\s*=\s*[\"']([^\"']*)")
_FONT_CIPHERS = (b"http://www.idpf.org/2008/embedding", b"http://ns.adobe.com/pdf/enc#RC")


def read(archive: Archive, found: Found) -> None:
    """Fill ``found`` with the selected chapters."""
    encryption = "META-INF/encryption.xml"
    if encryption in archive and any(
        cipher not in _FONT_CIPHERS for cipher in _CIPHER.findall(archive.read(encryption))
    ):
        raise EncryptedError("protected by digital rights management")
    chapters = _chapters(archive, found)
    if not chapters:
        raise DamagedError("the book has no chapters")
    found.page_count = len(chapters)
    for index in found.options.pages.indices(len(chapters)):
        if not found.left:
            found.truncated = True
            break
        try:
            text, cut = html_text(archive.read(chapters[index]))
        except DamagedError as error:
            found.damage.append(f"chapter {index + 1}: {error}")
            continue
        found.took(len(text))
        found.truncated |= cut
        found.pages.append((index + 1, text))


def _chapters(archive: Archive, found: Found) -> list[str]:
    """The parts of the chapters; every HTML part by name where the package does not say."""
    try:
        package = _package(archive)
        found.read_metadata(archive, package)
        tree = parse_tree(archive.read(package))
    except DamagedError as error:
        found.damage.append(str(error))
        return sorted(name for name in archive.names() if _CHAPTER.fullmatch(name))
    items = {
        item.get("id"): resolve(package, item.get("href", "")) for item in tree.iter("{*}item")
    }
    names = [items.get(reference.get("idref"), "") for reference in tree.iter("{*}itemref")]
    return [name for name in names if name and name in archive]


def _package(archive: Archive) -> str:
    container = parse_tree(archive.read("META-INF/container.xml"))
    for element in container.iter("{*}rootfile"):
        name: str = element.get("full-path", "")
        if name in archive:
            return name
    raise DamagedError("the book does not say where its package is")
