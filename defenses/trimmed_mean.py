"""The coordinate-wise trimmed mean."""

from __future__ import annotations

import numpy as np

from defenses.coordinate_rule import CoordinateWise
from secagg.rule import Floats


class TrimmedMean(CoordinateWise):
    """The mean of each coordinate without its f smallest and f largest values (Yin, Chen, Ramchandran,
    Bartlett, ICML 2018, arXiv 1803.01498, Option II, β = f/n).

    >>> TrimmedMean(f=1).combine(np.array([[1.0], [2.0], [4.0], [99.0]])).tolist()
    [3.0]
    """

    name = "trimmed-mean"

    def combine(self, values: Floats) -> Floats:
        """The mean of the n − 2f in the middle, float64 [k]."""
        f = self.assumed(len(values))
        return np.asarray(np.sort(values, axis=0)[f : len(values) - f].mean(axis=0))
