"""The extractors that are installed: entry points in the group ``doc_classify.extractors``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points

from doc_classify.errors import ConfigurationError
from doc_classify.extraction.base import Extractor

GROUP = "doc_classify.extractors"
_NAME = re.compile(r"[\w.-]+", re.ASCII)
_EXTRA = re.compile(r"extra\s*==\s*[\"']([\w.-]+)[\"']")


@cache
def extractors() -> dict[str, Extractor]:
    """The extractor of each media type, loaded once.

    Where two take the same type, one from another distribution is preferred to ours.

    Raises:
        ConfigurationError: an installed extractor cannot be loaded.
    """
    found: dict[str, Extractor] = {}
    for entry in sorted(entry_points(group=GROUP), key=_rank):
        extractor = _load(entry)
        found.update(dict.fromkeys(extractor.media_types, extractor))
    return found


def supported_media_types() -> frozenset[str]:
    """All media types that some installed extractor takes."""
    return frozenset(extractors())


@dataclass(frozen=True, slots=True)
class Engine:
    """An installed extractor, and whether what it needs is there.

    ``missing`` names the distributions of its extra that are not installed.
    """

    name: str
    media_types: frozenset[str]
    extra: str | None
    missing: tuple[str, ...]

    @property
    def available(self) -> bool:
        """Whether documents of its types can be read."""
        return not self.missing


def installed_engines() -> tuple[Engine, ...]:
    """What can be read here, and what could be if an extra were installed, by name.

    Raises:
        ConfigurationError: an installed extractor cannot be loaded.
    """
    found: dict[str, Engine] = {}
    for entry in sorted(entry_points(group=GROUP), key=_rank):
        extractor = _load(entry)
        missing = _missing(entry, extractor.extra) if extractor.extra else ()
        found[extractor.name] = Engine(
            extractor.name, extractor.media_types, extractor.extra, missing
        )
    return tuple(sorted(found.values(), key=lambda engine: engine.name))


def _missing(entry: EntryPoint, extra: str) -> tuple[str, ...]:
    """Distributions of ``extra`` (core metadata, ``Requires-Dist``) that are not installed."""
    missing: list[str] = []
    for requirement in (entry.dist.requires if entry.dist else None) or ():
        marker = _EXTRA.search(requirement)
        name = _NAME.match(requirement)
        if marker and name and marker[1] == extra:
            try:
                distribution(name[0])
            except PackageNotFoundError:
                missing.append(name[0])
    return tuple(missing)


def _rank(entry: EntryPoint) -> tuple[bool, str]:
    return not entry.value.startswith("doc_classify."), entry.name


def _load(entry: EntryPoint) -> Extractor:
    try:
        extractor: Extractor = entry.load()()
    except Exception as error:
        raise ConfigurationError(
            f"the extractor {entry.name!r} ({entry.value}) cannot be loaded: {error}"
        ) from error
    return extractor
