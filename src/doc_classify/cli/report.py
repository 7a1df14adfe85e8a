"""What a command that classifies says at its end, whatever the end was."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import click

from doc_classify.cli import EXIT_INTERRUPTED, EXIT_SOME_FAILED
from doc_classify.errors import ConfigurationError, DocClassifyError, StorageError
from doc_classify.records import FileStatus, RunStats, document_name
from doc_classify.runners.base import Processor
from doc_classify.storage.base import ResultFilter
from doc_classify.terminal import one_line, shown_path

_EXAMPLES = 5
_EXAMPLES_VERBOSE = 100


class Report:
    """Runs a processor and reports on it.

    Args:
        processor: what classifies.
        as_json: print one JSON object instead of tables.
        verbose: name more of the failures.
        export_to: folder and format of an export, None for no export.
        hint: what has to be added to other commands so that they find this run.
        resume: how an interrupted run is gone on with.
    """

    def __init__(
        self,
        processor: Processor,
        *,
        as_json: bool,
        verbose: bool,
        export_to: tuple[Path, str] | None = None,
        hint: str = "",
        resume: str = "the same command does the rest",
    ) -> None:
        self._processor = processor
        self._as_json = as_json
        self._verbose = verbose
        self._export_to = export_to
        self._hint = hint
        self._resume = resume

    def of(self, work: Callable[[], RunStats], progress: AbstractContextManager[Any]) -> int:
        """Do ``work`` and print what came of it; returns the exit code.

        Interrupted or broken off, a run is reported as far as it came.

        Raises:
            DocClassifyError: what broke it off, after the report.
        """
        interrupted = False
        error: DocClassifyError | None = None
        try:
            with progress:
                work()
        except KeyboardInterrupt:
            interrupted = True
            if not self._processor.stats.run_id:
                raise
        except DocClassifyError as found:
            error = found
            if not self._processor.stats.run_id:
                raise
        stats = self._processor.stats
        if not self._as_json:
            self._print(stats, examples=[] if error else self._failed_examples(stats))
        exported = None
        if self._export_to and stats.run_id and not error:
            try:
                exported = self._export(stats, *self._export_to)
            except DocClassifyError as found:
                error = found
        if self._as_json:
            data = stats_to_dict(stats) | {"interrupted": interrupted}
            data["export"] = None if exported is None else str(exported)
            if lots := self._lots(stats):
                data["cascade"] = {"lots": lots}
            data["error"] = None if error is None else str(error)
            click.echo(json.dumps(data))
        elif exported:
            click.echo(f"Results: {shown_path(exported)}")
        if error:
            raise error
        if not self._as_json:
            click.echo(self._advice(stats, interrupted))
        return EXIT_INTERRUPTED if interrupted else exit_code(stats)

    def _print(self, stats: RunStats, examples: Sequence[tuple[str, str, str]]) -> None:
        from doc_classify.summary import lot_lines, print_summary

        print_summary(stats, sys.stdout, failed_examples=examples)
        for line in lot_lines(self._lots(stats)):
            click.echo(line)

    def _lots(self, stats: RunStats) -> list[dict[str, Any]]:
        """The lots of a cascade, with their certificates; none of other runs."""
        try:
            return self._processor.store.lots(stats.run_id) if stats.run_id else []
        except StorageError:
            return []  # the counts are worth printing without them

    def _export(self, stats: RunStats, folder: Path, form: str) -> Path:
        return self._processor.export_results(folder / f"results_{stats.run_id}.{form}")

    def _failed_examples(self, stats: RunStats) -> list[tuple[str, str, str]]:
        if not stats.failed:
            return []
        limit = _EXAMPLES_VERBOSE if self._verbose else _EXAMPLES
        only = ResultFilter(statuses=frozenset({FileStatus.FAILED}), limit=limit)
        try:
            return [
                (
                    document_name(row.uri),
                    row.failure.kind,
                    one_line(row.failure.message),
                )
                for row in islice(self._processor.store.results(stats.run_id, only), limit)
                if row.failure
            ]
        except StorageError:
            return []  # the counts are worth printing without them

    def _advice(self, stats: RunStats, interrupted: bool) -> str:
        kept = self._processor.use_database
        if interrupted:
            return (
                f"Interrupted. What is classified is stored; {self._resume}."
                if kept
                else "Interrupted. With --use-database the same command would do only the rest."
            )
        if not stats.seen:
            return "There was nothing to classify: 'doc-classify doctor' lists what can be read."
        if not kept:
            return (
                "Next: --use-database keeps the results, so that a later run takes only new files."
            )
        command = program()
        if stats.failed or stats.already_failed:
            options = f"results --failed{self._hint}"
            return f"Next: '{command} {options}' lists the failures with their reasons."
        return f"Next: '{command} results{self._hint}' lists every file with its category."


def check_export(folder: Path, form: str) -> None:
    """Make sure, before a run and not after it, that its results can be exported.

    Raises:
        ConfigurationError: a package is missing, or the folder cannot be used.
    """
    from doc_classify.export.formats import Format, writer_for

    writer_for(Format(form), {})
    folder = folder.absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigurationError(f"nothing can be exported into {shown_path(folder)}")


def exit_code(stats: RunStats) -> int:
    """0 when every document has its category, 1 when some have failed, now or earlier."""
    return EXIT_SOME_FAILED if stats.failed or stats.already_failed else 0


def stats_to_dict(stats: RunStats) -> dict[str, Any]:
    """Counts of a run, JSON-ready, with the rates."""
    data = asdict(stats)
    data["categories"] = {
        name: {
            "files": item.files,
            "mean_score": item.mean_score,
            "mean_confidence": item.mean_confidence,
        }
        for name, item in stats.categories.items()
    }
    return data | {
        "pending": stats.pending,
        "documents_per_second": stats.documents_per_second,
        "pages_per_second": stats.pages_per_second,
        "seconds_for_500000": stats.seconds_for(500_000),
    }


def program() -> str:
    """The command as this user can type it: with its path where the shell would not find it."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "python -m doc_classify"
    if shutil.which(called.name):
        return called.name
    here = Path.cwd()
    return shown_path(called.relative_to(here) if called.is_relative_to(here) else called)
