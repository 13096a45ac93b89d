"""Divide and conquer: drop what sticks out along the direction in which updates differ most."""

from __future__ import annotations

from typing import Unpack

import numpy as np

from defenses.geometry import ascending, mean_of
from defenses.gram_rule import Common, GramRule
from secagg.rule import Floats, Statistics


class DnC(GramRule):
    """Divide-and-conquer (Shejwalkar, Houmansadr, NDSS 2021, doi 10.14722/ndss.2021.24498, Algorithm 2).

        s_i = ⟨u_i − ū, v⟩²,    v the top right singular vector of the centred updates,

    and the mean of all but the ⌊c·f⌋ with the largest scores. With H = I − 11ᵀ/n and (λ, a) the top
    eigenpair of HGH, s_i = λ·a_i². The paper repeats this on random subsets of coordinates and intersects
    what is kept; the Gram matrix is over all coordinates, so that there is one pass. Unmoved by a shift of
    all updates.

    One direction is looked at: far updates that stick out in different ones are not all dropped, and are left
    to the norm gate.

    Args:
        c: the paper's filtering fraction, ≥ 0.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> updates = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [9.0, 9.0]])
    >>> DnC().coefficients(statistics_of(updates), 1).round(4).tolist()
    [0.3333, 0.3333, 0.3333, 0.0]
    """

    name = "dnc"
    inequality = "n ≥ 2f + 1"

    def __init__(self, *, c: float = 1.0, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.require_that(0 <= c < np.inf, f"c = {c} must be at least 0")
        self._c = c

    def least(self, f: int) -> int:
        """Of more than half nothing can be learnt; the mean must not open too few."""
        return max(2 * f + 1, int(self._c * f) + self.fewest)

    def coefficients(self, statistics: Statistics, f: int) -> Floats:
        """1/(n − ⌊cf⌋) for those that are kept."""
        gram, size = statistics.gram, statistics.size
        centring = np.eye(size) - 1.0 / size
        values, vectors = np.linalg.eigh(centring @ gram @ centring)
        scores = values[-1] * np.square(vectors[:, -1])
        ranked = ascending(scores, statistics.squared_distances.sum(axis=1))
        return mean_of(ranked[: size - int(self._c * f)], size)
