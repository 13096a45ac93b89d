"""The geometric median: the point with the smallest sum of distances."""

from __future__ import annotations

from typing import Unpack

import numpy as np

from defenses.geometry import distances_to
from defenses.gram_rule import Common, GramRule
from secagg.rule import Floats, Statistics

MAX_STEPS = 2_000
CONVERGED = 2.0**-24
RELATIVE_SMOOTHING = 1e-4
"""ν as a share of a typical distance. The smaller, the slower the steps near a median that is an update."""


class GeometricMedian(GramRule):
    """The geometric median (Chen, Su, Xu, 2017, arXiv 1705.05491), as in RFA (Pillutla, Kakade, Harchaoui,
    IEEE TSP 2022, arXiv 1912.13445, Algorithm 2) by Weiszfeld's steps.

        z ← Σ β_i u_i / Σ β_i,    β_i = 1/max(ν, ‖u_i − z‖),

    from the mean until no coefficient changes by more than 2⁻²⁴. Unmoved by a shift of all updates. Less than
    half of the weight can't carry it away: ‖z − c‖ ≤ 2r(n − f)/(n − 2f) if n − f updates lie within r of c.
    Where most updates agree, the median is one of them; then k_min refuses it.

    Args:
        steps: do so many, starting from 0 instead of the mean, which a shift does move. byzfl 0.0.11 and
            RFA's authors stop early: ``geometric-median:steps=3,nu=0.1`` is byzfl's.
        nu: ν ≥ 0; by default 1e-4 of the root mean square distance of two updates.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> updates = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> GeometricMedian().coefficients(statistics_of(updates), 1).round(6).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """

    name = "geometric-median"
    inequality = "n ≥ 2f + 1"

    def __init__(
        self, *, steps: float | None = None, nu: float | None = None, **common: Unpack[Common]
    ) -> None:
        super().__init__(**common)
        self.require_that(
            steps is None or (1 <= steps <= MAX_STEPS and float(steps).is_integer()),
            f"steps = {steps} must be a whole number from 1 to {MAX_STEPS}",
        )
        self.require_that(nu is None or 0 < nu < np.inf, f"nu = {nu} must be positive")
        self._steps, self._nu = None if steps is None else int(steps), nu

    def least(self, f: int) -> int:
        """n ≥ 2f + 1."""
        return max(2 * f + 1, self.fewest)

    def coefficients(self, statistics: Statistics, f: int) -> Floats:  # noqa: ARG002
        """β_i/Σβ after the last step."""
        gram, size = statistics.gram, statistics.size
        spread = float(np.sqrt(statistics.squared_distances.mean()))
        equal = np.full(size, 1.0 / size)
        smallest = RELATIVE_SMOOTHING * spread if self._nu is None else self._nu
        if smallest == 0:
            return equal  # all updates are the same
        found = equal if self._steps is None else np.zeros(size)
        for _ in range(self._steps or MAX_STEPS):
            before, pulls = found, 1.0 / np.maximum(smallest, distances_to(gram, found))
            found = pulls / pulls.sum()
            if self._steps is None and np.abs(found - before).max() < CONVERGED:
                break
        return found
