"""``dataset``: a folder of generated, labelled documents."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from doc_classify.cli.options import as_json, verbose
from doc_classify.dataset import (
    ALL_FORMATS,
    CATEGORIES,
    FORMATS,
    LABELS_NAME,
    DatasetOptions,
    generate,
    summarise,
)
from doc_classify.terminal import shown_path

_F = TypeVar("_F", bound=Callable[..., Any])

_PARALLEL_FROM = 1000  # below, starting processes takes longer than they save
_SHOWN_EVERY = 0.2
_DEFAULT = DatasetOptions()


def _names(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in value.split(",") if name.strip())


def _share(name: str, what: str, default: float) -> Callable[[_F], _F]:
    return click.option(
        name, type=float, default=default, metavar="SHARE", show_default=True, help=what
    )


@click.command()
@click.option("--count", type=int, default=_DEFAULT.count, show_default=True, help="Files in all.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("test_docs"),
    show_default=True,
    help="Folder; an earlier data set in it is replaced, other files never.",
)
@click.option(
    "--seed", type=int, default=_DEFAULT.seed, show_default=True, help="Another one, other files."
)
@click.option(
    "--formats",
    callback=_names,
    default=",".join(FORMATS),
    metavar="A,B,C",
    help=f"Of {', '.join(ALL_FORMATS)} [default: all but the last "
    f"{len(ALL_FORMATS) - len(FORMATS)}, which are rare].",
)
@click.option(
    "--categories",
    callback=_names,
    default=",".join(CATEGORIES),
    metavar="A,B,C",
    help=f"Of {', '.join(CATEGORIES)} [default: all].",
)
@_share("--scanned", "Images without text, 0 to 1.", _DEFAULT.scanned)
@_share("--hostile", "Empty, damaged, encrypted and dangerous files.", _DEFAULT.hostile)
@_share("--duplicates", "Copies of other files.", _DEFAULT.duplicates)
@click.option(
    "--pages",
    type=float,
    default=_DEFAULT.pages,
    metavar="MEAN",
    show_default=True,
    help="Mean length of a document.",
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help=f"Processes [default: one for each core from {_PARALLEL_FROM:,} files on].",
)
@as_json
@verbose
def dataset(output: Path, workers: int | None, as_json: bool, verbose: bool, **options: Any) -> int:
    """Create a folder of realistic, labelled documents, to try out and to measure.

    The labels go to OUTPUT/.labels.csv (path, category, format, pages, scanned, hostile,
    duplicate_of). The name begins with a dot so that classifying the folder does not take the
    labels for a document, and so that they move with the folder.

    The same seed and options give the same files, byte for byte, with the same versions of the
    packages that write them.
    """
    if workers is None:
        workers = (os.cpu_count() or 1) if options["count"] >= _PARALLEL_FROM else 1
    started = time.monotonic()
    labels = generate(output, DatasetOptions(workers=workers, **options), _Progress())
    elapsed = time.monotonic() - started
    if as_json:
        report = {
            "output": str(output),
            "labels": str(output / LABELS_NAME),
            "files": len(labels),
            "seconds": elapsed,
            "options": asdict(DatasetOptions(workers=workers, **options)),
        }
        click.echo(json.dumps(report))
        return 0
    click.echo(f"{shown_path(output)}: {summarise(labels)}")
    click.echo(
        f"labels: {shown_path(output / LABELS_NAME)} "
        f"({elapsed:.1f} s, {len(labels) / elapsed:.0f}/s)"
    )
    return 0


class _Progress:
    """Says on standard error how many files are written: in place, or once on a log."""

    def __init__(self) -> None:
        self._shown = time.monotonic()
        self._person = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and (not self._person or now - self._shown < _SHOWN_EVERY):
            return
        self._shown = now
        start = "\r" if self._person else ""
        click.echo(f"{start}{done:,} of {total:,} files", err=True, nl=done == total)
