"""What the readers of zipped XML share: relations between parts, metadata, and what was found."""

from __future__ import annotations

from dataclasses import dataclass, field

from doc_classify.errors import DamagedError
from doc_classify.extraction.archive import Archive, resolve
from doc_classify.extraction.markup import Collected, Dialect, collect, parse_tree
from doc_classify.extraction.options import ExtractionOptions

RAW_PER_CLEAN = 4
"""Raw characters that are collected for each that may be kept after cleaning."""

_METADATA = {
    "title": "title",
    "creator": "author",
    "initial-creator": "author",
    "created": "created",
    "creation-date": "created",
    "modified": "modified",
    "language": "language",
}


@dataclass
class Found:
    """What a reader has found so far."""

    options: ExtractionOptions
    pages: list[tuple[int, str]] = field(default_factory=list)
    page_count: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    truncated: bool = False
    _collected: int = 0

    @property
    def left(self) -> int:
        """Raw characters that still may be collected."""
        return max(0, self.options.max_characters * RAW_PER_CLEAN - self._collected)

    def collect(self, archive: Archive, name: str, dialect: Dialect) -> Collected:
        """The text of a part; a fault in it is noted and what came before it kept."""
        found = collect(
            archive.chunks(name),
            dialect,
            max_characters=self.left,
            max_depth=self.options.max_depth,
        )
        self.took(sum(map(len, found.pages)))
        self.truncated |= found.truncated
        if found.damage:
            self.damage.append(f"{name}: {found.damage}")
        return found

    def took(self, characters: int) -> None:
        """Count characters against what may be collected."""
        self._collected += characters

    def read_metadata(self, archive: Archive, name: str) -> None:
        """Dublin Core and its relatives out of the part ``name``, if it exists and is whole."""
        if name not in archive:
            return
        try:
            tree = parse_tree(archive.read(name, 1_000_000))
        except DamagedError as error:
            self.damage.append(f"{name}: {error}")
            return
        for element in tree.iter("{*}*"):
            local = element.tag.rpartition("}")[2]
            key = _METADATA.get(local)
            if local == "date":  # of the last change in OpenDocument, of publication in EPUB
                parent = element.getparent()
                office = parent is not None and "opendocument" in parent.tag
                key = "modified" if office else "created"
            if key and element.text and (key not in self.metadata or local == "initial-creator"):
                self.metadata[key] = element.text


def relations(archive: Archive, part: str) -> dict[str, tuple[str, str]]:
    """Relations of an Open XML part: id -> (last word of the type, part meant)."""
    folder, _, base = part.rpartition("/")
    name = f"{folder}/_rels/{base}.rels" if folder else f"_rels/{base}.rels"
    found: dict[str, tuple[str, str]] = {}
    if name not in archive:
        return found
    try:
        tree = parse_tree(archive.read(name))
    except DamagedError:
        return found  # the usual names are tried instead
    for element in tree.iter("{*}Relationship"):
        if element.get("TargetMode") == "External":
            continue
        kind = element.get("Type", "").rpartition("/")[2]
        found[element.get("Id", "")] = (kind, resolve(part, element.get("Target", "")))
    return found


def main_part(archive: Archive, usual: str) -> str:
    """The part that holds the document itself."""
    for kind, name in relations(archive, "").values():
        if kind == "officeDocument" and name in archive:
            return name
    return usual
