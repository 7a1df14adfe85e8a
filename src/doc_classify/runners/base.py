"""What the doors have in common: settings, a store, one run, and a look back at it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TextIO

from doc_classify.classification.llm import LlmClassifier
from doc_classify.classification.opening import open_classifier, taxonomy_of
from doc_classify.discovery import location, of_paths, of_uri, walk
from doc_classify.errors import ConfigurationError
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.pipeline.intake import Entry
from doc_classify.pipeline.plan import Plan, settings_of_run
from doc_classify.pipeline.run import Run
from doc_classify.records import RunStats, display_name
from doc_classify.settings import Settings, load_settings
from doc_classify.storage import open_store, temporary_store
from doc_classify.storage.base import ResultFilter, Store
from doc_classify.taxonomy import Taxonomy

if TYPE_CHECKING:
    from doc_classify.pipeline.cascade_run import CascadeRun

_logger = logging.getLogger("doc_classify")


class Processor:
    """Base of the doors; each says in its own way when to wait.

    Args:
        use_database: keep results, so that a later run takes only what is new. Without it they
            live in a temporary store until :meth:`close`, or the end of the process.
        categories: names of the categories, or a whole :class:`~doc_classify.Taxonomy`;
            default: as the settings have it.
        settings: everything else; default: environment and ``doc-classify.toml``.
        changes: settings that the door was given by name; None counts as not given.
        on_progress: called with the stats as committed, about once a second.
        on_notice: called with what the run waits for, and with None when that is over.
        on_choice: called once, before the first document, with the classifier that was chosen and
            why; default: a log record.
        on_stage: called with what a cascade does next; default: a log record.

    Raises:
        ConfigurationError: a setting cannot be used.
    """

    door: ClassVar[str]

    def __init__(
        self,
        *,
        use_database: bool,
        categories: Iterable[str] | Taxonomy | None,
        settings: Settings | None,
        changes: dict[str, Any],
        on_progress: Callable[[RunStats], None] | None,
        on_notice: Callable[[str | None], None] | None,
        on_choice: Callable[[str], None] | None,
        on_stage: Callable[[str], None] | None,
    ) -> None:
        base = settings or load_settings()
        given = {name: value for name, value in changes.items() if value is not None}
        self._settings = base.changed(**given) if given else base
        if categories is None or isinstance(categories, Taxonomy):
            self._taxonomy = categories
        else:
            self._taxonomy = Taxonomy.from_names(categories)
        self._on_progress = on_progress
        self._on_notice = on_notice
        self._on_choice = on_choice or (lambda reason: _logger.info("classifier: %s", reason))
        self._on_stage = on_stage or (lambda text: _logger.info("cascade: %s", text))
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

    async def _of_directory(
        self, directory: str | Path, recursive: bool, include_reasoning: bool, force: bool
    ) -> RunStats:
        root = location(directory)
        return await self._execute(
            walk(root, recursive=recursive),
            display_name(str(root)),
            include_reasoning=include_reasoning,
            force=force,
        )

    async def _retry(self, run_id: str, only: ResultFilter) -> RunStats:
        info = self.store.run(run_id)
        if info is None:
            raise ConfigurationError(f"there is no run {run_id!r}")
        source = f"retry of {info.run_id} ({info.spec.source})"
        # Looked at anew: they may have changed, or be gone, since that run.
        paths = (of_uri(found.uri) for found in self.store.task_files(info.run_id, only))
        first = next(paths, None)
        if first is None:
            self.stats = RunStats()
            return self.stats
        stored: Any = info.spec.settings
        return await self._execute(
            of_paths(itertools.chain((first,), paths)),
            source,
            include_reasoning=bool(stored["include_reasoning"]),
            force=True,
            settings=settings_of_run(self._settings, info.spec),
            taxonomy=Taxonomy.from_dict(stored["taxonomy"], "stored run"),
            options=ExtractionOptions.from_dict(stored["extraction"]),
            digest=stored.get("model_digest"),
        )

    async def _execute(
        self,
        entries: Iterable[Entry],
        source: str,
        *,
        include_reasoning: bool,
        force: bool,
        settings: Settings | None = None,
        taxonomy: Taxonomy | None = None,
        options: ExtractionOptions | None = None,
        digest: str | None = None,
    ) -> RunStats:
        """One run, with everything that it needs opened and closed around it."""
        settings = settings or self._settings
        taxonomy = taxonomy or taxonomy_of(settings, self._taxonomy)
        async with open_classifier(
            settings, taxonomy, include_reasoning=include_reasoning, digest=digest
        ) as chosen:
            plan = Plan.make(
                settings,
                chosen.classifier,
                taxonomy=taxonomy,
                options=options,
                include_reasoning=include_reasoning,
                force=force,
            )
            if not self.use_database:
                # Nobody will ask a temporary store for another taxonomy.
                plan = replace(plan, store_text=False)
            self._on_choice(chosen.reason)
            llm = chosen.classifier if isinstance(chosen.classifier, LlmClassifier) else None
            run: Run | CascadeRun
            if plan.promise and llm:
                from doc_classify.pipeline.cascade_run import CascadeRun

                run = CascadeRun(
                    self.store,
                    plan,
                    classifier=llm,
                    on_progress=self._on_progress,
                    on_notice=self._on_notice,
                    on_stage=self._on_stage,
                )
            else:
                run = Run(
                    self.store,
                    plan,
                    classifier=llm,
                    on_progress=self._on_progress,
                    on_notice=self._on_notice,
                )
            try:
                await run.execute(entries, source, self.door)
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
