"""``train``: a model file out of labelled documents, with a judgement of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from doc_classify.cli import EXIT_SOME_FAILED
from doc_classify.cli.options import as_json, database_url, settings_from, verbose
from doc_classify.errors import ConfigurationError
from doc_classify.terminal import one_line, shown_path

if TYPE_CHECKING:
    from doc_classify.classification.learning import Learnt, TrainingSet
    from doc_classify.settings import Settings
    from doc_classify.storage.store import SqlStore
    from doc_classify.training.judging import Judgement
    from doc_classify.training.sources import Gathered


@click.command()
@click.argument("labelled", type=click.Path(path_type=Path), required=False)
@click.option("--from-run", metavar="RUN", help="Learn from the answers of an LLM in that run.")
@click.option("--from-corrections", is_flag=True, help="Learn from what people have corrected.")
@click.option(
    "--self-train",
    is_flag=True,
    help="Learn from texts alone: LABELLED, or the documents of --from-run, need no labels.",
)
@click.option(
    "--update",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Model to learn on with: what it was trained on counts as before.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Model file to write [default: that of --update].",
)
@click.option("-c", "--categories", metavar="A,B,C", help="Categories by name.")
@click.option(
    "--taxonomy",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML or JSON file with categories and descriptions.",
)
@click.option(
    "--cautious/--no-cautious",
    default=None,
    help="Documents of other sources are to be classified [default: for LABELLED, where the "
    "categories are kinds of documents and not topics].",
)
@click.option(
    "--zero-shot/--no-zero-shot",
    default=True,
    help="Build on the classifier that needs no training, where that helps [default: yes].",
)
@click.option(
    "--keep-rows/--no-keep-rows",
    default=True,
    help="Keep hashed words and labels beside the model, for --update [default: yes].",
)
@click.option("-w", "--workers", type=click.IntRange(1), help="Worker processes [default: cores].")
@click.option("--pages", metavar="SPEC", help="Pages to read: all, 5, 3+1.")
@click.option("--ocr/--no-ocr", default=None, help="Read scans and images, or not.")
@database_url
@as_json
@verbose
def train(
    labelled: Path | None,
    from_run: str | None,
    from_corrections: bool,
    self_train: bool,
    update: Path | None,
    output: Path | None,
    cautious: bool | None,
    zero_shot: bool,
    keep_rows: bool,
    as_json: bool,
    verbose: bool,
    **fields: Any,
) -> int:
    """Make a model for the embedded classifier out of labelled documents.

    It is used with --classifier embedded --model MODEL, in every command that classifies.

    LABELLED is a folder with one folder for each category, in which further folders are sources
    that are left out together when the model is judged; or a .csv file with the columns path,
    category and (optional) group.

    With --self-train, the surest answers of the classifier that needs no training are the labels.
    That helps most where the categories are topics. Where it cannot help, no model is written.
    """
    from doc_classify.classification.model_file import FORMAT, file_kind
    from doc_classify.classification.training_file import FORMAT as ROWS_FORMAT
    from doc_classify.classification.training_file import rows_path, save_rows
    from doc_classify.training.judging import judge
    from doc_classify.training.sources import Gathered

    if (labelled is not None) + (from_run is not None) + from_corrections != 1:
        raise ConfigurationError("give one of LABELLED, --from-run and --from-corrections")
    path = output or update
    if path is None:
        raise ConfigurationError("-o says where the model is to be written")
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"there is no folder {shown_path(path.absolute().parent)}")
    if not os.access(path.absolute().parent, os.W_OK):
        raise ConfigurationError(f"cannot write to {shown_path(path.absolute().parent)}")
    rows = rows_path(path)
    for file, kind in ((path, FORMAT), (rows, ROWS_FORMAT)):
        if file.exists() and file_kind(file) != kind:
            raise ConfigurationError(
                f"{shown_path(file)} is not what doc-classify trains, and is not replaced"
            )
    settings = settings_from(**fields)
    if (update or from_run) and (fields["categories"] or fields["taxonomy"]):
        raise ConfigurationError(
            "the categories are those of the model or of the run: leave -c and --taxonomy out"
        )
    if update and not zero_shot:
        raise ConfigurationError("--update goes on as the model began: leave --no-zero-shot out")
    if self_train:
        if from_corrections or update or cautious is not None or not zero_shot:
            raise ConfigurationError(
                "--self-train learns from texts and the zero-shot classifier alone: it goes with "
                "LABELLED or --from-run, and not with --from-corrections, --update, --cautious or "
                "--no-zero-shot"
            )
        from doc_classify.cli.self_training import train_unlabelled

        return train_unlabelled(labelled, from_run, path, settings, as_json=as_json)
    gathered = Gathered()
    source = _Source(labelled, from_run, from_corrections, settings, gathered, quiet=as_json)
    training, before = _training(update, zero_shot, cautious, source)
    taken = source.fill(training)
    for message in gathered.messages:
        click.echo(one_line(message), err=True)
    if not taken:
        raise ConfigurationError(f"there is nothing to learn from{source.why_nothing(training)}")
    learnt = training.learn(datetime.now(UTC).isoformat(timespec="seconds"))
    learnt.model.save(path)
    if keep_rows:
        save_rows(training, learnt.model, rows)
    else:
        rows.unlink(missing_ok=True)
    judgement = judge(learnt)
    found = {
        "model": str(path),
        "digest": learnt.model.digest,
        "bytes": path.stat().st_size,
        "rows": str(rows) if keep_rows else None,
        "taken": taken,
        "before": before,
        **asdict(gathered),
    }
    if as_json:
        click.echo(json.dumps({**asdict(judgement), **found}))
    else:
        click.echo("\n".join(_lines(judgement, learnt, found)))
    for warning in judgement.warnings:
        click.echo(f"Warning: {one_line(warning)}", err=True)
    return EXIT_SOME_FAILED if gathered.failed else 0


class _Source:
    """The one of the three sources that was named."""

    def __init__(
        self,
        labelled: Path | None,
        run: str | None,
        corrections: bool,
        settings: Settings,
        gathered: Gathered,
        *,
        quiet: bool,
    ) -> None:
        from doc_classify.training.labels import LabelledFiles

        self.files = LabelledFiles(labelled) if labelled is not None else None
        self._run = run
        self._corrections = corrections
        self._settings = settings
        self._gathered = gathered
        self._quiet = quiet

    def training(self, *, zero_shot: bool, cautious: bool | None) -> TrainingSet:
        """An empty set for the taxonomy that the settings or the source name."""
        from doc_classify.classification import lexicon
        from doc_classify.classification.learning import TrainingSet
        from doc_classify.classification.profiles import mostly_kinds
        from doc_classify.cli.runs import run_of
        from doc_classify.taxonomy import Taxonomy

        named = self._settings.categories or self._settings.taxonomy
        if self._run is not None or (self._corrections and not named):
            with self._store() as store:
                stored: Any = run_of(store, self._run).spec.settings
            taxonomy = Taxonomy.from_dict(stored["taxonomy"], "stored run")
        elif self.files is not None and not named:
            taxonomy = Taxonomy.from_names(self.files.categories)
        else:
            taxonomy = self._settings.make_taxonomy()
        if cautious is None:
            # Topics are known by few words beforehand: to trust these more would cost much.
            cautious = self.files is not None and mostly_kinds(taxonomy, lexicon.load())
        return TrainingSet(taxonomy, zero_shot=zero_shot, cautious=cautious)

    def fill(self, training: TrainingSet) -> int:
        """Add all documents; returns how many were taken."""
        if self.files is not None:
            strange = set(self.files.categories) - set(training.taxonomy.names)
            if strange:
                raise ConfigurationError(
                    f"{shown_path(self.files.path)} has {', '.join(sorted(strange))}, and the "
                    f"categories are {', '.join(training.taxonomy.names)}"
                )
        taken = 0
        for document in self._documents(training):
            added = training.add(document)
            taken += added
            self._gathered.wordless += not added
        return taken

    def why_nothing(self, training: TrainingSet) -> str:
        """The likeliest reason why no document was found."""
        if self._gathered.failed and self.files is None:
            return (
                f": of {self._gathered.failed:,} documents no text is stored (a run with --force "
                "and store_text keeps them)"
            )
        if self._corrections:
            return f": no correction holds for {', '.join(training.taxonomy.names)} (see -c)"
        return ""

    def _documents(self, training: TrainingSet) -> Iterator[Any]:
        from doc_classify.cli.progress import ProgressReport
        from doc_classify.cli.runs import run_of
        from doc_classify.storage import temporary_store
        from doc_classify.training import sources

        if self.files is not None:
            root = self.files.path if self.files.path.is_dir() else None
            progress = ProgressReport(root, recursive=True, shown=not self._quiet)
            with temporary_store() as store:
                documents = sources.of_files(
                    self.files,
                    self._settings,
                    cast("SqlStore", store),
                    training.taxonomy,
                    self._gathered,
                    progress,
                )
                yield from documents
        else:
            with self._store() as store:
                if self._run is not None:
                    info = run_of(store, self._run)
                    yield from sources.of_run(store, info, self._gathered)
                else:
                    yield from sources.of_corrections(store, training.taxonomy, self._gathered)

    @contextmanager
    def _store(self) -> Iterator[SqlStore]:
        from doc_classify.cli.runs import opened

        with opened(self._settings.database_url) as (store, _):
            yield cast("SqlStore", store)


def _training(
    update: Path | None, zero_shot: bool, cautious: bool | None, source: _Source
) -> tuple[TrainingSet, int]:
    """The set to fill, and how many documents are in it already."""
    from doc_classify.classification.model_file import TrainedModel
    from doc_classify.classification.training_file import load_rows, rows_path

    if update is None:
        return source.training(zero_shot=zero_shot, cautious=cautious), 0
    training = load_rows(TrainedModel.load(update), rows_path(update))
    if cautious is not None:
        training.cautious = cautious
    return training, len(training.examples)


def _lines(judgement: Judgement, learnt: Learnt, found: dict[str, Any]) -> list[str]:
    width = max(len(name) for name in ("Category", *learnt.model.categories))
    lines = [
        f"{'Category':<{width}}  Documents  Recall  Precision",
        *(
            f"{one.name:<{width}}  {one.documents:>9,}  {_percent(one.recall):>6}  "
            f"{_percent(one.precision):>9}"
            for one in judgement.categories
        ),
    ]
    how = "each left out of the training by itself"
    if judgement.groups:
        how = f"left out of the training with their group, of {judgement.groups:,}"
    elif judgement.held_out < judgement.documents:
        how = "left out of the training together"
    lines.append(
        f"Right: {judgement.accuracy:.1%} (95% interval {judgement.low:.1%} to "
        f"{judgement.high:.1%}) of {judgement.held_out:,} documents, {how}"
    )
    if judgement.calibration_error is not None:
        lines.append(f"Calibration error of the confidence: {judgement.calibration_error:.3f}")
    if judgement.confused:
        pairs = [f"{label} as {answer} ({n:,})" for label, answer, n in judgement.confused]
        lines.append(f"Confused most: {', '.join(pairs)}")
    before = f", {found['before']:,} of them from before" if found["before"] else ""
    lines.append(
        f"{shown_path(found['model'])}: {found['bytes'] / 1000:,.0f} kB, "
        f"{judgement.documents:,} documents{before}"
    )
    left = [
        f"{found[name]:,} {what}"
        for name, what in (
            ("failed", "could not be read"),
            ("unsupported", "are of types that are not taken"),
            ("unlabelled", "have no label"),
            ("contradictory", "stand under two categories"),
            ("wordless", "have no words"),
        )
        if found[name]
    ]
    if left:
        lines.append(f"Not learnt from: {', '.join(left)}")
    return lines


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
