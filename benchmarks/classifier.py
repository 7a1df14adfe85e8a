"""How often the built-in classifier is right, on your own labelled documents.

Usage::

    python benchmarks/classifier.py LABELLED_DIR [--taxonomy FILE] [--manifest FILE]
        [--map FOLDER=CATEGORY]... [--seen SOURCE]... [--sample N] [--trials NAME,...]
        [--labels N,...] [--repeats N] [--fit] [--json FILE]

Every sub-folder of LABELLED_DIR is a category and holds its documents as text files. Where the
folders are called otherwise than the categories, ``--map`` says which is which; folders that are
not mapped are then left out.

The trials are ``zero-shot``; ``self-trained``, on the texts of the documents without their labels;
and ``trained``, on so many labels in all, by cross-validation. All three by default.

A manifest has one JSON object a line with ``file`` (its path ends with that of the document) and
``repository``, the source. With it the training is also tried with whole sources held out: a
random split flatters, since documents of one source share words that have nothing to do with their
category. Accuracy is then given per source too, and once more without those named by ``--seen``:
the ones that somebody looked at when the classifier was made. ``--fit`` fits the calibration of
the zero-shot confidence anew and says how well it holds for sources left out of the fit.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from classifier_data import load, mapping, taxonomy_for
from classifier_metrics import Answer, accuracies, difference, fitted, summary
from classifier_trials import self_trained, trained, zero_shot

_TRIALS = ("zero-shot", "self-trained", "trained")


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    mapped = mapping(arguments.folder, arguments.map)
    taxonomy = taxonomy_for(mapped, arguments.taxonomy)
    documents = load(arguments.folder, mapped, arguments.manifest, arguments.sample)
    trials = arguments.trials.split(",")
    print(f"{len(documents)} documents, {len(taxonomy.names)} categories, {_machine()}")
    report: dict[str, Any] = {"machine": _machine(), "trials": []}
    base = zero_shot(documents, taxonomy)
    report["zero_shot"] = _first(base, frozenset(arguments.seen))
    if arguments.fit:
        report["calibration"] = fitted(base)
    print(
        f"{'trial':<42}{'labels':>7}  accuracy (95% interval){'':4}  F1    ECE   against zero-shot"
    )
    _row(report, "zero-shot", 0, base, base, {})
    if "self-trained" in trials:
        for name, answers, spent in self_trained(documents, taxonomy):
            _row(report, name, 0, answers, base, spent)
    if "trained" in trials:
        labels = [int(number) for number in arguments.labels.split(",")]
        for name, number, answers, spent in trained(documents, taxonomy, labels, arguments.repeats):
            _row(report, name, number, answers, base, spent)
    report["footprint"] = _footprint()
    _show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--taxonomy", type=Path)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--seen", action="append", default=[], metavar="SOURCE")
    parser.add_argument("--map", action="append", default=[], metavar="FOLDER=CATEGORY")
    parser.add_argument("--sample", type=int, metavar="N")
    parser.add_argument("--trials", default=",".join(_TRIALS), metavar="NAME,...")
    parser.add_argument("--labels", default="5,20,100,500", metavar="N,...")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if unknown := set(arguments.trials.split(",")) - set(_TRIALS):
        parser.error(f"unknown trials {sorted(unknown)}; there are {', '.join(_TRIALS)}")
    return arguments


def _machine() -> str:
    return f"{platform.machine()}, Python {platform.python_version()}"


def _first(answers: list[Answer], seen: frozenset[str]) -> dict[str, Any]:
    """What is told of the zero-shot answers alone: by folder, by source, without seen sources."""
    report: dict[str, Any] = {"folders": accuracies(answers, "folder")}
    if any(answer.source for answer in answers):
        report["sources"] = accuracies(answers, "source")
    unseen = [answer for answer in answers if answer.source not in seen]
    if seen and unseen:
        report["unseen"] = summary(unseen)
    return report


def _row(
    report: dict[str, Any],
    name: str,
    labels: int,
    answers: list[Answer],
    base: list[Answer],
    spent: dict[str, float],
) -> None:
    """Enter a trial and print its line."""
    entry = {"trial": name, "labels": labels, **summary(answers), **spent}
    if answers is not base:
        answered = {answer.place for answer in answers}
        gain = difference(answers, [one for one in base if one.place in answered])
        entry["gain"], entry["gain_95"] = gain
    report["trials"].append(entry)
    low, high = entry["accuracy_95"]
    ece = "  -  " if entry["ece"] is None else f"{entry['ece']:.3f}"
    print(
        f"{name:<42}{labels or '':>7}  {entry['accuracy']:.3f} ({low:.3f}-{high:.3f})"
        f"{'':8}  {entry['macro_f1']:.3f} {ece}"
        + (
            f" {entry['gain']:+.3f} ({entry['gain_95'][0]:+.3f} to {entry['gain_95'][1]:+.3f})"
            if "gain" in entry
            else ""
        ),
        flush=True,
    )


def _footprint() -> dict[str, Any]:
    """Bytes of the lexicon, and what importing and making the classifier costs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    for module in ("sys", "doc_classify.classification.embedded"):
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)  # noqa: S603
        now = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        spent, before = now - before, now
        if module == "sys":
            bare = spent
    lexicon = resources.files("doc_classify.classification") / "lexicon.json"
    return {"lexicon_bytes": len(lexicon.read_bytes()), "import_cpu_seconds": spent - bare}


def _show(report: dict[str, Any]) -> None:
    """Print what the table has no room for."""
    if unseen := report["zero_shot"].get("unseen"):
        low, high = unseen["accuracy_95"]
        print(
            f"zero-shot on sources that nobody read: {unseen['documents']} documents, accuracy "
            f"{unseen['accuracy']:.3f} ({low:.3f}-{high:.3f}), macro F1 {unseen['macro_f1']:.3f}"
        )
    for entry in report["trials"]:
        if "accuracy_95_over_sources" in entry:
            low, high = entry["accuracy_95_over_sources"]
            print(
                f"{entry['trial']}, {entry['labels']} labels: interval over sources "
                f"{low:.3f}-{high:.3f}"
            )
    shown = [entry for entry in report["trials"] if not entry["labels"]]
    if len(shown) < len(report["trials"]):
        shown.append(report["trials"][-1])
    for entry in shown:
        rest = entry["accuracy_without_review"]
        print(
            f"{entry['trial']}: {entry['needs_review']:.0%} for review"
            + ("" if rest is None else f", accuracy of the rest {rest:.3f}")
            + f"; {entry['documents_per_cpu_second']:.0f} documents per CPU second"
            + (
                f"; trained in {entry['training_cpu_seconds']:.1f} CPU seconds, model of "
                f"{entry['model_bytes'] / 1e6:.1f} MB"
                if "model_bytes" in entry
                else ""
            )
        )
        for name, (precision, recall, f1) in entry["categories"].items():
            print(f"  {name:<26} precision {precision:.2f}  recall {recall:.2f}  F1 {f1:.2f}")
    for what in ("folders", "sources"):
        for name, (number, accuracy) in report["zero_shot"].get(what, {}).items():
            print(f"  zero-shot {name:<66} {number:>5} documents  {accuracy:.2f}")
    footprint = report["footprint"]
    print(
        f"lexicon of {footprint['lexicon_bytes'] / 1e3:.0f} kB, imported in "
        f"{footprint['import_cpu_seconds']:.2f} CPU seconds"
    )
    if fit := report.get("calibration"):
        print(f"calibration table {fit['table']}")
        print(f"  error for sources left out of the fit: {fit['ece_sources_left_out']:.3f}")


if __name__ == "__main__":
    main()
