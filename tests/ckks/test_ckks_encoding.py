"""Coefficients hold what was put into them: a sum of clients can't overflow, by construction."""

from bisect import bisect_right as bisect
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.ckks import PROFILES, Profile, ProfileLiteral, Steps, checked
from secagg.ckks.bounds import field_base, noise_unit
from secagg.ckks.encoding import FixedPointCode, QuantisedCode
from secagg.ckks.parameters import MAX_COEFFICIENT_ERROR, FixedPoint, Quantised
from secagg.errors import ConfigError

DEGREE = 4096
QUANTISED = [preset for preset in PROFILES.values() if preset.quantised]
FIXED = [preset for preset in PROFILES.values() if isinstance(preset.encoding, FixedPoint)]


def trial(bits: int, fields: int, weight_total: int) -> Profile:
    """A quantising profile that is no preset."""
    robust = PROFILES["robust"]
    return checked(
        ProfileLiteral(
            name="trial",
            code=200,
            poly_degree=DEGREE,
            primes=robust.primes,
            special_prime=None,
            encoding=Quantised(bits=bits, fields=fields),
            weight_total=weight_total,
            max_abs=1.0,
            inner_products=False,
        )
    )


def quantised(profile: Profile) -> Quantised:
    """The profile's encoding."""
    assert isinstance(profile.encoding, Quantised)
    return profile.encoding


def packed(profile: Profile, sums: NDArray[np.int64]) -> list[int]:
    """Δ·Σ_f s_f·B^f of sums [fields, N] in Python's integers."""
    base, unit = field_base(profile), noise_unit(profile)
    return [unit * sum(int(s) * base**f for f, s in enumerate(column)) for column in sums.T]


