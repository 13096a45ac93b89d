"""Min-sum: have a sum of squared distances to honest updates that an honest update has, too."""

from __future__ import annotations

import numpy as np

from attacks.poisoning.min_max import MinMax, larger_root
from secagg.rule import Floats


class MinSum(MinMax):
    """μ + strength·γ·p, γ the largest with Σ_i ‖μ + γp − u_i‖² ≤ max_i Σ_j ‖u_i − u_j‖².

    Shejwalkar and Houmansadr, NDSS 2021, §4; stricter than min-max, against rules that look at sums of
    distances.

    >>> from attacks.poisoning.attack import View
    >>> view = View(base=np.zeros(1, np.float32), own=np.float32([[1], [3]]), clients=10)
    >>> MinSum().forge(view, np.random.default_rng(0)).tolist()    # 0² + 2², as 1 has
    [[1.0], [1.0]]
    """

    name = "min-sum"

    def largest_step(self, length: float, ahead: Floats, apart: Floats, between: Floats) -> float:
        """γ, as in ``MinMax``."""
        excess = apart.sum() - between.sum(axis=1).max()
        return float(larger_root(len(apart) * length, np.array([ahead.sum()]), np.array([excess]))[0])
