"""The facts of one document: who, where, when and how much, consistent from page to page."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from doc_classify.dataset.grammar import expand, pick

Words = dict[str, tuple[str, ...]]

_CURRENCIES = {
    "en": ("EUR {}", "€{}", "£{}", "${}", "USD {}", "GBP {}", "CHF {}", "SEK {}", "A${}"),
    "de": ("{} €", "EUR {}", "{} EUR", "CHF {}"),
    "fr": ("{} €", "{} EUR", "{} CHF"),
}
_DATES = {
    "en": ("{d} {B} {Y}", "{B} {d}, {Y}", "{Y}-{m:02}-{d:02}", "{d:02}/{m:02}/{Y}", "{d} {b} {Y}"),
    "de": ("{d}. {B} {Y}", "{d:02}.{m:02}.{Y}", "{d}.{m}.{Y}"),
    "fr": ("{d} {B} {Y}", "{d:02}/{m:02}/{Y}"),
}
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


@lru_cache(maxsize=1)
def _load_words() -> dict[str, Any]:
    text = files("doc_classify.dataset").joinpath("content/words.toml").read_text("utf-8")
    return tomllib.loads(text)


@cache
def words(language: str) -> Words:
    """The word lists of a language with those that all languages share."""
    loaded = _load_words()
    return {
        name: tuple(word.strip() for word in text.split(","))
        for name, text in (loaded["shared"] | loaded[language]).items()
    }


class Facts:
    """Answers every ``{name}`` of a template; the same name is the same person all through."""

    def __init__(self, rng: random.Random, language: str) -> None:
        self.rng = rng
        self.language = language
        self.words = words(language)
        self.written = datetime(2012, 1, 2) + timedelta(minutes=rng.randrange(13 * 365 * 24 * 60))
        self.money_format = pick(rng, _CURRENCIES[language])
        self._date_format = pick(rng, _DATES[language])
        self._magnitude = 10 ** rng.uniform(1.5, 5)
        lists, area = self.words, rng.randint(30, 49)
        self._fixed: dict[str, str] = {
            "a": self._company(),
            "b": self._company(),
            "city": pick(rng, lists["city"]),
            "city2": pick(rng, lists["city"]),
            "ref": self._reference(),
            "order": f"{rng.randrange(10**5, 10**7)}",
            "date": self.date(self.written),
            "year": str(self.written.year),
            "year+1": str(self.written.year + 1),
            "days": str(pick(rng, (7, 10, 14, 20, 30, 45, 60))),
            "rtopic": pick(rng, lists["rtopic"]),
            "rfield": pick(rng, lists["rfield"]),
            "ctopic": pick(rng, lists["ctopic"]),
            "street": self._street(),
            "iban": self._iban(),
            "bic": "".join(pick(rng, _LETTERS) for _ in range(8)),
            "vat": pick(rng, ("GB", "DE", "FR", "IE", "NL", "SE"))
            + f"{rng.randrange(10**8, 10**9)}",
            "phone": f"+{area} {rng.randrange(10, 999)} {rng.randrange(10**5, 10**7)}",
            "bank": pick(rng, lists["last"]) + " Bank",
        }
        for person in ("p1", "p2", "p3"):
            first, last = pick(rng, lists["first"]), pick(rng, lists["last"])
            self._fixed |= {
                person: f"{first} {last}",
                f"{person}.first": first,
                f"{person}.last": last,
            }
        self._few = {
            name: tuple(pick(rng, lists[name]) for _ in range(2))
            for name in ("product", "topic", "industry", "rvar", "dept", "role", "dish")
        }

    def __call__(self, name: str) -> str:
        """The fact of this name."""
        if (known := self._fixed.get(name)) is not None:
            return known
        if name.endswith(".cap"):
            text = self(name[:-4])
            return text[:1].upper() + text[1:]
        if (few := self._few.get(name)) is not None:
            chosen = pick(self.rng, few)
            return expand(chosen, self.rng, self) if "{" in chosen else chosen
        return _FRESH[name](self)

    def say(self, template: str) -> str:
        """A template expanded with these facts."""
        return expand(template, self.rng, self)

    def date(self, when: datetime) -> str:
        """A date in this document's notation."""
        name = self.words["month"][when.month - 1]
        return self._date_format.format(d=when.day, m=when.month, Y=when.year, B=name, b=name[:3])

    def date_near(self, low: int, high: int) -> str:
        """A date between ``low`` and ``high`` days from the document's own."""
        return self.date(self.written + timedelta(days=self.rng.randint(low, high)))

    def number(self, value: float, decimals: int = 0) -> str:
        """A number in the notation of the language."""
        text = f"{value:,.{decimals}f}"
        if self.language == "de":
            return text.translate(_GERMAN)
        return text.translate(_FRENCH) if self.language == "fr" else text

    def money(self, value: float) -> str:
        """An amount with its currency."""
        return self.money_format.format(self.number(value, 2))

    def amount(self) -> float:
        """An amount of the size that this document deals in."""
        return round(self._magnitude * self.rng.uniform(0.2, 5), 2)

    def email(self, person: str = "p1", company: str = "a") -> str:
        """An address of a person at a company."""
        local = f"{self._fixed[person + '.first']}.{self._fixed[person + '.last']}"
        domain = self._fixed[company].split(" ")[0]
        return f"{_ascii(local)}@{_ascii(domain)}.example"

    def _company(self) -> str:
        rng, lists = self.rng, self.words
        form = pick(rng, lists["form"])
        kind = rng.random()
        if kind < 0.35:
            return f"{pick(rng, lists['last'])} {form}"
        if kind < 0.6:
            return f"{pick(rng, lists['last'])} {pick(rng, lists['trade'])} {form}"
        name = pick(rng, lists["stem"]) + pick(rng, lists["tail"])
        return f"{name} {form}" if kind < 0.8 else f"{name} {pick(rng, lists['trade'])} {form}"

    def _reference(self) -> str:
        rng = self.rng
        prefix, year = pick(rng, self.words["number_words"]), self.written.year
        return pick(
            rng,
            (
                f"{prefix}-{year}-{rng.randrange(10**5):05}",
                f"{prefix}{rng.randrange(10**5, 10**8)}",
                f"{year}/{rng.randrange(10**5):05}",
                f"{rng.randrange(10**6, 10**8)}",
            ),
        )

    def _street(self) -> str:
        number, name = self.rng.randint(1, 180), pick(self.rng, self.words["street"])
        return f"{name} {number}" if self.language == "de" else f"{number} {name}"

    def _iban(self) -> str:
        digits = f"{self.rng.randrange(10**19, 10**20)}"
        groups = [digits[i : i + 4] for i in range(0, 20, 4)]
        return f"{pick(self.rng, ('DE', 'FR', 'NL', 'GB'))}{self.rng.randint(10, 99)} " + " ".join(
            groups
        )


