"""Gaussian attack: send noise around the previous model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attacks.poisoning.attack import Attack


class Gaussian(Attack):
    """g + N(0, strength²·I) (Blanchard et al., NeurIPS 2017, §5; here around g instead of around 0).

    >>> import numpy as np
    >>> g = np.zeros(10_000, np.float32)
    >>> sent = Gaussian(2.0).model(g, g, np.random.default_rng(0))
    >>> sent.dtype, round(float(sent.std()), 1)
    (dtype('float32'), 2.0)
    """

    name = "gaussian"
    default_strength = 1.0

    def model(
        self,
        base: NDArray[np.float32],
        trained: NDArray[np.float32],  # noqa: ARG002
        generator: np.random.Generator,
    ) -> NDArray[np.float32]:
        """g plus independent normal draws of standard deviation ``strength``."""
        noise = generator.normal(0.0, self.strength, base.shape)
        sent: NDArray[np.float32] = (base + noise).astype(np.float32)
        return sent
