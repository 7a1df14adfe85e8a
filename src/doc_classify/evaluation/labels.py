"""What the right category of each document is: from a CSV file, or from the folder it lies in."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from doc_classify.discovery import Found, walk
from doc_classify.errors import ConfigurationError
from doc_classify.records import FILE_SCHEME, Rejected, Source, uri_to_path
from doc_classify.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from doc_classify.terminal import one_line, shown_path

LABELS_NAME = ".labels.csv"
"""Looked for in the folder, as ``doc-classify dataset`` leaves it there."""

_NAMED = 5


@dataclass(slots=True)
class Labels:
    """The labelled documents of a folder.

    Attributes:
        root: the folder, without links.
        of_path: relative path -> category; None where the folders are the categories.
        names: folder or label -> category, where they are called otherwise. If there are any,
            those that it does not name are left out.
        origin: where the labels are from, for a person.
        found: files that :meth:`documents` gave, so far.
        unlabelled: files that it passed by.
    """

    root: Path
    of_path: Mapping[str, str] | None
    names: Mapping[str, str]
    origin: str
    found: int = field(default=0)
    unlabelled: int = field(default=0)

    def of(self, uri: str) -> str | None:
        """The right category of a document; None if nobody said."""
        path = self.path_of(uri)
        if self.of_path is not None:
            label = self.of_path.get(path, "")
        else:
            folder, slash, _ = path.partition("/")
            label = folder if slash else ""
        return self._category(label)

    def _category(self, label: str) -> str | None:
        return (self.names.get(label) if self.names else label) or None

    def path_of(self, uri: str) -> str:
        """The path below the folder."""
        if not uri.startswith(FILE_SCHEME):
            return uri
        return os.path.relpath(uri_to_path(uri), self.root)

    def documents(self, *, recursive: bool) -> Iterator[Found]:
        """The labelled files, as a run takes them."""
        for found in walk(self.root, recursive=recursive):
            if isinstance(found, Source | Rejected):
                if self.of(found.uri) is None:
                    self.unlabelled += 1
                else:
                    self.found += 1
                    yield found

    @property
    def missing(self) -> int:
        """Labels whose document :meth:`documents` has not found, so far."""
        if self.of_path is None:
            return 0
        return (
            sum(self._category(label) is not None for label in self.of_path.values()) - self.found
        )

    def categories(self, *, recursive: bool) -> list[str]:
        """Every category that some document has, in alphabetical order.

        Raises:
            ConfigurationError: no document has any.
        """
        found = {
            label
            for entry in walk(self.root, recursive=recursive)
            if isinstance(entry, Source) and (label := self.of(entry.uri))
        }
        if not found:
            raise ConfigurationError(
                f"{shown_path(self.root)} holds no labelled documents: expected a folder for each "
                f"category, or a file {LABELS_NAME} (or --labels) with the columns path, category"
            )
        return sorted(found)


def find_labels(folder: Path, file: Path | None, names: Mapping[str, str]) -> Labels:
    """The labels of a folder: of ``file``, else of its ``.labels.csv``, else its sub-folders.

    Raises:
        ConfigurationError: there is no such folder, or the file cannot be read.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{shown_path(folder)} is no folder of labelled documents")
    root = folder.resolve()
    if file is None and (root / LABELS_NAME).is_file():
        file = root / LABELS_NAME
    if file is None:
        return Labels(root, None, names, "folders")
    return Labels(root, _read(file), names, shown_path(file))


def taxonomy_for(labels: Labels, given: Taxonomy | None, *, recursive: bool) -> Taxonomy:
    """The taxonomy to classify by: the one that was given, else one that the labels fit into.

    Raises:
        ConfigurationError: there are no labels, or some are no categories of ``given``.
    """
    found = labels.categories(recursive=recursive)
    if given is None:
        if set(found) <= set(DEFAULT_TAXONOMY.names):
            return DEFAULT_TAXONOMY
        return Taxonomy.from_names(found)
    if strange := [name for name in found if name not in given.names]:
        more = f" and {len(strange) - _NAMED} more" if len(strange) > _NAMED else ""
        raise ConfigurationError(
            f"documents are labelled {', '.join(map(repr, strange[:_NAMED]))}{more}, which the "
            f"taxonomy does not have ({one_line(', '.join(given.names))}); --map says which "
            "category is meant"
        )
    return given


def _read(file: Path) -> dict[str, str]:
    shown = shown_path(file)
    found: dict[str, str] = {}
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            rows = csv.DictReader(lines)
            if not {"path", "category"} <= set(rows.fieldnames or ()):
                raise ConfigurationError(
                    f"{shown} needs the columns path and category, has "
                    f"{one_line(', '.join(rows.fieldnames or ())) or 'none'}"
                )
            for row in rows:
                if row["path"] and row["category"]:
                    path = os.path.normpath(row["path"])
                    label = sys.intern(row["category"].strip())
                    if found.setdefault(path, label) != label:
                        raise ConfigurationError(
                            f"{shown} labels {shown_path(path)} twice: {found[path]!r}, {label!r}"
                        )
    except (OSError, csv.Error) as error:
        raise ConfigurationError(f"cannot read {shown}: {error}") from error
    return found
