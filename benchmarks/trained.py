"""What features are worth, and what training and trained models cost.

    python benchmarks/trained.py LABELLED_DIR [--manifest MANIFEST.jsonl] [--scale 100000]

LABELLED_DIR has a folder of text files for each category. ``benchmarks/classifier.py`` says how
often trained models are right; this compares features by the accuracy of the same head, each
document (with ``--manifest``: each source) left out, and takes times. Times are of CPU, of one
process; memory is the peak of the process, of which training adds a part.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from classifier_data import Document, load, mapping, taxonomy_for

from doc_classify.classification import ClassifierInput, make_classifier
from doc_classify.classification.features import BUCKETS, Row, row
from doc_classify.classification.head import fit
from doc_classify.classification.learning import Example, Labelled, TrainingSet
from doc_classify.classification.words import read
from doc_classify.taxonomy import DEFAULT_TAXONOMY

Extra = Callable[[list[str]], Iterator[str]]


def main() -> None:
    """Run the parts that were asked for and print a line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--map", action="append", default=[], metavar="FOLDER=CATEGORY")
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--sample", type=int, default=1000, help="documents at most")
    parser.add_argument("--scale", type=int, help="also train on so many synthetic rows")
    given = parser.parse_args()
    mapped = mapping(given.folder, given.map)
    documents = load(given.folder, mapped, given.manifest, given.sample)
    for name, extra in (
        ("words", None),
        ("words and bigrams", _bigrams),
        ("words and character 3- to 5-grams", _characters),
    ):
        print(json.dumps(_features(name, documents, extra)), flush=True)
    training = TrainingSet(taxonomy_for(mapped, None))
    for one in documents:
        training.add(Labelled(one.document, one.label))
    for zero_shot in (True, False):
        print(json.dumps(_speed(documents, training, zero_shot)), flush=True)
    if given.scale:
        print(json.dumps(_scale(given.scale)), flush=True)


def _features(name: str, documents: list[Document], extra: Extra | None) -> dict[str, object]:
    started = time.process_time()
    rows = [_row(one.document, extra) for one in documents]
    seconds = time.process_time() - started
    labels = sorted({one.label for one in documents})
    targets = np.eye(len(labels))[[labels.index(one.label) for one in documents]]
    found: dict[str, object] = {
        "features": name,
        "documents": len(rows),
        "milliseconds_per_document": round(1000 * seconds / len(rows), 3),
        "features_per_document": round(float(np.mean([len(one.indices) for one in rows]))),
    }
    found["accuracy"] = _accuracy(rows, targets, None)
    sources = [one.source for one in documents]
    if any(sources):
        _, groups = np.unique(sources, return_inverse=True)
        found["accuracy_new_sources"] = _accuracy(rows, targets, groups)
    return found


def _accuracy(rows: list[Row], targets: np.ndarray, groups: np.ndarray | None) -> float:
    out = fit(rows, targets, groups=groups).held_out
    return round(float((out.scores.argmax(1) == targets[out.rows].argmax(1)).mean()), 4)


def _row(document: ClassifierInput, extra: Extra | None) -> Row:
    """The product's row, or one with more features that together weigh half as much."""
    plain = row(document)
    if extra is None:
        return plain
    counts = Counter(
        zlib.crc32(feature.encode()) % BUCKETS for feature in extra(read(document).body)
    )
    added = np.zeros(BUCKETS)
    added[list(counts)] = 1 + np.log(list(counts.values()))
    length = np.linalg.norm(added)
    if length:
        added *= 0.7 * np.linalg.norm(plain.values) / length
    added[plain.indices] += plain.values
    indices = np.flatnonzero(added)
    return Row(indices.astype(np.uint32), added[indices].astype(np.float32))


def _bigrams(words: list[str]) -> Iterator[str]:
    return (f"{first} {second}" for first, second in pairwise(words))


def _characters(words: list[str]) -> Iterator[str]:
    for word in words:
        bounded = f" {word} "
        for size in (3, 4, 5):
            for start in range(len(bounded) - size + 1):
                yield f"#{bounded[start : start + size]}"


def _speed(documents: list[Document], training: TrainingSet, zero_shot: bool) -> dict[str, object]:
    part = TrainingSet(training.taxonomy, zero_shot=zero_shot)
    part.examples = training.examples
    started = time.process_time()
    model = part.learn("").model
    fitted = time.process_time() - started
    data = model.to_bytes()
    started = time.process_time()
    classifier = make_classifier("embedded", model.taxonomy, data)
    loaded = time.process_time() - started
    for one in documents[:100]:
        classifier.classify(one.document)
    started = time.process_time()
    for one in documents:
        classifier.classify(one.document)
    seconds = time.process_time() - started
    return {
        "model": "on top of the zero-shot classifier" if model.head.trust else "alone",
        "documents": len(documents),
        "characters_per_document": round(np.mean([len(one.document.text) for one in documents])),
        "kilobytes": round(len(data) / 1000),
        "seconds_to_train": round(fitted, 2),
        "seconds_to_load": round(loaded, 3),
        "milliseconds_per_document": round(1000 * seconds / len(documents), 2),
    }


def _scale(number: int) -> dict[str, object]:
    """Training on rows with words as frequent as those of a language (Zipf's law)."""
    random = np.random.default_rng(0)
    categories = len(DEFAULT_TAXONOMY.categories)
    training = TrainingSet(DEFAULT_TAXONOMY)
    words = 0
    for at in range(number):
        drawn = (random.zipf(1.3, 400) * 2654435761 % BUCKETS).astype(np.uint32)
        own = (random.integers(0, 3000, 8) * categories + at % categories).astype(np.uint32)
        indices = np.unique(np.concatenate([drawn, own]))
        words += len(indices)
        target = np.eye(categories, dtype=np.float32)[at % categories]
        prior = np.full(categories, 0.1, np.float32)
        one = Row(indices, np.ones(len(indices), np.float32))
        training.put(f"{at:08}", Example(one, target, prior, 1.0, ""))
    before = _peak()
    started = time.process_time()
    model = training.learn("").model
    return {
        "synthetic_documents": number,
        "words_per_document": round(words / number),
        "seconds_to_train": round(time.process_time() - started, 1),
        "megabytes_of_rows": round(before),
        "megabytes_with_training": round(_peak()),
        "kilobytes": round(len(model.to_bytes()) / 1000),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
