"""From the margin between the best two scores to the probability that the best is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_DOCUMENTS = 30
"""Fewer held-out documents say nothing about a probability."""
_PRIOR = 2.0
_MOST_POINTS = 64
_EVEN = 0.5
_MOST = 0.994
"""More is never claimed, so that two digits never say 1.00: labels are not that sure either."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A rising line through points: margins (m,), ascending, and probabilities (m,)."""

    margins: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __call__(self, margin: float) -> float:
        """The probability at a margin; the outermost points hold beyond."""
        return float(np.interp(margin, self.margins, self.probabilities))


def calibrated(margins: Floats, right: Floats, weights: Floats | None = None) -> Calibration | None:
    """Fit by isotonic regression; None for fewer than :data:`MIN_DOCUMENTS`.

    Bins of about the root of the number of documents, each shrunk towards the mean with the weight
    of two documents, keep a few right answers in a row from becoming certainty (the noise of plain
    isotonic regression: Niculescu-Mizil and Caruana, "Predicting Good Probabilities with Supervised
    Learning", 2005). The mean is Laplace's, and no bin claims more than all documents could if all
    were right, so that nothing is ever certain.

    Args:
        margins: (n,), of documents that were not trained on.
        right: (n,), the probability that the best category is right: 0 or 1 for known labels.
        weights: (n,), how much each document counts.
    """
    number = len(margins)
    if number < MIN_DOCUMENTS:
        return None
    from scipy.optimize import isotonic_regression

    weights = np.ones(number) if weights is None else weights
    order = np.argsort(margins, kind="stable")
    points = min(_MOST_POINTS, int(np.sqrt(number)))
    mean = (float(weights @ right) + 1.0) / (float(weights.sum()) + 2.0)
    places, levels, masses = [], [], []
    for part in np.array_split(order, points):
        mass = float(weights[part].sum())
        places.append(float(np.average(margins[part], weights=weights[part])))
        levels.append((float(weights[part] @ right[part]) + _PRIOR * mean) / (mass + _PRIOR))
        masses.append(mass)
    rising = isotonic_regression(levels, weights=masses).x
    most = min(_MOST, (number + 1.0) / (number + 2.0))
    levels = [float(level) for level in np.clip(rising, 0.0, most)]
    # Below all margins that were met, the best is ever less likely: of an even two it is one.
    return Calibration((0.0, *places), (min(_EVEN, levels[0]), *levels))