def as_opened(profile: Profile, coefficients: list[int], noise: NDArray[np.int64]) -> NDArray[np.int64]:
    """What opening makes of a sum: coefficients plus noise, modulo q and centred, int64 [1, N]."""
    q = profile.modulus
    residues = [(c + int(e)) % q for c, e in zip(coefficients, noise, strict=True)]
    return np.array([[r - q if r > q // 2 else r for r in residues]], dtype=np.int64)


def decoded(profile: Profile, coefficients: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sums, int64 [fields, N], of coefficients [1, N]."""
    values = DEGREE * quantised(profile).fields
    sums = QuantisedCode(profile, Steps.uniform(values, 1.0)).decode(coefficients, 0, 1)
    return sums.reshape(-1, DEGREE).astype(np.int64)


def largest_weight_total(bits: int, fields: int) -> int:
    """The largest T with (42·T + 1)·(2·T·L + 1)^fields ≤ q, up to 2^16."""
    largest, q = 2 ** (bits - 1) - 1, PROFILES["robust"].modulus
    return bisect(range(1, 2**16 + 1), q, key=lambda t: (42 * t + 1) * (2 * t * largest + 1) ** fields)


@settings(max_examples=60)
@given(bits=st.integers(2, 24), fields=st.integers(1, 6), data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_every_sound_quantisation_decodes_every_sum_exactly(
    bits: int, fields: int, data: st.DataObject, seed: int
) -> None:
    """Sums anywhere in ± T·L, at the ends as within, with noise anywhere in ± 21·T: none spoils another."""
    most = largest_weight_total(bits, fields)
    if most < 2**16:
        with pytest.raises(ConfigError, match="overflow"):
            trial(bits, fields, most + 1)
    assume(most)
    weight_total = data.draw(st.one_of(st.just(most), st.integers(1, most)))
    profile = trial(bits, fields, weight_total)
    generator, limit = np.random.default_rng(seed), weight_total * quantised(profile).largest
    sums = generator.integers(-limit, limit + 1, (fields, DEGREE))
    extreme = generator.random(sums.shape) < 0.5
    sums[extreme] = limit * generator.choice([-1, 1], int(extreme.sum()))
    worst = MAX_COEFFICIENT_ERROR * weight_total
    noise = generator.choice([-worst, worst, 0, 1], DEGREE)
    assert np.array_equal(decoded(profile, as_opened(profile, packed(profile, sums), noise)), sums)


@pytest.mark.parametrize("profile", QUANTISED, ids=lambda p: p.name)
def test_weight_total_of_clients_at_the_largest_integer_decodes_exactly(profile: Profile) -> None:
    """Every pattern of signs over the fields, with the worst noise in either direction; one more is too much.

    So no client that keeps to the encoding, nor T of them together, can make a sum wrap around; and the unit
    that noise is rounded away by is no larger than it must be.
    """
    fields, total = quantised(profile).fields, profile.weight_total
    limit = total * quantised(profile).largest
    signs = np.array([[1 - 2 * (j >> f & 1) for j in range(DEGREE)] for f in range(fields)])
    coefficients = packed(profile, signs * limit)
    assert max(map(abs, coefficients)) + MAX_COEFFICIENT_ERROR * total < profile.modulus / 2
    for noise in (-MAX_COEFFICIENT_ERROR * total, MAX_COEFFICIENT_ERROR * total):
        opened = as_opened(profile, coefficients, np.full(DEGREE, noise))
        assert np.array_equal(decoded(profile, opened), signs * limit)
    beyond = as_opened(profile, coefficients, np.full(DEGREE, MAX_COEFFICIENT_ERROR * total + 1))
    assert not np.array_equal(decoded(profile, beyond), signs * limit)


@pytest.mark.parametrize("profile", QUANTISED, ids=lambda p: p.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_value_f_times_n_plus_j_lies_in_field_f_of_coefficient_j(profile: Profile, dtype: type) -> None:
    """Encoded coefficients are Δ·Σ q_f·B^f with each q within a step of its value; zeros behind the last."""
    held, largest = profile.values_per_ciphertext, quantised(profile).largest
    values = 2 * held - 100
    wanted = np.random.default_rng(2).integers(-largest, largest + 1, values)
    code = QuantisedCode(profile, Steps.uniform(values, 0.25))
    coefficients = code.encode((wanted * 0.25).astype(dtype), 0, 2)
    assert coefficients.shape == (2, DEGREE)
    assert (coefficients % noise_unit(profile) == 0).all()
    found = np.concatenate([decoded(profile, row[None, :]).reshape(-1) for row in coefficients])
    assert np.abs(found[:values] - wanted).max() <= 1
    assert not found[values:].any()
    again = code.encode((wanted * 0.25).astype(dtype), held, 1)
    assert np.abs(again - coefficients[1]).max() <= noise_unit(profile) * sum(
        field_base(profile) ** f for f in range(quantised(profile).fields)
    )


@pytest.mark.parametrize("profile", QUANTISED, ids=lambda p: p.name)
def test_decoded_values_are_divided_by_the_weight_total_and_multiplied_by_their_steps(
    profile: Profile,
) -> None:
    """Also where steps change within a ciphertext, and in a later part of the vector."""
    held = profile.values_per_ciphertext
    steps = Steps.of([held + 10, 5, held], [0.5, 8.0, 2.0])
    sums = np.arange(quantised(profile).fields * DEGREE).reshape(-1, DEGREE) % 100
    coefficients = as_opened(profile, packed(profile, sums), np.zeros(DEGREE, dtype=np.int64))
    opened = QuantisedCode(profile, steps).decode(coefficients, held, 7)
    sizes = np.repeat([0.5, 8.0, 2.0], [10, 5, held - 15])
    assert opened == pytest.approx(sums.reshape(-1) * sizes / 7, rel=2.0**-50)


@pytest.mark.parametrize("profile", FIXED, ids=lambda p: p.name)
@given(data=st.data())
def test_fixed_point_is_the_nearest_integer_of_the_scaled_value(
    profile: Profile, data: st.DataObject
) -> None:
    """Against exact fractions, ties to even; opened, it is within half an integer of the value."""
    assert isinstance(profile.encoding, FixedPoint)
    width = data.draw(st.sampled_from([32, 64]))
    number = st.floats(-profile.max_abs, profile.max_abs, width=width)
    drawn = data.draw(st.lists(number, min_size=1, max_size=30))
    values = np.array(drawn, dtype=np.float32 if width == 32 else np.float64)
    coefficients = FixedPointCode(profile).encode(values, 0, 1)
    scale = 2**profile.encoding.fraction_bits
    expected = [round(Fraction(float(value)) * scale) for value in values]
    assert coefficients[0, : values.size].tolist() == expected
    assert not coefficients[0, values.size :].any()
    weighted = FixedPointCode(profile).decode(coefficients * 3, 0, 3)[: values.size]
    exact = [float(Fraction(c, scale)) for c in expected]
    assert weighted.tolist() == pytest.approx(exact, rel=2.0**-51)


@pytest.mark.parametrize("profile", FIXED, ids=lambda p: p.name)
def test_values_of_a_ciphertext_keep_their_order(profile: Profile) -> None:
    """Value i of ciphertext k is coefficient i of row k, from wherever encoding starts."""
    values = np.arange(3 * DEGREE - 50) / 2**12
    whole = FixedPointCode(profile).encode(values, 0, 3)
    assert np.array_equal(whole[1:], FixedPointCode(profile).encode(values, DEGREE, 2))
    assert np.array_equal(FixedPointCode(profile).decode(whole, 0, 1)[: values.size], values)
