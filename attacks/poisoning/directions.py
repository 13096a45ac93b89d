"""Where an attacker pushes the mean: directions of length 1, or 0 where there is none."""

from __future__ import annotations

import numpy as np

from attacks.poisoning.attack import View
from secagg.rule import Floats


def against_mean(view: View) -> Floats:
    """−μ/‖μ‖, float64 [d]."""
    return unit(-view.mean)


def against_std(view: View) -> Floats:
    """−σ/‖σ‖, float64 [d]."""
    return unit(-view.std)


def against_sign(view: View) -> Floats:
    """−sign(μ)/√d, float64 [d]."""
    return unit(-np.sign(view.mean))


def unit(vector: Floats) -> Floats:
    """The vector at length 1; zeros stay zeros.

    >>> unit(np.array([3.0, 4.0])).tolist()
    [0.6, 0.8]
    """
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector
