"""``train --self-train``: a model file out of documents that nobody has labelled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from doc_classify.cli import EXIT_SOME_FAILED
from doc_classify.terminal import one_line, shown_path

if TYPE_CHECKING:
    from doc_classify.classification import ClassifierInput
    from doc_classify.classification.self_training import SelfTraining
    from doc_classify.settings import Settings
    from doc_classify.storage.store import SqlStore
    from doc_classify.taxonomy import Taxonomy
    from doc_classify.training.sources import Gathered


def train_unlabelled(
    folder: Path | None, run: str | None, output: Path, settings: Settings, *, as_json: bool
) -> int:
    """Learn from the texts of a folder or of a run, write the model, and say what came of it.

    Raises:
        ConfigurationError: self-training would not help; nothing is written then.
    """
    from doc_classify.classification.self_training import self_train
    from doc_classify.training.sources import Gathered

    gathered = Gathered()
    taxonomy = _taxonomy(run, settings)
    documents = _documents(folder, run, settings, taxonomy, gathered, quiet=as_json)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        model, report = self_train(documents, taxonomy, created=now)
    finally:  # where nothing could be learnt, they say why
        for message in gathered.messages:
            click.echo(one_line(message), err=True)
    model.save(output)
    if as_json:
        found = {
            "model": str(output),
            "digest": model.digest,
            "bytes": output.stat().st_size,
            "categories": taxonomy.names,
            **asdict(report),
            **asdict(gathered),
        }
        click.echo(json.dumps(found))
    else:
        click.echo("\n".join(_lines(report, taxonomy.names)))
        click.echo(f"{shown_path(output)}: {output.stat().st_size / 1000:,.0f} kB")
    for at in report.vanishing:
        click.echo(
            f"Warning: {taxonomy.names[at]} keeps {report.after[at]:,} of "
            f"{report.before[at]:,} documents: describe it in more words, or label some",
            err=True,
        )
    return EXIT_SOME_FAILED if gathered.failed else 0


def _taxonomy(run: str | None, settings: Settings) -> Taxonomy:
    from doc_classify.cli.runs import opened, run_of
    from doc_classify.taxonomy import Taxonomy

    if run is None:
        return settings.make_taxonomy()
    with opened(settings.database_url) as (store, _):
        stored: Any = run_of(cast("SqlStore", store), run).spec.settings
    return Taxonomy.from_dict(stored["taxonomy"], "stored run")


def _documents(
    folder: Path | None,
    run: str | None,
    settings: Settings,
    taxonomy: Taxonomy,
    gathered: Gathered,
    *,
    quiet: bool,
) -> Iterator[ClassifierInput]:
    from doc_classify.cli.progress import ProgressReport
    from doc_classify.cli.runs import opened, run_of
    from doc_classify.storage import temporary_store
    from doc_classify.training.sources import texts_of_run, unlabelled_files

    if folder is not None:
        progress = ProgressReport(folder, recursive=True, shown=not quiet)
        with temporary_store() as store:
            yield from unlabelled_files(
                folder, settings, cast("SqlStore", store), taxonomy, gathered, progress
            )
    elif run is not None:
        with opened(settings.database_url) as (store, _):
            kept = cast("SqlStore", store)
            yield from texts_of_run(kept, run_of(kept, run), gathered)


def _lines(report: SelfTraining, names: tuple[str, ...]) -> list[str]:
    width = max(len(name) for name in ("Category", *names))
    sample = "" if report.used == report.seen else f", of which {report.used:,} were learnt from"
    return [
        f"{'Category':<{width}}  Before  After",
        *(
            f"{name:<{width}}  {before:>6,}  {after:>5,}"
            for name, before, after in zip(names, report.before, report.after, strict=True)
        ),
        f"{report.seen:,} documents without labels{sample}",
        f"{report.agreement:.0%} keep their category; how well words bear the surest ones out: "
        f"{report.borne_out:.2f} (1 is fully, 0 by chance)",
        "Whether the others are better now only labels can tell: look at some before you rely on "
        "it. What the model answers has a score and no confidence.",
    ]
