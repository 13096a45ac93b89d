"""What every update must pass before a rule looks at it, from the same opened statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.rule import Answer, Floats, Reason, Statistics

TINY = 1e-9
"""How far a float64 product of float32 vectors may be off, relatively; besides what opening adds."""


def possible(statistics: Statistics) -> bool:
    """True if vectors can have these statistics: all squared norms finite, none below 0 beyond the
    resolution.

    Products of pairs may be missing (NaN), but only all of them, and not those with the root update if
    there is one. A history must be complete.
    """
    size, root = statistics.size, statistics.root
    pairs = statistics.blocks[:, :size, :size]
    squared = np.diagonal(pairs, axis1=1, axis2=2)
    if not np.isfinite(squared).all() or (squared < -max(statistics.resolution, TINY)).any():
        return False
    others = np.arange(size) != root
    off = ~np.eye(size, dtype=np.bool_) & others[:, None] & others
    finite = np.isfinite(pairs[:, off])
    if not (finite.all() or not finite.any()):
        return False
    if root is not None and not np.isfinite(pairs[:, root]).all():
        return False
    history = statistics.history
    return history is None or bool(np.isfinite(history).all() and (np.diagonal(history) >= -TINY).all())


def screen(statistics: Statistics, norm_bound: float) -> Answer:
    """Who has a possible norm, and one within the bound: weight 1, others 0.

    An update is beyond the bound if ‖u_i‖ > norm_bound · median_j ‖u_j‖, over everything or in any block. The
    median is taken over all n, so that it lies among honest norms as long as fewer than half lie. One whose
    witness contradicts its measured norm is impossible: its square has wrapped around.

    Args:
        statistics: with squared norms.
        norm_bound: at least 1.

    Returns:
        A refusal (IMPOSSIBLE) if a squared norm is NaN, infinite, or below 0 by more than the resolution.

    >>> from secagg.rule import statistics_of
    >>> screen(statistics_of(np.diag([1.0, 2.0, 3.0, 40.0])), 5.0).weights.tolist()   # the median is 2.5
    [1.0, 1.0, 1.0, 0.0]
    """
    size = statistics.size
    squared = np.stack([np.diagonal(block)[:size] for block in statistics.blocks])
    if not np.isfinite(squared).all() or (squared < -max(statistics.resolution, TINY)).any():
        return Answer.refusal(size, Reason.IMPOSSIBLE)
    norms = np.sqrt(np.maximum(np.vstack([squared.sum(axis=0), squared]), 0.0))
    floor = np.sqrt(statistics.resolution)
    within = (norms <= norm_bound * np.median(norms, axis=1, keepdims=True) + floor).all(axis=0)
    reasons = np.where(within, Reason.KEPT, Reason.NORM).astype(np.uint8)
    if statistics.witnesses is not None:
        reasons[~(np.abs(statistics.witnesses) <= 1.0)] = Reason.IMPOSSIBLE
    return Answer.of((reasons == Reason.KEPT).astype(np.float64), reasons)


def duplicates(statistics: Statistics) -> NDArray[np.uint8]:
    """DUPLICATE for every update that repeats an earlier one, KEPT for others; uint8 [n].

    u_j repeats u_i if what is left of it beside u_i's direction, ‖u_j‖² − ⟨u_i, u_j⟩²/‖u_i‖², is within the
    resolution, with ⟨u_i, u_j⟩ > 0: equal updates, and scaled ones. Updates are in the order in which they
    were accepted, and what has not arrived can't be copied: the first one stays.

    >>> from secagg.rule import statistics_of
    >>> duplicates(statistics_of(np.array([[1.0, 2.0], [2.0, 4.0], [1.0, 2.0], [2.0, 1.0]]))).tolist()
    [0, 3, 3, 0]
    """
    gram, size = statistics.gram, statistics.size
    norms = np.diagonal(gram)
    tolerance = statistics.resolution + TINY * norms
    found = np.full(size, Reason.KEPT, dtype=np.uint8)
    for later in range(size):
        for earlier in range(later):
            if norms[earlier] <= tolerance[earlier] or not gram[earlier, later] > 0:
                continue
            rest = norms[later] - gram[earlier, later] ** 2 / norms[earlier]
            if rest <= tolerance[later] < norms[later]:
                found[later] = Reason.DUPLICATE
                break
    return found


def effective(weights: Floats) -> float:
    """(Σw)²/Σw²: how many equal weights say as little of each update; 0 if all are 0.

    >>> effective(np.array([0.5, 0.5, 0.0])), effective(np.array([0.9, 0.1, 0.0])) < 1.3
    (2.0, True)
    """
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0
