"""Minimum-diameter averaging: the mean of the n − f updates that lie closest together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from defenses.geometry import ascending, mean_of
from defenses.gram_rule import GramRule
from secagg.rule import Floats, Statistics


class MDA(GramRule):
    """Minimum-diameter averaging (El Mhamdi et al., PODC 2020, arXiv 1905.03853; Rousseeuw, 1985).

        mean of S,    S = argmin max_{i,j∈S} ‖u_i − u_j‖ over |S| = n − f.

    Several sets often have the smallest diameter: of two far pairs, breaking up the farther one decides,
    and either end will do. Among them, that with the smallest sum of squared distances is taken, so that
    the order of updates does not matter; byzfl takes the first it comes by. Unmoved by a shift of all
    updates.

    A diameter ≤ d means that the f left out cover all pairs farther apart than d. Vertex covers are
    searched by branching on the update with most such pairs: up to 2^f branches instead of all n!/(f!(n −
    f)!) sets.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> updates = np.array([[0.0], [1.0], [2.0], [7.0], [9.0]])
    >>> MDA().coefficients(statistics_of(updates), 2).round(4).tolist()
    [0.3333, 0.3333, 0.3333, 0.0, 0.0]
    """

    name = "mda"
    inequality = "n ≥ 2f + 1"

    def least(self, f: int) -> int:
        """Of more than half nothing can be learnt; a mean of n − f must not open too few."""
        return max(2 * f + 1, f + self.fewest)

    def coefficients(self, statistics: Statistics, f: int) -> Floats:
        """1/(n − f) for the members of S."""
        distances, size = statistics.squared_distances, statistics.size
        levels = np.unique(distances)
        low, high = 0, len(levels) - 1  # the smallest level at which f can be left out
        while low < high:
            middle = (low + high) // 2
            if any(True for _ in covers(distances > levels[middle], f)):
                high = middle
            else:
                low = middle + 1
        best, least = np.arange(size), np.inf
        for cover in covers(distances > levels[low], f):
            rest = _thinned(distances, np.setdiff1d(np.arange(size), cover), size - f)
            total = float(distances[np.ix_(rest, rest)].sum())
            # Sums that agree to rounding are one choice: machines must not differ in it.
            if total < least * (1 - 1e-10):
                best, least = rest, total
        return mean_of(best, size)


def covers(far: NDArray[np.bool_], most: int) -> Iterator[list[int]]:
    """Sets of at most ``most`` vertices that touch every edge; each such set contains one that is given.

    Args:
        far: the edges, symmetric, bool [n, n].

    >>> far = np.array([[False, True, False], [True, False, True], [False, True, False]])
    >>> list(covers(far, 1)), list(covers(far, 0))
    ([[1]], [])
    """
    degrees = far.sum(axis=1)
    vertex = int(degrees.argmax())
    if degrees[vertex] == 0:
        yield []
        return
    # Either the vertex is in the cover, or all its neighbours are.
    for chosen in ([vertex], np.flatnonzero(far[vertex]).tolist()):
        if len(chosen) <= most:
            left = far.copy()
            left[chosen, :] = left[:, chosen] = False
            for rest in covers(left, most - len(chosen)):
                yield [*chosen, *rest]


def _thinned(distances: Floats, places: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """``count`` of the places: those farthest from the others go first, one by one."""
    while len(places) > count:
        totals = distances[np.ix_(places, places)].sum(axis=1)
        places = np.delete(places, ascending(totals, distances[places].sum(axis=1))[-1])
    return places
