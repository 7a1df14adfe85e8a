"""Checking a certificate with fresh documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from doc_classify.classification.cascade.certificate import Certificate

Verdict = Literal["confirms", "refutes", "undecided"]


@dataclass(frozen=True, slots=True)
class Audit:
    """What fresh documents say about a certificate.

    Attributes:
        verdict: ``confirms``: were the promise broken, so few disagreements would be seen with
            a probability of at most ``error``. ``refutes``: were it kept, so many would be.
            ``undecided``: too few documents to say either.
        answered: documents that the student answered, from which the fresh ones were drawn.
        drawn: fresh documents that the LLM was asked about.
        disagreed: how many of them it put elsewhere.
        tolerated: disagreements that the promise allows among ``answered``.
        error: error probability of this verdict.
        most_wrong: disagreements among ``answered`` at most, with probability 1 - ``error``.
        least_wrong: disagreements among ``answered`` at least, with probability 1 - ``error``.
    """

    verdict: Verdict
    answered: int
    drawn: int
    disagreed: int
    tolerated: int
    error: float
    most_wrong: int
    least_wrong: int


def audit(
    certificate: Certificate,
    *,
    answered: int,
    drawn: int,
    disagreed: int,
    error: float = 0.05,
    look: int = 0,
) -> Audit:
    """Confirm or refute a certificate.

    Args:
        certificate: what is claimed.
        answered: documents that the student answered in the run.
        drawn: documents drawn uniformly from those, after the certificate was made, and judged
            by the LLM. One that it gave no valid answer to counts as disagreeing.
        disagreed: how many of them it put elsewhere.
        error: error probability of the audit, over all looks.
        look: how many audits of this certificate have been looked at before this one. Drawing
            more because the result was not liked is paid for here.

    Raises:
        ValueError: the numbers contradict each other.
    """
    raise NotImplementedError


def audit_size(certificate: Certificate, answered: int, error: float = 0.05) -> int:
    """How many fresh documents an audit should draw to decide, if agreement is as expected."""
    raise NotImplementedError
