"""A document before it has a format: blocks of text, tables, and what its metadata will say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading below the title."""

    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text. ``small`` is for letterheads, references and other fine print."""

    text: str
    small: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """A list with bullets or numbers."""

    items: tuple[str, ...]
    numbered: bool = False


@dataclass(frozen=True, slots=True)
class Fields:
    """Labels with their values, as at the head of a form."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a header row; cells are text."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = Heading | Paragraph | Listing | Fields | Table


@dataclass(slots=True)
class Content:
    """One document without a format."""

    category: str
    language: str
    title: str
    author: str
    organisation: str
    sender: tuple[str, str]
    recipient: tuple[str, str]
    written: datetime
    reference: str
    blocks: list[Block] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The text line by line, the title left out."""
        for block in self.blocks:
            yield from block_lines(block)

    @property
    def words(self) -> int:
        """Number of words, roughly what fills pages."""
        return sum(len(line.split()) for line in self.lines())


def block_lines(block: Block) -> Iterator[str]:
    """One block as lines of plain text."""
    match block:
        case Heading(text) | Paragraph(text):
            yield text
        case Listing(items, numbered):
            for number, item in enumerate(items, 1):
                yield f"{number}. {item}" if numbered else f"- {item}"
        case Fields(pairs):
            for label, value in pairs:
                yield f"{label}: {value}"
        case Table(header, rows):
            for row in (header, *rows):
                yield "\t".join(row)
