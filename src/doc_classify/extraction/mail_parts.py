"""A message taken apart, whatever file it came from, and the text that it makes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from doc_classify.errors import ConfigurationError, DocClassifyError
from doc_classify.extraction.base import Document
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.records import Problem
from doc_classify.sniffing import sniff_bytes

_MOST_READ = 50


@dataclass
class Mail:
    """Headers by name, bodies, and attachments as (name, function that gives the bytes)."""

    headers: dict[str, str]
    bodies: list[str] = field(default_factory=list)
    attachments: list[tuple[str, Callable[[], bytes]]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    sent: datetime | None = None


def as_text(mail: Mail) -> str:
    """Headers, bodies and the names of attachments, as a printed message has them."""
    lines = [f"{name}: {value}" for name, value in mail.headers.items()]
    if mail.attachments:
        names = ", ".join(" ".join(name.split()) for name, _ in mail.attachments[:100])
        lines.append(f"Attachments: {names}")
    return "\n".join([*lines, "", *mail.bodies])


def read_attachments(mail: Mail, options: ExtractionOptions, problems: list[Problem]) -> str:
    """The text of the attachments where ``options`` ask for it; what fails is a problem."""
    if not options.attachments:
        return ""
    # Attachments of attachments are named by the inner message, and not opened.
    inner = replace(options, attachments=False)
    texts: list[str] = []
    for name, read in mail.attachments[:_MOST_READ]:
        try:
            text = _read(name, read(), inner)
        except ConfigurationError:
            raise
        except DocClassifyError as error:
            problems.append(Problem(error.kind, f"attachment {name!r}: {error}"))
            continue
        texts.append(f"\n\nAttachment: {name}\n{text}")
    if len(mail.attachments) > _MOST_READ:
        message = f"only the first {_MOST_READ} attachments were read"
        problems.append(Problem("limit_exceeded", message))
    return "".join(texts)


def _read(name: str, data: bytes, options: ExtractionOptions) -> str:
    from doc_classify.extraction.reading import extract  # reading knows us, through the registry

    with tempfile.NamedTemporaryFile(prefix="doc-classify-") as file:
        file.write(data)
        file.flush()
        path = Path(file.name)
        media_type = sniff_bytes(data, name)
        return extract(Document(path=path, name=name, media_type=media_type), options).text
