"""The certificate of a run: what was promised, what it rests on, and how to check it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from doc_classify.classification.cascade.bounds import most_left, tail
from doc_classify.classification.cascade.certifying import (
    Decision,
    Statement,
    certify,
    tolerated_inside,
)
from doc_classify.classification.cascade.promise import Consistency, Judged, Lot, Promise, Round
from doc_classify.classification.cascade.stages import spending

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
        teacher: what identifies LLM, prompt and taxonomy; the promise is void if it changes.
    """

    lot: Lot
    looks: tuple[Look, ...]
    round: int
    decision: Decision
    consistency: Consistency
    teacher: str

    @property
    def calls(self) -> int:
        """Documents that the student does not answer: the samples and what it left.

        Those that nobody can read are among them. Exact where the decision is settled.
        """
        return self.lot.population - self.decision.answered

    @property
    def calls_without(self) -> int:
        """Documents that would have been sent to the LLM without the cascade."""
        return self.lot.population

    @property
    def spent(self) -> float:
        """Error probability spent by all looks together."""
        return sum(look.delta for look in self.looks)

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
        """Put the certificate of an accepted decision together.

        Args:
            lot: the documents and the promise.
            rounds: all of them.
            round_: index of the round whose student answers.
            decision: as accepted, or settled since.
            teacher: what identifies LLM, prompt and taxonomy.
            consistency: how often the LLM contradicted itself, where that was measured.
        """
        looks = []
        number = 0
        for one in rounds:
            drawn = len(one.calibration)
            looks.append(
                Look(one.version, one.asked, drawn, spending(lot, number) if drawn else 0.0)
            )
            number += bool(drawn)
        return cls(lot, tuple(looks), round_, decision, consistency or Consistency(), teacher)

    def settle(self, answered: Mapping[str, int]) -> Certificate:
        """The certificate with the exact numbers; see :meth:`.certifying.Decision.settle`."""
        return replace(self, decision=self.decision.settle(answered))

    def to_dict(self) -> dict[str, Any]:
        """The certificate as JSON can hold it; :meth:`from_dict` reads it back."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Certificate:
        """Read a certificate.

        Raises:
            ValueError: it has another version, or a part is missing or of the wrong kind.
        """
        if data.get("version") != VERSION:
            raise ValueError(f"a certificate of version {data.get('version')!r} cannot be read")
        try:
            lot = dict(data["lot"])
            decision = dict(data["decision"])
            statements = tuple(Statement(**one) for one in decision.pop("statements"))
            return cls(
                lot=Lot(promise=Promise(**lot.pop("promise")), **lot),
                looks=tuple(Look(**one) for one in data["looks"]),
                round=data["round"],
                decision=Decision(statements=statements, **decision),
                consistency=Consistency(**data["consistency"]),
                teacher=data["teacher"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"the certificate is damaged: {error}") from error


def verify(
    certificate: Certificate,
    sample: Sequence[Judged],
    left: npt.NDArray[np.float64] | None = None,
) -> list[str]:
    """Recompute a certificate from the calibration sample alone.

    Where the threshold was not found from the sample alone (``guarantee="student"``,
    ``max_calls``), the bound at that threshold is recomputed; the way to it only with ``left``.

    Args:
        certificate: what is claimed.
        sample: the stored calibration sample of the round whose student answers.
        left: the scores that the decision was made with, where they were kept.

    Returns:
        What does not fit, in plain words; empty where everything does.
    """
    lot, claimed = certificate.lot, certificate.decision
    if not 0 <= certificate.round < len(certificate.looks):
        return [f"there is no round {certificate.round}"]
    look = certificate.looks[certificate.round]
    faults = _spent(certificate)
    if len(sample) != look.drawn:
        return [*faults, f"the sample has {len(sample)} documents, not {look.drawn}"]
    whole = lot.max_calls is None and lot.promise.guarantee == "overall"
    if not whole and left is None:
        return faults + _at_threshold(lot, claimed, sample)
    try:
        found = certify(lot, look.asked, sample, look.delta, left)
    except ValueError as error:
        return [*faults, str(error)]
    for name in ("takes", "threshold", "allowed", "population", "drawn", "disagreed", "documents"):
        if getattr(found, name) != getattr(claimed, name):
            faults.append(f"{name} is {getattr(found, name)}, not {getattr(claimed, name)}")
    most = min(found.most_wrong, claimed.answered) if claimed.settled else found.most_wrong
    if claimed.most_wrong != most:
        faults.append(f"most_wrong is {most}, not {claimed.most_wrong}")
    mine = [(s.category, s.drawn, s.disagreed, s.most_wrong) for s in found.statements]
    if mine != [(s.category, s.drawn, s.disagreed, s.most_wrong) for s in claimed.statements]:
        faults.append("the statements about the categories do not follow from the sample")
    return faults


def _spent(certificate: Certificate) -> list[str]:
    """What is wrong with the error probabilities."""
    faults = []
    number = 0
    for index, look in enumerate(certificate.looks):
        due = spending(certificate.lot, number) if look.drawn else 0.0
        number += bool(look.drawn)
        if abs(look.delta - due) > 1e-12:
            faults.append(f"round {index} may spend {due:g}, not {look.delta:g}")
    if certificate.decision.delta != certificate.looks[certificate.round].delta:
        faults.append("the decision spent another error probability than its round")
    return faults


def _at_threshold(lot: Lot, claimed: Decision, sample: Sequence[Judged]) -> list[str]:
    taken = [one for one in sample if claimed.accepts(one.score)]
    seen = sum(not one.agrees for one in taken)
    faults = []
    if seen != claimed.disagreed:
        faults.append(f"disagreed is {seen}, not {claimed.disagreed}")
    if claimed.takes == "nothing":
        return faults
    if claimed.inside is None:
        return [*faults, "it is not said how many documents are above the threshold"]
    if lot.max_calls is not None:
        most = most_left(claimed.inside, len(taken), seen, claimed.delta)
    else:
        inside = tolerated_inside(lot, claimed.inside, claimed.population, claimed.drawn)
        most = max(0, inside - seen)
        if tail(claimed.population, inside + 1, claimed.drawn, seen) > claimed.delta:
            faults.append(f"the sample does not show that at most {inside} disagree")
    most = min(claimed.answered, most)
    if most != claimed.most_wrong:
        faults.append(f"most_wrong is {most}, not {claimed.most_wrong}")
    return faults
