"""How often the embedded classifier is right, on your own labelled documents.

Usage::

    python benchmarks/classifier.py LABELLED_DIR [--taxonomy FILE] [--manifest FILE]
        [--seen SOURCE]... [--map FOLDER=CATEGORY]... [--fit] [--json FILE]

Every sub-folder of LABELLED_DIR is a category and holds its documents as text files. Where the
folders are called otherwise than the categories, ``--map`` says which is which; folders that are
not mapped are then left out.

A manifest has one JSON object a line with ``file`` (its path ends with that of the document) and
``repository``, the source. With it the accuracy is given per source, and once more without those
named by ``--seen``: the ones that somebody looked at when the classifier was made. ``--fit`` fits
the calibration of the confidence anew and says how well it holds for sources left out of the fit.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from doc_classify.classification import ClassifierInput, make_classifier
from doc_classify.taxonomy import DEFAULT_TAXONOMY, Taxonomy

_RESAMPLES = 2000
_BINS = 10
_POINTS = 12


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--taxonomy", type=Path)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--seen", action="append", default=[], metavar="SOURCE")
    parser.add_argument("--map", action="append", default=[], metavar="FOLDER=CATEGORY")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folders = sorted(path.name for path in arguments.folder.iterdir() if path.is_dir())
    mapped = dict(pair.split("=", 1) for pair in arguments.map) or {name: name for name in folders}
    if arguments.taxonomy:
        taxonomy = Taxonomy.from_file(arguments.taxonomy)
    elif set(mapped.values()) <= set(DEFAULT_TAXONOMY.names):
        taxonomy = DEFAULT_TAXONOMY
    else:
        taxonomy = Taxonomy.from_names(sorted(set(mapped.values())))
    answers = classify(arguments.folder, mapped, taxonomy, sources(arguments.manifest))
    report = summary(answers, frozenset(arguments.seen))
    if arguments.fit:
        report["calibration"] = fitted(answers)
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2))


def sources(manifest: Path | None) -> dict[tuple[str, str], str]:
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


def classify(
    folder: Path, mapped: dict[str, str], taxonomy: Taxonomy, source_of: dict[tuple[str, str], str]
) -> list[dict[str, Any]]:
    """Classify every document: label, answer, margin, confidence, source and CPU seconds.

    Names and titles of files are not shown to the classifier: those of a collection often say
    the category.
    """
    classifier = make_classifier("embedded", taxonomy)
    answers = []
    for path in sorted(folder.glob("*/*")):
        if path.parent.name not in mapped:
            continue
        text = path.read_text("utf-8", "replace")
        started = time.process_time()
        found = classifier.classify(ClassifierInput(text))
        answers.append(
            {
                "seconds": time.process_time() - started,
                "label": mapped[path.parent.name],
                "folder": path.parent.name,
                "answer": found.category,
                "margin": found.scores[0][1] - found.scores[1][1],
                "confidence": found.confidence,
                "review": found.needs_review,
                "source": source_of.get((path.parent.name, path.name), ""),
            }
        )
    return answers


def summary(answers: list[dict[str, Any]], seen: frozenset[str]) -> dict[str, Any]:
    """Accuracy with its interval, per category, per folder and per source; calibration; speed."""
    right = hits(answers)
    by: dict[str, dict[str, list[bool]]] = {
        "folder": defaultdict(list),
        "source": defaultdict(list),
    }
    for answer, hit in zip(answers, right, strict=True):
        by["folder"][answer["folder"]].append(bool(hit))
        if answer["source"]:
            by["source"][f"{answer['label']}: {answer['source']}"].append(bool(hit))
    unseen = [answer for answer in answers if answer["source"] not in seen]
    reviewed = np.array([answer["review"] for answer in answers])
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "documents": len(answers),
        "accuracy": float(right.mean()),
        "accuracy_95": interval(right),
        "macro_f1": macro_f1(answers),
        "categories": by_category(answers),
        "ece": calibration_error(right, [answer["confidence"] for answer in answers]),
        "needs_review": float(reviewed.mean()),
        "accuracy_without_review": float(right[~reviewed].mean()) if (~reviewed).any() else None,
        "documents_per_cpu_second": len(answers) / sum(answer["seconds"] for answer in answers),
        "folders": {name: (len(of), sum(of) / len(of)) for name, of in by["folder"].items()},
        "sources": {name: (len(of), sum(of) / len(of)) for name, of in by["source"].items()},
    }
    if seen and unseen:
        report["unseen"] = {
            "documents": len(unseen),
            "accuracy": float(hits(unseen).mean()),
            "accuracy_95": interval(hits(unseen)),
            "macro_f1": macro_f1(unseen),
        }
    return report


def hits(answers: list[dict[str, Any]]) -> np.ndarray:
    """Which answers are right."""
    return np.array([answer["label"] == answer["answer"] for answer in answers])


def interval(right: np.ndarray) -> list[float]:
    """Bootstrap interval (percentiles 2.5 and 97.5) of the mean."""
    random = np.random.default_rng(0)
    means = random.choice(right, (_RESAMPLES, len(right))).mean(axis=1)
    return [float(value) for value in np.percentile(means, [2.5, 97.5])]


def by_category(answers: list[dict[str, Any]]) -> dict[str, tuple[float, float, float]]:
    """Precision, recall and F1 of each category that has documents."""
    hit = Counter(answer["label"] for answer in answers if answer["label"] == answer["answer"])
    labels = Counter(answer["label"] for answer in answers)
    given = Counter(answer["answer"] for answer in answers)
    result = {}
    for name in sorted(labels):
        precision = hit[name] / given[name] if given[name] else 0.0
        recall = hit[name] / labels[name]
        total = precision + recall
        result[name] = (precision, recall, 2 * precision * recall / total if total else 0.0)
    return result


def macro_f1(answers: list[dict[str, Any]]) -> float:
    """The mean of the categories' F1."""
    return float(np.mean([f1 for _, _, f1 in by_category(answers).values()]))


