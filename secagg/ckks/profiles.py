"""CKKS parameter profiles: an unchecked literal becomes a checked profile; presets go by name."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, log2, pi, prod, sqrt

import numpy as np
from numpy.typing import NDArray

from secagg.errors import Code, ConfigError

WEIGHT_TOTAL = 2**16
"""The integer weights of one round sum to at most this."""

SEED_BYTES = 64
"""The seed that stands for a fresh ciphertext's second polynomial."""

HEADER_BYTES = 3
"""Version, form and profile code in front of every vector, scalar and key."""

STANDARD_MODULUS_BITS_128 = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
"""Ring degree -> largest modulus (bits) with 128-bit classical security and a ternary secret.

Source: Albrecht et al., *Homomorphic Encryption Security Standard*, HomomorphicEncryption.org 2018, table 1.
"""

FAILURE_LOG2 = -40.0
"""Every error bound here is exceeded with probability at most 2 to this power."""

COEFFICIENT_ERROR_VARIANCE = 10.5 + 1.0 / 12.0
"""Variance (and sub-Gaussian proxy) of one coefficient's error in a fresh ciphertext.

SEAL draws the error from a centred binomial over 2 x 21 coins (variance 21/2; sub-Gaussian with exactly that
proxy, being a sum of 42 signs of size 1/2), or, in a build with Gaussian noise, from a normal with deviation
3.2 clipped at 6 deviations, rounded (10.24 + 1/12, no larger). Rounding the encoded coefficient adds 1/12: a
uniform on [-1/2, 1/2] has that proxy.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileLiteral:
    """CKKS parameters as written down, not yet checked.

    Args:
        name: what configurations and descriptors call it.
        code: its byte on the wire, 1 to 255; never reused.
        poly_degree: ring degree N, a power of two.
        primes: the data primes, each ≡ 1 mod 2N. Written out so that the wire form hangs on no library's
            search.
        special_prime: a prime that only keys use; None for a single data prime.
        scale_bits: log2 of the encoding scale.
        max_abs: the largest |value| a client may seal.
        inner_products: True if two sealed vectors may be multiplied.
    """

    name: str
    code: int
    poly_degree: int
    primes: tuple[int, ...]
    special_prime: int | None
    scale_bits: int
    max_abs: float
    inner_products: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A checked set of CKKS parameters; two reals share a complex slot, so a ciphertext holds N values.

    Fields as in ``ProfileLiteral``. Made by ``checked`` or ``profile`` only.
    """

    name: str
    code: int
    poly_degree: int
    primes: tuple[int, ...]
    special_prime: int | None
    scale_bits: int
    max_abs: float
    inner_products: bool

    @property
    def key_primes(self) -> tuple[int, ...]:
        """Data primes and, last, the special prime if there is one."""
        return self.primes if self.special_prime is None else (*self.primes, self.special_prime)

    @property
    def prime_bits(self) -> tuple[int, ...]:
        """Width in bits of each data prime; residues travel at this width."""
        return tuple(prime.bit_length() for prime in self.primes)

    @property
    def modulus(self) -> int:
        """q, the product of the data primes."""
        return prod(self.primes)

    @property
    def security_bits(self) -> int:
        """Classical security by the HomomorphicEncryption.org table; ``checked`` lets nothing lower pass."""
        return 128

    @property
    def scale(self) -> float:
        """The encoding scale, a power of two."""
        return 2.0**self.scale_bits

    @property
    def values_per_ciphertext(self) -> int:
        """N: N/2 complex slots, two reals in each."""
        return self.poly_degree

    @property
    def polynomial_bytes(self) -> int:
        """One polynomial modulo q, residues packed to their primes' widths."""
        return sum(self.poly_degree * bits // 8 for bits in self.prime_bits)

    @property
    def sealed_ciphertext_bytes(self) -> int:
        """Seed and one polynomial."""
        return SEED_BYTES + self.polynomial_bytes

    @property
    def aggregate_ciphertext_bytes(self) -> int:
        """Two polynomials."""
        return 2 * self.polynomial_bytes

    def ciphertext_count(self, values: int) -> int:
        """How many ciphertexts hold this many values."""
        return -(-values // self.values_per_ciphertext)

    def sealed_bytes(self, values: int) -> int:
        """Exact length of a sealed vector of this many values; 0 for an empty one."""
        return HEADER_BYTES + self.ciphertext_count(values) * self.sealed_ciphertext_bytes if values else 0

    def aggregate_bytes(self, values: int) -> int:
        """Exact length of an aggregate vector (header, u32 weight total, ciphertexts); 0 for an empty one."""
        count = self.ciphertext_count(values)
        return HEADER_BYTES + 4 + count * self.aggregate_ciphertext_bytes if values else 0

    @property
    def released_bytes(self) -> int:
        """Exact length of the longest released scalar: its header, b, and three polynomials."""
        return HEADER_BYTES + 1 + 4 + self.constant_bytes + 3 * self.polynomial_bytes

    @property
    def constant_bytes(self) -> int:
        """One coefficient modulo q: each residue in its own 8 bytes."""
        return 8 * len(self.primes)

    @property
    def max_squared_norm(self) -> float:
        """The largest ‖u‖² for which no inner product a round releases can wrap around q.

        ⟨u, r⟩ of an update with a reference of weight total T has constant coefficient scale²·T·(2/N)·⟨u, r⟩,
        which must stay below q/2; by Cauchy-Schwarz it does for ‖u‖², ‖r‖² up to this number. One bit of
        headroom is left for noise. 0 for a profile without inner products.
        """
        if not self.inner_products:
            return 0.0
        room = self.modulus / (4.0 * self.scale**2 * WEIGHT_TOTAL)
        return room * self.poly_degree / 2

    def error_bound(self, values: int, weights: NDArray[np.int64], max_abs: float) -> float:
        """Largest |opened - exact| over a weighted mean's values, held with probability ≥ 1 - 2^-40.

        With T = Σw, client i's coefficient errors e_i (independent, sub-Gaussian with proxy v =
        ``COEFFICIENT_ERROR_VARIANCE``), slot j's real or imaginary error is Σ_i w_i Σ_k e_ik cos(θ_jk) /
        (scale·T). Σ_k cos²θ_jk = N/2 exactly for a primitive 2N-th root of unity, so its proxy is
        V = v·(N/2)·Σw² / (scale·T)². By the sub-Gaussian tail and a union over n values,

            P(max |error| > t) ≤ 2n·exp(-t²/2V),  hence  t = sqrt(2V·(ln 2n + 40·ln 2)).

        Source: the canonical-embedding noise analysis of Cheon, Kim, Kim, Song (ASIACRYPT 2017, §3), with
        Chernoff's bound in place of its "6σ" (that rounding is independent and uniform is their assumption,
        too). Added is the double-precision error of one FFT at each end, ‖error‖₂ ≤ η·log2(N)·‖x‖₂ with
        η ≈ 7 unit round-offs (Higham, *Accuracy and Stability of Numerical Algorithms*, theorem 24.2), and of
        the division and of the opened coefficients' conversion to double.

        Args:
            values: n ≥ 1, how many values are opened.
            weights: integer weights, int64 [clients], Σ ≥ 1.
            max_abs: bound on |value| of every client's vector.
        """
        total = float(weights.sum())
        spread = sqrt(float(np.square(weights.astype(np.float64)).sum())) / total
        deviation = sqrt(COEFFICIENT_ERROR_VARIANCE * self.poly_degree / 2) * spread / self.scale
        tail = sqrt(2 * (log(2 * values) - FAILURE_LOG2 * log(2)))
        unit_roundoff = 2.0**-53
        transform = 7 * unit_roundoff * log2(self.poly_degree) * sqrt(2 * self.poly_degree) * max_abs
        return deviation * tail + 2 * transform + 4 * unit_roundoff * max_abs

    def product_error_bound(self, left_norm: float, right_norm: float, values: int) -> float:
        """Largest |opened - ⟨a, b⟩| of a released inner product, held with probability ≥ 1 - 2^-40.

        The constant coefficient of x·σ(y) is the plain dot product Σ_k x_k·y_k of the coefficient vectors,
        and encoded vectors m have ‖m‖ = scale·sqrt(2/N)·‖a‖. With both operands' errors e, e' (proxy v each;
        for an aggregate divided by its weight total, v is an upper bound) the scalar's error is
        (N/2)/scale² times ⟨m, e'⟩ + ⟨e, m'⟩ + ⟨e, e'⟩ + z. The first two have proxy v(‖m‖ + ‖m'‖)², which
        also covers a = b. |⟨e, e'⟩| ≤ max ‖e‖² ≤ v(D + 2·sqrt(D·x) + 2x) over the D padded coefficients with
        probability 1 - 2·exp(-x) (Hsu, Kakade, Zhang, *A tail inequality for quadratic forms of subgaussian
        random vectors*, 2012); in a squared norm that term is a bias, v·D in the mean. z is the noise of the
        two fresh encryptions of zero, u·e + e0 + e1·s each, proxy v(2N + 1) as u and s are ternary.

        Args:
            left_norm, right_norm: ‖a‖ and ‖b‖.
            values: how many values the vectors hold.
        """
        degree, scale, variance = self.poly_degree, self.scale, COEFFICIENT_ERROR_VARIANCE
        padded = self.ciphertext_count(values) * degree
        x = log(8) - FAILURE_LOG2 * log(2)
        linear = sqrt(2 * x * variance * 2 / degree) * scale * (left_norm + right_norm)
        quadratic = variance * (padded + 2 * sqrt(padded * x) + 2 * x)
        zero = sqrt(2 * x * 2 * variance * (2 * degree + 1))
        rounding = 2.0**-53 * 8 * pi * log2(degree) * sqrt(degree) * left_norm * right_norm
        return (linear + quadratic + zero) * degree / (2 * scale**2) + rounding


def checked(literal: ProfileLiteral) -> Profile:
    """A profile from a literal.

    Raises:
        ConfigError: CONFIG_INVALID naming the first property that does not hold: ring degree in the security
            table, modulus within it, primes ≡ 1 mod 2N and widths that pack into whole bytes, and headroom: a
            sum of weight ``WEIGHT_TOTAL`` of the largest values (coefficients reach √2·max_abs·scale) and its
            noise stay below q/2.
    """
    degree = literal.poly_degree
    result = Profile(**{name: getattr(literal, name) for name in ProfileLiteral.__slots__})
    limit = STANDARD_MODULUS_BITS_128.get(degree)
    if limit is None:
        raise _invalid(literal, f"ring degree {degree} is not in {sorted(STANDARD_MODULUS_BITS_128)}")
    bits = prod(result.key_primes).bit_length()
    if bits > limit:
        raise _invalid(
            literal, f"a modulus of {bits} bits; 128-bit security allows {limit} at degree {degree}"
        )
    for prime in result.key_primes:
        if prime % (2 * degree) != 1 or not 17 <= prime.bit_length() <= 60:
            raise _invalid(literal, f"modulus {prime} is not ≡ 1 mod {2 * degree} with 17 to 60 bits")
    if len(set(result.key_primes)) != len(result.key_primes) or not 1 <= literal.code <= 255:
        raise _invalid(literal, "primes repeat, or the code does not fit a byte")
    if literal.special_prime is None and len(literal.primes) > 1:
        raise _invalid(literal, "several data primes need a special prime: SEAL sets the last one aside")
    largest = sqrt(2) * literal.max_abs * result.scale + 21.5 * degree
    if not WEIGHT_TOTAL * largest < result.modulus / 2:
        raise _invalid(literal, f"values up to {literal.max_abs} overflow the modulus in a weighted sum")
    if literal.inner_products and result.max_squared_norm < 1:
        raise _invalid(literal, "inner products have no headroom")
    return result


def _invalid(literal: ProfileLiteral, complaint: str) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, f"profile {literal.name!r}: {complaint}")


PROFILES: dict[str, Profile] = {
    literal.name: checked(literal)
    for literal in (
        # Sums only, error below 1e-8: one 60-bit prime, 7.5 bytes per value.
        ProfileLiteral(
            name="precise",
            code=1,
            poly_degree=4096,
            primes=(1152921504606830593,),
            special_prime=None,
            scale_bits=38,
            max_abs=16.0,
            inner_products=False,
        ),
        # Weighted sums and one product: two 36-bit primes, 9 bytes per value. A product with the previous
        # aggregate carries scale² and the weight total at once, which one 60-bit prime can't hold.
        ProfileLiteral(
            name="robust",
            code=2,
            poly_degree=4096,
            primes=(68719230977, 68719403009),
            special_prime=137438822401,
            scale_bits=24,
            max_abs=256.0,
            inner_products=True,
        ),
    )
}
"""The presets by name."""

_BY_CODE = {preset.code: preset for preset in PROFILES.values()}


def profile(name: str) -> Profile:
    """The preset of this name.

    Raises:
        ConfigError: PROFILE_UNKNOWN.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise ConfigError(
            Code.PROFILE_UNKNOWN, f"profile {name!r} is unknown; choose from {', '.join(PROFILES)}"
        ) from None


def profile_by_code(code: int) -> Profile | None:
    """The preset with this wire code, or None."""
    return _BY_CODE.get(code)
