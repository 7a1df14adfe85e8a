"""Where documents to learn from come from: files, a run's answers, people's corrections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from doc_classify.blocking import run_blocking
from doc_classify.classification import ClassifierInput
from doc_classify.classification.embedded import EmbeddedClassifier
from doc_classify.classification.learning import Labelled
from doc_classify.discovery import walk
from doc_classify.errors import ConfigurationError
from doc_classify.pipeline.intake import Entry
from doc_classify.pipeline.plan import Plan
from doc_classify.pipeline.run import Run
from doc_classify.records import STUDENT, Extraction, FileStatus, RunStats, document_name
from doc_classify.settings import Settings
from doc_classify.storage.base import ResultRow, RunInfo
from doc_classify.storage.corrections import CorrectionLedger
from doc_classify.storage.store import SqlStore
from doc_classify.storage.texts import classified_documents
from doc_classify.taxonomy import Taxonomy
from doc_classify.training.labels import Label, LabelledFiles

DOOR = "train"
_SHOWN = 20
EMBEDDED = EmbeddedClassifier.name


@dataclass(slots=True)
class Gathered:
    """What became of the documents that were to be learnt from.

    Attributes:
        failed: documents that could not be read, or whose text is not stored.
        unsupported: files of types that are not taken.
        unlabelled: files that have no label, such as those beside the folders.
        contradictory: documents that stand under two categories, which are left out.
        wordless: documents without words.
        messages: reasons, of the first few.
    """

    failed: int = 0
    unsupported: int = 0
    unlabelled: int = 0
    contradictory: int = 0
    wordless: int = 0
    messages: list[str] = field(default_factory=list)

    def say(self, uri: str, reason: str) -> None:
        """Keep a reason, if there are not too many yet."""
        if len(self.messages) < _SHOWN:
            self.messages.append(f"{document_name(uri)}: {reason}")


class Progress(AbstractContextManager[Any], Protocol):
    """What shows how the reading comes on."""

    def update(self, stats: RunStats) -> None:
        """Show the stats as committed."""
        ...


def of_files(
    labelled: LabelledFiles,
    settings: Settings,
    store: SqlStore,
    taxonomy: Taxonomy,
    gathered: Gathered,
    progress: Progress,
) -> Iterator[Labelled]:
    """Read labelled files in isolated workers, like any run, then give them one by one.

    Args:
        labelled: the files.
        settings: how to read them.
        store: one of its own, for the time of the training.
        taxonomy: which has all the categories of the labels.
        gathered: is filled in.
        progress: entered while the files are read, and told the stats of that.
    """
    info = _read(labelled.entries(), str(labelled.path), settings, store, taxonomy, progress)
    labels = _labels(labelled, store, info, gathered)
    for document in classified_documents(store, info):
        label = labels.get(bytes.fromhex(document.sha256))
        if label and document.extraction:
            yield _labelled(
                document.extraction, document.uri, document.sha256, label.category, label.group
            )


def unlabelled_files(
    folder: Path,
    settings: Settings,
    store: SqlStore,
    taxonomy: Taxonomy,
    gathered: Gathered,
    progress: Progress,
) -> Iterator[ClassifierInput]:
    """The same for all files of a folder, whatever their labels may be; nothing is known of them.

    Args:
        folder: looked through with what is in it.
        settings: how to read the files.
        store: one of its own, for the time of the training.
        taxonomy: the categories.
        gathered: is filled in.
        progress: entered while the files are read, and told the stats of that.
    """
    info = _read(walk(folder), str(folder), settings, store, taxonomy, progress)
    for row in store.results(info.run_id):
        _unread(row, gathered)
    yield from texts_of_run(store, info, gathered)


def texts_of_run(store: SqlStore, info: RunInfo, gathered: Gathered) -> Iterator[ClassifierInput]:
    """The texts of the documents that a run has classified, and nothing of what it said."""
    for document in classified_documents(store, info):
        if document.extraction is None:
            _missing(document.uri, gathered)
        else:
            yield ClassifierInput.of(document.extraction, document_name(document.uri))


def _read(
    entries: Iterator[Entry],
    root: str,
    settings: Settings,
    store: SqlStore,
    taxonomy: Taxonomy,
    progress: Progress,
) -> RunInfo:
    # The workers have to classify; what they find is not used.
    plan = Plan.make(
        settings.choosing(EMBEDDED).changed(store_text=True),
        EmbeddedClassifier(taxonomy),
        taxonomy=taxonomy,
    )
    run = Run(store, plan, on_progress=progress.update)
    with progress:
        run_blocking(run.execute(entries, root, DOOR))
    info = store.run(run.stats.run_id)
    if info is None:
        raise ConfigurationError("the files were not read")
    return info


def _unread(row: ResultRow, gathered: Gathered) -> bool:
    """Count a file if it was not read, and say whether that is so."""
    if row.status == FileStatus.UNSUPPORTED:
        gathered.unsupported += 1
        gathered.say(row.uri, row.failure.message if row.failure else "not taken")
        return True
    if row.failure or row.sha256 is None:
        gathered.failed += 1
        gathered.say(row.uri, row.failure.message if row.failure else "could not be read")
        return True
    return False


def _labels(
    labelled: LabelledFiles, store: SqlStore, info: RunInfo, gathered: Gathered
) -> dict[bytes, Label]:
    """The label of each document, by its hash; without those that have two."""
    found: dict[bytes, Label] = {}
    contradictory: set[bytes] = set()
    for row in store.results(info.run_id):
        label = labelled.label(row.uri)
        if _unread(row, gathered) or row.sha256 is None:
            continue
        if label is None:
            gathered.unlabelled += 1
        else:
            key = bytes.fromhex(row.sha256)
            if found.setdefault(key, label).category != label.category:
                contradictory.add(key)
                gathered.say(row.uri, f"also stands under {found[key].category}")
    gathered.contradictory = len(contradictory)
    for key in contradictory:
        del found[key]
    return found


def of_run(store: SqlStore, info: RunInfo, gathered: Gathered) -> Iterator[Labelled]:
    """The documents of a run, with its LLM's scores as labels, or what people have said.

    Raises:
        ConfigurationError: the run was not made by an LLM.
    """
    if info.spec.classifier == EMBEDDED:
        raise ConfigurationError(
            f"run {info.run_id} was made by the embedded classifier, which has nothing to learn "
            "from its own answers: use --from-corrections, or a run of an LLM"
        )
    for document in classified_documents(store, info):
        if document.decided_by == STUDENT:
            continue  # of a cascade: an answer that was learned is nothing to learn from
        if document.extraction is None:
            _missing(document.uri, gathered)
            continue
        positive = {name: score for name, score in document.scores if score > 0}
        label: str | dict[str, float] = document.category
        if positive and not document.corrected:
            label = positive
        yield _labelled(document.extraction, document.uri, document.sha256, label)


def of_corrections(store: SqlStore, taxonomy: Taxonomy, gathered: Gathered) -> Iterator[Labelled]:
    """The documents whose category people have put right."""
    for document in CorrectionLedger(store).corrected_documents(taxonomy):
        if document.extraction is None:
            _missing(document.uri, gathered)
            continue
        yield _labelled(document.extraction, document.uri, document.sha256, document.category)


def _missing(uri: str, gathered: Gathered) -> None:
    gathered.failed += 1
    gathered.say(uri, "its text is not stored")


def _labelled(
    extraction: Extraction,
    uri: str,
    sha256: str,
    label: str | dict[str, float],
    group: str = "",
) -> Labelled:
    document = ClassifierInput.of(extraction, document_name(uri))
    return Labelled(document, label, group=group, key=sha256)
