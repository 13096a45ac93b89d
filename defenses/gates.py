"""What every update must pass before a rule looks at it, from the same opened statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.rule import Answer, Floats, Reason, Statistics

TINY = 1e-9
"""How far a float64 product of float32 vectors may be off, relatively; besides what opening adds."""
CLOSE, REFERENCE_CLOSE = 1e-6, 1e-3
"""How far, relatively, a product may exceed that of the norms: of two updates; of an update and a model."""
BLOCK_SHARE, IDLE = 1e-2, 1e-6
"""A block's norms are compared with this share of the median norm at least; a block whose median is below the
other is not trained by most."""
MOST_SCALED = 100.0
"""Up to this squared ratio of norms, repetitions allow for the noise of the shorter update, scaled up."""


def complete(statistics: Statistics, *, pairs: bool) -> bool:
    """True if no number is missing (NaN) or infinite that was to be released, squared norms aside.

    What is missing is nobody's lie: an artifact gives a number for every entry that it says is released.

    Args:
        pairs: True if products of all pairs must be there; otherwise all of them may be missing, but not
            those with the root update if there is one.
    """
    size, root = statistics.size, statistics.root
    products = statistics.blocks[:, :size, :size]
    others = np.arange(size) != root
    off = ~np.eye(size, dtype=np.bool_)
    finite = np.isfinite(products[:, off & others[:, None] & others])
    if not (finite.all() or (not pairs and not finite.any())):
        return False
    if root is not None and not np.isfinite(products[:, root, others]).all():
        return False
    return statistics.history is None or bool(np.isfinite(statistics.history).all())


def hopeless(reasons: NDArray[np.uint8]) -> bool:
    """True if half or more are impossible: then the fault is not a minority's, and the round is refused."""
    return bool(2 * np.count_nonzero(reasons == Reason.IMPOSSIBLE) >= len(reasons))


def screen(statistics: Statistics, norm_bound: float) -> Answer:
    """Who has a possible norm, and one within the bound: weight 1, others 0.

    An update is impossible if a squared norm of it, in any block or over everything, is not finite or below 0
    by more than the resolution (its square has wrapped around), if its witness contradicts its norm, or if
    its product with an earlier model g is larger than vectors of these norms can have:

        |⟨u_i, g⟩| ≤ (1 + 10⁻³)·‖u_i‖·‖g‖ + 4·√r·(‖u_i‖ + ‖g‖) + r,

    r being the resolution. √r exceeds what rounding and noise make of a vector in one direction (that of the
    other operand), so that the slack is several times the error of an honest product; g's own noise, which
    grows with the rounds it is a sum of, is what the rest is for.

    An update is beyond the bound if ‖u_i‖ > norm_bound · median_j ‖u_j‖. The median is taken over all that
    are possible, so that it lies among honest norms as long as fewer than half lie. The same must hold in
    each block, with a median of at least a hundredth of the whole one. A block that most leave alone (its
    median is lost in noise: frozen layers, rows of rare words) says nothing of those that train it: only the
    whole norm bounds them.

    Args:
        statistics: with squared norms.
        norm_bound: at least 1.

    Returns:
        A refusal (IMPOSSIBLE) if half or more are impossible.

    >>> from secagg.rule import statistics_of
    >>> screen(statistics_of(np.diag([1.0, 2.0, 3.0, 40.0])), 5.0).weights.tolist()   # the median is 2.5
    [1.0, 1.0, 1.0, 0.0]
    """
    size = statistics.size
    bad = _impossible_norms(statistics)
    bad |= _beyond_references(statistics, bad)
    if statistics.witnesses is not None:
        bad |= ~(np.abs(statistics.witnesses) <= 1.0)
    reasons = np.where(bad, Reason.IMPOSSIBLE, Reason.KEPT).astype(np.uint8)
    if hopeless(reasons):
        return Answer.refusal(size, Reason.IMPOSSIBLE)
    squared = np.where(bad, 0.0, _squared(statistics))
    norms = np.sqrt(np.maximum(np.vstack([squared.sum(axis=0), squared]), 0.0))
    medians = np.median(norms[:, ~bad], axis=1)
    floor = np.sqrt(statistics.resolution)
    idle = medians <= floor + IDLE * medians[0]
    bounds = np.where(idle, medians[0], np.maximum(medians, BLOCK_SHARE * medians[0]))
    within = (norms <= norm_bound * bounds[:, None] + floor).all(axis=0)
    reasons[~bad & ~within] = Reason.NORM
    return Answer.of((reasons == Reason.KEPT).astype(np.float64), reasons)


