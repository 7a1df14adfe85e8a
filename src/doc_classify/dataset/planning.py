"""Which documents a data set consists of, decided before the first is written."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from doc_classify.dataset.compose import CATEGORIES
from doc_classify.dataset.hostile import KINDS
from doc_classify.dataset.writers import ALL_FORMATS, FORMATS, IMAGE_FORMATS, SCAN_FORMATS
from doc_classify.errors import ConfigurationError

_MOST, _MOST_WORKERS = 1_000_000, 256
DEFAULT_SCANNED, DEFAULT_HOSTILE, DEFAULT_DUPLICATES = 0.05, 0.03, 0.02

# How often a format occurs among office documents; each occurs once before any occurs twice.
_WEIGHTS = {
    "pdf": 26,
    "docx": 14,
    "eml": 10,
    "txt": 8,
    "xlsx": 7,
    "html": 6,
    "pptx": 4,
    "csv": 3,
    "odt": 3,
    "rtf": 3,
    "md": 3,
    "xls": 2,
    "xml": 2,
    "json": 2,
    "ods": 2,
    "odp": 1,
    "epub": 1,
    "mbox": 1,
    "tsv": 1,
}
# Categories that seldom come in a format, where there is a choice.
_TABLES = {"contracts": 0.05, "correspondence": 0.05, "research": 0.3}
_SLIDES = {"invoices": 0.05, "contracts": 0.1, "correspondence": 0.05}
_SELDOM: dict[str, dict[str, float]] = {
    "xlsx": _TABLES,
    "xls": _TABLES,
    "ods": _TABLES,
    "csv": _TABLES,
    "tsv": _TABLES,
    "pptx": _SLIDES,
    "odp": _SLIDES,
    "epub": {"invoices": 0.05, "correspondence": 0.1, "contracts": 0.3},
    "mbox": {"contracts": 0.2, "research": 0.3, "correspondence": 3.0},
    "eml": {"contracts": 0.4, "research": 0.5, "correspondence": 3.0},
}


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """What to generate.

    The shares are of ``count``, which is the number of files in all; what is neither hostile nor
    a duplicate can be scanned.

    ``pages`` is the mean number of pages of a document; ``workers`` processes write in parallel,
    which changes nothing in the files.
    """

    count: int = 100
    seed: int = 0
    formats: tuple[str, ...] = FORMATS
    categories: tuple[str, ...] = CATEGORIES
    scanned: float = DEFAULT_SCANNED
    hostile: float = DEFAULT_HOSTILE
    duplicates: float = DEFAULT_DUPLICATES
    pages: float = 2.0
    workers: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigurationError(f"count must be at least 1, got {self.count}")
        if self.workers < 1:
            raise ConfigurationError(f"workers must be at least 1, got {self.workers}")
        if self.count > _MOST:
            # All files are decided on before the first is written, and held in memory.
            raise ConfigurationError(f"count must be at most {_MOST:,}, got {self.count:,}")
        if self.workers > _MOST_WORKERS:
            raise ConfigurationError(f"workers must be at most {_MOST_WORKERS}")
        if not 1 <= self.pages <= 1000:
            raise ConfigurationError(f"pages must lie between 1 and 1000, got {self.pages}")
        for name, given, known in (
            ("format", self.formats, ALL_FORMATS),
            ("category", self.categories, CATEGORIES),
        ):
            if unknown := [one for one in given if one not in known]:
                raise ConfigurationError(
                    f"unknown {name} {', '.join(map(repr, unknown))}; known are {', '.join(known)}"
                )
            if not given or len(set(given)) != len(given):
                raise ConfigurationError(f"each {name} must be named once, got {list(given)}")
        shares = {
            "scanned": self.scanned,
            "hostile": self.hostile,
            "duplicates": self.duplicates,
        }
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ConfigurationError(f"{name} is a share between 0 and 1, got {share}")
        if self.hostile + self.duplicates > 1:
            raise ConfigurationError("hostile and duplicates add up to more than 1")
        if self.scanned > DEFAULT_SCANNED and not set(self.formats) & set(SCAN_FORMATS):
            raise ConfigurationError(f"scans need one of the formats {', '.join(SCAN_FORMATS)}")


@dataclass(frozen=True, slots=True)
class Job:
    """One file to write; all else follows from the seed and its number."""

    number: int
    category: str
    format: str
    scanned: bool = False
    hostile: str = ""
    first_of_kind: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The files to compose, and for each copy the number of the job that it copies."""

    jobs: tuple[Job, ...]
    copies: tuple[int, ...]


def make_plan(options: DatasetOptions) -> Plan:
    """Decide on format, category and kind of every file."""
    rng = random.Random(f"plan/{options.seed}")  # noqa: S311 - reproducible
    hostile_kinds = [kind for kind in KINDS if set(KINDS[kind]) & set(options.formats)]
    hostile = round(options.count * options.hostile) if hostile_kinds else 0
    copies = min(round(options.count * options.duplicates), options.count - hostile - 1)
    plain = options.count - hostile - max(0, copies)
    scan_formats = [one for one in SCAN_FORMATS if one in options.formats]
    text_formats = [one for one in options.formats if one not in IMAGE_FORMATS]
    scans = min(round(options.count * options.scanned), plain) if scan_formats else 0
    if not text_formats:
        scans = plain

    formats = [(scan_formats[n % len(scan_formats)], True) for n in range(scans)]
    formats += [(one, False) for one in _spread(rng, text_formats, plain - scans)]
    wanted = _even(rng, options.categories, len(formats))
    pairs = _match(rng, formats, wanted)
    rng.shuffle(pairs)
    jobs = [
        Job(number, category, extension, scanned=scanned)
        for number, (extension, scanned, category) in enumerate(pairs)
    ]
    originals = [job.number for job in jobs]
    for number in range(hostile):
        kind = hostile_kinds[number % len(hostile_kinds)]
        choices = [one for one in KINDS[kind] if one in options.formats]
        category = options.categories[number % len(options.categories)]
        extension = rng.choice(choices)
        first = number < len(hostile_kinds)
        jobs.append(Job(len(jobs), category, extension, hostile=kind, first_of_kind=first))
    copied = [rng.choice(originals) for _ in range(copies)] if originals else []
    return Plan(tuple(jobs), tuple(copied))


def _spread(rng: random.Random, formats: Sequence[str], count: int) -> list[str]:
    once = [one for one in _WEIGHTS if one in formats][:count]
    weights = [_WEIGHTS[one] for one in formats]
    return once + rng.choices(formats, weights, k=count - len(once)) if formats else []


def _even(rng: random.Random, categories: Sequence[str], count: int) -> Counter[str]:
    order = rng.sample(categories, len(categories))
    return Counter(order[number % len(order)] for number in range(count))


def _match(
    rng: random.Random, formats: list[tuple[str, bool]], wanted: Counter[str]
) -> list[tuple[str, bool, str]]:
    """Give every format a category, the choosy formats first, until all categories are used up."""
    pairs = []
    names = list(wanted)
    for extension, scanned in sorted(formats, key=lambda one: (one[0] not in _SELDOM, one)):
        seldom = _SELDOM.get(extension, {})
        weights = [wanted[name] * seldom.get(name, 1.0) for name in names]
        category = rng.choices(names, weights)[0]
        wanted[category] -= 1
        pairs.append((extension, scanned, category))
    return pairs
