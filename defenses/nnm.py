"""Nearest-neighbour mixing: every update becomes the mean of those around it."""

from __future__ import annotations

import numpy as np

from defenses.geometry import mean_of, nearest
from defenses.mixing import Mixing
from secagg.rule import Floats, Statistics


class NNM(Mixing):
    """Nearest-neighbour mixing (Allouah et al., *Fixing by Mixing*, AISTATS 2023, arXiv 2302.01772,
    Algorithm 2).

        u'_i = mean of the n − f updates nearest to u_i, itself included,

    then the mean, or the rule that follows ``nnm+`` (``nnm+krum:f=3``). Unmoved by a shift of all updates,
    if what follows is. By itself it can't keep out an update that is far from all others: that one's own
    mean has a share of it; what follows must drop it. Its share of the result is 1/(n(n − f)) at most.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> updates = np.array([[0.0], [1.0], [2.0], [9.0]])     # neighbourhoods 012, 102, 210, 321
    >>> (NNM().coefficients(statistics_of(updates), 1) * 12).round(9).tolist()
    [3.0, 4.0, 4.0, 1.0]
    """

    name = "nnm"
    inequality = "n ≥ 2f + 1"

    def least_to_mix(self, f: int) -> int:
        """Of more than half nothing can be learnt; a mean of n − f must not open too few."""
        return max(2 * f + 1, f + self.fewest)

    def mixing(self, statistics: Statistics, f: int) -> Floats:
        """M_ij = 1/(n − f) for u_i's neighbours u_j."""
        distances, size = statistics.squared_distances, statistics.size
        return np.stack([mean_of(nearest(distances, i, size - f), size) for i in range(size)])
