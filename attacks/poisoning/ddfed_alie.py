"""What DDFed's public code calls ALIE."""

from __future__ import annotations

import numpy as np

from attacks.poisoning.attack import Attack, Updates, View


class DDFedALIE(Attack):
    """The model w_i + N(0, strength²·I): the own update with noise, not μ − zσ.

    ``irxyzzz/DualDefense`` beside R. Xu et al., NeurIPS 2024, arXiv 2502.05547.

    >>> view = View(base=np.zeros(10_000, np.float32), own=np.ones((1, 10_000), np.float32), clients=10)
    >>> sent = DDFedALIE().forge(view, np.random.default_rng(0))
    >>> round(float(sent.mean()), 1), round(float(sent.std()), 1)
    (1.0, 0.1)
    """

    name = "ddfed-alie"
    default_strength = 0.1

    def forge(self, view: View, generator: np.random.Generator) -> Updates:
        """Independent normal draws on each member's own update."""
        return (view.own + generator.normal(0.0, self.strength, view.own.shape)).astype(np.float32)