_GERMAN = str.maketrans(",.", ".,")
_FRENCH = str.maketrans({",": "\u00a0", ".": ","})
_FOLD = str.maketrans("äöüéèçøíåńł", "aoueecoianl")


def _ascii(text: str) -> str:
    folded = text.lower().translate(_FOLD)
    return "".join(c for c in folded if (c.isascii() and c.isalnum()) or c == ".") or "info"


def _cite(facts: Facts) -> str:
    rng, last = facts.rng, facts.words["last"]
    year = facts.written.year - rng.randint(1, 25)
    return f"{pick(rng, last)} {pick(rng, ('et al.', '& ' + pick(rng, last)))} ({year})"


_FRESH: dict[str, Callable[[Facts], str]] = {
    "month": lambda f: pick(f.rng, f.words["month"]),
    "date2": lambda f: f.date_near(5, 70),
    "past": lambda f: f.date_near(-90, -1),
    "past_year": lambda f: str(f.written.year - f.rng.randint(2, 30)),
    "birth": lambda f: f.date_near(-22000, -8000),
    "time": lambda f: f"{f.rng.randint(7, 21)}:{pick(f.rng, ('00', '05', '10', '15', '30', '45'))}",
    "money": lambda f: f.money(f.amount()),
    "small": lambda f: f.money(pick(f.rng, (5, 10, 12.5, 15, 20, 25, 40, 50))),
    "pct": lambda f: f"{f.number(f.rng.uniform(0.5, 48), f.rng.randint(0, 1))}%",
    "n1": lambda f: str(f.rng.randint(2, 9)),
    "n2": lambda f: str(f.rng.randint(11, 60)),
    "n3": lambda f: str(f.rng.randint(90, 990)),
    "n4": lambda f: f"{f.rng.randrange(1000, 10000)}",
    "n5": lambda f: f"{f.rng.randrange(10**5, 10**8)}",
    "n_q": lambda f: str(f.rng.randint(1, 4)),
    "n_age": lambda f: str(f.rng.randint(50, 95)),
    "n_oven": lambda f: str(pick(f.rng, (160, 170, 180, 200, 220))),
    "big": lambda f: f.number(f.rng.randint(1000, 60000)),
    "dec": lambda f: f.number(f.rng.uniform(0.05, 40), 2),
    "pval": lambda f: pick(f.rng, ("< ", "= ")) + pick(f.rng, ("0.001", "0.03", "0.01", "0.21")),
    "ci": lambda f: f"{f.number(f.rng.uniform(0.1, 1), 2)}–{f.number(f.rng.uniform(1, 3), 2)}",
    "cite": _cite,
    "cite2": _cite,
    "email": lambda f: f.email(),
}