def consistent(statistics: Statistics, stretch: float = 1.0) -> NDArray[np.uint8]:
    """IMPOSSIBLE for every update that is not a vector among the others, KEPT for others; uint8 [n].

    Squared norms, those of histories too, must not be below 0 by more than the resolution r; products of
    pairs must satisfy Cauchy and Schwarz in every block:

        |⟨u_i, u_j⟩| ≤ (1 + 10⁻⁶)·√((‖u_i‖² + r)(‖u_j‖² + r)) + r.

    All are exact for the sealed vectors, their noise included, but for what r covers twice. A pair that
    violates it does not say who of the two lies. The root update does not. Of others, the one that violates
    it with most others is impossible (all that tie), and so on with the rest: one liar alone never takes
    several honest ones along. Two that violate it with each other only are both impossible.

    Args:
        stretch: how many times larger than with the whole vectors a product with the root update may be, as
            it was scaled up from a sample and the norms were not.

    >>> from secagg.rule import statistics_of
    >>> statistics = statistics_of(np.eye(4))
    >>> statistics.blocks[0, 1, 2:4] = statistics.blocks[0, 2:4, 1] = 7.0    # the second with two others
    >>> consistent(statistics).tolist()
    [0, 6, 0, 0]
    """
    size, root, limit = statistics.size, statistics.root, max(statistics.resolution, TINY)
    bad = _impossible_norms(statistics)
    if statistics.history is not None:
        bad |= ~(np.diagonal(statistics.history) >= -limit)
    lengths = np.sqrt(np.where(bad, 0.0, np.maximum(_squared(statistics), 0.0)) + limit)
    bound = (1 + CLOSE) * lengths[:, :, None] * lengths[:, None, :] + limit
    wrong = np.abs(statistics.blocks[:, :size, :size])
    if root is not None:
        bad |= (wrong[:, root] > stretch * bound[:, root]).any(axis=0) & (np.arange(size) != root)
    off = ~np.eye(size, dtype=np.bool_) & (np.arange(size) != root)
    violated = (wrong > bound).any(axis=0) & off & off.T
    violated[bad], violated[:, bad] = False, False
    while violated.any():
        counts = violated.sum(axis=0)
        worst = counts == counts.max()
        bad |= worst
        violated[worst], violated[:, worst] = False, False
    return np.where(bad, Reason.IMPOSSIBLE, Reason.KEPT).astype(np.uint8)


def _squared(statistics: Statistics) -> Floats:
    """‖u_i‖² in each block, float64 [B, n]."""
    return np.stack([np.diagonal(block)[: statistics.size] for block in statistics.blocks])


def _impossible_norms(statistics: Statistics) -> NDArray[np.bool_]:
    """Whose squared norms no vector has: not finite, or below 0 by more than the resolution; bool [n]."""
    squared, limit = _squared(statistics), max(statistics.resolution, TINY)
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        possible = (np.isfinite(squared) & (squared >= -limit)).all(axis=0) & (squared.sum(axis=0) >= -limit)
    return np.asarray(~possible)


def _beyond_references(statistics: Statistics, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whose products with g or g' are larger than their norms allow; bool [n]. See ``screen``.

    Args:
        known: whose norms are impossible as they are, bool [n].
    """
    size, blur = statistics.size, np.sqrt(statistics.resolution)
    lengths = np.sqrt(np.where(known, 0.0, np.maximum(_squared(statistics), 0.0)))
    bad = np.zeros(size, dtype=np.bool_)
    for place in (size, size + 1):
        dots = statistics.blocks[:, :size, place]
        squared = statistics.blocks[:, place, place][:, None]
        if np.isnan(dots).all() or not np.isfinite(squared).all():
            continue  # not released
        model = np.sqrt(np.maximum(squared, 0.0))
        slack = 4 * blur * (lengths + model) + max(statistics.resolution, TINY)
        bad |= ~(np.abs(dots) <= (1 + REFERENCE_CLOSE) * lengths * model + slack).all(axis=0)
    return bad


def duplicates(statistics: Statistics) -> NDArray[np.uint8]:
    """DUPLICATE for every update that repeats an earlier one, KEPT for others; uint8 [n].

    u_j repeats u_i if what is left of it beside u_i's direction, ‖u_j‖² − ⟨u_i, u_j⟩²/‖u_i‖², is within the
    resolution (which the noise of a shorter u_i, scaled up, adds to), above and below 0, with ⟨u_i, u_j⟩ > 0:
    equal updates, and scaled ones. A product larger than the norms allow repeats nothing. Updates are in the
    order in which they were accepted, and what has not arrived can't be copied: the first one stays.

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
            scaled = min(norms[later] / norms[earlier], MOST_SCALED) * statistics.resolution
            if abs(rest) <= tolerance[later] + scaled < norms[later]:
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
