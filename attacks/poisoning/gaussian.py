"""Gaussian attack: send noise around the previous model."""

from __future__ import annotations

import numpy as np

from attacks.poisoning.attack import Attack, Updates, View


class Gaussian(Attack):
    """N(0, strength²·I) (Blanchard et al., NeurIPS 2017, §5; here around g instead of around 0).

    >>> view = View(base=np.zeros(10_000, np.float32), own=np.zeros((1, 10_000), np.float32), clients=10)
    >>> sent = Gaussian(2.0).forge(view, np.random.default_rng(0))
    >>> sent.dtype, round(float(sent.std()), 1)
    (dtype('float32'), 2.0)
    """

    name = "gaussian"
    default_strength = 1.0

    def forge(self, view: View, generator: np.random.Generator) -> Updates:
        """Independent normal draws for each member."""
        return generator.normal(0.0, self.strength, view.own.shape).astype(np.float32)
