"""Labels that a user has put down: a folder for each category, or a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from doc_classify.discovery import of_paths, walk
from doc_classify.errors import ConfigurationError
from doc_classify.pipeline.intake import Entry
from doc_classify.records import FILE_SCHEME, path_to_uri, uri_to_path

_COLUMNS = ("path", "category", "group")


@dataclass(frozen=True, slots=True)
class Label:
    """A category, and the group of documents to which one belongs ("" for none)."""

    category: str
    group: str = ""


class LabelledFiles:
    """Files with a label each.

    Either a folder that has one folder for each category, in which further folders are groups of
    documents (sources); or a ``.csv`` file with the columns ``path``, ``category`` and, if there
    are groups, ``group``, whose paths start at the folder that it is in. Lines without a category
    are left out.

    Args:
        path: the folder or the table.

    Raises:
        ConfigurationError: there is no such thing, or it has another form.
    """

    def __init__(self, path: Path) -> None:
        self.path = _place(path)
        self._table: dict[str, Label] | None = None
        if path.suffix.lower() == ".csv" and path.is_file():
            self._table = dict(_rows(self.path))
            names = {label.category for label in self._table.values()}
        elif path.is_dir():
            names = {
                entry.name
                for entry in self.path.iterdir()
                # Links to folders are not followed, so that none of them can be a category.
                if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith(".")
            }
        else:
            raise ConfigurationError(f"{path} is no folder, and no .csv file with labels")
        if len(names) < 2:
            raise ConfigurationError(
                f"{path} has to have two categories or more (folders, or values in the column "
                f"category), got {sorted(names)}"
            )
        self.categories = tuple(sorted(names))

    def entries(self) -> Iterator[Entry]:
        """The files as discovery gives them."""
        if self._table is None:
            return walk(self.path)
        return of_paths(uri_to_path(uri) for uri in self._table)

    def label(self, uri: str) -> Label | None:
        """The label of a file; None for one that has none."""
        if self._table is not None:
            return self._table.get(uri)
        if not uri.startswith(FILE_SCHEME):
            return None
        place = Path(uri_to_path(uri))
        parts = place.relative_to(self.path).parts if place.is_relative_to(self.path) else ()
        if len(parts) < 2:
            return None
        return Label(parts[0], "/".join(parts[1:-1]))


def _place(path: Path) -> Path:
    """The path as discovery puts it."""
    return Path(os.path.realpath(path)) if ".." in path.parts else path.absolute()


def _rows(path: Path) -> Iterator[tuple[str, Label]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            if not {"path", "category"} <= set(table.fieldnames or ()):
                raise ConfigurationError(
                    f"{path}: the first line has to name the columns path and category"
                )
            for row in table:
                given, category = (row["path"] or "").strip(), (row["category"] or "").strip()
                if not given:
                    raise ConfigurationError(f"{path}, line {table.line_num}: there is no path")
                if not category:
                    continue
                label = Label(category, (row.get("group") or "").strip())
                yield path_to_uri(_place(path.parent / given)), label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error
