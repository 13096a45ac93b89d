"""Profiles are what the security table and the headroom of a weighted sum allow."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest

from secagg.ckks import PROFILES, Profile, ProfileLiteral, checked, profile
from secagg.ckks.bounds import error_bound, field_base, max_squared_norm, noise_unit
from secagg.ckks.parameters import MAX_COEFFICIENT_ERROR, FixedPoint, Quantised, Slots
from secagg.ckks.profiles import profile_by_code
from secagg.ckks.security import security_bits
from secagg.errors import Code, ConfigError

# Albrecht et al., Homomorphic Encryption Security Standard, HomomorphicEncryption.org 2018, table 1
# (classical attacks, ternary secret): ring degree, then the largest log2 q for 128, 192 and 256 bits.
TABLE = """
1024   27  19  14
2048   54  37  29
4096  109  75  58
8192  218 152 118
16384 438 305 237
32768 881 611 476
"""
LARGEST = {
    (degree, level): bits
    for degree, *row in (map(int, line.split()) for line in TABLE.split("\n") if line)
    for level, bits in zip((128, 192, 256), row, strict=True)
}

LITERAL = ProfileLiteral(
    name="trial",
    code=200,
    poly_degree=4096,
    primes=(1152921504606830593,),
    special_prime=None,
    encoding=FixedPoint(fraction_bits=16),
    weight_total=2**10,
    max_abs=256.0,
    inner_products=True,
)
SLOTS = replace(
    LITERAL,
    poly_degree=8192,
    primes=(1152921504606830593, 1099510890497),
    special_prime=1099511480321,
    encoding=Slots(scale_bits=40),
    inner_products=False,
)


def quantised(bits: int, fields: int, weight_total: int) -> ProfileLiteral:
    """The trial literal with quantised integers."""
    encoding = Quantised(bits=bits, fields=fields)
    return replace(LITERAL, encoding=encoding, weight_total=weight_total, inner_products=False)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_whole_modulus_is_within_the_security_table(name: str) -> None:
    """Data primes and special prime together stay below the standard's bound for 192 bits, not for 256."""
    preset = profile(name)
    bits = prod(preset.key_primes).bit_length()
    assert bits <= LARGEST[preset.poly_degree, 192]
    assert bits > LARGEST[preset.poly_degree, 256]
    assert preset.security_bits == 192


@pytest.mark.parametrize("degree", sorted({degree for degree, _ in LARGEST}))
@pytest.mark.parametrize("level", [128, 192, 256])
def test_security_level_ends_where_the_table_ends(degree: int, level: int) -> None:
    """A modulus of the table's size still has the level, one bit more has the next lower one, or none."""
    bits = LARGEST[degree, level]
    assert security_bits(degree, 2**bits - 1) == level
    assert security_bits(degree, 2**bits) == {128: 0, 192: 128, 256: 192}[level]
    assert security_bits(degree + 1, 2) == 0


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_primes_of_a_preset_are_primes_that_fit_the_ring(name: str) -> None:
    """Prime by Fermat's test to several bases, ≡ 1 mod 2N, different."""
    preset = profile(name)
    assert len(set(preset.key_primes)) == len(preset.key_primes)
    for prime in preset.key_primes:
        assert prime % (2 * preset.poly_degree) == 1
        assert all(pow(base, prime - 1, prime) == 1 for base in (2, 3, 5, 7, 11, 13))


def test_names_and_codes_of_profiles_are_pinned() -> None:
    """Codes are on the wire and keep their meaning; 1 and 2 belonged to wire version 1 and stay unused."""
    codes = {"compact": 3, "compact-10": 4, "robust": 5, "precise": 6, "nvflare": 7}
    assert {name: preset.code for name, preset in PROFILES.items()} == codes
    assert {code: known.name for code in range(256) if (known := profile_by_code(code))} == {
        code: name for name, code in codes.items()
    }


@pytest.mark.parametrize(
    ("name", "up", "down"),
    [("compact", 1.02, 2.05), ("compact-10", 0.70, 1.40), ("robust", 2.3, 4.0), ("precise", 2.3, 4.0)],
)
@pytest.mark.parametrize("values", [1_000_000, 11_173_962])
def test_bytes_per_value_are_as_promised(name: str, up: float, down: float, values: int) -> None:
    """In multiples of a float32, what a client sends and what it gets back."""
    assert profile(name).sealed_bytes(values) <= up * 4 * values
    assert profile(name).aggregate_bytes(values) <= down * 4 * values


def test_empty_vector_has_no_bytes() -> None:
    """Neither sealed nor summed, under any profile."""
    for preset in PROFILES.values():
        assert preset.sealed_bytes(0) == preset.aggregate_bytes(0) == preset.ciphertext_count(0) == 0


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_one_value_more_than_a_ciphertext_holds_takes_a_second_one(name: str) -> None:
    """Counts and lengths step exactly at multiples of the values per ciphertext."""
    preset = profile(name)
    held = preset.values_per_ciphertext
    assert [preset.ciphertext_count(n) for n in (1, held, held + 1, 2 * held, 2 * held + 1)] == [
        1, 1, 2, 2, 3,
    ]  # fmt: skip
    assert preset.sealed_bytes(held + 1) - preset.sealed_bytes(held) == preset.sealed_ciphertext_bytes
    assert preset.aggregate_bytes(held + 1) - preset.aggregate_bytes(held) == 2 * preset.polynomial_bytes


