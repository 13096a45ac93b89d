"""MPAF: clients without data drag the model back to where it knew nothing."""

from __future__ import annotations

import numpy as np

from attacks.poisoning.attack import Attack, Updates, View


class ModelPoisoningByFakeClients(Attack):
    """strength·(w_base − g) (Cao and Gong, MPAF, CVPR Workshops 2022, arXiv 2203.08669).

    w_base is the model the federation started from, which is as untrained as any that attackers would
    draw; in the first round this is nothing. The paper's strength of 10⁶ does not survive any look at
    norms.

    >>> start = np.float32([1, 0])
    >>> view = View(base=np.float32([2, 2]), own=np.zeros((1, 2), np.float32), clients=10, initial=start)
    >>> ModelPoisoningByFakeClients().forge(view, np.random.default_rng(0)).tolist()
    [[-10.0, -20.0]]
    """

    name = "mpaf"
    default_strength = 10.0

    def forge(self, view: View, generator: np.random.Generator) -> Updates:  # noqa: ARG002
        """The same for all members."""
        initial = view.base if view.initial is None else view.initial
        return view.everyone(self.strength * (initial.astype(np.float64) - view.base))
