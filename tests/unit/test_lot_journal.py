"""What the sample of a lot says to the engine."""

from __future__ import annotations

from doc_classify.classification.cascade.promise import Judged
from doc_classify.pipeline.lot_journal import judged
from doc_classify.storage.samples import Drawn


def test_what_could_not_be_read_just_now_counts_as_the_surest_disagreement():
    sample = [
        Drawn(1, "letters", None, "letters", 0.7),
        Drawn(2, "letters", None, "reports", 0.2),
        Drawn(3, None, "unreadable", None, None),
        Drawn(4, None, "changed", None, None),
        Drawn(5, None, "damaged", None, None),
        Drawn(6, None, "invalid_answer", "letters", 0.6),
        Drawn(7, "letters", None, None, None),
    ]
    assert judged(sample) == (
        Judged(0.7, True, "letters"),
        Judged(0.2, False, "reports"),
        Judged(1.7, False),
        Judged(None, True),
        Judged(None, True),
        Judged(0.6, False, "letters"),
        Judged(None, False),
    )
    assert judged([]) == ()
