"""Inner-product manipulation: make the aggregate point away from the descent direction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attacks.poisoning.attack import Attack


class InnerProductManipulation(Attack):
    """g − strength·μ̂ (Xie, Koyejo, Gupta, Fall of Empires, UAI 2019, arXiv 1903.03936).

    The textbook attacker knows the mean μ of the honest updates. Here it has only the coalition: each
    attacker trains once on the coalition's pooled data, with the same random numbers, so that all of
    them hold the same estimate μ̂ = u and send the same model. With f of n clients malicious the mean's
    inner product with μ turns negative for strength > (n − f)/f.

    >>> import numpy as np
    >>> g, w = np.float32([1, 1]), np.float32([2, 0])
    >>> InnerProductManipulation(0.5).model(g, w, np.random.default_rng(0)).tolist()
    [0.5, 1.5]
    """

    name = "ipm"
    default_strength = 3.0
    pools_data = True

    def model(
        self,
        base: NDArray[np.float32],
        trained: NDArray[np.float32],
        generator: np.random.Generator,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """g − strength·μ̂, μ̂ being the update trained on the pooled data."""
        return base - np.float32(self.strength) * (trained - base)
