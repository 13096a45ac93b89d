"""What a profile's parameters guarantee: headroom that can't be overrun, and errors that are not exceeded.

Bounds that hold always follow from the largest error SEAL can draw; those that hold with probability
≥ 1 - 2^-40 from its distribution, and are smaller where many clients' errors average out.
"""

from __future__ import annotations

from math import log, log2, sqrt

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.parameters import MAX_COEFFICIENT_ERROR, FixedPoint, Profile, Quantised, Slots
from secagg.errors import Code, ConfigError

FAILURE_LOG2 = -40.0
"""Every probabilistic bound here is exceeded with probability at most 2 to this power."""

NOISE_VARIANCE = 10.5
"""Variance, and sub-Gaussian proxy, of one coefficient's error in a fresh ciphertext.

A centred binomial over 2 x 21 coins is a sum of 42 independent signs of size 1/2, whose proxy is exactly
42/4. The Gaussian of another build (deviation 3.2) is below.
"""

FLOODING = 2**16
"""What a released scalar is flooded with: a whole number drawn uniformly from ±FLOODING, in units of 1/scale²
(1.5e-5 at most under ``robust``).

Why: CKKS is not IND-CPA-D (Li, Micciancio, EUROCRYPT 2021). An opened number carries the noise of the
ciphertexts it was computed from, and who holds those, and knows the exact number, learns about the noise and
in the end the key.

What it is worth: the noise of ⟨u, v⟩ deviates by sqrt(10.5·(‖u‖² + ‖v‖²))·scale = 2.1e5·sqrt(‖u‖² + ‖v‖²)
units, the flooding by 2^16/sqrt(3) = 3.8e4. The distance between releases with noise that differs by its own
deviation is then above 1 for ‖u‖ > 0.2, where 2^-40 per release would take flooding of about 2^57 units, an
error of 10^8 in every
entry: with one 60-bit prime no flooding that leaves the statistics of use hides the noise. So what protects
is that
opened statistics go to nobody who lacks the key: the aggregator is told answers alone, n numbers of 20 bits
per stage, and does not know the exact products either. The flooding makes two releases of one number differ
in more than encryption noise, and no opened digit below 1e-5 mean anything.
"""

ROUNDING_VARIANCE = 1.0 / 12.0
"""Of rounding a coefficient to the nearest integer where that is as good as random: a uniform on [-1/2, 1/2]
has that proxy. Equal values round alike, so bounds on fixed-point values don't count on it.
"""


def noise_unit(profile: Profile) -> int:
    """Δ of a ``Quantised`` profile: packed integers are multiplied by it, and noise stays below half of it.

    Σ w_i·|e_i| ≤ 21·T for weights with sum T, so Δ = 2·21·T + 1 makes rounding to multiples of Δ exact.
    """
    return 2 * MAX_COEFFICIENT_ERROR * profile.weight_total + 1


def field_base(profile: Profile) -> int:
    """B of a ``Quantised`` profile: field f of a coefficient is multiplied by B^f.

    A weighted sum of one field is at most T·L in size, and B = 2·T·L + 1 tells all of -T·L … T·L apart. With
    k fields the packed sum is at most (B^k - 1)/2, so Δ·B^k ≤ q is all the headroom that is needed.
    """
    encoding = profile.encoding
    assert isinstance(encoding, Quantised)
    return 2 * profile.weight_total * encoding.largest + 1


def error_bound(
    profile: Profile, values: int, weights: NDArray[np.int64], *, max_abs: float = 1.0, step: float = 0.0
) -> float:
    """Largest |opened - exact| over a weighted mean's values.

    ``FixedPoint``: each coefficient's error is Σ w_i·e_i / (T·scale) with e_i from SEAL and from rounding.
    It is always at most 21.5/scale. Rounding, where all clients may err alike, is at most 1/2 of it; for the
    rest, by the sub-Gaussian tail and a union over n values

        P(max |error| > t) ≤ 2n·exp(-t²/2V),  V = v·Σw²/(T·scale)²,  hence  t = sqrt(2V·(ln 2n + 40·ln 2)).

    ``Quantised``: noise is rounded away exactly; what remains is each client's rounding to a neighbouring
    multiple of its step, always below one step, and by Hoeffding's lemma (proxy step²/4) as above.

    ``Slots``: slot j's error is Σ_k e_k cos(θ_jk)/scale with Σ_k cos²θ_jk = N/2, so that V gains N/2;
    rounding is as good as random over k, but may be the same for all clients; added is the double-precision
    error of one FFT at each end (Higham, *Accuracy and Stability of Numerical
    Algorithms*, theorem 24.2).

    Args:
        values: n ≥ 1, how many values are opened.
        weights: integer weights, int64 [clients], Σ ≥ 1.
        max_abs: bound on |value| of every client's vector; only rounding of doubles depends on it.
        step: the largest step of a ``Quantised`` vector.
    """
    total = float(weights.sum())
    spread = sqrt(float(np.square(weights.astype(np.float64)).sum())) / total
    tail = sqrt(2 * (log(2 * values) - FAILURE_LOG2 * log(2)))
    doubles = 8 * 2.0**-53 * max_abs
    match profile.encoding:
        case FixedPoint(fraction_bits=bits):
            always = (MAX_COEFFICIENT_ERROR + 0.5) / 2.0**bits
            likely = (sqrt(NOISE_VARIANCE) * spread * tail + 0.5) / 2.0**bits
            return min(always, likely) + doubles
        case Quantised():
            # Value, 1/step and their product are each rounded to float32: 3 · 2^-24 of the value.
            return step * min(1.0, spread * tail / 2) + doubles + 2.0**-22 * max_abs
        case Slots(scale_bits=bits):
            each = sqrt(NOISE_VARIANCE) * spread + sqrt(ROUNDING_VARIANCE)
            deviation = each * sqrt(profile.poly_degree / 2) / 2.0**bits
            fft = 7 * 2.0**-53 * log2(profile.poly_degree) * sqrt(2 * profile.poly_degree) * max_abs
            return deviation * tail + 2 * fft + doubles


