"""Plain text, Markdown, JSON and RTF."""

from __future__ import annotations

import json
import random
import textwrap

from doc_classify.dataset.grammar import pick
from doc_classify.dataset.model import (
    Content,
    Fields,
    Heading,
    Listing,
    Paragraph,
    Table,
    block_lines,
)


def plain(content: Content, *, title: bool = True, width: int = 0) -> str:
    """The document as plain text; lines are broken at ``width``, where given."""
    parts = [content.title] if title else []
    for block in content.blocks:
        lines = list(block_lines(block))
        if width and isinstance(block, Paragraph):
            lines = textwrap.wrap(block.text, width) or [""]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def write_txt(content: Content, rng: random.Random) -> tuple[bytes, None]:
    """Plain text in one of the usual encodings and line endings."""
    text = plain(content, width=pick(rng, (0, 0, 72, 80)))
    if rng.random() < 0.3:
        text = text.replace("\n", "\r\n")
    encoding = pick(rng, ("utf-8",) * 5 + ("utf-8-sig", "cp1252", "cp1252", "utf-16"))
    return text.encode(encoding, "replace"), None


def write_md(content: Content, rng: random.Random) -> tuple[bytes, None]:
    """Markdown, with a YAML head now and then."""
    out = []
    if rng.random() < 0.4:
        title = json.dumps(content.title, ensure_ascii=False)
        out.append(f"---\ntitle: {title}\nauthor: {content.author}\n---")
    out.append(f"# {content.title}")
    for block in content.blocks:
        match block:
            case Heading(text):
                out.append(f"## {text}")
            case Fields(pairs):
                out.append("\n".join(f"**{label}:** {value}  " for label, value in pairs))
            case Table(header, rows):
                lines = [header, ("---",) * len(header), *rows]
                out.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
            case _:
                out.append("\n".join(block_lines(block)))
    return ("\n\n".join(out) + "\n").encode(), None


def write_json(content: Content, rng: random.Random) -> tuple[bytes, None]:
    """The document as an application would export it."""
    parts: list[object] = []
    for block in content.blocks:
        match block:
            case Fields(pairs):
                parts.append(dict(pairs))
            case Table(header, rows):
                parts.append([dict(zip(header, row, strict=True)) for row in rows])
            case Listing(items):
                parts.append(list(items))
            case Heading(text) | Paragraph(text):
                parts.append(text)
    record = {
        "title": content.title,
        "author": content.author,
        "date": f"{content.written:%Y-%m-%d}",
        "content": parts,
    }
    indent = pick(rng, (None, 2))
    return json.dumps(record, ensure_ascii=rng.random() < 0.5, indent=indent).encode(), None


def write_rtf(content: Content, rng: random.Random) -> tuple[bytes, None]:
    """Rich Text Format."""
    created = f"\\yr{content.written.year}\\mo{content.written.month}\\dy{content.written.day}"
    out = [
        "{\\rtf1\\ansi\\ansicpg1252\\deff0{\\fonttbl{\\f0 Arial;}}",
        f"{{\\info{{\\title {_rtf(content.title)}}}{{\\author {_rtf(content.author)}}}"
        f"{{\\creatim{created}}}}}",
        f"\\f0\\fs32\\b {_rtf(content.title)}\\b0\\fs22\\par",
    ]
    for block in content.blocks:
        bold = isinstance(block, Heading)
        for line in block_lines(block):
            text = _rtf(line)
            out.append(f"\\b {text}\\b0\\par" if bold else f"{text}\\par")
    return ("\r\n".join(out) + "}").encode("ascii"), None


def _rtf(text: str) -> str:
    out = []
    for character in text:
        code = ord(character)
        if character in "\\{}":
            out.append(f"\\{character}")
        elif character == "\t":
            out.append("\\tab ")
        elif code < 128:
            out.append(character)
        else:
            for unit in memoryview(character.encode("utf-16-le")).cast("H"):
                out.append(f"\\u{unit if unit < 32768 else unit - 65536}?")
    return "".join(out)
