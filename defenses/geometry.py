"""Lengths, angles and order among updates, from their Gram matrix alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.rule import Floats

Places = NDArray[np.intp]

_DIGITS = 10


def cosines(gram: Floats) -> Floats:
    """G_ij / (‖u_i‖·‖u_j‖), float64 [n, n]; 0 for an update of norm 0, which points nowhere.

    >>> cosines(np.array([[4.0, 2.0], [2.0, 1.0]])).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    norms = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return np.asarray(np.clip(gram * inverse[:, None] * inverse, -1.0, 1.0))


def distances_to(gram: Floats, coefficients: Floats) -> Floats:
    """‖u_i − Σ_j a_j·u_j‖ = √(G_ii − 2(Ga)_i + aᵀGa), float64 [n].

    >>> distances_to(np.eye(2), np.array([0.5, 0.5])).round(3).tolist()      # from the middle of two axes
    [0.707, 0.707]
    """
    product = gram @ coefficients
    squared = np.diagonal(gram) - 2 * product + coefficients @ product
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def ascending(scores: Floats, ties: Floats) -> Places:
    """Indices from the smallest score to the largest; equal ones by ``ties``, then by place.

    Scores that agree in ten digits count as equal. Two are exactly equal more often than one thinks (of two
    updates that are each other's only neighbour, say), and rounding errors, which differ between machines,
    must not order them.

    >>> ascending(np.array([2.0, 1.0, 1.0 + 1e-14]), np.array([0.0, 7.0, 5.0])).tolist()
    [2, 1, 0]
    """
    scale = float(np.abs(scores).max(initial=0.0)) or 1.0
    return np.lexsort((_rounded(ties), np.round(scores / scale, _DIGITS)))


def nearest(squared_distances: Floats, place: int, count: int) -> Places:
    """The ``count`` updates nearest to update ``place``, itself first."""
    totals = squared_distances.sum(axis=1)
    others = ascending(squared_distances[place], totals)
    return np.concatenate([[place], others[others != place]])[:count]


def _rounded(values: Floats) -> Floats:
    scale = float(np.abs(values).max(initial=0.0)) or 1.0
    return np.asarray(np.round(values / scale, _DIGITS))


def mean_of(places: Places, size: int) -> Floats:
    """Coefficients of the mean of some of n updates, float64 [n].

    >>> mean_of(np.array([0, 2]), 3).tolist()
    [0.5, 0.0, 0.5]
    """
    coefficients = np.zeros(size)
    coefficients[places] = 1.0 / len(places)
    return coefficients
