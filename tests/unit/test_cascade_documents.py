"""The cascade on real labelled documents, the label standing in for the LLM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from doc_classify.classification.cascade import Lot, Promise

FOLDER = Path(__file__).parents[2] / "../shared/corpus/labelled/office7"


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs labelled documents")
def test_the_promise_is_kept_on_real_documents_and_saves_calls(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from cascade_corpus import Corpus
    from cascade_run import run

    corpus = Corpus(FOLDER)
    lot = Lot(len(corpus), corpus.categories, Promise(0.93, 0.8))
    tolerated = lot.promise.tolerated(lot.population)
    members = np.arange(len(corpus))
    found = [
        run(corpus, lot, corpus.labels, np.random.default_rng(seed), members) for seed in range(25)
    ]
    broken = sum(one.wrong > tolerated for one in found)
    assert binom.sf(broken - 1, len(found), 0.2) > 1e-4
    assert np.mean([one.calls for one in found]) < 0.5 * lot.population
