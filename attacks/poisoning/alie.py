"""A little is enough: hide among honest updates, where no rule drops one without the other."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from attacks.poisoning.attack import Attack, Updates, View


def supported_deviation(clients: int, malicious: int) -> float:
    """z = Φ⁻¹((n − f − s)/(n − f)), s = ⌊n/2 + 1⌋ − f honest clients being needed for a majority.

    s is at least 1, and the probability is kept half a client away from 0 and 1, where there is no z.

    >>> round(supported_deviation(50, 24), 2)      # s = 2: Φ⁻¹(24/26)
    1.43
    """
    honest = clients - malicious
    supporters = max(clients // 2 + 1 - malicious, 1)
    least = 1 / (2 * honest) if honest > 0 else 0.5
    return NormalDist().inv_cdf(min(max((honest - supporters) / max(honest, 1), least), 1 - least))


class ALittleIsEnough(Attack):
    """μ − z·σ (Baruch, Baruch, Goldberg, NeurIPS 2019, arXiv 1902.06156).

    The strength is z; by default ``supported_deviation``, which is small, or negative, where the coalition is
    small. A coalition of one that knows nobody else sees no σ, and sends its own update.

    >>> view = View(base=np.zeros(1, np.float32), own=np.float32([[1], [3]]), clients=10)
    >>> ALittleIsEnough(1.5).forge(view, np.random.default_rng(0)).tolist()
    [[0.5], [0.5]]
    """

    name = "alie"

    def forge(self, view: View, generator: np.random.Generator) -> Updates:  # noqa: ARG002
        """The same for all members."""
        z = self.given if self.given is not None else supported_deviation(view.clients, view.malicious)
        return view.everyone(view.mean - z * view.std)
