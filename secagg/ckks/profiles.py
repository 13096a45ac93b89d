"""CKKS parameter profiles: an unchecked literal becomes a checked profile; presets go by name."""

from __future__ import annotations

from math import prod

from secagg.ckks.bounds import field_base, max_squared_norm, noise_unit
from secagg.ckks.packing import PACKABLE_BITS
from secagg.ckks.parameters import (
    FIELD_BITS,
    MAX_COEFFICIENT_ERROR,
    MAX_WEIGHT_TOTAL,
    FixedPoint,
    Profile,
    ProfileLiteral,
    Quantised,
    Slots,
)
from secagg.ckks.security import STANDARD_MODULUS_BITS
from secagg.errors import Code, ConfigError


def checked(literal: ProfileLiteral) -> Profile:
    """A profile from a literal.

    Raises:
        ConfigError: CONFIG_INVALID naming the first property that does not hold: ring degree in the security
            table, modulus within its 128-bit row, primes ≡ 1 mod 2N, as many primes as the encoding takes,
            and headroom: no sum of weight ``weight_total`` of values in range can wrap around q, whatever
            SEAL's noise does.
    """
    degree = literal.poly_degree
    result = Profile(**{name: getattr(literal, name) for name in ProfileLiteral.__slots__})
    limits = STANDARD_MODULUS_BITS[128]
    if degree not in limits:
        raise _invalid(literal, f"ring degree {degree} is not in {sorted(limits)}")
    bits = prod(result.key_primes).bit_length()
    if bits > limits[degree]:
        raise _invalid(
            literal, f"a modulus of {bits} bits; 128-bit security allows {limits[degree]} at degree {degree}"
        )
    for prime in result.key_primes:
        if prime % (2 * degree) != 1 or prime.bit_length() not in PACKABLE_BITS:
            raise _invalid(literal, f"modulus {prime} is not ≡ 1 mod {2 * degree} with 32, 36, …, 60 bits")
    if len(set(result.key_primes)) != len(result.key_primes) or not 1 <= literal.code <= 255:
        raise _invalid(literal, "primes repeat, or the code does not fit a byte")
    if literal.special_prime is None and len(literal.primes) > 1:
        raise _invalid(literal, "several data primes need a special prime: SEAL sets the last one aside")
    if not 1 <= literal.weight_total <= MAX_WEIGHT_TOTAL:
        raise _invalid(literal, f"weight total {literal.weight_total} is not in 1 to {MAX_WEIGHT_TOTAL}")
    _check_headroom(literal, result)
    return result


def _check_headroom(literal: ProfileLiteral, result: Profile) -> None:
    total, half = literal.weight_total, result.modulus / 2
    match literal.encoding:
        case Slots():
            # Each coefficient is a mean over slots, and decoding noise stays far below the headroom of 1 bit.
            fits = total * literal.max_abs * literal.encoding.scale * 2 < half
        case FixedPoint():
            largest = literal.max_abs * literal.encoding.scale + 0.5 + MAX_COEFFICIENT_ERROR
            fits = total * largest < half
        case Quantised(bits=bits, fields=fields):
            if bits not in FIELD_BITS or fields < 1:
                raise _invalid(literal, f"{fields} fields of {bits} bits; 1 or more of 2 to 24 are possible")
            fits = noise_unit(result) * field_base(result) ** fields <= result.modulus
    if not fits:
        raise _invalid(
            literal, f"values up to {literal.max_abs:g} at weight total {total} overflow the modulus"
        )
    if not isinstance(literal.encoding, Slots) and len(literal.primes) != 1:
        raise _invalid(literal, f"{len(literal.primes)} data primes; coefficients are encoded modulo one")
    if literal.inner_products and not isinstance(literal.encoding, FixedPoint):
        raise _invalid(literal, "inner products need a fixed-point encoding")
    if literal.inner_products and max_squared_norm(result) < 1:
        raise _invalid(literal, "inner products have no headroom")


def _invalid(literal: ProfileLiteral, complaint: str) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, f"profile {literal.name!r}: {complaint}")


_RING_DEGREE, _RING_PRIME = 4096, 1152921504606830593
"""The ring of every profile but NVFlare's: one 60-bit prime, 60 of the 109 bits that 128-bit security
allows.
"""

PROFILES: dict[str, Profile] = {
    literal.name: checked(literal)
    for literal in (
        # Sums of two 16-bit values per coefficient: 3.8 bytes per value, less than plain float32.
        ProfileLiteral(
            name="compact",
            code=3,
            poly_degree=_RING_DEGREE,
            primes=(_RING_PRIME,),
            special_prime=None,
            encoding=Quantised(bits=16, fields=2),
            weight_total=180,
            max_abs=2.0**20,
            inner_products=False,
        ),
        # The same with three 10-bit values: 2.5 bytes per value.
        ProfileLiteral(
            name="compact-10",
            code=4,
            poly_degree=_RING_DEGREE,
            primes=(_RING_PRIME,),
            special_prime=None,
            encoding=Quantised(bits=10, fields=3),
            weight_total=70,
            max_abs=2.0**20,
            inner_products=False,
        ),
        # Weighted sums and one product. A product with an aggregate carries scale² and the weight total at
        # once: 2^32 · 2^10 leaves inner products up to 122,880.
        ProfileLiteral(
            name="robust",
            code=5,
            poly_degree=_RING_DEGREE,
            primes=(_RING_PRIME,),
            special_prime=None,
            encoding=FixedPoint(fraction_bits=16),
            weight_total=2**10,
            max_abs=256.0,
            inner_products=True,
        ),
        # Sums with an error below 1e-9.
        ProfileLiteral(
            name="precise",
            code=6,
            poly_degree=_RING_DEGREE,
            primes=(_RING_PRIME,),
            special_prime=None,
            encoding=FixedPoint(fraction_bits=36),
            weight_total=2**16,
            max_abs=64.0,
            inner_products=False,
        ),
        # What NVIDIA FLARE's homomorphic encryption is set to, to compare with and to exchange vectors with.
        ProfileLiteral(
            name="nvflare",
            code=7,
            poly_degree=8192,
            primes=(1152921504606830593, 1099510890497),
            special_prime=1099511480321,
            encoding=Slots(scale_bits=40),
            weight_total=2**16,
            max_abs=2.0**20,
            inner_products=False,
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
