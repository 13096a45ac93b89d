"""The mean around the median, by coordinate."""

from __future__ import annotations

import numpy as np

from defenses.coordinate_rule import CoordinateWise
from secagg.rule import Floats


class Meamed(CoordinateWise):
    """In each coordinate, the mean of the n − f values nearest to the median (Xie, Koyejo, Gupta, 2018,
    arXiv 1802.10116, §4.2).

    A value between honest ones may be averaged with a malicious one that is no farther from the median than
    they are: the guarantee is a multiple of the honest spread, not the honest range itself.

    >>> Meamed(f=1).combine(np.array([[1.0], [2.0], [4.0], [99.0]])).round(4).tolist()     # the median is 3
    [2.3333]
    """

    name = "meamed"

    def combine(self, values: Floats) -> Floats:
        """The mean of the n − f nearest, float64 [k]."""
        f = self.assumed(len(values))
        away = np.abs(values - np.median(values, axis=0))
        # Of two equally near ones the smaller value: the order of clients must not matter.
        order = np.lexsort((values, away), axis=0)[: len(values) - f]
        return np.asarray(np.take_along_axis(values, order, axis=0).mean(axis=0))
