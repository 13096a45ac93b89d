"""Opened sums equal the exact weighted mean within the bound that theory gives, and no looser one."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sealed_vectors import (
    Vector,
    aggregate_reader,
    mean_of,
    opened_mean,
    pair_of,
    sealed,
    sealed_reader,
    step_for,
    steps_for,
)

from secagg.ckks import PROFILES, KeyPair, Opener, Sealer, aggregate_vector, generate, weighted_sum
from secagg.ckks.bounds import FAILURE_LOG2, NOISE_VARIANCE, ROUNDING_VARIANCE, error_bound
from secagg.ckks.cipher import BATCH
from secagg.ckks.parameters import FixedPoint, Profile, Slots
from secagg.errors import Code, UpdateError


def bound_of(profile: Profile, values: int, weights: list[int], largest: float) -> float:
    """What theory allows for values within ± ``largest``."""
    step = step_for(profile, largest)
    return error_bound(profile, values, np.array(weights), max_abs=largest, step=step)


@settings(max_examples=40)
@given(
    name=st.sampled_from(sorted(PROFILES)),
    clients=st.integers(1, 30),
    values=st.one_of(
        st.integers(1, 20), st.sampled_from([4095, 4096, 4097, 8192, 12_288, 12_289]), st.integers(1, 12_000)
    ),
    largest=st.sampled_from([0.0, 1e-6, 0.05, 1.0, 64.0]),
    seed=st.integers(0, 2**32 - 1),
)
@example(name="precise", clients=30, values=1, largest=64.0, seed=0)
@example(name="robust", clients=30, values=4097, largest=1.0, seed=0)
@example(name="compact", clients=30, values=8193, largest=1.0, seed=0)
@example(name="compact-10", clients=30, values=12_289, largest=1.0, seed=0)
@example(name="nvflare", clients=30, values=4097, largest=1.0, seed=0)
def test_opened_mean_is_within_the_noise_bound(
    name: str, clients: int, values: int, largest: float, seed: int
) -> None:
    """For 1 to 30 clients, any length and integer weights that may be zero or use the whole total."""
    generator, profile = np.random.default_rng(seed), PROFILES[name]
    vectors = [generator.uniform(-largest, largest, values).astype(np.float32) for _ in range(clients)]
    drawn = generator.multinomial(profile.weight_total, generator.dirichlet([0.3] * clients))
    weights = [int(weight) for weight in drawn]
    error = np.abs(opened_mean(pair_of(name), vectors, weights, largest) - mean_of(vectors, weights))
    assert error.max() <= bound_of(profile, values, weights, largest)


@pytest.mark.parametrize("name", sorted(PROFILES))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bound_on_many_values_is_kept_and_is_not_vacuous(name: str, dtype: type) -> None:
    """200,000 values of two clients: the largest error reaches a tenth of the bound."""
    generator, weights = np.random.default_rng(7), [60, 10]
    vectors: list[Vector] = [generator.uniform(-1, 1, 200_000).astype(dtype) for _ in range(2)]
    error = np.abs(opened_mean(pair_of(name), vectors, weights) - mean_of(vectors, weights)).max()
    bound = bound_of(PROFILES[name], 200_000, weights, 1.0)
    assert bound / 10 <= error <= bound


@pytest.mark.parametrize("name", ["nvflare", "precise", "robust"])
def test_observed_noise_has_the_predicted_variance(name: str) -> None:
    """Fresh noise has variance v/scale² per coefficient, and v·N/2/scale² per slot.

    Slots are an orthogonal transform of coefficients, so in both cases the mean square over whole ciphertexts
    is that of n independent coefficient errors. Of n squared normals it departs from v by more than
    2·sqrt(x/n) + 2x/n with probability 2·exp(-x) (Laurent and Massart, 2000, lemma 1); a sum of 42 coins has
    lighter tails.
    """
    profile = PROFILES[name]
    assert isinstance(profile.encoding, FixedPoint | Slots)
    values = np.random.default_rng(3).normal(0, 0.1, 20 * 4096).astype(np.float32)
    error = opened_mean(pair_of(name), [values], [1]) - values
    per_value = profile.poly_degree / 2 if isinstance(profile.encoding, Slots) else 1
    predicted = (NOISE_VARIANCE + ROUNDING_VARIANCE) * per_value / profile.encoding.scale**2
    x = (1 - FAILURE_LOG2) * np.log(2)
    departure = 2 * np.sqrt(x / values.size) + 2 * x / values.size
    assert abs(np.mean(np.square(error)) / predicted - 1) <= departure


def test_values_at_the_end_of_the_range_do_not_overflow(pair: KeyPair) -> None:
    """Full weight total on the largest values of either sign."""
    profile = pair.secret.profile
    vector = np.full(profile.values_per_ciphertext, profile.max_abs, dtype=np.float32)
    vector[::3] *= -1
    weights, vectors = [profile.weight_total - 1, 1], [vector, vector]
    error = np.abs(opened_mean(pair, vectors, weights, profile.max_abs) - mean_of(vectors, weights))
    assert error.max() <= bound_of(profile, vector.size, weights, profile.max_abs)


def test_rounding_that_is_the_same_for_all_clients_is_within_the_bound(robust: KeyPair) -> None:
    """Noise averages out over clients, but what they all round alike does not.

    256 clients of weight 4 seal, in every place, a value nearly half-way between two integers.
    """
    profile = robust.secret.profile
    assert isinstance(profile.encoding, FixedPoint)
    vector = np.full(4096, 0.499 / profile.encoding.scale)
    readers, weights = [sealed(robust, vector) for _ in range(256)], [4] * 256
    aggregate = b"".join(aggregate_vector(readers, weights, vector.size, profile))
    error = np.abs(Opener(robust.secret).open_vector(aggregate, vector.size) - vector).max()
    assert 0.499 / profile.encoding.scale <= error <= bound_of(profile, vector.size, weights, vector[0])
    # However many clients there are, that much is left.
    assert bound_of(profile, 1, [1] * 2**16, 0.0) >= 0.5 / profile.encoding.scale


@pytest.mark.parametrize("name", ["compact", "compact-10"])
def test_as_many_clients_as_the_profile_counts_may_all_seal_the_largest_integer(name: str) -> None:
    """Through real ciphertexts: the sum of weight_total of them opens to exactly the largest value."""
    pair, profile = pair_of(name), PROFILES[name]
    for sign in (1.0, -1.0):
        vector = np.full(profile.values_per_ciphertext, 2 * sign, dtype=np.float32)
        reader = sealed(pair, vector)
        readers, weights = [reader] * profile.weight_total, [1] * profile.weight_total
        aggregate = b"".join(aggregate_vector(readers, weights, vector.size, profile))
        opened = Opener(pair.secret).open_vector(
            aggregate, vector.size, steps=steps_for(profile, vector.size)
        )
        assert np.abs(opened - sign).max() <= 2.0**-50


def test_sealing_streams_one_batch_at_a_time(pair: KeyPair) -> None:
    """Header, then pieces of up to a batch of ciphertexts; together the sealed vector's exact length."""
    profile = pair.secret.profile
    values = (2 * BATCH + 1) * profile.values_per_ciphertext + 1
    pieces = Sealer(pair.secret).seal_blocks(
        np.zeros(values, dtype=np.float32), steps=steps_for(profile, values)
    )
    assert isinstance(pieces, Iterator)
    sizes = [len(piece) for piece in pieces]
    assert sizes[0] == 3
    assert max(sizes) <= BATCH * profile.sealed_ciphertext_bytes
    assert all(size % profile.sealed_ciphertext_bytes == 0 for size in sizes[1:])
    assert sum(sizes) == profile.sealed_bytes(values)


