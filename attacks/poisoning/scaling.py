"""Scaling: boost the own update until it drowns the others."""

from __future__ import annotations

import numpy as np

from attacks.poisoning.attack import Attack, Updates, View


class Scaling(Attack):
    """strength·u_i (Bagdasaryan et al., AISTATS 2020, arXiv 1807.00459: model replacement).

    With strength n/η the mean of n clients becomes the attacker's own model. The update itself is
    honest; without another goal the attack overshoots. It is also what a client sends that ignores a
    rule's demand for normalised vectors.

    >>> view = View(base=np.zeros(2, np.float32), own=np.float32([[1, -1]]), clients=10)
    >>> Scaling(4.0).forge(view, np.random.default_rng(0)).tolist()
    [[4.0, -4.0]]
    """

    name = "scaling"
    default_strength = 10.0

    def forge(self, view: View, generator: np.random.Generator) -> Updates:  # noqa: ARG002
        """Each member's own update, boosted."""
        return (self.strength * view.own).astype(np.float32)
