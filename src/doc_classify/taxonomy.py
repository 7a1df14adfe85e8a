"""The user's categories: names, descriptions, and optional keywords and examples.

A taxonomy comes from a list of names (``-c invoices,contracts``) or from a file, TOML or JSON::

    [[categories]]
    name = "invoices"
    description = "Bills that ask for payment for goods or services."
    keywords = ["amount due", "VAT"]        # optional
    examples = ["Invoice no. 1234 ..."]     # optional: text of typical documents

    [[categories]]
    name = "other"                          # what is left when nothing fits
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doc_classify.errors import ConfigurationError

OTHER = "other"
"""The category of what fits nowhere else: decided by the lack of evidence, never a topic."""

_MAX_CATEGORIES = 1000
_FIELDS = {"name", "description", "keywords", "examples"}


@dataclass(frozen=True, slots=True)
class Category:
    """One category. ``description`` is one line for a classifier and for people."""

    name: str
    description: str = ""
    keywords: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """An ordered set of categories with unique names."""

    categories: tuple[Category, ...]

    def __post_init__(self) -> None:
        names = [category.name for category in self.categories]
        if len(names) < 2:
            raise ConfigurationError(
                f"a taxonomy needs at least two categories, got {len(names)}: {names}"
            )
        if len(names) > _MAX_CATEGORIES:
            raise ConfigurationError(
                f"a taxonomy takes at most {_MAX_CATEGORIES} categories, got {len(names)}"
            )
        folded: dict[str, str] = {}
        for name in names:
            if not name or not name.isprintable() or name != name.strip() or len(name) > 100:
                raise ConfigurationError(
                    "a category's name is 1 to 100 printable characters without spaces around "
                    f"it, got {name!r}"
                )
            key = " ".join(name.casefold().split())  # as answers are compared with it
            if other := folded.get(key):
                raise ConfigurationError(f"category {name!r} stands twice (also as {other!r})")
            folded[key] = name

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the order given."""
        return tuple(category.name for category in self.categories)

    @property
    def fingerprint(self) -> str:
        """Hex digest that changes whenever anything a classifier sees changes."""
        encoded = json.dumps(self.to_dict(), ensure_ascii=True, sort_keys=True)
        return hashlib.sha256(encoded.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; :meth:`from_dict` reads it back."""
        return {
            "categories": [
                {
                    "name": category.name,
                    "description": category.description,
                    "keywords": list(category.keywords),
                    "examples": list(category.examples),
                }
                for category in self.categories
            ]
        }

    @classmethod
    def from_dict(cls, data: Any, origin: str = "taxonomy") -> Taxonomy:
        """Build a taxonomy from parsed TOML or JSON.

        Raises:
            ConfigurationError: the data has another shape; the message names ``origin``.
        """
        entries = data.get("categories") if isinstance(data, dict) else data
        if not isinstance(entries, list):
            raise ConfigurationError(f"{origin}: expected a list of 'categories'")
        return cls(tuple(_category(entry, origin) for entry in entries))

    @classmethod
    def from_names(cls, names: Iterable[str]) -> Taxonomy:
        """A taxonomy of bare names; those of the default taxonomy bring their descriptions."""
        known = {category.name: category for category in DEFAULT_TAXONOMY.categories}
        stripped = (name.strip() for name in names)
        return cls(tuple(known.get(name, Category(name)) for name in stripped))

    @classmethod
    def from_file(cls, path: str | Path) -> Taxonomy:
        """Read a ``.toml`` or ``.json`` file.

        Raises:
            ConfigurationError: the file is missing, is not valid, or has another shape.
        """
        path = Path(path)
        try:
            raw = path.read_text("utf-8-sig")  # editors of Windows put a mark in front
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read the taxonomy {path}: {error}") from error
        try:
            data = json.loads(raw) if path.suffix.lower() == ".json" else tomllib.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"the taxonomy {path} is not valid: {error}") from error
        return cls.from_dict(data, str(path))


def _category(entry: Any, origin: str) -> Category:
    if isinstance(entry, str):
        return Category(entry)
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ConfigurationError(f"{origin}: a category needs a 'name', got {entry!r}")
    if unknown := set(entry) - _FIELDS:
        raise ConfigurationError(
            f"{origin}: category {entry['name']!r} has unknown fields {sorted(unknown)}; "
            f"known are {sorted(_FIELDS)}"
        )
    description = entry.get("description", "")
    if not isinstance(description, str):
        raise ConfigurationError(f"{origin}: 'description' of {entry['name']!r} must be text")
    lists: dict[str, tuple[str, ...]] = {}
    for name in ("keywords", "examples"):
        values = entry.get(name, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ConfigurationError(
                f"{origin}: {name!r} of {entry['name']!r} must be a list of texts"
            )
        lists[name] = tuple(values)
    return Category(entry["name"], description, **lists)


DEFAULT_TAXONOMY = Taxonomy(
    (
        Category("invoices", "Bills, receipts and payment requests for goods or services."),
        Category("contracts", "Agreements between parties that bind them by signed terms."),
        Category("reports", "Accounts of activities, finances, findings or progress over time."),
        Category("correspondence", "Letters, memos and e-mail from one person to another."),
        Category("research", "Scientific papers, studies, abstracts and theses."),
        Category("compliance", "Policies, regulations, audits and privacy or security rules."),
        Category(OTHER, "Whatever fits none of the other categories."),
    )
)
"""The seven categories used where the user names none."""
