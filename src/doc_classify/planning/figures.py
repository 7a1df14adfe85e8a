"""A number that knows where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["measured", "published", "price", "assumed", "given", "computed"]
"""``published``: by others, not measured by this project. ``given``: by whoever asks."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a plan.

    Attributes:
        name: what it is, unique within a plan.
        value: in ``unit``.
        kind: how it was come by.
        source: the measurement, the publication, the price list, the option, or the computation.
    """

    name: str
    value: float
    unit: str
    kind: Kind
    source: str
