"""PowerPoint presentations: a slide is a page, its notes belong to it."""

from __future__ import annotations

import re

from doc_classify.errors import DamagedError
from doc_classify.extraction.archive import Archive
from doc_classify.extraction.markup import Dialect, Role, parse_tree
from doc_classify.extraction.zipped.parts import Found, main_part, relations

DIALECT = Dialect(
    {
        "t": Role.TEXT,
        "cm": Role.BLOCK,
        "text": Role.TEXT,  # of a comment
        "p": Role.PARAGRAPH,
        "tr": Role.ROW,
        "tc": Role.CELL,
        "tab": Role.TAB,
        "br": Role.BREAK,
        "pPr": Role.SKIP,
        "rPr": Role.SKIP,
        "endParaRPr": Role.SKIP,
        "tcPr": Role.SKIP,
        "Fallback": Role.SKIP,
    }
)
_WITH_SLIDES = ("diagramData", "chart", "notesSlide", "comments")
_RELATION = re.compile(r"\{[^}]*officeDocument/(?:2006/)?relationships\}id")
_SLIDE = re.compile(r"ppt/slides/slide(\d{1,9})\.xml", re.IGNORECASE)


def read(archive: Archive, found: Found) -> None:
    """Fill ``found`` with the selected slides."""
    found.read_metadata(archive, "docProps/core.xml")
    slides = _slides(archive)
    if not slides:
        raise DamagedError("the presentation has no slides")
    found.page_count = len(slides)
    for index in found.options.pages.indices(len(slides)):
        if not found.left:
            found.truncated = True
            break
        found.pages.append((index + 1, _slide(archive, found, slides[index])))


def _slide(archive: Archive, found: Found, name: str) -> str:
    texts = [found.collect(archive, name, DIALECT).text]
    for kind, part in relations(archive, name).values():
        if kind in _WITH_SLIDES and part in archive and found.left:
            texts.append(found.collect(archive, part, DIALECT).text)
    return "\n".join(texts)


def _slides(archive: Archive) -> list[str]:
    """The parts of the slides, in the order of the show; by number where that is broken."""
    main = main_part(archive, "ppt/presentation.xml")
    related = relations(archive, main)
    slides: list[str] = []
    try:
        tree = parse_tree(archive.read(main))
    except DamagedError:
        tree = None
    for element in tree.iter("{*}sldId") if tree is not None else ():
        identity = next((v for k, v in element.items() if _RELATION.fullmatch(k)), "")
        kind, name = related.get(identity, ("", ""))
        if kind == "slide" and name in archive:
            slides.append(name)
    if slides:
        return slides
    numbered = [(match, name) for name in archive.names() if (match := _SLIDE.fullmatch(name))]
    return [name for _, name in sorted(numbered, key=lambda pair: int(pair[0][1]))]
