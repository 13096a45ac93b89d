"""Sign flip: send the opposite of what training found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attacks.poisoning.attack import Attack


class SignFlip(Attack):
    """g − strength·u (Li et al., RSA, AAAI 2019, arXiv 1811.03761, with a boost).

    Three of ten clients at the default strength of 3 turn the mean of equal updates around:
    7u − 3·3u = −2u.

    >>> import numpy as np
    >>> g, w = np.float32([1, 1]), np.float32([2, 0])
    >>> SignFlip().model(g, w, np.random.default_rng(0)).tolist()
    [-2.0, 4.0]
    """

    name = "sign-flip"
    default_strength = 3.0

    def model(
        self,
        base: NDArray[np.float32],
        trained: NDArray[np.float32],
        generator: np.random.Generator,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """g − strength·u."""
        return base - np.float32(self.strength) * (trained - base)
