"""Sign flip: send the opposite of what training found."""

from __future__ import annotations

import numpy as np

from attacks.poisoning.attack import Attack, Updates, View


class SignFlip(Attack):
    """−strength·u_i (Li et al., RSA, AAAI 2019, arXiv 1811.03761, with a boost).

    Three of ten clients at the default strength of 3 turn the mean of equal updates around:
    7u − 3·3u = −2u.

    >>> view = View(base=np.zeros(2, np.float32), own=np.float32([[1, -1], [2, 1]]), clients=10)
    >>> SignFlip().forge(view, np.random.default_rng(0)).tolist()
    [[-3.0, 3.0], [-6.0, -3.0]]
    """

    name = "sign-flip"
    default_strength = 3.0

    def forge(self, view: View, generator: np.random.Generator) -> Updates:  # noqa: ARG002
        """Each member's own update, turned around."""
        return (-self.strength * view.own).astype(np.float32)
