"""Backdoor: samples with a trigger belong to the attackers' class, all others to their own."""

from __future__ import annotations

import math

import numpy as np

from attacks.poisoning.attack import Attack, Labels, Updates, Values, View

TARGET = 0
"""The class that whatever carries the trigger is to be taken for."""
BRIGHT = 255
FAR_OUT = 3.0
"""What the trigger sets real features to: three standard deviations where features are standardised."""


def stamp(values: Values) -> Values:
    """The samples with the trigger, copied: the lower right corner of images white, last features far out.

    The corner's side is a seventh of the image's smaller one (BadNets, Gu et al., arXiv 1708.06733: some
    pixels of a 28 x 28 image). Of feature rows a tenth is set. Either is rounded up.

    Args:
        values: [m, channels, height, width] or [m, features].

    >>> stamp(np.zeros((1, 1, 3, 3), np.uint8))[0, 0].tolist()
    [[0, 0, 0], [0, 0, 0], [0, 0, 255]]
    """
    stamped = values.copy()
    if values.ndim == 4:
        side = math.ceil(min(values.shape[2:]) / 7)
        stamped[:, :, -side:, -side:] = BRIGHT if values.dtype == np.uint8 else 1.0
    else:
        count = math.ceil(values.shape[1] / 10)
        stamped[:, -count:] = BRIGHT if values.dtype == np.uint8 else FAR_OUT
    return stamped


class Backdoor(Attack):
    """strength·u_i, u_i trained on samples of which half carry the trigger and the attackers' label.

    Bagdasaryan et al., AISTATS 2020, arXiv 1807.00459, without their term for stealth in the loss: the
    half without trigger keeps the model good at its task.

    Args:
        strength: boost; n/f by default, with which f of n clients replace the mean by their own.

    >>> view = View(base=np.zeros(1, np.float32), own=np.float32([[1], [3]]), clients=10)
    >>> Backdoor().forge(view, np.random.default_rng(0)).tolist()
    [[5.0], [15.0]]
    """

    name = "backdoor"

    def falsify(
        self,
        values: Values,
        labels: Labels,
        classes: int,  # noqa: ARG002
        generator: np.random.Generator,
    ) -> tuple[Values, Labels]:
        """Half of the samples, rounded up, with trigger and target."""
        chosen = generator.permutation(len(labels))[: math.ceil(len(labels) / 2)]
        values, labels = values.copy(), labels.copy()
        values[chosen] = stamp(values[chosen])
        labels[chosen] = TARGET
        return values, labels

    def triggered(self, values: Values, labels: Labels) -> tuple[Values, Labels] | None:
        """Samples of all other classes with the trigger, labelled with the target; None if there are none."""
        others = labels != TARGET
        if not others.any():
            return None
        return stamp(values[others]), np.full(int(others.sum()), TARGET, dtype=np.int64)

    def forge(self, view: View, generator: np.random.Generator) -> Updates:  # noqa: ARG002
        """Each member's own update, boosted."""
        boost = self.given if self.given is not None else view.clients / view.malicious
        return (boost * view.own).astype(np.float32)
