"""SMEA: the mean of the n − f updates whose covariance is smallest."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, islice
from math import comb

import numpy as np
from numpy.typing import NDArray

from defenses.geometry import ascending, mean_of
from defenses.gram_rule import GramRule
from secagg.rule import Floats, Statistics

MAX_SETS = 50_000
"""So many sets take two seconds: 20 updates with f = 6 are 38,760."""
_AT_ONCE = 4_096


class SMEA(GramRule):
    """Smallest maximum eigenvalue averaging (Allouah et al., ICML 2023, arXiv 2302.04787, §4).

        mean of S,    S = argmin λ_max(Σ_{i∈S}(u_i − ū_S)(u_i − ū_S)ᵀ/|S|) over |S| = n − f.

    All sets are tried, up to 50,000. Beyond, updates are left out one by one, each time the one without
    which the largest eigenvalue is smallest: the paper's bound is not proved for that. Eigenvalues are
    exact, from the Gram matrix; byzfl 0.0.11 takes one step of power iteration from a random vector, so
    that its choice differs from call to call. Unmoved by a shift of all updates.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> updates = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    >>> SMEA().coefficients(statistics_of(updates), 1).round(4).tolist()
    [0.3333, 0.3333, 0.3333, 0.0]
    """

    name = "smea"
    inequality = "n ≥ 2f + 1"

    def least(self, f: int) -> int:
        """Of more than half nothing can be learnt; a mean of n − f must not open too few."""
        return max(2 * f + 1, f + self.fewest)

    def coefficients(self, statistics: Statistics, f: int) -> Floats:
        """1/(n − f) for the members of S."""
        gram, size = statistics.gram, statistics.size
        if comb(size, f) <= MAX_SETS:
            return mean_of(_best(gram, combinations(range(size), size - f)), size)
        left = np.arange(size)
        for _ in range(f):
            left = _best(gram, combinations(left.tolist(), len(left) - 1))
        return mean_of(left, size)


def _best(gram: Floats, sets: Iterator[tuple[int, ...]]) -> NDArray[np.intp]:
    """The set with the smallest top eigenvalue, and of equal ones that with the smallest trace."""
    kept, tops, traces = [], [], []
    while batch := list(islice(sets, _AT_ONCE)):
        members = np.array(batch)
        parts = gram[members[:, :, None], members[:, None, :]]
        means = parts.mean(axis=2)
        centred = parts - means[:, :, None] - means[:, None, :] + means.mean(axis=1)[:, None, None]
        kept.append(members)
        tops.append(np.linalg.eigvalsh(centred)[:, -1])
        traces.append(np.trace(centred, axis1=1, axis2=2))
    members = np.concatenate(kept)
    return np.asarray(members[ascending(np.concatenate(tops), np.concatenate(traces))[0]])
