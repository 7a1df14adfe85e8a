"""The door for an LLM server that is to be kept busy, from code that is asynchronous itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from doc_classify.discovery import of_paths
from doc_classify.pipeline.intake import Entry
from doc_classify.records import RunStats
from doc_classify.runners.base import Processor
from doc_classify.settings import Settings
from doc_classify.taxonomy import Taxonomy


class AsyncBatchProcessor(Processor):
    """Classifies documents with many LLM requests in flight, without blocking the event loop.

    Documents are read in the same isolated worker processes as by
    :class:`~doc_classify.ParallelDocumentProcessor`, so that both cores and server are busy.

    Args:
        max_concurrent: LLM requests in flight at most; fewer where the server gains nothing by
            more.
        batch_size: results written to the database in one transaction.
        use_database: keep results. Without it they live in a temporary store until :meth:`close`,
            or the end of the process.
        deduplicate: leave out documents that are done already. When False they are done again;
            copies within one run still share one answer, since it would be the same.
        num_workers: worker processes that read documents; default: the CPU cores.
        categories: names of the categories, or a whole :class:`~doc_classify.Taxonomy`;
            default: as the settings have it.
        settings: everything else; default: environment and ``doc-classify.toml``.
        on_progress: called in the event loop with the stats as committed, about once a second.
        on_notice: called with what the run waits for, and with None when that is over.
        on_choice: called once, before the first document, with the classifier that was chosen and
            why; default: a log record.
        on_stage: called with what a cascade does next; default: a log record.

    Raises:
        ConfigurationError: a setting cannot be used.
    """

    door = "async"

    def __init__(
        self,
        max_concurrent: int | None = None,
        batch_size: int | None = None,
        use_database: bool = True,
        deduplicate: bool = True,
        *,
        num_workers: int | None = None,
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
            changes={
                "max_concurrent": max_concurrent,
                "batch_size": batch_size,
                "workers": num_workers,
            },
            on_progress=on_progress,
            on_notice=on_notice,
            on_choice=on_choice,
            on_stage=on_stage,
        )
        self.deduplicate = deduplicate

    async def process_directory_async(
        self,
        directory: str | Path,
        recursive: bool = True,
        include_reasoning: bool = False,
    ) -> RunStats:
        """Classify every document under a folder (or one file).

        When cancelled, what was classified is stored first, and ``stats`` says how far it came.

        Returns:
            What became of every file; also kept as ``stats``.

        Raises:
            ConfigurationError: there is no such folder.
            StorageError: the database cannot be used.
            ServerError, CannotGoOnError: the LLM server cannot be used, or a limit is reached.
        """
        return await self._of_directory(
            directory, recursive, include_reasoning, force=not self.deduplicate
        )

    async def process_batch_async(
        self, paths: Iterable[str | Path], include_reasoning: bool = False
    ) -> RunStats:
        """Classify the given files, which may be a generator of any length."""
        return await self.process_found_async(of_paths(paths), "list of files", include_reasoning)

    async def process_found_async(
        self, found: Iterable[Entry], source: str, include_reasoning: bool = False
    ) -> RunStats:
        """Classify what a discovery of any kind has found; ``source`` says which, to a person."""
        return await self._execute(
            found, source, include_reasoning=include_reasoning, force=not self.deduplicate
        )
