"""Probe: an update that is a basis vector, whose inner products are the others' coordinates."""

from __future__ import annotations

import numpy as np

from attacks.poisoning.attack import Attack, Updates, View
from secagg.rule import Floats


class Probe(Attack):
    """ε·e_k with ε = strength·‖u_i‖, at the same length as an honest update by default.

    Whoever opens the Gram matrix G of a round reads ⟨u_j, ε·e_k⟩ = ε·u_jk off the probe's row: coordinate
    k of every update. Each member takes another k, drawn anew each round.

    >>> view = View(base=np.zeros(3, np.float32), own=np.float32([[3, 0, 4]]), clients=10)
    >>> probe = Probe().forge(view, np.random.default_rng(0))
    >>> float(probe.max()), int(np.count_nonzero(probe))
    (5.0, 1)
    >>> others = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> read = coordinates(others @ probe[0], 5.0)
    >>> read.tolist() == others[:, np.argmax(probe[0])].tolist()
    True
    """

    name = "probe"
    default_strength = 1.0

    def forge(self, view: View, generator: np.random.Generator) -> Updates:
        """One value each; distinct coordinates as far as there are as many."""
        members, size = view.own.shape
        places = generator.choice(size, members, replace=members > size)
        sent = np.zeros((members, size), dtype=np.float32)
        sent[np.arange(members), places] = self.strength * np.linalg.norm(view.own, axis=1)
        return sent


def coordinates(row: Floats, epsilon: float) -> Floats:
    """What a probe's row of the Gram matrix says: coordinate k of every update.

    Args:
        row: ⟨u_j, ε·e_k⟩, float64 [n].
        epsilon: ε.
    """
    return row / epsilon
