"""Word documents: body, text boxes, headers and footers, notes; deleted text is left out."""

from __future__ import annotations

from doc_classify.extraction.archive import Archive
from doc_classify.extraction.markup import Dialect, Role
from doc_classify.extraction.zipped.parts import Found, main_part, relations

DIALECT = Dialect(
    {
        "t": Role.TEXT,
        "p": Role.PARAGRAPH,
        "txbxContent": Role.BLOCK,
        "tr": Role.ROW,
        "tc": Role.CELL,
        "tab": Role.TAB,
        "ptab": Role.TAB,
        "br": Role.BREAK,
        "cr": Role.BREAK,
        "noBreakHyphen": Role.HYPHEN,
        # Properties: what looks like text or deletion in them is formatting.
        "pPr": Role.SKIP,
        "rPr": Role.SKIP,
        "tblPr": Role.SKIP,
        "tblPrEx": Role.SKIP,
        "trPr": Role.SKIP,
        "tcPr": Role.SKIP,
        "sdtPr": Role.SKIP,
        "sectPr": Role.SKIP,
        "del": Role.SKIP,
        "moveFrom": Role.SKIP,
        "Fallback": Role.SKIP,  # the same again for old readers
    }
)
_BEFORE = ("header",)
_AFTER = ("diagramData", "chart", "footnotes", "endnotes", "comments", "footer")


def read(archive: Archive, found: Found) -> None:
    """Fill ``found`` with one page: Word documents have no pages of their own."""
    main = main_part(archive, "word/document.xml")
    related = [(kind, name) for kind, name in relations(archive, main).values() if name in archive]
    texts: list[str] = []
    found.read_metadata(archive, "docProps/core.xml")
    texts += _texts(archive, found, related, _BEFORE)
    texts.append(found.collect(archive, main, DIALECT).text)
    texts += _texts(archive, found, related, _AFTER)
    found.pages.append((1, "\n".join(texts)))


def _texts(
    archive: Archive, found: Found, related: list[tuple[str, str]], kinds: tuple[str, ...]
) -> list[str]:
    texts: list[str] = []
    for wanted in kinds:
        for kind, name in related:
            if kind == wanted and found.left:
                text = found.collect(archive, name, DIALECT).text.strip()
                if text and text not in texts:  # first, odd and even pages repeat headers
                    texts.append(text)
    return texts
