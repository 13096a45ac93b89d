"""Scaling: boost the own update until it drowns the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attacks.poisoning.attack import Attack


class Scaling(Attack):
    """g + strength·u (Bagdasaryan et al., AISTATS 2020, arXiv 1807.00459: model replacement).

    With strength n/η the mean of n clients becomes the attacker's own model. The update itself is
    honest; without another goal the attack overshoots.

    >>> import numpy as np
    >>> g, w = np.float32([1, 1]), np.float32([2, 0])
    >>> Scaling(4.0).model(g, w, np.random.default_rng(0)).tolist()
    [5.0, -3.0]
    """

    name = "scaling"
    default_strength = 10.0

    def model(
        self,
        base: NDArray[np.float32],
        trained: NDArray[np.float32],
        generator: np.random.Generator,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """g + strength·u."""
        return base + np.float32(self.strength) * (trained - base)