def test_empty_vector_takes_no_bytes(pair: KeyPair) -> None:
    """Neither sealed nor aggregated nor opened."""
    profile = pair.secret.profile
    steps = steps_for(profile, 0)
    assert Sealer(pair.secret).seal(np.empty(0), steps=steps) == b""
    assert b"".join(aggregate_vector([lambda _: b""], [1], 0, profile)) == b""
    assert Opener(pair.secret).open_vector(b"", 0, steps=steps).size == 0


def test_same_vector_never_seals_to_the_same_bytes(pair: KeyPair) -> None:
    """Every ciphertext has its own seed."""
    profile = pair.secret.profile
    values = profile.values_per_ciphertext + 1
    readers = [sealed(pair, np.zeros(values, dtype=np.float32)) for _ in range(2)]
    assert len({bytes(reader(index)[:64]) for reader in readers for index in (0, 1)}) == 4


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (np.zeros((2, 2)), Code.UPDATE_SHAPE),
        (np.zeros(()), Code.UPDATE_SHAPE),
        (np.zeros(4, dtype=np.float16), Code.UPDATE_DTYPE),
        (np.zeros(4, dtype=np.int64), Code.UPDATE_DTYPE),
        (np.zeros(4, dtype=np.complex128), Code.UPDATE_DTYPE),
        (np.array([0.0, np.nan]), Code.UPDATE_NOT_FINITE),
        (np.array([0.0, -np.inf]), Code.UPDATE_NOT_FINITE),
        (np.array([0.0, np.inf], dtype=np.float32), Code.UPDATE_NOT_FINITE),
        (np.array([0.0, 1e11]), Code.UPDATE_OUT_OF_RANGE),
        (np.array([0.0, -1e11], dtype=np.float32), Code.UPDATE_OUT_OF_RANGE),
    ],
)
def test_vector_that_can_not_be_sealed_is_refused_before_any_piece(
    pair: KeyPair, values: NDArray[np.float64], code: Code
) -> None:
    """The error comes from the call, not from the first piece: nothing of the vector has been sealed."""
    steps = steps_for(pair.secret.profile, values.size)
    with pytest.raises(UpdateError) as caught:
        Sealer(pair.secret).seal_blocks(values, steps=steps)
    assert caught.value.code is code


