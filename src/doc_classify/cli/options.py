"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from doc_classify.settings import Settings, load_settings

_F = TypeVar("_F", bound=Callable[..., Any])

verbose = click.option("-v", "--verbose", is_flag=True, help="Say more, and show tracebacks.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
database_url = click.option(
    "--database-url",
    metavar="URL",
    help="Database to use instead of the configured one.",
)
run_argument = click.argument("run", required=False)


def what_and_how(function: _F) -> _F:
    """The options that decide what a document's result is."""
    for option in reversed(
        (
            click.option("-c", "--categories", metavar="A,B,C", help="Categories by name."),
            click.option(
                "--taxonomy",
                type=click.Path(path_type=Path, dir_okay=False),
                help="TOML or JSON file with categories and descriptions.",
            ),
            click.option("--classifier", metavar="NAME", help="Which classifier decides."),
            click.option("--reasoning", "include_reasoning", is_flag=True, help="Also say why."),
            click.option(
                "--pages",
                metavar="SPEC",
                help="Pages to read: all, 5 (the first five), 3+1 (first three and last).",
            ),
            click.option("--ocr/--no-ocr", default=None, help="Read scans and images, or not."),
        )
    ):
        function = option(function)
    return function


def settings_from(**options: Any) -> Settings:
    """Settings with the given options on top of environment and file."""
    return load_settings(**options)
