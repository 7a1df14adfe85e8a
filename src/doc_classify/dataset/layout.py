"""Sets a document on pages: for PDF files and for the images of scans, which look alike so.

Positions are in points from the top left corner. Looks vary from document to document: fonts,
sizes, margins, paper, columns, rules of tables, running heads.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from doc_classify.dataset.grammar import pick
from doc_classify.dataset.model import Block, Content, Fields, Heading, Listing, Paragraph, Table

A4 = (595.0, 842.0)
LETTER = (612.0, 792.0)

Measure = Callable[[str, bool, float], float]
"""Width in points of a text, bold or not, at a size."""


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of one line; ``y`` is its base line."""

    x: float
    y: float
    text: str
    bold: bool
    size: float


@dataclass(frozen=True, slots=True)
class Rule:
    """A straight line."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(slots=True)
class Sheet:
    """What stands on one page."""

    texts: list[Text] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Look:
    """How one document looks."""

    family: str
    size: float
    paper: tuple[float, float]
    margin: float
    columns: int
    grid: bool
    running_head: bool
    centred_title: bool

    @classmethod
    def draw(cls, rng: random.Random, content: Content) -> Look:
        """A look that suits the document."""
        paper = content.category == "research" and content.language == "en"
        return cls(
            family=pick(rng, ("Helvetica", "Times", "Helvetica", "Courier", "Vera")),
            size=pick(rng, (9.0, 9.5, 10.0, 10.5, 11.0, 11.5)),
            paper=LETTER if content.language == "en" and rng.random() < 0.4 else A4,
            margin=rng.uniform(45, 80),
            columns=2 if paper and rng.random() < 0.5 else 1,
            grid=rng.random() < 0.5,
            running_head=rng.random() < 0.6,
            centred_title=paper or rng.random() < 0.3,
        )


def set_pages(content: Content, look: Look, measure: Measure) -> list[Sheet]:
    """The pages of the document; at least one."""
    return _Setter(content, look, measure).run()


class _Setter:
    def __init__(self, content: Content, look: Look, measure: Measure) -> None:
        self.content = content
        self.look = look
        self.measure = measure
        self.leading = look.size * 1.32
        gap = 18.0
        full = look.paper[0] - 2 * look.margin
        self.width = (full - gap * (look.columns - 1)) / look.columns
        self._lefts = [look.margin + n * (self.width + gap) for n in range(look.columns)]
        self.bottom = look.paper[1] - look.margin
        self.sheets = [Sheet()]
        self.column = 0
        self.top = look.margin
        self.y = self.top
        self._widths: dict[tuple[str, bool, float], float] = {}

    def run(self) -> list[Sheet]:
        self._title()
        for block in self.content.blocks:
            self._block(block)
        if self.look.running_head and len(self.sheets) > 1:
            head, size = self.content.title[:70], self.look.size - 2
            for number, sheet in enumerate(self.sheets, 1):
                y = self.look.paper[1] - self.look.margin / 2
                sheet.texts.append(Text(self.look.margin, y, head, False, size))
                right = self.look.paper[0] - self.look.margin - 20
                sheet.texts.append(Text(right, y, str(number), False, size))
        return self.sheets

    def _title(self) -> None:
        size = self.look.size * 1.7
        full = self.look.paper[0] - 2 * self.look.margin
        for line in self._wrap(self.content.title, full, True, size):
            self.y += size * 1.2
            offset = (full - self._width(line, True, size)) / 2 if self.look.centred_title else 0.0
            self.sheets[-1].texts.append(Text(self._lefts[0] + offset, self.y, line, True, size))
        self.y += self.leading * 0.6
        self.top = self.y  # the second column begins below the title

    def _block(self, block: Block) -> None:
        size = self.look.size
        match block:
            case Heading(text):
                self._gap(0.7)
                if self.y + 3 * self.leading > self.bottom:
                    self._break()
                self._flow(text, bold=True, size=size + 1)
            case Paragraph(text, small):
                self._flow(text, size=size - 1.5 if small else size)
                self._gap(0.1 if len(text) < 40 else 0.45)
            case Listing(items, numbered):
                for number, item in enumerate(items, 1):
                    self._flow(item, indent=16, mark=f"{number}." if numbered else "•")
                self._gap(0.4)
            case Fields(pairs):
                for label, value in pairs:
                    self._flow(value, indent=min(130, self.width * 0.45), mark=f"{label}:")
                self._gap(0.6)
            case Table():
                self._table(block)

    def _gap(self, lines: float) -> None:
        self.y += self.leading * lines

    def _break(self) -> None:
        if self.column + 1 < self.look.columns:
            self.column += 1
        else:
            self.column = 0
            self.sheets.append(Sheet())
            self.top = self.look.margin
        self.y = self.top

    def _line(self) -> Sheet:
        if self.y + self.leading > self.bottom:
            self._break()
        self.y += self.leading
        return self.sheets[-1]

    def _flow(
        self,
        text: str,
        *,
        bold: bool = False,
        size: float | None = None,
        indent: float = 0,
        mark: str = "",
    ) -> None:
        size = size or self.look.size
        for number, line in enumerate(self._wrap(text, self.width - indent, bold, size) or [""]):
            sheet = self._line()
            left = self._lefts[self.column]
            if mark and number == 0:
                sheet.texts.append(Text(left, self.y, mark, False, size))
                if self._width(mark, False, size) > indent - 4:
                    sheet = self._line()
            sheet.texts.append(Text(self._lefts[self.column] + indent, self.y, line, bold, size))

    def _table(self, table: Table) -> None:
        size = self.look.size - 0.5
        rows = (table.header, *table.rows)
        natural = [
            max(self._width(row[n], True, size) for row in rows) + 10
            for n in range(len(table.header))
        ]
        # Narrow columns keep their width; wide ones share what is left of the line.
        if sum(natural) > self.width:
            share = self.width / len(natural)
            rest = self.width - sum(min(width, share) for width in natural)
            wide = sum(max(0.0, width - share) for width in natural) or 1.0
            natural = [
                width if width <= share else share + rest * (width - share) / wide
                for width in natural
            ]
        self._gap(0.3)
        for number, row in enumerate(rows):
            cells = [
                self._wrap(cell, natural[n] - 6, number == 0, size) for n, cell in enumerate(row)
            ]
            height = max(1, *map(len, cells)) * self.leading
            if self.y + height > self.bottom:
                self._break()
            left, sheet = self._lefts[self.column], self.sheets[-1]
            for width, lines in zip(natural, cells, strict=True):
                for offset, line in enumerate(lines, 1):
                    y = self.y + offset * self.leading
                    sheet.texts.append(Text(left, y, line, number == 0, size))
                left += width
            self.y += height
            if self.look.grid or number == 0:
                y, start = self.y + 3, self._lefts[self.column]
                sheet.rules.append(Rule(start, y, start + min(sum(natural), self.width), y))
        self._gap(0.6)

    def _width(self, text: str, bold: bool, size: float) -> float:
        key = (text, bold, size)
        if (known := self._widths.get(key)) is None:
            known = self._widths[key] = self.measure(text, bold, size)
        return known

    def _wrap(self, text: str, width: float, bold: bool, size: float) -> list[str]:
        space = self._width(" ", bold, size)
        lines: list[str] = []
        line: list[str] = []
        used = 0.0
        for word in text.split(" "):
            wide = self._width(word, bold, size)
            if line and used + space + wide > width:
                lines.append(" ".join(line))
                line, used = [], 0.0
            used += wide + (space if line else 0.0)
            line.append(word)
        return [*lines, " ".join(line)] if line else lines
