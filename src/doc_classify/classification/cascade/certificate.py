"""The certificate of a run: what was promised, what it rests on, and how to check it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from doc_classify.classification.cascade.certifying import Decision
from doc_classify.classification.cascade.promise import Consistency, Judged, Lot, Round

VERSION = 1


@dataclass(frozen=True, slots=True)
class Look:
    """One round as the certificate records it.

    Attributes:
        version: the student.
        asked: documents set aside before the sample was drawn.
        drawn: size of the calibration sample; 0 where the round went without.
        delta: error probability spent.
    """

    version: str
    asked: int
    drawn: int
    delta: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a run with the cascade promises.

    Attributes:
        lot: the documents and the promise.
        looks: all rounds, in order.
        round: index of the round whose student answers.
        decision: threshold, bounds and shares.
        consistency: how often the LLM contradicted itself.
        calls: documents sent to the LLM in all: samples and what the student left; exact where
            the scores of the documents left were given, else estimated.
        calls_without: documents that would have been sent without the cascade.
        teacher: what identifies LLM, prompt and taxonomy; the promise is void if it changes.
    """

    lot: Lot
    looks: tuple[Look, ...]
    round: int
    decision: Decision
    consistency: Consistency
    calls: int
    calls_without: int
    teacher: str

    @classmethod
    def of(
        cls,
        lot: Lot,
        rounds: Sequence[Round],
        round_: int,
        decision: Decision,
        *,
        teacher: str,
        consistency: Consistency | None = None,
    ) -> Certificate:
        """Put the certificate of an accepted decision together."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The certificate as JSON can hold it; :meth:`from_dict` reads it back."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Certificate:
        """Read a certificate.

        Raises:
            ValueError: it has another version, or a part is missing or of the wrong kind.
        """
        raise NotImplementedError


def verify(certificate: Certificate, sample: Sequence[Judged]) -> list[str]:
    """Recompute a certificate from the calibration sample alone.

    Args:
        certificate: what is claimed.
        sample: the stored calibration sample of the round whose student answers.

    Returns:
        What does not fit, in plain words; empty where everything does.
    """
    raise NotImplementedError
