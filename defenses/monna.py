"""MoNNA: the mean of the updates nearest to one that is trusted."""

from __future__ import annotations

from typing import Unpack

import numpy as np

from defenses.geometry import mean_of, nearest
from defenses.gram_rule import Common, GramRule
from secagg.rule import Floats, Statistics


class MoNNA(GramRule):
    """Nearest-neighbour averaging (Farhadkhani et al., ICML 2023, arXiv 2209.10931, Algorithm 1).

        mean of the n − f updates nearest to the pivot.

    In the paper a node's pivot is its own update. Here it is the root client's, with which others are
    compared and which is not summed itself; n does not count it. Unmoved by a shift of all updates, the
    pivot with them.

    Args:
        pivot: index of an update among the n that is the pivot instead, and is averaged too. Nobody knows who
            that will be, so that an attacker may be: for comparison with byzfl, whose ``idx`` it is.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> updates = np.array([[0.0], [1.0], [9.0], [2.0]])
    >>> MoNNA().coefficients(statistics_of(updates, root=3), 1).tolist()     # the root has none
    [0.5, 0.5, 0.0, 0.0]
    """

    name = "monna"
    inequality = "n ≥ 2f + 1"

    def __init__(self, *, pivot: float | None = None, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.require_that(
            pivot is None or (pivot >= 0 and float(pivot).is_integer()),
            f"pivot = {pivot} must be a whole number ≥ 0",
        )
        self._pivot = None if pivot is None else int(pivot)
        self.pairs, self.root = pivot is not None, pivot is None
        self.inequality = MoNNA.inequality + (" besides the root update" if self.root else "")
        self.mixable = pivot is not None

    def least(self, f: int) -> int:
        """Of more than half nothing can be learnt; a mean of n − f must not open too few."""
        return max(2 * f + 1, f + self.fewest, 0 if self._pivot is None else self._pivot + 1)

    def coefficients(self, statistics: Statistics, f: int) -> Floats:
        """1/(n − f) for the nearest."""
        distances, root = statistics.squared_distances, statistics.root
        size = statistics.size - (root is not None)
        if self._pivot is not None:
            return mean_of(nearest(distances, self._pivot, size - f), statistics.size)
        assert root is not None
        # Pairs without the root are not released: ties are left to the norms.
        distances = np.where(np.isfinite(distances), distances, 0.0)
        return mean_of(nearest(distances, root, 1 + size - f)[1:], statistics.size)
