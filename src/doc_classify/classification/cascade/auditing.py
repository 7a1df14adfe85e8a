"""Checking a certificate with fresh documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from doc_classify.classification.cascade.bounds import most_left, tail
from doc_classify.classification.cascade.certificate import Certificate

Verdict = Literal["confirms", "refutes", "undecided"]


@dataclass(frozen=True, slots=True)
class Audit:
    """What fresh documents say about a certificate.

    Attributes:
        verdict: ``confirms``: were there more disagreements than claimed, so few would be seen
            with a probability of at most ``error``. ``refutes``: were there no more, so many
            would be. ``undecided``: too few documents to say either.
        answered: documents that the student answered, from which the fresh ones were drawn.
        drawn: fresh documents that the LLM was asked about.
        disagreed: how many of them it put elsewhere.
        claimed: disagreements among ``answered`` at most, says the certificate.
        error: error probability of this verdict.
        most_wrong: disagreements among ``answered`` at most, with probability 1 - ``error``.
        least_wrong: disagreements among ``answered`` at least, with probability 1 - ``error``.
    """

    verdict: Verdict
    answered: int
    drawn: int
    disagreed: int
    claimed: int
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
        error: error probability of the audit, over all looks, for each kind of error.
        look: how many audits of this certificate have been looked at before this one. Drawing
            more because the result was not liked is paid for here.

    Raises:
        ValueError: the numbers contradict each other.
    """
    if not 0 <= disagreed <= drawn <= answered:
        raise ValueError("more documents disagreed or were drawn than there are")
    if not 0 < error < 1 or look < 0:
        raise ValueError("the error probability has to be above 0 and below 1")
    share = error / ((look + 1) * (look + 2))
    claimed = min(certificate.decision.most_wrong, answered)
    most = disagreed + most_left(answered, drawn, disagreed, share)
    least = _least(answered, drawn, disagreed, share)
    verdict: Verdict = "undecided"
    if least > claimed:
        verdict = "refutes"
    elif most <= claimed:
        verdict = "confirms"
    return Audit(verdict, answered, drawn, disagreed, claimed, share, most, least)


def _least(answered: int, drawn: int, disagreed: int, error: float) -> int:
    """The smallest number of disagreements with which so many would be drawn often enough."""
    low, high = disagreed, answered
    while low < high:
        middle = (low + high) // 2
        # At least so many disagree: at most the others agree.
        if tail(answered, answered - middle, drawn, drawn - disagreed) > error:
            high = middle
        else:
            low = middle + 1
    return low


def audit_size(certificate: Certificate, answered: int, error: float = 0.05) -> int:
    """How many fresh documents an audit should draw to confirm what is expected.

    Args:
        certificate: what is to be checked.
        answered: documents that the student answered.
        error: error probability of the audit.

    Returns:
        The smallest number that confirms the certificate if disagreements are as frequent among
        the fresh documents as they were in the calibration sample; ``answered`` where only all
        of them could.
    """
    expected = certificate.decision.expected_wrong / max(1, answered)
    low, high = min(1, answered), answered
    while low < high:
        middle = (low + high) // 2
        seen = round(expected * middle)
        found = audit(certificate, answered=answered, drawn=middle, disagreed=seen, error=error)
        if found.verdict == "confirms":
            high = middle
        else:
            low = middle + 1
    return low
