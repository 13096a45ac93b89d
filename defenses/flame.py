"""FLAME: the largest cluster of models that point the same way, clipped to the median norm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from defenses.geometry import cosines
from defenses.gram_rule import GramRule
from defenses.norm_clipping import clipped
from secagg.rule import Floats, Statistics


class Flame(GramRule):
    """FLAME (Nguyen et al., USENIX Security 2022, arXiv 2101.02281, Algorithm 1), without its noise.

    L = ``majority_cluster`` of the cosine distances 1 − cos(w_i, w_j) of the *models* w_i = g + u_i, and

        result = (1/|L|) Σ_{i∈L} u_i·min(1, S/‖u_i‖),    S = the median of all ‖u_i‖.

    The paper then adds noise λS to the aggregate; coefficients can't, and whoever wants it adds it to
    updates before they are sealed. About half of honest clients are left out. Changes when all updates are
    shifted alike.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> updates = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [2.0, 0.0], [-9.0, 9.0]])
    >>> Flame().coefficients(statistics_of(updates, base=np.array([5.0, 0.0])), 2).round(3).tolist()
    [0.25, 0.25, 0.25, 0.126, 0.0]
    """

    name = "flame"
    references = 1
    inequality = "n ≥ 2f + 1"

    def least(self, f: int) -> int:
        """n ≥ 2f + 1; a cluster has n/2 + 1 members."""
        return max(2 * f + 1, 2 * (self.fewest - 1), 2)

    def coefficients(self, statistics: Statistics, f: int) -> Floats:  # noqa: ARG002
        """min(1, S/‖u_i‖)/|L| for the members of L."""
        norms = np.sqrt(np.maximum(statistics.squared_norms, 0.0))
        members = majority_cluster(1.0 - cosines(statistics.model_gram))
        return np.asarray(members * clipped(norms, float(np.median(norms))) / members.sum())


def majority_cluster(distances: Floats) -> NDArray[np.bool_]:
    """The first cluster of at least ⌊n/2⌋ + 1 points as single linkage joins ever more distant ones, bool
    [n].

    It is what HDBSCAN (Campello, Moulavi, Sander, PAKDD 2013) finds with these parameters: one point
    suffices for a core distance of 0, so that its hierarchy is single linkage; two clusters of more than
    half can't be, so that the only one is the root, and its points are those that are together when it
    falls apart.

    Args:
        distances: symmetric, float64 [n, n].

    >>> points = np.array([0.0, 1.0, 2.1, 9.0])
    >>> majority_cluster(np.abs(points[:, None] - points)).tolist()
    [True, True, True, False]
    """
    size = len(distances)
    labels = np.arange(size)
    left, right = np.triu_indices(size, 1)
    # Whole steps of the threshold: all pairs at one distance are joined before anybody counts.
    order = np.argsort(distances[left, right], kind="stable")
    heights = distances[left, right][order]
    for place, pair in enumerate(order):
        labels[labels == labels[right[pair]]] = labels[left[pair]]
        last = place + 1 == len(order) or heights[place + 1] > heights[place]
        if last:
            members = np.bincount(labels, minlength=size)
            if members.max() > size // 2:
                return np.asarray(labels == members.argmax())
    return np.ones(size, dtype=np.bool_)
