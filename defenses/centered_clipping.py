"""Centred clipping: a mean in which nobody pulls harder than a bound."""

from __future__ import annotations

from typing import Unpack

import numpy as np

from defenses.geometry import distances_to
from defenses.gram_rule import Common, GramRule
from defenses.norm_clipping import clipped
from secagg.rule import Floats, Statistics


class CenteredClipping(GramRule):
    """Centred clipping (Karimireddy, He, Jaggi, ICML 2021, arXiv 2012.10333, Algorithm 2).

        v ← v + (1/n) Σ (u_i − v)·min(1, τ/‖u_i − v‖),    v = 0 at first.

    v = 0 is the model that the round started from. The paper starts from the last round's result instead, a
    momentum, and clips updates that carry momentum themselves; byzfl's object keeps its v between calls. A
    fixed τ must fit the updates' size; without one it is the median of ‖u_i − v‖ in each step, which fewer
    than half can't push beyond honest distances. Changes when all updates are shifted alike, as v does not
    start there.

    Args:
        tau: τ > 0; byzfl's is 100.
        iterations: how many steps, 3 by default; byzfl's is 1.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> rule = CenteredClipping(tau=2, iterations=1)
    >>> rule.coefficients(statistics_of(np.diag([1.0, 2.0, 8.0])), 1).round(4).tolist()
    [0.3333, 0.3333, 0.0833]
    """

    name = "centered-clipping"
    inequality = "n ≥ 2f + 1"

    def __init__(self, *, tau: float | None = None, iterations: float = 3, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.require_that(tau is None or tau > 0, f"tau = {tau} must be positive")
        self.require_that(
            1 <= iterations <= 1_000 and float(iterations).is_integer(),
            f"iterations = {iterations} must be a whole number from 1 to 1,000",
        )
        self._tau, self._iterations = tau, int(iterations)

    def least(self, f: int) -> int:
        """n ≥ 2f + 1."""
        return max(2 * f + 1, self.fewest)

    def coefficients(self, statistics: Statistics, f: int) -> Floats:  # noqa: ARG002
        """Those of v: a ← a·(1 − mean s) + s/n with s_i = min(1, τ/‖u_i − v‖)."""
        gram, found = statistics.gram, np.zeros(statistics.size)
        for _ in range(self._iterations):
            distances = distances_to(gram, found)
            shares = clipped(distances, float(np.median(distances)) if self._tau is None else self._tau)
            found = found * (1.0 - shares.mean()) + shares / statistics.size
        return found