def test_precise_keeps_a_million_values_within_1e_8() -> None:
    """The bound itself, for one client, which is the worst case, over the whole range."""
    preset = profile("precise")
    assert error_bound(preset, 1_000_000, np.array([1]), max_abs=preset.max_abs) <= 1e-8


def largest_sum(preset: Profile) -> float:
    """The largest size of a coefficient of a weighted sum, encryption noise included."""
    total, noise = preset.weight_total, preset.weight_total * MAX_COEFFICIENT_ERROR
    match preset.encoding:
        case FixedPoint() as encoding:
            return total * (preset.max_abs * encoding.scale + 0.5) + noise
        case Quantised() as encoding:
            field = total * encoding.largest
            packed = sum(field * field_base(preset) ** place for place in range(encoding.fields))
            return noise_unit(preset) * packed + noise
        case Slots() as encoding:
            return total * preset.max_abs * encoding.scale


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_largest_weighted_sum_stays_below_half_the_modulus(name: str) -> None:
    """A full weight total of values at the range's end can't overflow, whatever SEAL's noise does."""
    preset = profile(name)
    assert largest_sum(preset) < preset.modulus / 2


def test_inner_products_with_an_aggregate_of_full_weight_stay_below_half_the_modulus() -> None:
    """scale²·T·‖u‖² at the norm limit, with room for noise of 2^45 and more; no other preset has products."""
    preset = profile("robust")
    assert isinstance(preset.encoding, FixedPoint)
    largest = preset.encoding.scale**2 * preset.weight_total * max_squared_norm(preset)
    assert largest + 2.0**45 < preset.modulus / 2
    assert max_squared_norm(preset) >= 100_000
    assert {name for name in PROFILES if profile(name).inner_products} == {"robust"}
    assert all(max_squared_norm(profile(name)) == 0 for name in PROFILES if name != "robust")


@pytest.mark.parametrize(
    ("literal", "complaint"),
    [
        (replace(LITERAL, poly_degree=4095), "ring degree 4095"),
        (replace(LITERAL, poly_degree=65536), "ring degree 65536"),
        (replace(LITERAL, poly_degree=2048), "60 bits; 128-bit security allows 54 at degree 2048"),
        (replace(SLOTS, poly_degree=4096), "140 bits; 128-bit security allows 109"),
        (replace(LITERAL, primes=(1152921504606830592,)), "not ≡ 1 mod 8192"),
        (replace(LITERAL, primes=(2305843009213317121,)), "with 32, 36"),
        (replace(LITERAL, primes=(40961,)), "with 32, 36"),
        (replace(SLOTS, special_prime=1099510890497), "primes repeat"),
        (replace(LITERAL, code=0), "does not fit a byte"),
        (replace(LITERAL, code=256), "does not fit a byte"),
        (replace(SLOTS, special_prime=None), "need a special prime"),
        (replace(LITERAL, weight_total=0), "weight total 0"),
        (replace(LITERAL, weight_total=2**16 + 1), "weight total 65537"),
        (replace(LITERAL, max_abs=2.0**33), "overflow the modulus"),
        (replace(LITERAL, encoding=FixedPoint(fraction_bits=42)), "overflow the modulus"),
        (replace(SLOTS, max_abs=2.0**60), "overflow the modulus"),
        (quantised(16, 2, 190), "overflow the modulus"),
        (quantised(16, 3, 10), "overflow the modulus"),
        (quantised(1, 2, 10), "2 fields of 1 bits"),
        (quantised(25, 1, 10), "1 fields of 25 bits"),
        (quantised(16, 0, 10), "0 fields of 16 bits"),
        (replace(quantised(16, 2, 180), primes=SLOTS.primes[::-1], special_prime=None), "special prime"),
        (replace(SLOTS, encoding=FixedPoint(fraction_bits=16)), "2 data primes"),
        (replace(SLOTS, inner_products=True), "inner products need a fixed-point"),
        (replace(quantised(16, 2, 180), inner_products=True), "inner products need a fixed-point"),
        (replace(LITERAL, encoding=FixedPoint(fraction_bits=26)), "no headroom"),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_literal_that_promises_too_much_is_refused(literal: ProfileLiteral, complaint: str) -> None:
    """Each unsound literal is refused with what is wrong, and with its name."""
    with pytest.raises(ConfigError, match=complaint) as caught:
        checked(literal)
    assert caught.value.code is Code.CONFIG_INVALID
    assert "'trial'" in caught.value.message


def test_sound_literals_become_profiles() -> None:
    """What the unsound ones are made from is sound, and no field changes on the way."""
    for literal in (LITERAL, SLOTS, quantised(16, 2, 180), quantised(24, 1, 1000)):
        made = checked(literal)
        assert all(getattr(made, name) == getattr(literal, name) for name in ProfileLiteral.__slots__)


def test_unknown_profile_names_the_choices() -> None:
    """One line with what may be chosen."""
    with pytest.raises(ConfigError, match="compact, compact-10, robust, precise, nvflare") as caught:
        profile("sloppy")
    assert caught.value.code is Code.PROFILE_UNKNOWN
