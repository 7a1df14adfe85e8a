"""What a run would do, without doing it or writing anything."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from doc_classify.blocking import run_blocking
from doc_classify.classification.opening import open_classifier, taxonomy_of
from doc_classify.discovery import Found, Skipped, hash_file, walk
from doc_classify.discovery.objects import fetched
from doc_classify.errors import TransientError
from doc_classify.extraction import supported_media_types
from doc_classify.pipeline.plan import Plan
from doc_classify.records import (
    CASCADE,
    Rejected,
    Source,
    document_name,
    is_object_uri,
    uri_to_path,
)
from doc_classify.settings import Settings
from doc_classify.sniffing import describe, sniff
from doc_classify.storage import open_existing
from doc_classify.storage.base import Store
from doc_classify.summary import duration

_BATCH = 500
_RUNS = 50
"""Newest runs among which one is looked for that tells the time."""
_ENOUGH = 20
"""Documents from which on a run's rate says something about other documents."""


@dataclass(slots=True)
class Preview:
    """Counts of what a run would meet.

    ``types`` counts the files that would be taken, by type; ``rate`` is documents per second of
    a recent finished run in the database, None where there is none. ``cascade`` says what a
    cascade would draw, None where the classifier is another.
    """

    seen: int = 0
    take: int = 0
    already_done: int = 0
    duplicates: int = 0
    unsupported: int = 0
    failed: int = 0
    skipped: int = 0
    types: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    rate: float | None = None
    cascade: str | None = None

    def lines(self) -> list[str]:
        """The preview for a person."""
        lines = [
            f"{self.seen:,} files: {self.take:,} would be classified, {self.already_done:,} are "
            f"done already, {self.duplicates:,} are duplicates, {self.unsupported:,} are not "
            f"supported, {self.failed:,} cannot be read; {self.skipped:,} hidden or temporary "
            "ones would be skipped"
        ]
        lines += [f"  {number:>9,}  {name}" for name, number in self.types.items()]
        lines += [f"  {number:>9,}  not taken: {name}" for name, number in self.rejected.items()]
        if self.cascade:
            lines.append(self.cascade)
        if self.rate and self.take:
            lines.append(
                f"About {duration(self.take / self.rate)} at the {self.rate:,.1f} documents/s "
                "of an earlier run"
            )
        elif self.take:
            lines.append("No finished run in the database yet to estimate the time from.")
        return lines


def preview(
    root: Path | str, settings: Settings, *, include_reasoning: bool = False, force: bool = False
) -> Preview:
    """Look at everything under ``root`` as a run would.

    Every file is hashed and its type found. The hashes are remembered (32 bytes a file), which is
    all that grows with the number of files.

    Raises:
        ConfigurationError: there is no such folder, or a setting cannot be used.
        StorageError: the database exists but cannot be read.
        ServerError, ServerSetupError: the LLM server cannot be used.
    """
    fingerprint = run_blocking(_fingerprint(settings, include_reasoning))
    found = Preview()
    types: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    supported = supported_media_types()
    met: set[bytes] = set()
    with _existing_store(settings.database_url) as store:
        entries = walk(root, recursive=settings.recursive)
        while batch := list(islice(entries, _BATCH)):
            types_of: dict[Source, str] = {}
            hashes = _hashes(batch, store, found, rejected, types_of)
            done: set[str] = set()
            if store and not force:
                done = store.done_hashes(fingerprint, list(set(hashes.values())))
            for source, sha256 in hashes.items():
                if bytes.fromhex(sha256) in met:
                    found.duplicates += 1
                    continue
                met.add(bytes.fromhex(sha256))
                if sha256 in done:
                    found.already_done += 1
                    continue
                try:
                    media_type = types_of.get(source) or _type(source)
                except (OSError, TransientError):
                    found.failed += 1
                    rejected["unreadable"] += 1
                    continue
                if media_type in supported or media_type == "application/x-empty":
                    found.take += 1
                    types[describe(media_type)] += 1
                else:
                    found.unsupported += 1
                    rejected[describe(media_type)] += 1
        if store:
            found.rate = _rate(store)
    if settings.classifier == CASCADE:
        found.cascade = _first_sample(settings, found.take)
    found.types, found.rejected = dict(types.most_common()), dict(rejected.most_common())
    return found


async def _fingerprint(settings: Settings, include_reasoning: bool) -> str:
    """The key of the results that a run would look for."""
    taxonomy = taxonomy_of(settings)
    async with open_classifier(settings, taxonomy, include_reasoning=include_reasoning) as chosen:
        plan = Plan.make(
            settings, chosen.classifier, taxonomy=taxonomy, include_reasoning=include_reasoning
        )
        return plan.fingerprint


def _first_sample(settings: Settings, documents: int) -> str:
    """What a cascade would do first with so many documents, for a person."""
    from doc_classify.classification import cascade

    if not documents:
        return "Cascade: nothing to decide"
    step = cascade.next_step(
        cascade.Lot(
            population=documents,
            categories=len(settings.make_taxonomy().names),
            promise=cascade.Promise(settings.agreement, settings.assurance, settings.guarantee),
            max_calls=settings.max_llm_calls,
        ),
        [],
    )
    if isinstance(step, cascade.Train):
        return (
            f"Cascade: the LLM would be asked about {step.documents:,} of these first, drawn from "
            "all of them; how many more it takes depends on what can be learned from that"
        )
    message = step.message if isinstance(step, cascade.AskAll) else ""
    return f"Cascade: nothing to save, the LLM would be asked about all: {message}"


def _rate(store: Store) -> float | None:
    """Documents per second of the newest finished run, of one that is long enough if there is."""
    finished = [
        info.stats
        for info in store.runs(_RUNS)
        if info.state == "finished" and info.stats.processed and info.stats.documents_per_second
    ]
    enough = [stats for stats in finished if stats.processed >= _ENOUGH]
    return next((stats.documents_per_second for stats in enough or finished), None)


def _type(source: Source) -> str:
    if not is_object_uri(source.uri):
        return sniff(uri_to_path(source.uri))
    with fetched(source) as copy:
        return sniff(copy.path, document_name(source.uri))


def _hashes(
    batch: list[Found],
    store: Store | None,
    found: Preview,
    rejected: Counter[str],
    types_of: dict[Source, str],
) -> dict[Source, str]:
    """The hashes of a batch; types are found on the way where a document had to be fetched."""
    sources = []
    for entry in batch:
        if isinstance(entry, Skipped):
            found.skipped += 1
            continue
        found.seen += 1
        if isinstance(entry, Rejected):
            readable = entry.kind not in ("unreadable", "vanished", "changed")
            found.unsupported += readable
            found.failed += not readable
            rejected[entry.kind] += 1
        else:
            sources.append(entry)
    known = store.known_hashes(sources) if store else [None] * len(sources)
    hashes = {}
    for source, sha256 in zip(sources, known, strict=True):
        try:
            if sha256 is None and is_object_uri(source.uri):
                with fetched(source) as copy:
                    sha256 = copy.sha256
                    types_of[source] = sniff(copy.path, document_name(source.uri))
            hashes[source] = sha256 or hash_file(source)
        except TransientError as error:
            found.failed += 1
            rejected[error.kind] += 1
    return hashes


@contextlib.contextmanager
def _existing_store(url: str) -> Iterator[Store | None]:
    """The configured store, unless a first run has yet to make it."""
    store = open_existing(url)
    try:
        yield store
    finally:
        if store:
            store.close()
