"""The one-machine door: isolated worker processes on all cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from doc_classify.blocking import run_blocking
from doc_classify.discovery import of_paths
from doc_classify.pipeline.intake import Entry
from doc_classify.records import RunStats
from doc_classify.runners.base import Processor
from doc_classify.settings import Settings
from doc_classify.storage.base import ResultFilter
from doc_classify.taxonomy import Taxonomy


class ParallelDocumentProcessor(Processor):
    """Classifies folders of documents with all cores of this machine.

    Args:
        num_workers: worker processes; default: the CPU cores.
        use_database: keep results, so that a later run takes only what is new. Without it they
            live in a temporary store until :meth:`close`, or the end of the process.
        chunk_size: documents handed to a worker at a time.
        categories: names of the categories, or a whole :class:`~doc_classify.Taxonomy`;
            default: as the settings have it.
        settings: everything else; default: environment and ``doc-classify.toml``.
        on_progress: called with the stats as committed, about once a second.
        on_notice: called with what the run waits for, and with None when that is over.
        on_choice: called once, before the first document, with the classifier that was chosen and
            why; default: a log record.
        on_stage: called with what a cascade does next; default: a log record.

    Raises:
        ConfigurationError: a setting cannot be used.
    """

    door = "parallel"

    def __init__(
        self,
        num_workers: int | None = None,
        use_database: bool = False,
        chunk_size: int | None = None,
        *,
        categories: Iterable[str] | Taxonomy | None = None,
        settings: Settings | None = None,
        on_progress: Callable[[RunStats], None] | None = None,
        on_notice: Callable[[str | None], None] | None = None,
        on_choice: Callable[[str], None] | None = None,
        on_stage: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(
            use_database=use_database,
            categories=categories,
            settings=settings,
            changes={"workers": num_workers, "chunk_size": chunk_size},
            on_progress=on_progress,
            on_notice=on_notice,
            on_choice=on_choice,
            on_stage=on_stage,
        )

    def process_directory(
        self,
        directory: str | Path,
        recursive: bool = True,
        include_reasoning: bool = False,
        *,
        force: bool = False,
    ) -> RunStats:
        """Classify every document under a folder (or one file).

        Args:
            directory: the folder.
            recursive: go into subfolders.
            include_reasoning: also store why.
            force: do again what is done already.

        Returns:
            What became of every file; also kept as ``stats``.

        Raises:
            ConfigurationError: there is no such folder.
            StorageError: the database cannot be used.
            ServerError, CannotGoOnError: the LLM server cannot be used, or a limit is reached.
            KeyboardInterrupt: stopped by the user; ``stats`` says how far it came.
        """
        return run_blocking(self._of_directory(directory, recursive, include_reasoning, force))

    def process_batch(
        self,
        paths: Iterable[str | Path],
        include_reasoning: bool = False,
        *,
        force: bool = False,
    ) -> RunStats:
        """Classify the given files, which may be a generator of any length."""
        return self.process_found(of_paths(paths), "list of files", include_reasoning, force=force)

    def process_found(
        self,
        found: Iterable[Entry],
        source: str,
        include_reasoning: bool = False,
        *,
        force: bool = False,
    ) -> RunStats:
        """Classify what a discovery of any kind has found; ``source`` says which, to a person."""
        return run_blocking(
            self._execute(found, source, include_reasoning=include_reasoning, force=force)
        )

    def retry(self, run_id: str, only: ResultFilter) -> RunStats:
        """Do files of an earlier run again, the way that run did them, in a new run.

        Where no file matches, no run is made.

        Raises:
            ConfigurationError: there is no such run.
        """
        return run_blocking(self._retry(run_id, only))
