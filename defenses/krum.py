"""Krum and Multi-Krum: the updates that have the closest neighbours."""

from __future__ import annotations

from typing import Unpack

import numpy as np

from defenses.geometry import ascending, mean_of
from defenses.gram_rule import Common, GramRule
from secagg.rule import Floats, Statistics


def krum_scores(squared_distances: Floats, f: int) -> Floats:
    """s_i = Σ ‖u_i − u_j‖² over the n − f − 2 updates u_j nearest to u_i, itself not counted; float64 [n].

    At least one neighbour counts: Bulyan's selection comes down to 2f + 1 updates.

    >>> krum_scores(np.array([[0.0, 1.0, 9.0], [1.0, 0.0, 4.0], [9.0, 4.0, 0.0]]), 0).tolist()
    [1.0, 1.0, 4.0]
    """
    size = len(squared_distances)
    return np.asarray(np.sort(squared_distances, axis=1)[:, 1 : 1 + max(1, size - f - 2)].sum(axis=1))


class MultiKrum(GramRule):
    """Multi-Krum (Blanchard, El Mhamdi, Guerraoui, Stainer, NeurIPS 2017, arXiv 1703.02757, §4).

    The mean of the m updates with the smallest ``krum_scores``; m = n − f unless given, as in the paper's
    experiments. Unmoved by a shift of all updates. As n − f − 2 ≥ f + 1, every score counts a distance to
    an honest update: far updates score high as long as there are f of them. byzfl 0.0.11 counts one
    neighbour more (n − f − 1).

    Args:
        m: how many are averaged; at least k_min.

    Raises:
        ConfigError: CONFIG_INVALID for an m that is no whole number, or less than k_min.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> updates = np.array([[0.0], [1.0], [2.0], [3.0], [90.0]])
    >>> MultiKrum().coefficients(statistics_of(updates), 1).tolist()
    [0.25, 0.25, 0.25, 0.25, 0.0]
    """

    name = "multi-krum"
    inequality = "n ≥ 2f + 3"

    def __init__(self, *, m: float | None = None, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        whole = m is None or (m >= 1 and float(m).is_integer())
        self.require_that(whole, f"m = {m} must be a whole number ≥ 1")
        self.require_that(
            m is None or m >= self.k_min,
            f"a mean of m = {m} updates can't reach k_min = {self.k_min:g}: raise m, or set k_min = {m}",
        )
        self.m = None if m is None else int(m)

    def least(self, f: int) -> int:
        """n ≥ 2f + 3, and as many as are averaged."""
        return max(2 * f + 3, self.fewest + f if self.m is None else self.m)

    def coefficients(self, statistics: Statistics, f: int) -> Floats:
        """1/m for the m best."""
        distances, size = statistics.squared_distances, statistics.size
        # Of two equally good ones, that which is nearer to all: so the order of updates does not matter.
        ranked = ascending(krum_scores(distances, f), distances.sum(axis=1))
        return mean_of(ranked[: size - f if self.m is None else self.m], size)


class Krum(MultiKrum):
    """Krum (Blanchard, El Mhamdi, Guerraoui, Stainer, NeurIPS 2017, arXiv 1703.02757, §4).

    The one update with the smallest ``krum_scores``. A sum of one update opens it: the rule is refused unless
    k_min = 1 says that this is wanted, or it follows a mixing, whose single result is a mean (``nnm+krum``).
    Unmoved by a shift of all updates.

    Raises:
        ConfigError: CONFIG_INVALID without k_min = 1.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> updates = np.array([[0.0], [1.0], [2.0], [4.0], [90.0]])     # scores 5, 2, 5, 13, …
    >>> Krum(k_min=1).coefficients(statistics_of(updates), 1).tolist()
    [0.0, 1.0, 0.0, 0.0, 0.0]
    """

    name = "krum"

    def __init__(self, **common: Unpack[Common]) -> None:
        k_min = common.get("k_min", 2)
        self.require_that(
            not k_min > 1,
            f"a sum of one opens that client's data, which k_min = {k_min:g} forbids: "
            "use multi-krum or nnm+krum, or set k_min=1",
        )
        super().__init__(m=1, **common)