def max_squared_norm(profile: Profile) -> float:
    """The largest ‖u‖² for which no inner product a round releases can wrap around q.

    ⟨u, r⟩ of an update with a reference of weight total T is carried as scale²·T·⟨u, r⟩, which must stay
    below q/2; by Cauchy-Schwarz it does for ‖u‖², ‖r‖² up to this number. A sixteenth of the room is left for
    noise, which is below 2^45. 0 for a profile without inner products.
    """
    if not profile.inner_products or not isinstance(profile.encoding, FixedPoint):
        return 0.0
    return 15 / 16 * profile.modulus / 2 / (profile.encoding.scale**2 * profile.weight_total)


def squared_norm_bias(profile: Profile, values: int) -> float:
    """How much larger than ‖u‖² a squared norm opens in the mean: the errors' own squared norm.

    The aggregator's ⟨u, u⟩ is that of the vector it would sum, encryption noise included: ‖m + e‖²/scale².
    All padded coefficients carry noise, only the n used ones a rounding error.
    """
    scale = _product_scale(profile)
    padded = profile.ciphertext_count(values) * profile.poly_degree
    return (NOISE_VARIANCE * padded + ROUNDING_VARIANCE * values) / scale**2


def product_error_bound(profile: Profile, left_norm: float, right_norm: float, values: int) -> float:
    """Largest |opened - ⟨a, b⟩| of a released inner product, held with probability ≥ 1 - 2^-40.

    The constant coefficient of x·σ(y) is the dot product Σ_k x_k·y_k of the coefficient vectors. An encoded
    vector is m = scale·a + ρ with ‖ρ‖ ≤ sqrt(n)/2 from rounding, which costs at most scale·(‖a‖ + ‖b‖)·‖ρ‖ +
    ‖ρ‖². With both operands' noise e, e' (proxy v each; for an aggregate divided by its weight total, v is an
    upper bound) the rest of the scalar's error is ⟨m, e'⟩ + ⟨e, m'⟩ + ⟨e, e'⟩ + z, over scale². The first two
    have proxy v(‖m‖ + ‖m'‖)², which also covers a = b. |⟨e, e'⟩| ≤ max ‖e‖² ≤ v(D + 2·sqrt(D·x) + 2x) over
    the D padded coefficients with probability 1 - 2·exp(-x) (Hsu, Kakade, Zhang, *A tail inequality for
    quadratic forms of subgaussian random vectors*, 2012); in a squared norm that term is
    ``squared_norm_bias`` in the mean. z is the noise of one fresh encryption of zero, u·e + e0 + e1·s, proxy
    v(2N + 1) as u and s are ternary; ``FLOODING`` comes on top.

    Args:
        left_norm, right_norm: ‖a‖ and ‖b‖.
        values: how many values the vectors hold.
    """
    scale, rounding = _product_scale(profile), sqrt(values) / 2
    padded = profile.ciphertext_count(values) * profile.poly_degree
    x = log(8) - FAILURE_LOG2 * log(2)
    both = scale * (left_norm + right_norm)
    rounded = (both + rounding) * rounding
    linear = sqrt(2 * x * NOISE_VARIANCE) * (both + 2 * rounding)
    quadratic = NOISE_VARIANCE * (padded + 2 * sqrt(padded * x) + 2 * x)
    zero = sqrt(2 * x * NOISE_VARIANCE * (2 * profile.poly_degree + 1))
    released = rounded + linear + quadratic + zero + FLOODING
    return released / scale**2 + 2.0**-50 * left_norm * right_norm


def distance_resolution(profile: Profile, values: int) -> float:
    """How far ‖u − v‖² = G_uu + G_vv − 2·G_uv of two seals of one vector opens from 0, with probability ≥ 1 -
    2^-40.

    All three are exact for the sealed vectors, noise and rounding included, but for their own encryptions of
    zero and flooding. So what opens is ‖e − e'‖², of mean 2vD (proxy 2v for each of D coefficients, tail as
    in ``product_error_bound``), less the biases of G_uu and G_vv, which take n/6 more off: equal vectors
    round alike; plus four times the rest. It is also how far a squared norm near 0 opens from it.
    """
    scale = _product_scale(profile)
    padded = profile.ciphertext_count(values) * profile.poly_degree
    x = log(8) - FAILURE_LOG2 * log(2)
    quadratic = 2 * NOISE_VARIANCE * 2 * (sqrt(padded * x) + x)
    zero = sqrt(2 * x * NOISE_VARIANCE * (2 * profile.poly_degree + 1))
    rounding = 2 * ROUNDING_VARIANCE * values
    return (quadratic + rounding + 4 * (zero + FLOODING)) / scale**2


def _product_scale(profile: Profile) -> float:
    if not profile.inner_products or not isinstance(profile.encoding, FixedPoint):
        raise ConfigError(
            Code.RULE_UNSUPPORTED, f"profile {profile.name} has no inner products; choose profile robust"
        )
    return profile.encoding.scale
