"""Norm clipping: nobody's update counts for more than a bound."""

from __future__ import annotations

from typing import Unpack

import numpy as np

from defenses.gram_rule import Common
from defenses.mixing import Mixing
from secagg.rule import Floats, Statistics


class NormClipping(Mixing):
    """Updates cut to a common length (Sun et al., *Can you really backdoor FL?*, 2019, arXiv 1911.07963, §4).

        u_i ← u_i · min(1, C/‖u_i‖),    C = c, or the median of the norms.

    Then their mean, or the rule that follows ``norm-clipping+``. Only norms are opened. Nobody is left out
    (but by the gates): with a fixed C, f attackers move the mean by f·C/n at most; with the median the same
    holds as long as fewer than half lie. Changes when all updates are shifted alike: norms are.

    Args:
        c: C, > 0; by default the median norm. byzfl's ``Clipping`` has c = 2.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> NormClipping().coefficients(statistics_of(np.diag([1.0, 2.0, 8.0])), 1).round(4).tolist()
    [0.3333, 0.3333, 0.0833]
    """

    name = "norm-clipping"
    pairs, screened = False, False
    inequality = "n ≥ 2f + 1"

    def __init__(self, *, c: float | None = None, then: object = None, **common: Unpack[Common]) -> None:
        super().__init__(then=then, **common)
        self.require_that(c is None or c > 0, f"c = {c} must be positive")
        self._bound = c

    def least_to_mix(self, f: int) -> int:
        """The median of 2f + 1 norms lies among honest ones."""
        return 2 * f + 1

    def mixing(self, statistics: Statistics, f: int) -> Floats:  # noqa: ARG002
        """diag(min(1, C/‖u_i‖))."""
        norms = np.sqrt(np.maximum(statistics.squared_norms, 0.0))
        return np.diag(clipped(norms, float(np.median(norms)) if self._bound is None else self._bound))


def clipped(norms: Floats, bound: float) -> Floats:
    """min(1, bound/‖u_i‖), float64 [n].

    >>> clipped(np.array([0.0, 1.0, 4.0]), 2.0).tolist()
    [1.0, 1.0, 0.5]
    """
    return np.divide(bound, norms, out=np.ones_like(norms), where=norms > bound)