def test_fault_in_the_last_of_many_values_is_found_before_the_first_piece(pair: KeyPair) -> None:
    """The whole vector is looked at, also where it is longer than what is looked at together."""
    values = np.zeros(2**20 + 5, dtype=np.float32)
    values[-1] = np.nan
    with pytest.raises(UpdateError) as caught:
        Sealer(pair.secret).seal_blocks(values, steps=steps_for(pair.secret.profile, values.size))
    assert caught.value.code is Code.UPDATE_NOT_FINITE


def test_value_just_within_the_range_is_sealed_and_the_next_one_is_not(pair: KeyPair) -> None:
    """The range is closed, and as the profile says."""
    profile = pair.secret.profile
    steps = steps_for(profile, 1, profile.max_abs)
    Sealer(pair.secret).seal(np.array([profile.max_abs]), steps=steps)
    with pytest.raises(UpdateError) as caught:
        Sealer(pair.secret).seal(np.array([np.nextafter(profile.max_abs, np.inf)]), steps=steps)
    assert caught.value.code is Code.UPDATE_OUT_OF_RANGE


def test_vectors_of_weight_zero_are_not_read(pair: KeyPair) -> None:
    """A rejected client's ciphertexts are never touched, whatever they are."""
    profile = pair.secret.profile

    def forbidden(index: int) -> bytes:
        raise AssertionError("read")

    good = sealed(pair, np.ones(10, dtype=np.float32))
    aggregate = b"".join(aggregate_vector([forbidden, good], [0, 3], 10, profile))
    opened = Opener(pair.secret).open_vector(aggregate, 10, steps=steps_for(profile, 10))
    assert np.abs(opened - 1).max() <= bound_of(profile, 10, [3], 1.0)


def test_ranges_of_ciphertexts_summed_apart_make_up_the_whole(pair: KeyPair) -> None:
    """Every byte is the same, in whatever pieces and order workers sum."""
    profile, weights = pair.secret.profile, [2, 5]
    values = 4 * profile.values_per_ciphertext + 1
    vectors = [np.random.default_rng(n).uniform(-1, 1, values).astype(np.float32) for n in range(2)]
    readers = [sealed(pair, vector) for vector in vectors]
    whole = b"".join(aggregate_vector(readers, weights, values, profile))
    at = aggregate_reader(whole, profile)
    for chosen in (range(3, 5), range(0, 3), range(1, 2), range(0, 5, 2)):
        pieces = list(weighted_sum(readers, weights, profile, ciphertexts=chosen))
        assert pieces == [at(index) for index in chosen]
    assert not list(weighted_sum(readers, weights, profile, ciphertexts=range(0)))


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_weights_that_no_round_has_are_refused(name: str) -> None:
    """A caller's mistake, or more clients than the profile counts: found before anything is read."""
    profile = PROFILES[name]

    def forbidden(index: int) -> bytes:
        raise AssertionError("read")

    total = profile.weight_total
    for weights in ([], [0, 0], [-1, 2], [total, 1], [1], [1, 1, 1], [total + 1, 0]):
        with pytest.raises(ValueError, match=f"sum of 1 to {total}"):
            next(weighted_sum([forbidden] * 2, weights, profile, ciphertexts=range(1)))
    with pytest.raises(ValueError, match="weights"):
        next(weighted_sum([forbidden] * (total + 1), [1] * (total + 1), profile, ciphertexts=range(1)))


def test_vector_under_another_key_opens_to_noise(pair: KeyPair) -> None:
    """Why key ids are bound to updates: nothing fails, but the numbers are absurd."""
    profile = pair.secret.profile
    data = Sealer(generate(profile).secret).seal(np.ones(64, dtype=np.float32), steps=steps_for(profile, 64))
    aggregate = b"".join(aggregate_vector([sealed_reader(data, profile)], [1], 64, profile))
    opened = Opener(pair.secret).open_vector(aggregate, 64, steps=steps_for(profile, 64))
    # Each is uniform over ± 70 or more: all 64 are within 1 with probability below 2^-300.
    assert np.abs(opened - 1).max() > 1
