"""OpenDocument texts, presentations and drawings."""

from __future__ import annotations

from dataclasses import replace

from doc_classify.errors import EncryptedError
from doc_classify.extraction.archive import Archive
from doc_classify.extraction.markup import Dialect, Role
from doc_classify.extraction.zipped.parts import Found

_DUBLIN = "{http://purl.org/dc/elements/1.1/}"
_ROLES = {
    "p": Role.PARAGRAPH,
    "h": Role.PARAGRAPH,
    "table-row": Role.ROW,
    "table-cell": Role.CELL,
    "tab": Role.TAB,
    "line-break": Role.BREAK,
    "s": Role.SPACES,
    "text-box": Role.BLOCK,
    "note-body": Role.BLOCK,
    "note-citation": Role.SKIP,
    "page-number": Role.SKIP,
    "tracked-changes": Role.SKIP,  # deleted text is kept there
    "annotation": Role.BLOCK,
    # Who commented and when; fields of the same names in other namespaces are text.
    f"{_DUBLIN}creator": Role.SKIP,
    f"{_DUBLIN}date": Role.SKIP,
    "creator-initials": Role.SKIP,
    "sender-initials": Role.SKIP,
    "script": Role.SKIP,
}
_BODY = Dialect({**_ROLES, "body": Role.ONLY}, paragraph_is_text=True, only=True)
_PAGES = replace(_BODY, roles={**_BODY.roles, "page": Role.PAGE})
_MARGINS = Dialect(
    {**_ROLES, **dict.fromkeys(("header", "footer", "header-left", "footer-left"), Role.ONLY)},
    paragraph_is_text=True,
    only=True,
)


def read_text(archive: Archive, found: Found) -> None:
    """Fill ``found`` with one page: texts have no pages of their own."""
    prepare(archive, found)
    texts = [found.collect(archive, "content.xml", _BODY).text]
    if "styles.xml" in archive and found.left:
        texts.append(found.collect(archive, "styles.xml", _MARGINS).text)
    found.pages.append((1, "\n".join(texts)))


def read_pages(archive: Archive, found: Found) -> None:
    """Fill ``found`` with the selected slides, or sheets of a drawing."""
    prepare(archive, found)
    pages = found.collect(archive, "content.xml", _PAGES).pages
    found.page_count = None if found.truncated else len(pages)
    found.pages += [(index + 1, pages[index]) for index in found.options.pages.indices(len(pages))]


def prepare(archive: Archive, found: Found) -> None:
    """Refuse an encrypted document; read the metadata."""
    manifest = "META-INF/manifest.xml"
    if manifest in archive and b"encryption-data" in archive.read(manifest):
        raise EncryptedError("protected by a password")
    found.read_metadata(archive, "meta.xml")
