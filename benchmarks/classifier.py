"""How often the embedded classifier is right, on your own labelled documents.

Usage::

    python benchmarks/classifier.py LABELLED_DIR [--taxonomy FILE] [--manifest FILE] [--json FILE]

Every sub-folder of LABELLED_DIR is a category and holds its documents as text files. A manifest
has one JSON object a line with ``file`` (its path ends with that of the document) and
``repository``; with it the accuracy is also given per source.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from doc_classify.classification import ClassifierInput, make_classifier
from doc_classify.taxonomy import DEFAULT_TAXONOMY, Taxonomy

_RESAMPLES = 2000
_BINS = 10


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--taxonomy", type=Path)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    labels = sorted(path.name for path in arguments.folder.iterdir() if path.is_dir())
    if arguments.taxonomy:
        taxonomy = Taxonomy.from_file(arguments.taxonomy)
    elif set(labels) <= set(DEFAULT_TAXONOMY.names):
        taxonomy = DEFAULT_TAXONOMY
    else:
        taxonomy = Taxonomy.from_names(labels)
    report = measure(arguments.folder, taxonomy, sources(arguments.manifest))
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2))


def sources(manifest: Path | None) -> dict[tuple[str, str], str]:
    """(category folder, file name) -> source."""
    if manifest is None:
        return {}
    found = {}
    with manifest.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            path = Path(entry["file"])
            found[path.parent.name, path.name] = entry["repository"]
    return found


def measure(folder: Path, taxonomy: Taxonomy, source_of: dict[tuple[str, str], str]) -> Any:
    """Classify every document and compare."""
    classifier = make_classifier("embedded", taxonomy)
    pairs: list[tuple[str, str]] = []
    confidences: list[float | None] = []
    by_source: dict[str, list[bool]] = defaultdict(list)
    seconds = 0.0
    for path in sorted(folder.glob("*/*")):
        text = path.read_text("utf-8", "replace")
        started = time.process_time()
        found = classifier.classify(ClassifierInput(text))
        seconds += time.process_time() - started
        label = path.parent.name
        pairs.append((label, found.category))
        confidences.append(found.confidence)
        if source := source_of.get((label, path.name)):
            by_source[f"{label}: {source}"].append(label == found.category)
    right = np.array([label == answer for label, answer in pairs])
    return {
        "documents": len(pairs),
        "accuracy": float(right.mean()),
        "accuracy_95": interval(right),
        "macro_f1": float(np.mean([f1 for _, _, f1 in by_category(pairs).values()])),
        "categories": by_category(pairs),
        "ece": calibration_error(right, confidences),
        "documents_per_cpu_second": len(pairs) / seconds,
        "sources": {name: (len(hits), sum(hits) / len(hits)) for name, hits in by_source.items()},
    }


def interval(right: np.ndarray) -> list[float]:
    """Bootstrap interval (percentiles 2.5 and 97.5) of the mean."""
    random = np.random.default_rng(0)
    means = random.choice(right, (_RESAMPLES, len(right))).mean(axis=1)
    return [float(value) for value in np.percentile(means, [2.5, 97.5])]


def by_category(pairs: list[tuple[str, str]]) -> dict[str, tuple[float, float, float]]:
    """Precision, recall and F1 of each category that has documents."""
    hits = Counter(label for label, answer in pairs if label == answer)
    labels, answers = Counter(p[0] for p in pairs), Counter(p[1] for p in pairs)
    result = {}
    for name in sorted(labels):
        precision = hits[name] / answers[name] if answers[name] else 0.0
        recall = hits[name] / labels[name]
        total = precision + recall
        result[name] = (precision, recall, 2 * precision * recall / total if total else 0.0)
    return result


def calibration_error(right: np.ndarray, confidences: list[float | None]) -> float | None:
    """Expected calibration error over equal bins (Guo et al., 2017); None without confidences."""
    if any(value is None for value in confidences):
        return None
    values = np.array(confidences, dtype=float)
    bins = np.minimum((values * _BINS).astype(int), _BINS - 1)
    gaps = [
        (bins == b).mean() * abs(right[bins == b].mean() - values[bins == b].mean())
        for b in set(bins)
    ]
    return float(sum(gaps))


def show(report: Any) -> None:
    """Print the report for a person."""
    low, high = report["accuracy_95"]
    print(
        f"{report['documents']} documents, accuracy {report['accuracy']:.3f} ({low:.3f}-{high:.3f})"
    )
    ece = "none, no confidence" if report["ece"] is None else f"{report['ece']:.3f}"
    print(f"macro F1 {report['macro_f1']:.3f}, calibration error {ece}")
    print(f"{report['documents_per_cpu_second']:.0f} documents per CPU second")
    for name, (precision, recall, f1) in report["categories"].items():
        print(f"  {name:<26} precision {precision:.2f}  recall {recall:.2f}  F1 {f1:.2f}")
    for name, (number, accuracy) in sorted(report["sources"].items()):
        print(f"  {name:<70} {number:>4} documents  {accuracy:.2f}")


if __name__ == "__main__":
    main()
