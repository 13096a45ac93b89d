"""Min-max: be no farther from any honest update than two of them are from each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from attacks.poisoning.attack import Attack, Updates, View
from attacks.poisoning.directions import against_std
from secagg.rule import Floats


class MinMax(Attack):
    """μ + strength·γ·p, γ the largest with max_i ‖μ + γp − u_i‖ ≤ max_ij ‖u_i − u_j‖.

    Shejwalkar and Houmansadr, NDSS 2021, "Manipulating the Byzantine", §4. They search for γ; here it is
    solved for, as each ‖μ + γp − u_i‖² is a parabola in γ. At strength 1, the default, the bound is met
    exactly. All members send the same. Where the known updates are all equal, or there is only one, γ =
    0.

    Args:
        strength: share of γ.
        direction: p; −σ/‖σ‖ by default.

    >>> view = View(base=np.zeros(1, np.float32), own=np.float32([[1], [3]]), clients=10)
    >>> MinMax().forge(view, np.random.default_rng(0)).tolist()    # 2 from 3, as 1 is
    [[1.0], [1.0]]
    """

    name = "min-max"
    default_strength = 1.0

    def __init__(
        self, strength: float | None = None, *, direction: Callable[[View], Floats] = against_std
    ) -> None:
        super().__init__(strength)
        self._direction = direction

    def forge(self, view: View, generator: np.random.Generator) -> Updates:  # noqa: ARG002
        """The same for all members."""
        known, mean, direction = view.known, view.mean, self._direction(view)
        if not direction.any():
            return view.everyone(mean)
        # ⟨p, p⟩γ² + 2⟨p, μ − u_i⟩γ + ‖μ − u_i‖²
        ahead = (mean - known) @ direction
        apart = np.square(mean - known).sum(axis=1)
        step = self.largest_step(float(direction @ direction), ahead, apart, squared_distances(known))
        return view.everyone(mean + self.strength * step * direction)

    def largest_step(self, length: float, ahead: Floats, apart: Floats, between: Floats) -> float:
        """γ.

        Args:
            length: ‖p‖².
            ahead: ⟨p, μ − u_i⟩, float64 [k].
            apart: ‖μ − u_i‖², float64 [k].
            between: ‖u_i − u_j‖², float64 [k, k].
        """
        return float(larger_root(length, ahead, apart - between.max()).min())


def larger_root(a: float, b: Floats, c: Floats) -> Floats:
    """The larger solution of a·x² + 2b·x + c = 0, a > 0; c above 0 by rounding counts as 0.

    >>> larger_root(1.0, np.array([1.0]), np.array([-3.0])).tolist()
    [1.0]
    """
    roots: Floats = (-b + np.sqrt(np.square(b) - a * np.minimum(c, 0.0))) / a
    return roots


def squared_distances(rows: Floats) -> Floats:
    """‖u_i − u_j‖², float64 [k, k]; from differences, as equal rows must be 0 apart."""
    return np.stack([np.square(rows - row).sum(axis=1) for row in rows])
