"""The coordinate-wise median."""

from __future__ import annotations

import numpy as np

from defenses.coordinate_rule import CoordinateWise
from secagg.rule import Floats


class Median(CoordinateWise):
    """The median of each coordinate (Yin, Chen, Ramchandran, Bartlett, ICML 2018, arXiv 1803.01498, Option
    I).

    Of an even number of values, the mean of the two in the middle.

    >>> Median().combine(np.array([[1.0, 5.0], [2.0, 6.0], [99.0, -99.0]])).tolist()
    [2.0, 5.0]
    """

    name = "median"

    def combine(self, values: Floats) -> Floats:
        """The median over clients, float64 [k]."""
        self.require(len(values))
        return np.asarray(np.median(values, axis=0))
