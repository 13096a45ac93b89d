"""Opened sums equal the exact weighted mean within the bound that theory gives, and no looser one."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sealed_readers import sealed_reader

from secagg.ckks import PROFILES, WEIGHT_TOTAL, KeyPair, Opener, Sealer, generate, weighted_sum
from secagg.ckks.profiles import COEFFICIENT_ERROR_VARIANCE, FAILURE_LOG2
from secagg.errors import Code, UpdateError

PAIRS = {name: generate(preset) for name, preset in PROFILES.items()}


def opened_and_exact(
    pair: KeyPair, vectors: list[NDArray[np.float32]], weights: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The weighted mean through ciphertexts, and in float64."""
    profile, values = pair.secret.profile, vectors[0].size
    sealer = Sealer(pair.secret)
    readers = [sealed_reader(sealer.seal(vector), profile) for vector in vectors]
    aggregate = b"".join(weighted_sum(readers, weights, values, profile))
    assert len(aggregate) == profile.aggregate_bytes(values)
    exact = np.zeros(values)
    for vector, weight in zip(vectors, weights, strict=True):
        exact += weight * vector.astype(np.float64)
    return Opener(pair.secret).open_vector(aggregate, values), exact / sum(weights)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(PROFILES)),
    clients=st.integers(1, 50),
    values=st.one_of(st.integers(1, 20), st.sampled_from([4095, 4096, 4097, 8192]), st.integers(1, 12_000)),
    largest=st.sampled_from([0.0, 1e-6, 0.05, 1.0, 16.0]),
    seed=st.integers(0, 2**32 - 1),
)
@example(name="precise", clients=50, values=1, largest=16.0, seed=0)
@example(name="robust", clients=50, values=4097, largest=1.0, seed=0)
def test_opened_mean_is_within_the_noise_bound(
    name: str, clients: int, values: int, largest: float, seed: int
) -> None:
    """For 1 to 50 clients, any length and integer weights that may be zero or use the whole total."""
    generator = np.random.default_rng(seed)
    vectors = [generator.uniform(-largest, largest, values).astype(np.float32) for _ in range(clients)]
    weights = [int(w) for w in generator.multinomial(WEIGHT_TOTAL, generator.dirichlet([0.3] * clients))]
    opened, exact = opened_and_exact(PAIRS[name], vectors, weights)
    bound = PROFILES[name].error_bound(values, np.array(weights), largest)
    assert np.abs(opened - exact).max() <= bound


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_opened_mean_of_a_million_values_is_within_the_noise_bound(name: str) -> None:
    """The largest size promised, and a bound that is not vacuous: the error reaches a fiftieth of it."""
    generator = np.random.default_rng(7)
    vectors = [generator.normal(0, 0.01, 1_000_000).astype(np.float32) for _ in range(2)]
    opened, exact = opened_and_exact(PAIRS[name], vectors, [600, 400])
    error = np.abs(opened - exact).max()
    bound = PROFILES[name].error_bound(1_000_000, np.array([600, 400]), float(np.abs(vectors).max()))
    assert bound / 50 <= error <= bound


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_observed_noise_has_the_predicted_deviation(name: str) -> None:
    """Fresh noise has variance v·N/2/scale² per value.

    Slots are an orthogonal transform of coefficients, so the mean square over whole ciphertexts is that of n
    independent coefficient errors. Of n squared normals it departs from v by more than 2·sqrt(x/n) + 2x/n
    with probability 2·exp(-x) (Laurent and Massart, 2000, lemma 1); a sum of 42 coins has lighter tails.
    """
    profile = PROFILES[name]
    values = np.random.default_rng(3).normal(0, 0.1, 10 * 4096).astype(np.float32)
    opened, exact = opened_and_exact(PAIRS[name], [values], [1])
    predicted = COEFFICIENT_ERROR_VARIANCE * profile.poly_degree / 2 / profile.scale**2
    x = (1 - FAILURE_LOG2) * np.log(2)
    departure = 2 * np.sqrt(x / values.size) + 2 * x / values.size
    assert abs(np.mean(np.square(opened - exact)) / predicted - 1) <= departure


