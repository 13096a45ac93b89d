"""Inner-product manipulation: make the aggregate point away from the descent direction."""

from __future__ import annotations

import numpy as np

from attacks.poisoning.attack import Attack, Updates, View


class InnerProductManipulation(Attack):
    """−strength·μ (Xie, Koyejo, Gupta, Fall of Empires, UAI 2019, arXiv 1903.03936).

    With f of n clients malicious the mean's inner product with μ turns negative for
    strength > (n − f)/f. All members send the same.

    >>> view = View(base=np.zeros(2, np.float32), own=np.float32([[1, -1], [3, 1]]), clients=10)
    >>> InnerProductManipulation(0.5).forge(view, np.random.default_rng(0)).tolist()
    [[-1.0, -0.0], [-1.0, -0.0]]
    """

    name = "ipm"
    default_strength = 3.0

    def forge(self, view: View, generator: np.random.Generator) -> Updates:  # noqa: ARG002
        """The mean, turned around."""
        return view.everyone(-self.strength * view.mean)
