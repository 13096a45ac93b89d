"""The first phase of Bulyan: select by repeated Krum."""

from __future__ import annotations

import numpy as np

from defenses.geometry import ascending, mean_of
from defenses.gram_rule import GramRule
from defenses.krum import krum_scores
from secagg.rule import Floats, Statistics


class BulyanSelection(GramRule):
    """Bulyan's selection phase (El Mhamdi, Guerraoui, Rouault, ICML 2018, arXiv 1802.07927, §4), then the
    mean.

    θ = n − 2f times, Krum's choice among those that are left is moved to the selected. Bulyan's second
    phase then averages, in each coordinate, the θ − 2f values nearest to the median: it needs the order of
    values that no inner product tells, and is left out. What it would add is a bound for each coordinate;
    without it the rule is a Krum that selects many, and an attacker that hides one large coordinate among
    many small ones may pass. Unmoved by a shift of all updates.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> updates = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [90.0]])
    >>> BulyanSelection().coefficients(statistics_of(updates), 1).tolist()
    [0.0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.0]
    """

    name = "bulyan-selection"
    inequality = "n ≥ 4f + 3"

    def least(self, f: int) -> int:
        """n ≥ 4f + 3."""
        return max(4 * f + 3, 2 * f + self.fewest)

    def coefficients(self, statistics: Statistics, f: int) -> Floats:
        """1/θ for the selected."""
        distances, size = statistics.squared_distances, statistics.size
        totals, left = distances.sum(axis=1), np.arange(size)
        selected: list[int] = []
        while len(selected) < size - 2 * f:
            scores = krum_scores(distances[np.ix_(left, left)], f)
            first = ascending(scores, totals[left])[0]
            selected.append(int(left[first]))
            left = np.delete(left, first)
        return mean_of(np.array(selected), size)
