"""What the cascade saves, on your own labelled documents, and whether it keeps its promise.

Usage::

    python benchmarks/cascade.py LABELLED_DIR... [--taxonomy FILE] [--orderings 40]
        [--sizes 1000,2000] [--extrapolations 5] [--without PART]... [--json FILE]

Every sub-folder of a LABELLED_DIR is a category and holds its documents as text files. The labels
stand in for the LLM: as they are, with 5% random errors, and with 8% systematic ones.

- ``runs``: the whole procedure over the documents there are (and over random parts of the sizes
  given), in so many random orders: the share sent to the LLM, the agreement
  that came about, and how often it was less than promised. With the student of each run: what
  BARGAIN would have sent (our reading, see cascade_bargain.py), and what the best threshold would
  have sent that anybody could know who knows all answers. The calls for training count everywhere.
- ``larger``: 10,000, 100,000 and 500,000 documents, drawn with replacement from the scores that
  students gave to documents left out of their training (five parts in turn). The student has learnt
  from what there is, so it does not get better with the lot, as it would.

``--without`` leaves a part of the procedure out, to see what it brings: ``pool`` (the student
chooses what it learns from), ``zero-shot`` (it builds on the zero-shot classifier), ``split`` (most
of the error probability goes to the first look; else 6/(pi^2 j^2)).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cascade_bargain import bargain
from cascade_corpus import Corpus, Floats, Ints, teachers
from cascade_run import Outcome, run
from numpy.typing import NDArray

from doc_classify.classification.cascade import Judged, Lot, Promise, certify, stages
from doc_classify.classification.cascade.planning import Curve, plan
from doc_classify.taxonomy import Taxonomy

AGREEMENTS = (0.9, 0.95, 0.99)
LARGER = (10_000, 100_000, 500_000)
_PARTS = 5
_LARGE = 5_000
"""A corpus of more documents is scored in part only: two of the five are left out in turn."""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--taxonomy", type=Path, help="of all folders; default: their names")
    parser.add_argument("--orderings", type=int, default=40)
    parser.add_argument("--sizes", type=_numbers, default=[])
    parser.add_argument("--extrapolations", type=int, default=5, help="0: none")
    parser.add_argument("--without", action="append", default=[], choices=list(_LEFT_OUT))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    for part in arguments.without:
        _LEFT_OUT[part]()
    taxonomy = Taxonomy.from_file(arguments.taxonomy) if arguments.taxonomy else None
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "without": arguments.without,
        "runs": [],
        "larger": [],
    }
    for folder in arguments.folders:
        corpus = Corpus(folder, taxonomy, zero_shot="zero-shot" not in arguments.without)
        for row in runs(corpus, arguments.orderings, arguments.sizes):
            report["runs"].append(row)
            _show(row)
        if arguments.extrapolations:
            for row in larger(corpus, arguments.extrapolations):
                report["larger"].append(row)
                _show(row)
    report["cpu_seconds"] = round(time.process_time(), 1)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


def _no_pool() -> None:
    stages._POOL = 1


def _even_split() -> None:
    def spending(lot: Lot, look: int) -> float:
        return lot.promise.delta * 6 / (math.pi**2 * (look + 1) ** 2)

    stages.spending = spending


_LEFT_OUT = {"pool": _no_pool, "zero-shot": lambda: None, "split": _even_split}


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def runs(corpus: Corpus, orderings: int, smaller: list[int]) -> Iterator[dict[str, Any]]:
    """The whole procedure, in many random orders."""
    sizes = [size for size in smaller if size < len(corpus)]
    for teacher, answers in teachers(corpus):
        for size in (*sizes, len(corpus)):
            for agreement in AGREEMENTS:
                lot = Lot(size, corpus.categories, Promise(agreement))
                found, best, others, patient = [], [], [], []
                for seed in range(orderings):
                    random = np.random.default_rng(seed)
                    members = random.permutation(len(corpus))[:size]
                    one = run(corpus, lot, answers, random, members)
                    found.append(one)
                    if one.student is not None:
                        score, right = _unlearned(one, answers)
                        tolerated = lot.promise.tolerated(size)
                        best.append(size - _best(score, right, tolerated))
                        target = 1 - tolerated / len(score)
                        for way, into in ((False, others), (True, patient)):
                            calls, _ = bargain(score, right, target, 0.05, random, patient=way)
                            into.append(size - len(score) + calls)
                yield {
                    "set": corpus.name,
                    "documents": size,
                    "teacher": teacher,
                    "agreement": agreement,
                    "orderings": orderings,
                    **_summary(found, lot),
                    "best_threshold": _share(best, size),
                    "bargain": _share(others, size),
                    "bargain_patient": _share(patient, size),
                }


def _unlearned(one: Outcome, answers: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    """What the student that answered says of the documents that were not its training ones."""
    assert one.student is not None  # noqa: S101
    at = one.unlearned
    return one.student.score[at], one.student.guess[at] == answers[at]


def _best(score: Floats, right: NDArray[np.bool_], tolerated: int) -> int:
    """How many documents the student could answer, if somebody knew where it is wrong."""
    order = np.argsort(-score, kind="stable")
    return int((np.cumsum(~right[order]) <= tolerated).sum())


def _summary(found: list[Outcome], lot: Lot) -> dict[str, Any]:
    tolerated = lot.promise.tolerated(lot.population)
    return {
        "calls": _share([one.calls for one in found], lot.population),
        "training": round(float(np.mean([one.trained for one in found]))),
        "calibration": round(float(np.mean([one.calibrated for one in found]))),
        "looks": round(float(np.mean([one.looks for one in found])), 2),
        "came_about": round(1 - float(np.mean([one.wrong for one in found])) / lot.population, 4),
        "broken": round(float(np.mean([one.wrong > tolerated for one in found])), 3),
        "given_up": dict(Counter(one.reason for one in found if one.reason)),
    }


def _share(calls: list[int], size: int) -> float | None:
    return round(float(np.mean(calls)) / size, 3) if calls else None


def larger(corpus: Corpus, repetitions: int) -> Iterator[dict[str, Any]]:
    """Lots larger than the corpus, by drawing again from scores of documents left out."""
    for teacher, answers in teachers(corpus):
        students = [_left_out(corpus, answers, share) for share in (0.2, 0.5, 1.0)]
        for size in LARGER:
            for agreement in AGREEMENTS:
                lot = Lot(size, corpus.categories, Promise(agreement))
                yield {
                    "set": corpus.name,
                    "documents": size,
                    "teacher": teacher,
                    "agreement": agreement,
                    "orderings": repetitions,
                    **_drawn_again(lot, students, repetitions),
                }


def _left_out(corpus: Corpus, answers: Ints, share: float) -> tuple[int, Floats, NDArray[np.bool_]]:
    """Scores of all documents by students of the other parts, and whether they agree."""
    order = np.random.default_rng(1).permutation(len(corpus))
    score, right = np.full(len(corpus), np.nan), np.zeros(len(corpus), dtype=bool)
    learnt = 0
    for part in np.array_split(order, _PARTS)[: 2 if len(corpus) > _LARGE else _PARTS]:
        others = np.setdiff1d(order, part, assume_unique=True)
        others = others[: round(share * len(others))]
        learnt = len(others)
        student = corpus.learn(others, answers)
        score[part] = student.score[part]
        right[part] = student.guess[part] == answers[part]
    known = ~np.isnan(score)
    return learnt, score[known], right[known]


def _drawn_again(
    lot: Lot, students: list[tuple[int, Floats, NDArray[np.bool_]]], repetitions: int
) -> dict[str, Any]:
    delta = stages.spending(lot, 0)
    plans = []
    for learnt, score, right in students:
        curve = Curve([Judged(float(s), bool(r)) for s, r in zip(score, right, strict=True)])
        found = plan(lot, curve, learnt, delta)
        if found is not None:
            plans.append((found.calls, found.drawn, learnt, score, right))
    _, drawn, learnt, score, right = min(plans, key=lambda one: one[0])
    calls, wrong, best, others, patient = [], [], [], [], []
    tolerated = lot.promise.tolerated(lot.population)
    for seed in range(repetitions):
        random = np.random.default_rng(seed)
        at = random.integers(0, len(score), lot.population - learnt)
        # Copies of a document are not to be equally sure: there would be ties that no lot has.
        lot_score = score[at] + random.random(len(at)) * 1e-9
        lot_right = right[at]
        sample = [
            Judged(float(s), bool(r))
            for s, r in zip(lot_score[:drawn], lot_right[:drawn], strict=True)
        ]
        found_decision = certify(lot, learnt, sample, delta, lot_score[drawn:])
        taken = np.array([False])
        if found_decision.takes != "nothing":
            cut = -np.inf if found_decision.threshold is None else found_decision.threshold
            taken = lot_score[drawn:] > cut
        calls.append(lot.population - int(taken.sum()))
        wrong.append(int((taken & ~lot_right[drawn:]).sum()))
        best.append(lot.population - _best(lot_score, lot_right, tolerated))
        target = 1 - tolerated / len(at)
        for way, into in ((False, others), (True, patient)):
            spent, _ = bargain(lot_score, lot_right, target, 0.05, random, patient=way)
            into.append(learnt + spent)
    return {
        "calls": _share(calls, lot.population),
        "training": learnt,
        "calibration": drawn,
        "came_about": round(1 - float(np.mean(wrong)) / lot.population, 4),
        "broken": round(float(np.mean(np.array(wrong) > tolerated)), 3),
        "best_threshold": _share(best, lot.population),
        "bargain": _share(others, lot.population),
        "bargain_patient": _share(patient, lot.population),
    }


def _show(row: dict[str, Any]) -> None:
    print(
        f"{row['set']:9} {row['documents']:7} {row['teacher']:14} {row['agreement']:.2f}  "
        f"calls {row['calls']:.3f}  best {row['best_threshold']}  "
        f"BARGAIN {row['bargain']}/{row['bargain_patient']}  "
        f"T {row['training']} C {row['calibration']}  came about {row['came_about']:.4f}  "
        f"broken {row['broken']:.3f} {row.get('given_up') or ''}",
        flush=True,
    )


if __name__ == "__main__":
    main()
