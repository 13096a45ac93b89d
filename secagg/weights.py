"""A round's real weights as the integers that a sum over ciphertexts can use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secagg.errors import Code, RoundError


def countable_weights(
    weights: NDArray[np.float64], total: int, applied: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """A rule's weights as a profile's sum can apply them.

    Args:
        weights: the rule's, float64 [n].
        total: the profile's weight total.
        applied: sample counts int64 [n] that clients have multiplied their hidden values by already; a rule
            may leave updates out then, no more, and the integers are the counts of those it keeps. None: the
            integers multiply ciphertexts. They are ``integer_weights``, but no positive weight becomes 0 as
            long as there are at most ``total``: with a small total a small client would be left out.

    Raises:
        RoundError: NO_DECISION if nothing is left, the weights are not what can be applied, or more updates
            count than there is headroom for.
    """
    integers = integer_weights(weights, total=total)
    counted = int(np.count_nonzero(weights > 0))
    if counted > total:
        raise _undecided(f"{counted} updates count; the profile has headroom for {total}")
    if applied is None:
        lifted = np.where((weights > 0) & (integers == 0), 1, integers)
        while lifted.sum() > total:
            lifted[np.argmax(lifted)] -= 1
        return lifted
    ratios = weights[weights > 0] / applied[weights > 0]
    if not np.allclose(ratios, ratios[0], rtol=1e-9):
        raise _undecided("the profile weighs by sample counts only; use profile robust or precise")
    return np.where(weights > 0, applied, 0).astype(np.int64)


def coefficient_weights(coefficients: NDArray[np.float64], divisor: int, total: int) -> NDArray[np.int64]:
    """A rule's coefficients as integers over a divisor: what differences are summed with.

    The largest-remainder method of ``integer_weights`` to the whole number nearest to divisor·Σa, so that
    |W_i/divisor − a_i| < 1/divisor and the length of the step is kept. Coefficients whose sum exceeds
    total/divisor are scaled down to it, all alike: a longer step than that is not taken.

    Args:
        coefficients: float64 [n], each ≥ 0.
        divisor: of the plan.
        total: the profile's weight total.

    Raises:
        RoundError: NO_DECISION if one is negative, infinite or NaN, or nothing is left.
    """
    summed = float(coefficients.sum())
    wanted = min(total, round(divisor * summed)) if np.isfinite(summed) else 0
    if wanted < 1 and summed > 0:
        raise _undecided(f"coefficients of sum {summed:g} are too small to count")
    if wanted < 1:
        return integer_weights(coefficients, total=total)  # says what is wrong with them
    return _largest_remainder(coefficients, wanted)


def agreeing(scales: Sequence[bytes]) -> NDArray[np.bool_]:
    """Whose scales most updates have, bool [n]; nobody's if two are equally frequent.

    Honest clients derive the same scales from the same base model; values sealed in others can't be summed.
    """
    tally = Counter(scales)
    ranked = tally.most_common(2)
    tied = len(ranked) == 2 and ranked[0][1] == ranked[1][1]
    return np.array([not tied and item == ranked[0][0] for item in scales], dtype=np.bool_)


def integer_weights(weights: NDArray[np.float64], *, total: int) -> NDArray[np.int64]:
    """Integers proportional to the weights whose sum is at most ``total``.

    Weights that are integers already and sum to at most ``total`` are kept: the mean is then exact.
    Otherwise the largest-remainder method (Hamilton; Balinski & Young, *Fair Representation*, 1982)
    gives ``W_i = ⌊total·w_i/Σw⌋`` plus 1 for the largest fractional parts, ties to the lower index,
    so that ``ΣW = total`` and ``|W_i/total - w_i/Σw| < 1/total``. A weight of 0 stays 0.

    Args:
        weights: float64 [n], n ≥ 1, finite, ≥ 0, with a positive sum.
        total: largest sum a profile has headroom for, ≥ 1.

    Returns:
        int64 [n], each ≥ 0, 1 ≤ ΣW ≤ total.

    Raises:
        RoundError: NO_DECISION if the weights are not as said.
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise _undecided(f"weights have shape {values.shape}; a round needs one number per update")
    if not np.isfinite(values).all():
        raise _undecided("a weight is NaN or infinite")
    if (values < 0).any():
        raise _undecided(f"weight {values.min():g} is negative")
    largest = float(values.max())
    if largest == 0.0:
        raise _undecided("all weights are 0: every update was rejected")
    if _kept_as_they_are(values, total):
        kept: NDArray[np.int64] = values.astype(np.int64)
        return kept
    return _largest_remainder(values, total)


def _largest_remainder(values: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    largest = float(values.max())
    if not largest > 0 or (values < 0).any():
        raise _undecided("a weight is NaN or negative, or all are 0")
    # Dividing by the largest first keeps huge and subnormal weights inside double range.
    shares = values / largest
    quotas = shares / shares.sum() * total
    floors: NDArray[np.int64] = np.floor(quotas).astype(np.int64)
    missing = total - int(floors.sum())
    candidates = np.flatnonzero(values > 0)
    order = candidates[np.argsort(-(quotas - floors)[candidates], kind="stable")]
    if missing >= 0:
        floors[order[:missing]] += 1
    else:  # rounding of the quotas themselves gave one too many
        surplus = order[::-1]
        floors[surplus[floors[surplus] > 0][:-missing]] -= 1
    return floors


def _kept_as_they_are(values: NDArray[np.float64], total: int) -> bool:
    return bool((values <= total).all() and (values == np.floor(values)).all() and values.sum() <= total)


def _undecided(message: str) -> RoundError:
    return RoundError(Code.NO_DECISION, message)
