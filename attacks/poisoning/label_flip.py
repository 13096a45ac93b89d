"""Label flip: train honestly on falsified labels."""

from __future__ import annotations

from attacks.poisoning.attack import Attack, Labels


class LabelFlip(Attack):
    """y → C − 1 − y (Fang et al., USENIX Security 2020, arXiv 1911.11815, §5.1).

    >>> import numpy as np
    >>> LabelFlip().labels(np.array([0, 3, 9]), classes=10).tolist()
    [9, 6, 0]
    """

    name = "label-flip"
    takes_strength = False

    def labels(self, labels: Labels, classes: int) -> Labels:
        """C − 1 − y."""
        return classes - 1 - labels
