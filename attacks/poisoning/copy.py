"""Copy: several clients hand in one update, as it is or scaled."""

from __future__ import annotations

import numpy as np

from attacks.poisoning.attack import Attack, Updates, View


class Copy(Attack):
    """u_1 from the first member, strength·u_1 from all others.

    What the aggregator sees where a client hands in another's ciphertext again, or multiplied by a
    number, without knowing what is in it. Each copy counts u_1 once more.

    >>> view = View(base=np.zeros(2, np.float32), own=np.float32([[1, -1], [2, 0]]), clients=10)
    >>> Copy(2.0).forge(view, np.random.default_rng(0)).tolist()
    [[1.0, -1.0], [2.0, -2.0]]
    """

    name = "copy"
    default_strength = 1.0

    def forge(self, view: View, generator: np.random.Generator) -> Updates:  # noqa: ARG002
        """The first member's update and its copies."""
        sent = view.everyone(self.strength * np.asarray(view.own[0], dtype=np.float64))
        sent[0] = view.own[0]
        return sent
