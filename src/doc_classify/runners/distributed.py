"""The door to many machines: submits runs, and looks on while Celery workers do them."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from doc_classify.classification.opening import taxonomy_of, trained_digest
from doc_classify.discovery import Found, Skipped, location, of_paths, of_uri, walk
from doc_classify.errors import (
    BrokerError,
    ConfigurationError,
    MissingDependencyError,
    StorageError,
)
from doc_classify.export import row_to_dict
from doc_classify.pipeline.plan import extraction_options
from doc_classify.records import CASCADE, Rejected, Source, display_name
from doc_classify.settings import Settings, load_settings
from doc_classify.storage.base import ResultFilter, RunInfo, RunSpec
from doc_classify.storage.chunks import CANCELLED, ChunkLedger
from doc_classify.storage.store import SqlStore
from doc_classify.taxonomy import Taxonomy

try:
    from doc_classify.celery_tasks import send, sweep, sweep_seconds
except ModuleNotFoundError as _error:
    if (_error.name or "").split(".")[0] not in ("celery", "kombu", "redis"):
        raise
    raise MissingDependencyError("celery", "distributed", "work with many machines") from _error

DOOR = "distributed"
ENDED = ("finished", "cancelled", "failed", "interrupted")
"""States of a run in which nothing more is done."""

_PATIENCE = 900.0
"""Seconds for which one who waits puts up with a database that does not answer."""


class CeleryDistributedProcessor:
    """Submits documents to Celery workers and follows how they come on.

    The state of a run is in the database alone, so any process that can reach it may ask, wait,
    cancel or resume, whichever submitted the run, and after the broker was emptied as well.

    Args:
        use_database: keep the text that was read, so that other categories need no new extraction.
            The ledger itself is always in the database, for it is what the workers share.
        batch_size: documents handed over in one transaction while submitting.
        categories: names of the categories, or a whole :class:`~doc_classify.Taxonomy`;
            default: as the settings have it.
        settings: everything else; default: environment and ``doc-classify.toml``.

    Raises:
        ConfigurationError: a setting cannot be used.
        StorageError: the database cannot be used.
    """

    def __init__(
        self,
        use_database: bool = True,
        batch_size: int = 1000,
        *,
        categories: Iterable[str] | Taxonomy | None = None,
        settings: Settings | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1, got {batch_size}")
        self._settings = settings or load_settings()
        if categories is not None and not isinstance(categories, Taxonomy):
            categories = Taxonomy.from_names(categories)
        self._taxonomy = taxonomy_of(self._settings, categories)
        self._batch_size = batch_size
        self._store_text = use_database and self._settings.store_text
        self._store = SqlStore(self._settings.database_url)
        self._ledger = ChunkLedger(self._store)

    @property
    def store(self) -> SqlStore:
        """The store with the ledger."""
        return self._store

    def submit_directory(
        self,
        directory: str | Path,
        recursive: bool = True,
        include_reasoning: bool = False,
        *,
        force: bool = False,
        on_begun: Callable[[str], None] | None = None,
        on_submitted: Callable[[int], None] | None = None,
    ) -> str:
        """Submit every document under a folder; returns the id of the run (the batch).

        Work begins while this goes on. Broken off, it leaves a run that holds what was submitted;
        submitting again makes a new run, in which nothing is done twice.

        Args:
            directory: the folder, as the workers see it, too.
            recursive: go into subfolders.
            include_reasoning: also store why.
            force: do again what is done already.
            on_begun: called with the id of the run as soon as there is one.
            on_submitted: called with the number of files submitted so far.

        Raises:
            ConfigurationError: there is no such folder.
            StorageError, BrokerError: the database or the broker cannot be used.
        """
        root = _absolute(directory)
        return self.submit_found(
            walk(root, recursive=recursive),
            display_name(str(root)),
            include_reasoning,
            force=force,
            on_begun=on_begun,
            on_submitted=on_submitted,
        )

    def submit_batch(self, paths: Iterable[str | Path], include_reasoning: bool = False) -> str:
        """Submit the given files, which may be a generator of any length."""
        return self.submit_found(
            of_paths(map(_absolute, paths)), "list of files", include_reasoning
        )

    def submit_found(
        self,
        found: Iterable[Found],
        source: str,
        include_reasoning: bool = False,
        *,
        force: bool = False,
        on_begun: Callable[[str], None] | None = None,
        on_submitted: Callable[[int], None] | None = None,
    ) -> str:
        """Submit what a discovery of any kind has found; ``source`` says which, to a person."""
        return self._submit(
            found,
            self._spec(source, include_reasoning, force),
            on_begun or (lambda _run_id: None),
            on_submitted or (lambda _number: None),
        )

    def retry(self, run_id: str, only: ResultFilter) -> str | None:
        """Submit files of an earlier run again, the way that run did them; None where none match.

        Raises:
            ConfigurationError: there is no such run.
        """
        info = self._info(run_id)
        paths = (of_uri(one.uri) for one in self._store.task_files(info.run_id, only))
        first = next(paths, None)
        if first is None:
            return None
        spec = RunSpec(
            **(
                asdict(info.spec)
                | {
                    "source": f"retry of {info.run_id} ({info.spec.source})",
                    "door": DOOR,
                    "force": True,
                    "fingerprint": "",
                }
            )
        )
        return self._submit(of_paths(itertools.chain((first,), paths)), spec)

    def check_progress(self, batch_id: str) -> dict[str, Any]:
        """How a run stands, at the cost of one row whatever its size.

        Returns:
            Counts in files: ``total_tasks``, ``completed`` (with whatever result), ``successful``,
            ``failed``, ``duplicates``, ``already_done``, ``unsupported``, ``pending``; ``state``,
            ``progress_percent``, ``message``, and the run's other counters. While the run is being
            submitted, ``total_tasks`` still grows.

        Raises:
            ConfigurationError: there is no such run.
        """
        info = self._store.progress(batch_id)
        if info is None:
            raise ConfigurationError(f"there is no run {batch_id!r}")
        stats = info.stats
        total = stats.submitted
        completed = stats.seen - stats.pending
        return {
            "batch_id": info.run_id,
            "state": info.state,
            "message": info.message,
            "total_tasks": total,
            "completed": completed,
            "progress_percent": 100.0 * completed / total if total else _empty(info.state),
            "successful": stats.classified,
            "failed": stats.failed,
            "duplicates": stats.duplicates,
            "already_done": stats.already_done,
            "unsupported": stats.unsupported,
            "skipped": stats.skipped,
            "needs_review": stats.needs_review,
            "pending": total - completed,
            "llm_calls": stats.llm_calls,
            "prompt_tokens": stats.prompt_tokens,
            "completion_tokens": stats.completion_tokens,
            "cost": stats.cost,
            "classifier": info.spec.classifier,
            "model": info.spec.settings.get("model"),
            "started": info.started,
            "heartbeat": info.heartbeat,
            "finished": info.finished,
        }

    def wait_for_completion(
        self,
        batch_id: str,
        poll_interval: float = 5.0,
        show_progress: bool = False,
        *,
        timeout: float | None = None,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Wait until a run has ended; returns its progress as it is then.

        Meanwhile chunks whose worker or message was lost are sent again. A broker that is away
        does not end the waiting, since workers go on with what they have; neither does a database
        that restarts.

        Args:
            batch_id: the run.
            poll_interval: seconds between two looks.
            show_progress: print a line on standard error when something has changed.
            timeout: seconds after which to return all the same.
            on_progress: called with each look's progress.

        Raises:
            ConfigurationError: there is no such run.
            StorageError: the database has not answered for a quarter of an hour.
        """
        began = answered = time.monotonic()
        swept = 0.0
        shown = ""
        first = True
        while True:
            try:
                progress = self.check_progress(batch_id)
            except StorageError:
                if first or time.monotonic() - answered > _PATIENCE:
                    raise
                time.sleep(poll_interval)
                continue
            first, answered = False, time.monotonic()
            if on_progress:
                on_progress(progress)
            line = _line(progress)
            if show_progress and line != shown:
                sys.stderr.write(line + "\n")
                shown = line
            over = timeout is not None and answered - began >= timeout
            if over or progress["state"] in ENDED:
                return progress
            if time.monotonic() - swept >= sweep_seconds(self._settings):
                swept = time.monotonic()
                with contextlib.suppress(BrokerError, StorageError):  # the next may have more luck
                    sweep(self._ledger, self._settings, progress["batch_id"])
            time.sleep(poll_interval)

    def get_results(
        self, batch_id: str, *, poll_interval: float = 5.0, only: ResultFilter | None = None
    ) -> Iterator[dict[str, Any]]:
        """The results of a run, once it has ended; streamed, whatever their number.

        The fields are those of an export.
        """
        run_id = self.wait_for_completion(batch_id, poll_interval)["batch_id"]
        return map(row_to_dict, self._store.results(run_id, only))

    def cancel(self, batch_id: str) -> bool:
        """Have no more chunks of a run begun; what is being done is finished.

        False where the run had ended already.
        """
        return self._ledger.end(self._info(batch_id).run_id, CANCELLED, "cancelled by the user")

    def resume(self, batch_id: str) -> int:
        """Let a run go on that was cancelled, failed, or lost its messages.

        Everything that is not done and held by nobody is sent again, which does no harm where a
        message for it exists. What was not submitted yet is not part of the run. Returns the
        number of chunks sent.
        """
        run_id = self._info(batch_id).run_id
        self._ledger.reopen(run_id)
        total, beyond = 0, -1
        while overdue := self._ledger.overdue(
            unsent_for=-1.0, limit=1000, run_id=run_id, beyond=beyond
        ):
            send(overdue, self._settings)
            total += len(overdue)
            beyond = overdue[-1][1]
        return total

    def close(self) -> None:
        """Give back connections."""
        self._store.close()

    def __enter__(self) -> CeleryDistributedProcessor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _info(self, run_id: str) -> RunInfo:
        info = self._store.progress(run_id)
        if info is None:
            raise ConfigurationError(f"there is no run {run_id!r}")
        return info

    def _spec(self, source: str, include_reasoning: bool, force: bool) -> RunSpec:
        """How the run is to classify; which model that means, the first worker settles."""
        settings = self._settings
        options = extraction_options(settings)
        terms: dict[str, object] = {}
        if settings.classifier == CASCADE:
            if settings.max_llm_calls is not None or settings.guarantee == "student":
                raise ConfigurationError(
                    "a cascade of many machines has neither max_llm_calls nor the guarantee for "
                    "the student's share, for which the student has to see everything first: "
                    "classify-parallel and classify-async have them"
                )
            names = ("agreement", "assurance", "guarantee", "if_hopeless")
            terms = {name: getattr(settings, name) for name in names}
        return RunSpec(
            source=source,
            door=DOOR,
            fingerprint="",
            extraction_key=options.key,
            classifier=settings.classifier,
            categories=self._taxonomy.names,
            settings={
                "extraction": options.to_dict(),
                "taxonomy": self._taxonomy.to_dict(),
                "include_reasoning": include_reasoning,
                "prices": asdict(settings.prices),
                **_model(settings),
                **terms,
            },
            force=force,
            store_text=self._store_text,
            teacher=settings.teacher if terms else "",
        )

    def _submit(
        self,
        found: Iterable[Found],
        spec: RunSpec,
        on_begun: Callable[[str], None] = lambda _run_id: None,
        on_submitted: Callable[[int], None] = lambda _number: None,
    ) -> str:
        entries = iter(found)
        first = list(itertools.islice(entries, self._batch_size))
        witness = next((one.uri for one in first if isinstance(one, Source)), None)
        spec.settings["witness"] = witness
        run_id = self._ledger.begin(spec)
        on_begun(run_id)
        submitted = 0
        try:
            batch = first
            while batch:
                self._submit_batch(run_id, batch)
                submitted += sum(not isinstance(one, Skipped) for one in batch)
                on_submitted(submitted)
                batch = list(itertools.islice(entries, self._batch_size))
        except BaseException as error:
            reason = "stopped by the user" if isinstance(error, KeyboardInterrupt) else str(error)
            # What was submitted is done all the same; the run says that it is not everything.
            self._ledger.submitted(run_id, broken_off=reason)
            raise
        self._ledger.submitted(run_id)
        return run_id

    def _submit_batch(self, run_id: str, batch: list[Found]) -> None:
        sources = [one for one in batch if isinstance(one, Source)]
        rejected = [one for one in batch if isinstance(one, Rejected)]
        skipped = sum(isinstance(one, Skipped) for one in batch)
        if rejected or skipped:
            self._store.reject(run_id, rejected, skipped)
        size = self._settings.distributed_chunk_size
        chunks = [sources[start : start + size] for start in range(0, len(sources), size)]
        numbers = self._ledger.add(run_id, chunks, len(rejected))
        # Only now that the chunks are committed may a worker hear of them.
        send([(run_id, number) for number in numbers], self._settings)
        self._ledger.sent(run_id, numbers)


def _empty(state: str) -> float:
    return 100.0 if state in ENDED else 0.0


def _line(progress: dict[str, Any]) -> str:
    return (
        f"{progress['completed']:,} of {progress['total_tasks']:,} documents "
        f"({progress['progress_percent']:.1f} %), {progress['failed']:,} failed, "
        f"{progress['state']}"
    )


def _absolute(given: str | Path) -> Path | str:
    """A folder, file or URL as the workers are to find it, whatever their working directory."""
    place = location(given)
    return place if isinstance(place, str) else place.absolute()


def _model(settings: Settings) -> dict[str, str | None]:
    """The model that workers are to use, and a trained one's digest, lest they have an older."""
    if digest := trained_digest(settings):
        path = str(settings.embedded_model and settings.embedded_model.absolute())
        return {"model": path, "model_digest": digest}
    return {"model": settings.chosen_model}
