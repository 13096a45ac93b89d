"""Mimic: be the twin of one honest client, so that the rule counts its peculiarities several times."""

from __future__ import annotations

import numpy as np

from attacks.poisoning.attack import Attack, Updates, View
from secagg.rule import Floats


def most_peculiar(known: Floats) -> int:
    """i* = argmax_i |⟨z, u_i⟩|, z being the direction in which the updates vary most.

    >>> most_peculiar(np.array([[1.0, 0.0], [1.0, 1.0], [1.0, -3.0]]))
    2
    """
    centred = known - known.mean(axis=0)
    # z = Σ_i v_i·(u_i − ū)/√λ, v the top eigenvector of the centred updates' Gram matrix.
    _, vectors = np.linalg.eigh(centred @ centred.T)
    return int(np.argmax(np.abs(known @ (vectors[:, -1] @ centred))))


class Mimic(Attack):
    """u_i*, i* = ``most_peculiar`` (Karimireddy, He, Jaggi, ICLR 2022, arXiv 2006.09365, §3).

    The paper learns z over the first rounds and keeps i*; here both are the round's own. A coalition that
    knows nobody else imitates one of its own members.

    Args:
        strength: noise of so many times ‖u_i*‖ that tells the copies apart; 0, the default, sends the
            same update.

    >>> own, others = np.zeros((1, 2), np.float32), np.float32([[1, 0], [1, 1], [1, -3]])
    >>> view = View(base=np.zeros(2, np.float32), own=own, others=others, clients=4)
    >>> Mimic().forge(view, np.random.default_rng(0)).tolist()
    [[1.0, -3.0]]
    """

    name = "mimic"
    default_strength = 0.0

    def forge(self, view: View, generator: np.random.Generator) -> Updates:
        """One known update, as often as there are members."""
        known = view.known
        target = known[most_peculiar(known)]
        sigma = self.strength * float(np.linalg.norm(target)) / np.sqrt(target.size)
        sent: Updates = (target + generator.normal(0.0, sigma, view.own.shape)).astype(np.float32)
        return sent
