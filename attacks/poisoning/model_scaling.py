"""Model scaling: send a multiple of the model, which a similarity that ignores lengths does not see."""

from __future__ import annotations

import numpy as np

from attacks.poisoning.attack import Attack, Updates, View


class ModelScaling(Attack):
    """The model strength·w_i: as an update, strength·(g + u_i) − g.

    Cosine similarity of models is the same for w and 8w.

    >>> view = View(base=np.float32([1, 2]), own=np.float32([[1, -1]]), clients=10)
    >>> ModelScaling().forge(view, np.random.default_rng(0)).tolist()     # 8·(2, 1) − (1, 2)
    [[15.0, 6.0]]
    """

    name = "model-scaling"
    default_strength: float | None = 8.0

    def factor(self, view: View) -> float:  # noqa: ARG002
        """What w_i is multiplied by."""
        return self.strength

    def forge(self, view: View, generator: np.random.Generator) -> Updates:  # noqa: ARG002
        """Each member's own model, multiplied."""
        base = view.base.astype(np.float64)
        return (self.factor(view) * (base + view.own) - base).astype(np.float32)
