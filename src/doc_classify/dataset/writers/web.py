"""HTML, XML and EPUB, written out by hand."""

from __future__ import annotations

import random
from html import escape

from doc_classify.dataset.grammar import pick
from doc_classify.dataset.model import Content, Fields, Heading, Listing, Paragraph, Table
from doc_classify.dataset.writers.zipped import make_zip

_MENUS = {
    "en": "Home | Products | News | Contact | Imprint",
    "de": "Start | Produkte | Aktuelles | Kontakt | Impressum",
    "fr": "Accueil | Produits | Actualités | Contact | Mentions légales",
}


def body(content: Content) -> str:
    """The document as elements that HTML and XHTML share."""
    out = [f"<h1>{escape(content.title)}</h1>"]
    for block in content.blocks:
        match block:
            case Heading(text):
                out.append(f"<h2>{escape(text)}</h2>")
            case Paragraph(text):
                out.append(f"<p>{escape(text)}</p>")
            case Listing(items, numbered):
                tag = "ol" if numbered else "ul"
                entries = "".join(f"<li>{escape(item)}</li>" for item in items)
                out.append(f"<{tag}>{entries}</{tag}>")
            case Fields(pairs):
                entries = "".join(
                    f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in pairs
                )
                out.append(f"<dl>{entries}</dl>")
            case Table(header, rows):
                lines = [_row("th", header), *(_row("td", row) for row in rows)]
                out.append(f"<table>{''.join(lines)}</table>")
    return "\n".join(out)


def _row(tag: str, cells: tuple[str, ...]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def write_html(content: Content, rng: random.Random) -> tuple[bytes, None]:
    """A web page, with a menu and a footer around the document now and then."""
    charset = pick(rng, ("utf-8", "utf-8", "windows-1252"))
    around = rng.random() < 0.5
    menu = f"<nav>{escape(_MENUS[content.language])}</nav>\n" if around else ""
    footer = f"\n<footer>© {content.written.year} {escape(content.organisation)}</footer>"
    page = (
        f'<!DOCTYPE html>\n<html lang="{content.language}">\n<head>\n<meta charset="{charset}">\n'
        f"<title>{escape(content.title)}</title>\n"
        f'<meta name="author" content="{escape(content.author)}">\n'
        "<style>body { font-family: sans-serif }</style>\n"
        '<script>var page = "loaded";</script>\n</head>\n<body>\n'
        f"{menu}{body(content)}{footer if around else ''}\n</body>\n</html>\n"
    )
    return page.encode(charset, "xmlcharrefreplace"), None


def write_xml(content: Content, rng: random.Random) -> tuple[bytes, None]:
    """An XML document of a home-made vocabulary, or DocBook."""
    if rng.random() < 0.5:
        root, title, part = "article", "title", "para"
        namespace = ' xmlns="http://docbook.org/ns/docbook" version="5.0"'
    else:
        root, title, part, namespace = "document", "subject", "text", ""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<{root}{namespace} xml:lang="{content.language}">',
        f"  <{title}>{escape(content.title)}</{title}>",
        f"  <author>{escape(content.author)}</author>",
        f"  <date>{content.written:%Y-%m-%d}</date>",
    ]
    lines += (f"  <{part}>{escape(line)}</{part}>" for line in content.lines())
    return "\n".join([*lines, f"</{root}>", ""]).encode(), None


def write_epub(content: Content, rng: random.Random) -> tuple[bytes, int]:
    """An electronic book of one chapter."""
    title, identifier = escape(content.title), f"urn:ref:{rng.getrandbits(64):016x}"
    language = content.language
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    package = (
        f'{head}<package xmlns="http://www.idpf.org/2007/opf" version="3.0" '
        'unique-identifier="id"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f'<dc:identifier id="id">{identifier}</dc:identifier><dc:title>{title}</dc:title>'
        f"<dc:language>{language}</dc:language><dc:creator>{escape(content.author)}</dc:creator>"
        f'<meta property="dcterms:modified">{content.written:%Y-%m-%dT%H:%M:%SZ}</meta>'
        '</metadata><manifest><item id="c1" href="chapter.xhtml" '
        'media-type="application/xhtml+xml"/><item id="nav" href="nav.xhtml" '
        'media-type="application/xhtml+xml" properties="nav"/></manifest>'
        '<spine><itemref idref="c1"/></spine></package>'
    )
    navigation = (
        f'{head}<html xmlns="http://www.w3.org/1999/xhtml" '
        'xmlns:epub="http://www.idpf.org/2007/ops"><head><title>Contents</title></head><body>'
        f'<nav epub:type="toc"><ol><li><a href="chapter.xhtml">{title}</a></li></ol></nav>'
        "</body></html>"
    )
    chapter = (
        f'{head}<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="{language}"><head>'
        f"<title>{title}</title></head><body>{body(content)}</body></html>"
    )
    container = (
        f'{head}<container version="1.0" '
        'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile '
        'full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/>'
        "</rootfiles></container>"
    )
    return make_zip(
        [
            ("mimetype", b"application/epub+zip"),
            ("META-INF/container.xml", container.encode()),
            ("OEBPS/content.opf", package.encode()),
            ("OEBPS/nav.xhtml", navigation.encode()),
            ("OEBPS/chapter.xhtml", chapter.encode()),
        ]
    ), 1
