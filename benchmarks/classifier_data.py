"""Labelled documents for ``classifier.py``: folders of text files, their sources, and splits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from doc_classify.classification import ClassifierInput
from doc_classify.taxonomy import DEFAULT_TAXONOMY, Taxonomy


@dataclass(frozen=True)
class Document:
    """One document, its category, the folder it lies in, and the source it comes from."""

    document: ClassifierInput
    label: str
    folder: str
    source: str


def load(
    folder: Path, mapped: dict[str, str], manifest: Path | None, sample: int | None, seed: int = 0
) -> list[Document]:
    """The documents of the folders that are mapped; at most ``sample`` of them, drawn uniformly.

    Names and titles of files are left out: those of a collection often say the category.
    """
    source_of = _sources(manifest)
    paths = [path for path in sorted(folder.glob("*/*")) if path.parent.name in mapped]
    if sample is not None and sample < len(paths):
        drawn = np.random.default_rng(seed).choice(len(paths), sample, replace=False)
        paths = [paths[at] for at in sorted(drawn)]
    return [
        Document(
            ClassifierInput(path.read_text("utf-8", "replace")),
            mapped[path.parent.name],
            path.parent.name,
            source_of.get((path.parent.name, path.name), ""),
        )
        for path in paths
    ]


def mapping(folder: Path, pairs: list[str]) -> dict[str, str]:
    """Folder -> category; without pairs each folder is a category."""
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return dict(pair.split("=", 1) for pair in pairs) or {name: name for name in folders}


def taxonomy_for(mapped: dict[str, str], file: Path | None) -> Taxonomy:
    """That of the file; else the default one, where it has all categories; else bare names."""
    if file:
        return Taxonomy.from_file(file)
    if set(mapped.values()) <= set(DEFAULT_TAXONOMY.names):
        return DEFAULT_TAXONOMY
    return Taxonomy.from_names(sorted(set(mapped.values())))


def _sources(manifest: Path | None) -> dict[tuple[str, str], str]:
    """(folder, file name) -> source."""
    if manifest is None:
        return {}
    found = {}
    with manifest.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            path = Path(entry["file"])
            found[path.parent.name, path.name] = entry["repository"]
    return found


def random_folds(number: int, folds: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rest, fold) of a random split into folds."""
    order = np.random.default_rng(seed).permutation(number)
    for at in range(folds):
        yield np.sort(np.delete(order, np.s_[at::folds])), np.sort(order[at::folds])


def source_folds(sources: list[str], folds: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rest, fold) where no source is in both; the largest sources are dealt out first."""
    names, places, sizes = np.unique(sources, return_inverse=True, return_counts=True)
    fold_of = np.zeros(len(names), int)
    filled = np.zeros(min(folds, len(names)))
    for source in np.argsort(-sizes, kind="stable"):
        fold_of[source] = filled.argmin()
        filled[fold_of[source]] += sizes[source]
    for at in range(len(filled)):
        out = fold_of[places] == at
        yield np.flatnonzero(~out), np.flatnonzero(out)
