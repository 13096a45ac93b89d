"""Profiles are what the security table and the headroom of a weighted sum allow."""

from dataclasses import replace
from math import prod

import pytest

from secagg.ckks import PROFILES, WEIGHT_TOTAL, ProfileLiteral, checked, profile
from secagg.ckks.profiles import STANDARD_MODULUS_BITS_128
from secagg.errors import Code, ConfigError

LITERAL = ProfileLiteral(
    name="trial",
    code=200,
    poly_degree=4096,
    primes=(68719230977, 68719403009),
    special_prime=137438822401,
    scale_bits=24,
    max_abs=256.0,
    inner_products=True,
)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_whole_modulus_is_within_the_security_table(name: str) -> None:
    """Data primes and special prime together stay below the standard's bound for 128 bits."""
    preset = profile(name)
    assert prod(preset.key_primes).bit_length() <= STANDARD_MODULUS_BITS_128[preset.poly_degree]
    assert preset.security_bits == 128


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_largest_weighted_sum_stays_below_half_the_modulus(name: str) -> None:
    """A full weight total of values at the range's end can't overflow."""
    preset = profile(name)
    assert WEIGHT_TOTAL * 2**0.5 * preset.max_abs * preset.scale < preset.modulus / 2


def test_names_and_codes_of_profiles_are_pinned() -> None:
    """Codes are on the wire and keep their meaning."""
    assert {name: preset.code for name, preset in PROFILES.items()} == {"precise": 1, "robust": 2}


@pytest.mark.parametrize(("name", "per_value"), [("precise", 7.55), ("robust", 9.05)])
def test_bytes_per_value_are_as_promised(name: str, per_value: float) -> None:
    """Seeded and packed: 7.5 bytes (precise) and 9 bytes (robust) per value, plus seeds."""
    assert profile(name).sealed_bytes(1_000_000) / 1_000_000 <= per_value
    assert profile(name).sealed_bytes(0) == 0


def test_precise_keeps_a_million_values_within_1e_8() -> None:
    """The bound itself, for one client, which is the worst case."""
    import numpy as np

    assert profile("precise").error_bound(1_000_000, np.array([1]), 1.0) <= 1e-8


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"poly_degree": 4095}, "ring degree"),
        ({"poly_degree": 2048}, "security"),
        ({"special_prime": 1152921504606830593}, "security"),
        ({"primes": (68719230977, 68719230976), "special_prime": 137438822401}, "≡ 1 mod"),
        ({"special_prime": None}, "special prime"),
        ({"code": 0}, "byte"),
        ({"max_abs": 2.0**31}, "overflow"),
        ({"scale_bits": 33}, "headroom"),
    ],
)
def test_literal_that_promises_too_much_is_refused(change: dict[str, object], complaint: str) -> None:
    """Each unsound literal is refused with what is wrong."""
    with pytest.raises(ConfigError, match=complaint) as caught:
        checked(replace(LITERAL, **change))  # type: ignore[arg-type]
    assert caught.value.code is Code.CONFIG_INVALID


def test_unknown_profile_names_the_choices() -> None:
    """One line with what may be chosen."""
    with pytest.raises(ConfigError, match="precise, robust") as caught:
        profile("sloppy")
    assert caught.value.code is Code.PROFILE_UNKNOWN
