"""What every update must pass before a rule looks at it, from the same opened statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.rule import Answer, Floats, Reason, Statistics


def possible(statistics: Statistics) -> bool:
    """True if vectors can have these statistics: all squared norms finite, none below 0 beyond the resolution.

    An entry besides squared norms may be missing (NaN), but not for a pair of updates if any pair has one.
    """
    squared = np.stack([np.diagonal(block)[: statistics.size] for block in statistics.blocks])
    if not np.isfinite(squared).all() or (squared < -max(statistics.resolution, 1e-9)).any():
        return False
    pairs = statistics.blocks[:, : statistics.size, : statistics.size]
    off = ~np.eye(statistics.size, dtype=np.bool_)
    finite = np.isfinite(pairs[:, off])
    return bool(finite.all() or not finite.any())


def screen(statistics: Statistics, norm_bound: float) -> Answer:
    """Who has a possible norm, and one within the bound: weight 1, others 0.

    An update is beyond the bound if ‖u_i‖ > norm_bound · median_j ‖u_j‖, over everything or in any block. The
    median is taken over all n, so that it lies among honest norms as long as fewer than half lie.

    Args:
        statistics: with squared norms.
        norm_bound: at least 1.

    Returns:
        A refusal (IMPOSSIBLE) if a squared norm is NaN, infinite, or below 0 by more than the resolution.
    """
    size = statistics.size
    squared = np.stack([np.diagonal(block)[:size] for block in statistics.blocks])
    if not possible(statistics):
        return Answer.refusal(size, Reason.IMPOSSIBLE)
    norms = np.sqrt(np.maximum(np.vstack([squared.sum(axis=0), squared]), 0.0))
    floor = np.sqrt(statistics.resolution)
    within = (norms <= norm_bound * np.median(norms, axis=1, keepdims=True) + floor).all(axis=0)
    reasons = np.where(within, Reason.KEPT, Reason.NORM).astype(np.uint8)
    return Answer.of(within.astype(np.float64), reasons)


def duplicates(statistics: Statistics) -> NDArray[np.uint8]:
    """DUPLICATE for every update that repeats an earlier one, KEPT for others; uint8 [n].

    u_j repeats u_i if what is left of it beside u_i's direction, ‖u_j‖² − ⟨u_i, u_j⟩²/‖u_i‖², is within the
    resolution, with ⟨u_i, u_j⟩ > 0: equal updates, and scaled ones. Updates are in the order in which they were
    accepted, and what has not arrived can't be copied: the first one stays.
    """
    gram, size = statistics.gram, statistics.size
    norms = np.diagonal(gram)
    tolerance = statistics.resolution + 1e-9 * norms
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
    """(Σw)²/Σw²: how many equal weights say as little of each update; 0 if all are 0."""
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0
