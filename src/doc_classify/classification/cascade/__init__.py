"""The cascade's engine: judgements in, decisions and a certificate out.

An LLM (the teacher) labels a random sample, a student learns from it, and the student answers
for the documents of which it is provably sure enough. This package says how many documents to
draw, where the student's threshold lies and what that promises. It is pure: no I/O, no clock,
no hidden randomness; every function gives the same answer for the same input, so a run that
was killed goes on from what is stored. docs/cascade-statistics.md has the proofs.

The order of work::

    lot = Lot(population=len(documents), categories=7, promise=Promise())
    rounds: list[Round] = []
    while True:
        step = next_step(lot, rounds)
        if isinstance(step, Train): ...      # draw, ask, train, append Round(...)
        elif isinstance(step, Calibrate): ...  # draw, ask, put the judgements into rounds[-1]
        else: break                          # Accept or AskAll
"""

from doc_classify.classification.cascade.auditing import Audit, audit, audit_size
from doc_classify.classification.cascade.certificate import Certificate, verify
from doc_classify.classification.cascade.certifying import Decision, certify
from doc_classify.classification.cascade.promise import Consistency, Judged, Lot, Promise, Round
from doc_classify.classification.cascade.stages import (
    Accept,
    AskAll,
    Calibrate,
    Step,
    Train,
    next_step,
)

__all__ = [
    "Accept",
    "AskAll",
    "Audit",
    "Calibrate",
    "Certificate",
    "Consistency",
    "Decision",
    "Judged",
    "Lot",
    "Promise",
    "Round",
    "Step",
    "Train",
    "audit",
    "audit_size",
    "certify",
    "next_step",
    "verify",
]