def test_values_at_the_end_of_the_range_do_not_overflow() -> None:
    """Full weight total on the largest values of either sign."""
    for name, profile in PROFILES.items():
        vector = np.full(4096, profile.max_abs, dtype=np.float32)
        vector[::3] *= -1
        opened, exact = opened_and_exact(PAIRS[name], [vector, vector], [WEIGHT_TOTAL - 1, 1])
        bound = profile.error_bound(4096, np.array([WEIGHT_TOTAL - 1, 1]), profile.max_abs)
        assert np.abs(opened - exact).max() <= bound


def test_sealing_streams_one_ciphertext_at_a_time(pair: KeyPair) -> None:
    """Header, then pieces of one ciphertext each; together the sealed vector's exact length."""
    profile = pair.secret.profile
    pieces = Sealer(pair.secret).seal_blocks(np.zeros(3 * 4096 + 1))
    assert isinstance(pieces, Iterator)
    sizes = [len(piece) for piece in pieces]
    assert sizes == [3] + 4 * [profile.sealed_ciphertext_bytes]
    assert sum(sizes) == profile.sealed_bytes(3 * 4096 + 1)


def test_empty_vector_takes_no_bytes(pair: KeyPair) -> None:
    """Neither sealed nor aggregated nor opened."""
    profile = pair.secret.profile
    assert Sealer(pair.secret).seal(np.empty(0)) == b""
    assert b"".join(weighted_sum([lambda _: b""], [1], 0, profile)) == b""
    assert Opener(pair.secret).open_vector(b"", 0).size == 0


def test_same_vector_never_seals_to_the_same_bytes(pair: KeyPair) -> None:
    """Every ciphertext has its own seed."""
    first, second = (Sealer(pair.secret).seal(np.zeros(4097)) for _ in range(2))
    profile = pair.secret.profile
    seeds = {bytes(sealed_reader(data, profile)(index)[:64]) for data in (first, second) for index in (0, 1)}
    assert len(seeds) == 4


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (np.zeros((2, 2)), Code.UPDATE_SHAPE),
        (np.zeros(4, dtype=np.float16), Code.UPDATE_DTYPE),
        (np.zeros(4, dtype=np.int64), Code.UPDATE_DTYPE),
        (np.array([0.0, np.nan]), Code.UPDATE_NOT_FINITE),
        (np.array([0.0, -np.inf]), Code.UPDATE_NOT_FINITE),
        (np.array([0.0, 1e9]), Code.UPDATE_OUT_OF_RANGE),
    ],
)
def test_vector_that_can_not_be_sealed_is_refused_before_any_piece(
    pair: KeyPair, values: NDArray[np.float64], code: Code
) -> None:
    """The error comes from the call, not from the first piece."""
    with pytest.raises(UpdateError) as caught:
        Sealer(pair.secret).seal_blocks(values)
    assert caught.value.code is code


def test_vectors_of_weight_zero_are_not_read(pair: KeyPair) -> None:
    """A rejected client's ciphertexts are never touched, whatever they are."""
    profile = pair.secret.profile
    good = sealed_reader(Sealer(pair.secret).seal(np.ones(10)), profile)

    def forbidden(index: int) -> bytes:
        raise AssertionError("read")

    aggregate = b"".join(weighted_sum([forbidden, good], [0, 3], 10, profile))
    bound = profile.error_bound(10, np.array([3]), 1.0)
    assert np.abs(Opener(pair.secret).open_vector(aggregate, 10) - 1).max() <= bound


@pytest.mark.parametrize("weights", [[], [0, 0], [-1, 2], [WEIGHT_TOTAL, 1], [1]])
def test_weights_that_no_round_has_are_refused(precise: KeyPair, weights: list[int]) -> None:
    """A caller's mistake, found before anything is read."""
    readers = [sealed_reader(b"", precise.secret.profile)] * 2
    with pytest.raises(ValueError, match="weights"):
        next(iter(weighted_sum(readers, weights, 10, precise.secret.profile)))
