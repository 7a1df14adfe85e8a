"""HTML, XHTML and XML."""

from __future__ import annotations

import re
from html import unescape
from typing import Any, ClassVar

from doc_classify.errors import DamagedError, LimitExceededError
from doc_classify.extraction.base import Document
from doc_classify.extraction.decoding import decode
from doc_classify.extraction.markup import Collected, Dialect, DoctypeError, collect, parse_tree
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.records import Extraction, Page, Problem

_HTML_BYTES = 10_000_000  # the engine needs forty times as much
_MOST_BYTES = 100_000_000
_INLINE = re.compile(
    rb"data:[\w/.+-]{0,80}(?:;[\w=.+-]{1,80}){0,5};base64,[A-Za-z0-9+/=%\s]{100,}+"
)
_XML_BYTES = 20_000_000
_CHUNK = 65_536
_XML = "application/xml"
_CHARSET = re.compile(
    rb"charset\s*=\s*[\"']?\s*([\w.:-]{1,40})|encoding\s*=\s*[\"']([\w.:-]{1,40})"
)
# XHTML may close these at once; read as HTML they would swallow what follows.
_CLOSED = re.compile(
    r"<(title|script|style|textarea|iframe|noscript|a|div|span|p|i|b|em|td)(\s[^<>]*)?/>",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"</?(?:p|a|b|i|em|strong|ul|li|h\d|div|span|img|br)(?:\s[^<>]{0,2000})?/?>")
_EVERYTHING = Dialect({}, everything_is_text=True)
_AUTHORS = ("author", "dc.creator", "article:author")
_CREATED = ("article:published_time", "dc.date", "dcterms.created", "date")
_MODIFIED = ("article:modified_time", "dcterms.modified", "last-modified")
_TITLES = ("og:title", "dc.title")


class WebExtractor:
    """Reads all visible text of HTML, and all character data of XML."""

    name: ClassVar[str] = "web"
    media_types: ClassVar[frozenset[str]] = frozenset({"text/html", "application/xhtml+xml", _XML})
    extra: ClassVar[str | None] = None

    def extract(self, document: Document, options: ExtractionOptions) -> Extraction:
        """Read one page, or one XML document."""
        if document.media_type == _XML:
            return self._xml(document, options)
        with document.path.open("rb") as file:
            data = file.read(_MOST_BYTES)
        tree, cut = _tree(data)
        meta = _meta(tree)
        return Extraction(
            media_type=document.media_type,
            pages=(Page(1, _text(tree)),),
            engine=self.name,
            title=tree.title or _first(meta, _TITLES),
            author=_first(meta, _AUTHORS),
            created=_first(meta, _CREATED),
            modified=_first(meta, _MODIFIED),
            language=_language(tree) or meta.get("content-language"),
            truncated=cut,
        )

    def _xml(self, document: Document, options: ExtractionOptions) -> Extraction:
        try:
            found = _collect(document, options)
        except DoctypeError:
            found = _with_doctype(document)
        # Indentation belongs to the markup, not to the text.
        text = "\n".join(" ".join(line.split()) for line in found.text.split("\n"))
        if _MARKUP.search(text):  # feeds carry HTML as text
            text = unescape(_MARKUP.sub(" ", text))
        if found.damage and not text.strip():
            raise DamagedError(f"broken XML: {found.damage}")
        return Extraction(
            media_type=document.media_type,
            pages=(Page(1, text),),
            engine=self.name,
            problems=(Problem("damaged", f"broken XML: {found.damage}"),) if found.damage else (),
            truncated=found.truncated,
        )


def html_text(data: bytes) -> tuple[str, bool]:
    """All visible text of a page, and whether the page was too long to be read to its end."""
    tree, cut = _tree(data)
    return _text(tree), cut


def _collect(document: Document, options: ExtractionOptions) -> Collected:
    with document.path.open("rb") as file:
        return collect(
            iter(lambda: file.read(_CHUNK), b""),
            _EVERYTHING,
            max_characters=options.max_characters * 4,
            max_depth=options.max_depth,
        )


def _with_doctype(document: Document) -> Collected:
    """Text of XML that may declare entities: they are left out, and libxml2's limits hold."""
    with document.path.open("rb") as file:
        data = file.read(_XML_BYTES + 1)
    if len(data) > _XML_BYTES:
        raise LimitExceededError(
            f"XML with a document type definition and over {_XML_BYTES // 10**6} MB"
        )
    pieces: list[str] = []
    for element in parse_tree(data).iter():
        if isinstance(element.tag, str):
            pieces.append(element.text or "")
        pieces.append("\n")
        pieces.append(element.tail or "")
    return Collected(["".join(pieces)])


def _tree(data: bytes) -> tuple[Any, bool]:
    """The parsed page, and whether its end was left out."""
    from resiliparse.parse.html import HTMLTree

    if len(data) > _HTML_BYTES:
        data = _INLINE.sub(b"", data)  # pictures inside of the page are most of a long one
    cut = len(data) > _HTML_BYTES
    data = data[:_HTML_BYTES]
    match = _CHARSET.search(data, 0, 4096)
    declared = (match[1] or match[2]).decode("ascii") if match else None
    text = decode(data, declared, cut=cut).replace("\0", "")
    if text.lstrip()[:5] == "<?xml" or "xhtml" in text[:1000].lower():
        text = _CLOSED.sub(r"<\1\2></\1>", text)
    return HTMLTree.parse(text), cut


def _text(tree: Any) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    text: str = extract_plain_text(
        tree, preserve_formatting=True, main_content=False, list_bullets=True, alt_texts=True
    )
    return re.sub(r"\t{2,}", "\t", text)


def _language(tree: Any) -> str | None:
    root = tree.document.query_selector("html") if tree.document else None
    if root is None:
        return None
    value: str | None = root.getattr("lang") or root.getattr("xml:lang")
    return value


def _meta(tree: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for element in tree.head.get_elements_by_tag_name("meta") if tree.head else ():
        name = (
            element.getattr("name")
            or element.getattr("property")
            or element.getattr("http-equiv")
            or ""
        ).lower()
        content = element.getattr("content")
        if name and content and len(found) < 200:
            found.setdefault(name, content)
    return found


def _first(meta: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((meta[name] for name in names if name in meta), None)
