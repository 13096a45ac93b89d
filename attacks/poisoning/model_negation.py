"""Model negation: send the model with its sign changed, which an absolute similarity does not see."""

from __future__ import annotations

from attacks.poisoning.attack import View
from attacks.poisoning.model_scaling import ModelScaling


class ModelNegation(ModelScaling):
    """The model −strength·w_i: as an update, −strength·(g + u_i) − g.

    >>> import numpy as np
    >>> view = View(base=np.float32([1, 2]), own=np.float32([[1, -1]]), clients=10)
    >>> ModelNegation().forge(view, np.random.default_rng(0)).tolist()    # −(2, 1) − (1, 2)
    [[-3.0, -3.0]]
    """

    name = "model-negation"
    default_strength = 1.0

    def factor(self, view: View) -> float:  # noqa: ARG002
        """What w_i is multiplied by."""
        return -self.strength
