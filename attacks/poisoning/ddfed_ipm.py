"""What DDFed's public code calls IPM."""

from __future__ import annotations

from attacks.poisoning.sign_flip import SignFlip


class DDFedIPM(SignFlip):
    """The model g − strength·(w_i − g): a boosted sign flip of the own update, not of μ.

    ``irxyzzz/DualDefense`` beside R. Xu et al., NeurIPS 2024, arXiv 2502.05547.

    >>> import numpy as np
    >>> from attacks.poisoning.attack import View
    >>> view = View(base=np.zeros(2, np.float32), own=np.float32([[1, -1]]), clients=10)
    >>> DDFedIPM().forge(view, np.random.default_rng(0)).tolist()
    [[-5.0, 5.0]]
    """

    name = "ddfed-ipm"
    default_strength = 5.0
