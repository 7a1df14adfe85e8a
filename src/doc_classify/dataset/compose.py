"""Composes documents: reads the layouts in ``content/*.toml`` and fills them with facts.

A layout is a row of steps: ``para POOL 2-4`` makes one paragraph of two to four sentences of that
pool, ``sections GROUP 3-5`` that many headed sections, ``more GROUP`` marks where the document
grows until it has its pages; the others are in :data:`_STEPS` below.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from doc_classify.dataset.facts import Facts
from doc_classify.dataset.grammar import pick, some, tidy
from doc_classify.dataset.model import (
    Block,
    Content,
    Fields,
    Heading,
    Listing,
    Paragraph,
    Table,
    block_lines,
)
from doc_classify.dataset.tables import TABLE_NAMES, make_table

CATEGORIES = (
    "invoices",
    "contracts",
    "reports",
    "correspondence",
    "research",
    "compliance",
    "other",
)
LANGUAGES = ("en", "de", "fr")
WORDS_PER_PAGE = 400

_HEADINGS = {
    "summary": "[Summary|Executive summary|Overview|Key points]",
    "outlook": "[Outlook|Prospects|What comes next]",
    "abstract": "[Abstract|Summary]",
}
_REFERENCES = {"en": "[References|Literature]", "de": "Literatur", "fr": "Références"}
_QUOTED = "On {past} at {time}, {p2} wrote:"


@cache
def _language(language: str) -> dict[str, Any]:
    content = files("doc_classify.dataset").joinpath("content")
    if language != "en":
        return tomllib.loads(content.joinpath(f"{language}.toml").read_text("utf-8"))
    return {
        name: tomllib.loads(content.joinpath(f"en/{name}.toml").read_text("utf-8"))
        for name in (*CATEGORIES, "common")
    }


@cache
def _entries(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def compose(rng: random.Random, category: str, language: str, pages: int) -> Content:
    """One document of about ``pages`` pages; everything in it follows from ``rng``."""
    return _Composer(rng, category, language, pages).compose()


class _Composer:
    def __init__(self, rng: random.Random, category: str, language: str, pages: int) -> None:
        self.rng = rng
        self.facts = Facts(rng, language)
        self.language = language
        self.category = category
        self.pages = pages
        loaded = _language(language)
        self._own = loaded[category]
        self._common = loaded["common"]
        self._used: dict[str, list[tuple[str, str]]] = {}
        kinds = list(self._own["kinds"].values())
        self.kind: dict[str, Any] = rng.choices(kinds, [kind["weight"] for kind in kinds])[0]
        # Bills grow by their items, where a kind has no other way.
        grows = "more" in self.kind["layout"] or "grow" in self.kind
        self._rows = rng.randint(2, 9) if pages < 2 or grows else pages * 32

    def compose(self) -> Content:
        facts = self.facts
        title = self._text(pick(self.rng, _entries(self.kind["title"])))
        content = Content(
            category=self.category,
            language=self.language,
            title=title,
            author=facts("p1"),
            organisation=facts("a"),
            sender=(facts("p1"), facts.email()),
            recipient=(facts("p2"), facts.email("p2", "b")),
            written=facts.written,
            reference=facts("ref"),
        )
        growth: tuple[int, list[str]] | None = None
        for step in self._steps(self.kind["layout"]):
            if step[0] == "more":
                growth = (len(content.blocks), ["sections", step[1], "3-5"])
            elif step[0] == "more_paras":
                growth = (len(content.blocks), ["para", step[1], f"{step[2]}-6"])
            else:
                content.blocks += self._run(step)
        if growth is None and "grow" in self.kind:
            growth = (max(1, len(content.blocks) - 1), [])
        if growth is not None:
            self._grow(content, *growth)
        return content

    def _grow(self, content: Content, position: int, step: list[str]) -> None:
        missing = int((self.pages - 0.4) * WORDS_PER_PAGE) - content.words
        if self.pages < 2:
            return
        steps = [step] if step else self._steps(self.kind["grow"])
        grown: list[Block] = []
        while missing > 0:
            for each in steps:
                made = self._run(each)
                grown += made
                missing -= sum(len(line.split()) for block in made for line in block_lines(block))
                missing -= 4  # headings and gaps take room as well, and every round must end
        content.blocks[position:position] = grown

    @staticmethod
    def _steps(layout: str) -> list[list[str]]:
        return [step.split() for step in layout.split("|")]

    def _run(self, step: list[str]) -> list[Block]:
        name, *arguments = step
        if name == "table":
            name = arguments[0]
        if name in TABLE_NAMES:
            rows = self._rows if name in {"items", "timesheet"} else self.rng.randint(3, 8)
            return [make_table(name, self.facts, rows)]
        low, _, high = (arguments[1] if len(arguments) > 1 else "1").partition("-")
        pool = arguments[0] if arguments else ""
        return _STEPS[name](self, pool, int(low), int(high or low))

    def _text(self, template: str) -> str:
        return tidy(self.facts.say(template), self.language)

    def _some(self, pool: str, low: int, high: int) -> list[str]:
        source = self._own["pools"].get(pool) or self._common["pools"][pool]
        chosen = some(self.rng, _entries(source), low, high)
        return [self._text(entry) for entry in chosen]

    def _paragraph(self, pool: str, low: int, high: int) -> list[Block]:
        sentences = self._some(pool, low, high)
        return [Paragraph(" ".join(sentences))] if sentences else []

    def _paragraphs(self, pool: str, low: int, high: int) -> list[Block]:
        return [Paragraph(text) for text in self._some(pool, low, high)]

    def _list(self, pool: str, low: int, high: int) -> list[Block]:
        return [Listing(tuple(self._some(pool, low, high)))]

    def _numbered(self, pool: str, low: int, high: int) -> list[Block]:
        return [Listing(tuple(self._some(pool, low, high)), numbered=True)]

    def _fields(self, pool: str, low: int, high: int) -> list[Block]:
        pairs = []
        for line in self._some(pool, low, high):
            label, _, value = line.partition(": ")
            pairs.append((label.strip(), value.strip()))
        return [Fields(tuple(pairs))]

    def _heading(self, pool: str, low: int, high: int) -> list[Block]:
        return [Heading(self._text(_HEADINGS[pool]))]

    def _sections(self, group: str, low: int, high: int) -> list[Block]:
        blocks: list[Block] = []
        for _ in range(self.rng.randint(low, high)):
            left = self._used.get(group)
            if not left:  # all used: start over, with other sentences and figures
                left = list(self._own["sections"][group].items())
                self.rng.shuffle(left)
                self._used[group] = left
            heading, sentences = left.pop()
            entries = _entries(sentences)
            chosen = some(self.rng, entries, min(2, len(entries)), len(entries))
            blocks.append(Heading(self._text(heading)))
            blocks.append(Paragraph(" ".join(map(self._text, chosen))))
        return blocks

    def _noise(self, pool: str, low: int, high: int) -> list[Block]:
        """Now and then a sentence or two that belong to documents of another category."""
        blocks: list[Block] = []
        topics = [name for name in self._common["noise"] if name != self.category]
        while self.rng.random() < 0.55 and len(blocks) < 2:
            entries = _entries(self._common["noise"][pick(self.rng, topics)])
            blocks.append(Paragraph(self._text(pick(self.rng, entries))))
        return blocks

    def _letterhead(self, pool: str, low: int, high: int) -> list[Block]:
        f = self.facts
        return [Paragraph(f"{f('a')} · {f('street')} · {f('city')} · {f('phone')}", small=True)]

    def _addressee(self, pool: str, low: int, high: int) -> list[Block]:
        f = self.facts
        lines = (f("b"), f("p2"), f._street(), f("city2"))
        return [Paragraph(line) for line in lines]

    def _dateline(self, pool: str, low: int, high: int) -> list[Block]:
        return [Paragraph(f"{self.facts('city')}, {self.facts('date')}")]

    def _sign(self, pool: str, low: int, high: int) -> list[Block]:
        return [Paragraph(self.facts("p1"))] if self.rng.random() < 0.5 else []

    def _signatures(self, pool: str, low: int, high: int) -> list[Block]:
        f = self.facts
        line = "_" * 24
        return [Table((f("a"), f("b")), ((line, line), (f("p1"), f("p2"))))]

    def _closing(self, pool: str, low: int, high: int) -> list[Block]:
        [phrase] = self._some("closing", 1, 1)
        name = self.facts("p1" if self.rng.random() < 0.7 else "p1.first")
        return [Paragraph(phrase), Paragraph(name)]

    def _quoted(self, pool: str, low: int, high: int) -> list[Block]:
        if self.rng.random() < 0.5:
            return []
        lines = self._some("body", 1, 3)
        return [Paragraph(self._text(_QUOTED)), *(Paragraph(f"> {line}") for line in lines)]

    def _authors(self, pool: str, low: int, high: int) -> list[Block]:
        f = self.facts
        names = ", ".join(f(person) for person in ("p1", "p2", "p3")[: self.rng.randint(1, 3)])
        return [Paragraph(names), Paragraph(f"University of {f('city')}", small=True)]

    def _references(self, pool: str, low: int, high: int) -> list[Block]:
        f = self.facts
        entries = tuple(
            f.say("{cite}: ")
            + pick(self.rng, f.words["rtopic"]).capitalize()
            + f.say(". [Journal|Annals|Review] of {rfield.cap} {n2}, {n3}–{n4}.")
            for _ in range(self.rng.randint(3, 8))
        )
        return [Heading(f.say(_REFERENCES[self.language])), Listing(entries, numbered=True)]


_STEPS: dict[str, Callable[[_Composer, str, int, int], list[Block]]] = {
    "para": _Composer._paragraph,
    "paras": _Composer._paragraphs,
    "list": _Composer._list,
    "numbered": _Composer._numbered,
    "fields": _Composer._fields,
    "heading": _Composer._heading,
    "sections": _Composer._sections,
    "noise": _Composer._noise,
    "letterhead": _Composer._letterhead,
    "addressee": _Composer._addressee,
    "dateline": _Composer._dateline,
    "sign": _Composer._sign,
    "signatures": _Composer._signatures,
    "closing": _Composer._closing,
    "quoted": _Composer._quoted,
    "authors": _Composer._authors,
    "refs": _Composer._references,
}
