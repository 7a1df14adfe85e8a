"""``correct``: a person says to which category documents belong."""

from __future__ import annotations

import csv
import getpass
import json
import os
import re
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import cast

import click

from doc_classify.cli import EXIT_SOME_FAILED
from doc_classify.cli.options import as_json, database_url, verbose
from doc_classify.cli.runs import opened, run_of
from doc_classify.errors import ConfigurationError
from doc_classify.records import FILE_SCHEME, is_object_uri, path_to_uri
from doc_classify.storage.base import RunInfo, Store
from doc_classify.storage.corrections import Correction, CorrectionLedger, Known
from doc_classify.terminal import one_line, shown_path

_BATCH = 500
_SHOWN = 20
"""How many rows of a file that could not be used are named one by one."""
_LONGEST_CELL = 32 * 1024 * 1024
_HASH = re.compile("[0-9a-fA-F]{64}")


@click.command()
@click.argument("document", metavar="[PATH_OR_SHA256]", required=False)
@click.argument("category", required=False)
@click.option(
    "--from",
    "table",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV file with a header: path (or uri, or sha256) and category, as 'export' writes it.",
)
@click.option("--run", metavar="ID", help="The run that is corrected [default: the newest].")
@click.option("--note", help="Why, to be kept with it.")
@click.option("--undo", is_flag=True, help="Take corrections back.")
@click.option("--list", "listing", is_flag=True, help="List the corrections that hold.")
@database_url
@as_json
@verbose
def correct(
    document: str | None,
    category: str | None,
    table: Path | None,
    run: str | None,
    note: str | None,
    undo: bool,
    listing: bool,
    database_url: str | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Say which category a document belongs to.

    Listings and exports show the corrected category from then on, in later runs as well, as long
    as the category is among those of the run. 'train --from-corrections' learns from them.

    With --from, rows of an export whose category was left as it was say nothing, and the last of
    several rows about a document counts.
    """
    _check_usage(document, category, table, undo=undo, listing=listing, note=note)
    with opened(database_url) as (store, _):
        info = run_of(store, run)
        ledger = _ledger(store)
        if listing:
            return _list(ledger, info, as_json=as_json)
        book = _Book(ledger, info, undo=undo, note=note)
        if table is not None:
            return _from_table(book, table, as_json=as_json)
        book.take([_Row(document or "", category or "")])
        if book.errors:
            raise ConfigurationError(book.errors[0])
    if as_json:
        click.echo(json.dumps(book.to_dict()))
    elif undo:
        click.echo("Taken back" if book.done else "There was no correction to take back")
    else:
        was = f" (the classifier said {book.previous})" if book.previous else ""
        click.echo(f"{one_line(document or '')}: {book.last}{was}")
    return 0


def _check_usage(
    document: str | None,
    category: str | None,
    table: Path | None,
    *,
    undo: bool,
    listing: bool,
    note: str | None,
) -> None:
    if listing:
        right = not (document or table or undo or note)
    elif table:
        right = not document
    else:
        right = bool(document) and bool(category) != undo
    if not right or (undo and note):
        raise ConfigurationError(
            "expected a document and its category, --from FILE, --undo with a document or --from, "
            "or --list"
        )


def _ledger(store: Store) -> CorrectionLedger:
    from doc_classify.storage.store import SqlStore

    return CorrectionLedger(cast(SqlStore, store))  # there is no other kind


@dataclass(frozen=True, slots=True)
class _Row:
    """A document and its category, as somebody wrote them."""

    document: str
    category: str
    note: str | None = None
    where: str = ""


@dataclass(slots=True)
class _Book:
    """Writes corrections down, and keeps count.

    Attributes:
        done: documents corrected, or taken back.
        unchanged: rows that say nothing.
        failed: rows that could not be used; ``errors`` has the first of them.
        last, previous: the category given last, and what the classifier had said.
    """

    ledger: CorrectionLedger
    info: RunInfo
    undo: bool = False
    note: str | None = None
    done: int = 0
    unchanged: int = 0
    failed: int = 0
    errors: list[str] = field(default_factory=list)
    last: str = ""
    previous: str | None = None

    def take(self, rows: list[_Row]) -> None:
        """Write a batch of rows down, in one transaction for each note."""
        found = self._find(rows)
        chosen: dict[str | None, list[tuple[Known, str]]] = {}
        names = {_folded(name): name for name in self.info.spec.categories}
        for row in rows:
            known = found.get(row.document)
            category = "" if self.undo else names.get(_folded(row.category), "")
            if known is None:
                self._fail(row, f"run {self.info.run_id} has not seen it (--run names another)")
            elif not self.undo and not category:
                of_run = ", ".join(self.info.spec.categories)
                self._fail(row, f"there is no category {row.category!r}: the run has {of_run}")
            elif not self.undo and known.category is None:
                self._fail(row, f"it has no category in run {self.info.run_id} to correct")
            else:
                chosen.setdefault(row.note or self.note, []).append((known, category))
                self.last, self.previous = category, known.category
        for note, pairs in chosen.items():
            if self.undo:
                self.done += self.ledger.remove(self.info, [known for known, _ in pairs])
            else:
                self.ledger.put(self.info, pairs, author=_author(), note=note)
                self.done += len({known.document_id for known, _ in pairs})

    def to_dict(self) -> dict[str, object]:
        """The counts, JSON-ready."""
        done = "undone" if self.undo else "corrected"
        return {
            "run_id": self.info.run_id,
            done: self.done,
            "unchanged": self.unchanged,
            "failed": self.failed,
            "errors": self.errors,
        }

    def _find(self, rows: list[_Row]) -> dict[str, Known]:
        places = {row.document: _uri(row.document) for row in rows}
        by_uri = self.ledger.find_uris(self.info, list(set(places.values())))
        hashes = {
            document: document.lower()
            for document, uri in places.items()
            if uri not in by_uri and _HASH.fullmatch(document)
        }
        by_hash = self.ledger.find_hashes(self.info, list(set(hashes.values())))
        return {document: by_uri[uri] for document, uri in places.items() if uri in by_uri} | {
            document: by_hash[sha256] for document, sha256 in hashes.items() if sha256 in by_hash
        }

    def _fail(self, row: _Row, reason: str) -> None:
        self.failed += 1
        if len(self.errors) < _SHOWN:
            self.errors.append(one_line(f"{row.where}{row.document[:200]}: {reason}"))


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())


def _uri(document: str) -> str:
    if document.startswith(FILE_SCHEME) or is_object_uri(document):
        return document
    return path_to_uri(os.path.abspath(document))  # noqa: PTH100 (Path would keep "..")


def _author() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user need not have a name
        return None


def _from_table(book: _Book, table: Path, *, as_json: bool) -> int:
    with closing(_rows(table, undo=book.undo, unchanged=lambda: _count(book))) as rows:
        while batch := list(islice(rows, _BATCH)):
            book.take(batch)
    if as_json:
        click.echo(json.dumps(book.to_dict()))
    else:
        for error in book.errors:
            click.echo(error, err=True)
        if more := book.failed - len(book.errors):
            click.echo(f"... and {more:,} more", err=True)
        what = "taken back" if book.undo else "corrected"
        click.echo(
            f"{book.done:,} {what}, {book.unchanged:,} rows unchanged, "
            f"{book.failed:,} rows could not be used"
        )
    return EXIT_SOME_FAILED if book.failed else 0


def _count(book: _Book) -> None:
    book.unchanged += 1


def _rows(table: Path, *, undo: bool, unchanged: Callable[[], None]) -> Generator[_Row]:
    """The rows of a CSV file that say something, one by one.

    Raises:
        ConfigurationError: it cannot be read, or is not such a table.
    """
    from doc_classify.export.formats import restored

    name = shown_path(table)
    csv.field_size_limit(_LONGEST_CELL)
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restval="")
            header = set(reader.fieldnames or ())
            keys = [key for key in ("uri", "path", "sha256") if key in header]
            if not keys or ("category" not in header and not undo):
                raise ConfigurationError(
                    f"{name} needs a first line with the names of its columns, separated by "
                    "commas: path, uri or sha256, and category"
                )
            for cells in reader:
                cells = {key: restored(value) for key, value in cells.items() if key and value}
                document = next((cells[key] for key in keys if cells.get(key)), "")
                category = cells.get("category", "")
                # An export tells what the category was before somebody wrote into the file.
                if not undo and "predicted_category" in header:
                    before = cells.get("predicted_category", "")
                    if category == before and cells.get("corrected", "").lower() != "true":
                        unchanged()
                        continue
                where = f"{name}, line {reader.line_num}: "
                yield _Row(document, category, cells.get("note") or None, where)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot read {name}: {reason}") from error


def _list(ledger: CorrectionLedger, info: RunInfo, *, as_json: bool) -> int:
    shown = False
    with closing(ledger.listed(info.spec.categories)) as found:  # type: ignore[type-var]
        for one in found:
            shown = True
            click.echo(json.dumps(asdict(one)) if as_json else _line(one))
    if not shown:
        click.echo(f"No correction holds for the categories of run {info.run_id}.", err=True)
    return 0


def _line(one: Correction) -> str:
    from doc_classify.records import display_name

    was = f"(the classifier said {one.previous}), " if one.previous else ""
    by = f" by {one.author}" if one.author else ""
    note = f": {one.note}" if one.note else ""
    return f"{display_name(one.uri)}  {one.category} " + one_line(f"{was}{one.at}{by}{note}")
