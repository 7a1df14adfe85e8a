"""The one-machine door: isolated worker processes on all cores."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, TypeVar

from doc_classify.discovery import of_paths, walk
from doc_classify.errors import ConfigurationError
from doc_classify.pipeline.plan import Plan
from doc_classify.pipeline.run import Entry, Run
from doc_classify.records import RunStats, display_name, uri_to_path
from doc_classify.settings import Settings, load_settings
from doc_classify.storage import open_store, temporary_store
from doc_classify.storage.base import ResultFilter, Store
from doc_classify.taxonomy import Taxonomy

_T = TypeVar("_T")


class ParallelDocumentProcessor:
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

    Raises:
        ConfigurationError: a setting cannot be used.
    """

    def __init__(
        self,
        num_workers: int | None = None,
        use_database: bool = False,
        chunk_size: int | None = None,
        *,
        categories: Iterable[str] | Taxonomy | None = None,
        settings: Settings | None = None,
        on_progress: Callable[[RunStats], None] | None = None,
    ) -> None:
        base = settings or load_settings()
        given = {"workers": num_workers, "chunk_size": chunk_size}
        changes = {name: value for name, value in given.items() if value is not None}
        self._settings = base.changed(**changes) if changes else base
        if categories is None or isinstance(categories, Taxonomy):
            self._taxonomy = categories
        else:
            self._taxonomy = Taxonomy.from_names(categories)
        self._on_progress = on_progress
        self._resources = contextlib.ExitStack()
        self._store: Store | None = None
        self.use_database = use_database
        self.stats = RunStats()

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    @property
    def store(self) -> Store:
        """The store of this processor, opened on first use."""
        if self._store is None:
            if self.use_database:
                self._store = open_store(self._settings.database_url)
                self._resources.callback(self._store.close)
            else:
                self._store = self._resources.enter_context(temporary_store())
        return self._store

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
            KeyboardInterrupt: stopped by the user; ``stats`` says how far it came.
        """
        root = Path(directory)
        plan = self._plan(include_reasoning, force)
        return self._process(walk(root, recursive=recursive), display_name(str(root)), plan)

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
        return self._process(found, source, self._plan(include_reasoning, force))

    def retry(self, run_id: str, only: ResultFilter) -> RunStats:
        """Do files of an earlier run again, the way that run did them, in a new run.

        Where no file matches, no run is made.

        Raises:
            ConfigurationError: there is no such run.
        """
        info = self.store.run(run_id)
        if info is None:
            raise ConfigurationError(f"there is no run {run_id!r}")
        plan = Plan.repeat(info.spec, self._settings)
        source = f"retry of {info.run_id} ({info.spec.source})"
        # Looked at anew: they may have changed, or be gone, since that run.
        paths = (uri_to_path(found.uri) for found in self.store.task_files(info.run_id, only))
        first = next(paths, None)
        if first is None:
            self.stats = RunStats()
            return self.stats
        return self._process(of_paths(itertools.chain((first,), paths)), source, plan)

    def _plan(self, include_reasoning: bool, force: bool) -> Plan:
        return Plan.make(
            self._settings,
            taxonomy=self._taxonomy,
            include_reasoning=include_reasoning,
            force=force,
        )

    def _process(self, entries: Iterable[Entry], source: str, plan: Plan) -> RunStats:
        if not self.use_database:
            # Nobody will ask a temporary store for another taxonomy.
            plan = replace(plan, store_text=False)
        run = Run(self.store, plan, on_progress=self._on_progress)
        try:
            run_blocking(run.execute(entries, source, "parallel"))
        finally:
            self.stats = run.stats
        return self.stats

    def print_summary(self, file: TextIO | None = None) -> None:
        """Print what became of the last run's files, for a person (to standard output)."""
        from doc_classify.summary import print_summary

        print_summary(self.stats, file or sys.stdout)

    def export_results(self, path: str | Path) -> Path:
        """Write the last run's results; the ending says how: .json, .jsonl, .csv, .parquet.

        Raises:
            ConfigurationError: nothing was processed, or the ending is not known.
        """
        from doc_classify.export import export_results

        if not self.stats.run_id:
            raise ConfigurationError("there is nothing to export: no run has been made")
        return export_results(self.store, self.stats.run_id, Path(path))

    def close(self) -> None:
        """Give back connections; results kept without a database are gone."""
        self._store = None
        self._resources.close()

    def __enter__(self) -> ParallelDocumentProcessor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def run_blocking(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end, also where an event loop runs already (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    result: list[_T] = []
    errors: list[BaseException] = []
    stop: list[Callable[[], object]] = []
    started, ended = threading.Event(), threading.Event()

    async def watched() -> _T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 (for the type checker: a coroutine runs in a task)
        stop.append(partial(loop.call_soon_threadsafe, task.cancel))
        started.set()
        return await work

    def run() -> None:
        try:
            result.append(asyncio.run(watched()))
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run, name="doc-classify")
    thread.start()
    try:
        ended.wait()  # not join: once interrupted, it takes the thread for ended (Python 3.11)
    except KeyboardInterrupt:
        # It reaches this thread alone; what is classified is stored before it goes on.
        started.wait()
        with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
            stop[0]()
        ended.wait()
        raise
    if errors:
        raise errors[0]
    return result[0]
