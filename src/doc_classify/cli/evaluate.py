"""``evaluate``: how often a classifier is right on labelled documents."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from doc_classify.cli import EXIT_SOME_FAILED
from doc_classify.cli.options import as_json, llm_limits, settings_from, verbose, what_and_how
from doc_classify.errors import ConfigurationError
from doc_classify.terminal import one_line, shown_path


def _mapping(
    _context: click.Context, _parameter: click.Parameter, pairs: tuple[str, ...]
) -> dict[str, str]:
    found = {}
    for pair in pairs:
        label, equals, category = pair.partition("=")
        if not equals or not label or not category:
            raise click.BadParameter(f"{pair!r} is not of the form LABEL=CATEGORY")
        found[label] = category
    return found


@click.command()
@click.argument("path", metavar="LABELLED_DIR", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--labels",
    "labels_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="CSV",
    help="File with the columns path, category [default: LABELLED_DIR/.labels.csv, else each "
    "folder is a category].",
)
@click.option(
    "--map",
    "names",
    multiple=True,
    callback=_mapping,
    metavar="LABEL=CATEGORY",
    help="What category a label or folder means; if given, others are left out. Repeatable.",
)
@click.option(
    "--html",
    "html_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write a page with plots.",
)
@click.option("-w", "--workers", type=click.IntRange(1), help="Worker processes.")
@what_and_how
@llm_limits
@as_json
@verbose
def evaluate(
    path: Path,
    labels_file: Path | None,
    names: dict[str, str],
    html_file: Path | None,
    include_reasoning: bool,
    as_json: bool,
    verbose: bool,
    **what: Any,
) -> int:
    """Say how often a classifier is right on the labelled documents of LABELLED_DIR.

    Documents that could not be classified are counted apart, and never as right. Nothing is
    stored.
    """
    from doc_classify.classification.opening import taxonomy_of
    from doc_classify.cli.progress import ProgressReport
    from doc_classify.evaluation import report
    from doc_classify.evaluation.evaluate import evaluate as run_evaluation
    from doc_classify.evaluation.labels import find_labels, taxonomy_for
    from doc_classify.evaluation.page import page

    settings = settings_from(**what)
    if html_file:
        _check(html_file)
    labels = find_labels(path, labels_file, names)
    named = settings.categories or settings.taxonomy or settings.embedded_model
    given = taxonomy_of(settings) if named else None
    taxonomy = taxonomy_for(labels, given, recursive=settings.recursive)
    progress = ProgressReport(None, recursive=settings.recursive, shown=not as_json)
    with progress:
        found = run_evaluation(
            labels,
            taxonomy,
            settings,
            include_reasoning=include_reasoning,
            on_progress=progress.update,
            on_notice=progress.notice,
            on_choice=lambda reason: click.echo(f"Classifier {one_line(reason)}", err=True),
        )
    click.echo(json.dumps(asdict(found)) if as_json else "\n".join(report.lines(found)))
    if found.trained_with:
        click.echo(f"Warning: {report.flattered(found)}", err=True)
    if html_file:
        html_file.write_text(page(found), "utf-8")
        click.echo(f"Page: {shown_path(html_file)}", err=True)
    return EXIT_SOME_FAILED if found.failed else 0


def _check(file: Path) -> None:
    """Fail before the run and not after it; leave no empty page where the run does not end."""
    new = not file.exists()
    try:
        with file.open("ab"):
            pass
        if new:
            file.unlink()
    except OSError as error:
        raise ConfigurationError(
            f"cannot write to {shown_path(file)}: {error.strerror or error}"
        ) from error
