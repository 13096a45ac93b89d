"""What DDFed's public code calls scaling."""

from __future__ import annotations

from attacks.poisoning.attack import View
from attacks.poisoning.model_scaling import ModelScaling

TENSORS = 8
"""How many the paper's convolutional network has."""


class DDFedScaling(ModelScaling):
    """The model strength·w_i: the model is multiplied, not the update.

    ``irxyzzz/DualDefense`` beside R. Xu et al., NeurIPS 2024, arXiv 2502.05547.

    Args:
        strength: the factor; by default how many parameter tensors the model has, 8 if that is not known.

    >>> import numpy as np
    >>> view = View(base=np.float32([1, 2]), own=np.float32([[1, -1]]), clients=10)
    >>> DDFedScaling().forge(view, np.random.default_rng(0)).tolist()     # 8·(2, 1) − (1, 2)
    [[15.0, 6.0]]
    """

    name = "ddfed-scaling"
    default_strength = None

    def factor(self, view: View) -> float:
        """What w_i is multiplied by."""
        if self.given is not None:
            return self.given
        return float(len(view.manifest.tensors)) if view.manifest is not None else float(TENSORS)