def calibration_error(right: np.ndarray, confidences: list[float | None]) -> float | None:
    """Expected calibration error over equal bins (Guo et al., 2017), where there is confidence."""
    given = np.array([confidence is not None for confidence in confidences])
    if not given.any():
        return None
    values = np.array([value for value in confidences if value is not None])
    right = right[given]
    bins = np.minimum((values * _BINS).astype(int), _BINS - 1)
    gaps = [
        (bins == b).mean() * abs(right[bins == b].mean() - values[bins == b].mean())
        for b in set(bins)
    ]
    return float(sum(gaps))


def fitted(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """The calibration table of these answers, and its error for sources left out of the fit."""
    given = [answer for answer in answers if answer["confidence"] is not None]
    margins = np.array([answer["margin"] for answer in given])
    right = hits(given).astype(float)
    origin = np.array([answer["source"] for answer in given])
    predicted = np.zeros(len(given))
    for source in sorted(set(origin)):
        out = origin == source
        if out.all():
            break
        table = np.array(isotonic(margins[~out], right[~out]))
        predicted[out] = np.interp(margins[out], table[:, 0], table[:, 1])
    return {
        "table": isotonic(margins, right),
        "ece_sources_left_out": calibration_error(right, list(predicted)),
    }


def isotonic(margins: np.ndarray, right: np.ndarray) -> list[tuple[float, float]]:
    """Points of the increasing fit of the share of right answers, by pooling adjacent violators.

    A dozen points at most, each of as many documents; none is 0 or 1, since no finite sample
    says that.
    """
    order = np.argsort(margins, kind="stable")
    margins, right = margins[order], right[order]
    blocks: list[tuple[float, int]] = []
    for value in right:
        blocks.append((float(value), 1))
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, number = blocks.pop()
            blocks[-1] = (blocks[-1][0] + total, blocks[-1][1] + number)
    fit = np.concatenate([np.full(number, total / number) for total, number in blocks])
    points: dict[float, float] = {}
    for part in np.array_split(np.arange(len(margins)), min(_POINTS, len(margins))):
        share = (fit[part].sum() + 0.5) / (len(part) + 1)
        points[round(float(margins[part].mean()), 3)] = round(float(share), 3)
    return sorted(points.items())


def show(report: dict[str, Any]) -> None:
    """Print the report for a person."""
    low, high = report["accuracy_95"]
    print(
        f"{report['documents']} documents, accuracy {report['accuracy']:.3f} ({low:.3f}-{high:.3f})"
    )
    if unseen := report.get("unseen"):
        low, high = unseen["accuracy_95"]
        print(
            f"  of unseen sources: {unseen['documents']} documents, accuracy "
            f"{unseen['accuracy']:.3f} ({low:.3f}-{high:.3f}), macro F1 {unseen['macro_f1']:.3f}"
        )
    ece = "none, no confidence" if report["ece"] is None else f"{report['ece']:.3f}"
    print(f"macro F1 {report['macro_f1']:.3f}, calibration error {ece}")
    rest = report["accuracy_without_review"]
    print(
        f"{report['needs_review']:.0%} for review"
        + ("" if rest is None else f", accuracy of the rest {rest:.3f}")
    )
    print(f"{report['documents_per_cpu_second']:.0f} documents per CPU second, {report['machine']}")
    for name, (precision, recall, f1) in report["categories"].items():
        print(f"  {name:<26} precision {precision:.2f}  recall {recall:.2f}  F1 {f1:.2f}")
    for what in ("folders", "sources"):
        for name, (number, accuracy) in sorted(report[what].items()):
            print(f"  {name:<70} {number:>5} documents  {accuracy:.2f}")
    if fit := report.get("calibration"):
        print(f"calibration table {fit['table']}")
        print(f"  error for sources left out of the fit: {fit['ece_sources_left_out']:.3f}")


if __name__ == "__main__":
    main()
