"""The extractors that are installed: entry points in the group ``doc_classify.extractors``."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from doc_classify.errors import ConfigurationError
from doc_classify.extraction.base import Extractor

GROUP = "doc_classify.extractors"


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
