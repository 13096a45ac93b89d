"""What a set of CKKS parameters is, and the sizes that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from secagg.ckks.security import security_bits

SEED_BYTES = 64
"""The seed that stands for a fresh ciphertext's second polynomial."""

HEADER_BYTES = 3
"""Version, form and profile code in front of every vector, scalar and key."""

MAX_WEIGHT_TOTAL = 2**16
"""No profile lets the integer weights of one round sum to more."""

MAX_COEFFICIENT_ERROR = 21
"""The largest error of one coefficient of a fresh ciphertext.

SEAL draws it from a centred binomial over 2 x 21 coins, or, in a build with Gaussian noise, from a normal
with deviation 3.2 clipped at 6 deviations (19.2).
"""

FIELD_BITS = range(2, 25)
"""Widths of a quantised integer: as float32, which it is rounded in, it is exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """One value per coefficient: v becomes the integer nearest to v·2^fraction_bits."""

    fraction_bits: int

    @property
    def values_per_coefficient(self) -> int:
        """1."""
        return 1

    @property
    def scale(self) -> float:
        """2^fraction_bits."""
        return 2.0**self.fraction_bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """Several small integers per coefficient, each a value in steps that clients agree on (``quantisation``).

    Args:
        bits: of one integer, its sign included, in ``FIELD_BITS``: it lies in ±(2^(bits-1) - 1).
        fields: how many share a coefficient.
    """

    bits: int
    fields: int

    @property
    def values_per_coefficient(self) -> int:
        """``fields``."""
        return self.fields

    @property
    def largest(self) -> int:
        """L, the largest integer of one field."""
        return int(2 ** (self.bits - 1) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """One real per complex slot at scale 2^scale_bits, as TenSEAL's ``ckks_vector`` encodes."""

    scale_bits: int

    @property
    def scale(self) -> float:
        """2^scale_bits."""
        return 2.0**self.scale_bits


Encoding = FixedPoint | Quantised | Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileLiteral:
    """CKKS parameters as written down, not yet checked.

    Args:
        name: what configurations and descriptors call it.
        code: its byte on the wire, 1 to 255; never reused.
        poly_degree: ring degree N, a power of two.
        primes: the data primes, each ≡ 1 mod 2N. Written out so that the wire form hangs on no library's
            search. ``FixedPoint`` and ``Quantised`` take exactly one.
        special_prime: a prime that only keys use; None for a single data prime.
        encoding: how values become a polynomial.
        weight_total: the integer weights of one sum add up to at most this; as every client that counts has a
            weight of at least 1, it is also the largest number of clients.
        max_abs: the largest |value| a client may seal.
        inner_products: True if two sealed vectors may be multiplied.
    """

    name: str
    code: int
    poly_degree: int
    primes: tuple[int, ...]
    special_prime: int | None
    encoding: Encoding
    weight_total: int
    max_abs: float
    inner_products: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(ProfileLiteral):
    """A checked set of CKKS parameters. Made by ``profiles.checked``."""

    @property
    def key_primes(self) -> tuple[int, ...]:
        """Data primes and, last, the special prime if there is one."""
        return self.primes if self.special_prime is None else (*self.primes, self.special_prime)

    @property
    def modulus(self) -> int:
        """q, the product of the data primes."""
        return prod(self.primes)

    @property
    def security_bits(self) -> int:
        """128, 192 or 256: the highest row of the HomomorphicEncryption.org table that the key modulus is
        in.
        """
        return security_bits(self.poly_degree, prod(self.key_primes))

    @property
    def quantised(self) -> bool:
        """True if values are sealed in steps that clients agree on, and weighted before they are sealed."""
        return isinstance(self.encoding, Quantised)

    @property
    def values_per_ciphertext(self) -> int:
        """How many values one ciphertext holds."""
        if isinstance(self.encoding, Slots):
            return self.poly_degree // 2
        return self.poly_degree * self.encoding.values_per_coefficient

    @property
    def polynomial_bytes(self) -> int:
        """One polynomial modulo q, residues packed to their primes' widths."""
        return sum(self.poly_degree * prime.bit_length() // 8 for prime in self.primes)

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
