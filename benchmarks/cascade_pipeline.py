"""What a cascade saves over a whole run: requests and hours, with it and without.

Usage::

    python -m benchmarks.cascade_pipeline [--documents 20000] [--latency 0.5] [--slots 8]
        [--agreement 0.95] [--noise 0.05] [--only with|without] [--json FILE]

Generated documents are put past a double of Ollama's server, in this process, that works on
``--slots`` requests at a time and takes the same time for each. It answers with the category that
a document was generated for, except that a share ``--noise`` of them, the same each time, gets
another. The whole product runs on it, from the walk to the export: once as ``--classifier
cascade``, once as ``--classifier ollama`` in a database of its own. Told are requests, wall-clock
time, the certificate, and the agreement that it really came to. Needs the ``test`` extra.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.doubles.ollama import OllamaDouble

from doc_classify import ParallelDocumentProcessor
from doc_classify.dataset import DatasetOptions, generate
from doc_classify.records import document_name
from doc_classify.settings import load_settings
from doc_classify.taxonomy import DEFAULT_TAXONOMY

_NAME = re.compile(r"^File name: (.*)$", re.MULTILINE)


class Oracle:
    """Knows what each document was generated for, and is wrong about some of them."""

    def __init__(self, category_of: Mapping[str, str], noise: float) -> None:
        self._category_of = category_of
        self._noise = noise

    def answer(self, name: str) -> str:
        """The category that it gives a document of this name, always the same."""
        names = DEFAULT_TAXONOMY.names
        digest = hashlib.sha256(name.encode()).digest()
        if int.from_bytes(digest[:4], "big") < self._noise * 2**32:
            return names[digest[4] % len(names)]
        return self._category_of.get(name, names[-1])

    def __call__(self, _system: str, user: str) -> dict[str, float]:
        """What the double's model says to a prompt."""
        found = _NAME.search(user)
        best = self.answer(found[1]) if found else DEFAULT_TAXONOMY.names[0]
        others = [name for name in DEFAULT_TAXONOMY.names if name != best]
        return {best: 0.9} | dict.fromkeys(others[:2], 0.05)


def one_run(folder: Path, classifier: str, oracle: Oracle, options: argparse.Namespace) -> Any:
    """A run over the folder; returns its figures."""
    with (
        tempfile.TemporaryDirectory() as place,
        OllamaDouble(oracle, slots=options.slots, latency=options.latency) as double,
    ):
        settings = load_settings(
            classifier=classifier,
            ollama_host=double.url,
            database_url=f"sqlite:///{place}/ledger.db",
            agreement=options.agreement,
        )
        began, cpu = time.monotonic(), time.process_time()
        with ParallelDocumentProcessor(use_database=True, settings=settings) as processor:
            stats = processor.process_directory(folder)
            seconds = time.monotonic() - began
            decided = [row for row in processor.store.results(stats.run_id) if row.category]
            agreed = sum(row.category == oracle.answer(document_name(row.uri)) for row in decided)
            lots = processor.store.lots(stats.run_id)
        return {
            "classifier": classifier,
            "documents": stats.seen,
            "classified": stats.classified,
            "failed": stats.failed,
            "llm_requests": stats.llm_calls,
            "seconds": seconds,
            "cpu_seconds_parent_and_double": time.process_time() - cpu,
            "agreement": agreed / max(1, len(decided)),
            "lots": [
                {name: lot[name] for name in ("samples", "summary", "outcome", "hopeless")}
                for lot in lots
            ],
        }


def main() -> None:
    """Run both and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--agreement", type=float, default=0.95)
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["with", "without"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = DatasetOptions(
            count=options.documents,
            seed=options.seed,
            formats=("txt", "html", "eml"),
            hostile=0,
            duplicates=0,
        )
        category_of = {Path(label.path).name: label.category for label in generate(folder, made)}
        oracle = Oracle(category_of, options.noise)
        for name, classifier in (("with", "cascade"), ("without", "ollama")):
            if options.only in (None, name):
                found.append(one_run(folder, classifier, oracle, options))
                print(json.dumps(found[-1], indent=1), flush=True)
    if len(found) == 2:
        cascade, alone = found
        print(
            f"requests: {cascade['llm_requests']:,} of {alone['llm_requests']:,} "
            f"({cascade['llm_requests'] / alone['llm_requests']:.1%}); time: "
            f"{cascade['seconds']:,.0f} s of {alone['seconds']:,.0f} s "
            f"({cascade['seconds'] / alone['seconds']:.1%}); agreement {cascade['agreement']:.2%}"
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
