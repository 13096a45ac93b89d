"""Samples of ciphertexts are fair, witnesses tell norms that wrapped around, and copies show themselves."""

from __future__ import annotations

from functools import cache
from math import isqrt, sqrt
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from released_statistics import (
    PROFILE,
    Release,
    Vector,
    bound_of,
    layout_of,
    opener,
    pair,
    spooled,
    summed,
    vector_of,
)

from secagg.aggregate import Additions
from secagg.ckks import PlainOperand, SealedOperand, Sealer, inner_products
from secagg.ckks.bounds import distance_resolution, max_squared_norm, squared_norm_bias
from secagg.ckks.context import ring_of
from secagg.ckks.wire import HEADER_BYTES, SealedCiphertext, pack_sealed, parse_sealed
from secagg.payload import UpdateFile
from secagg.rule import Stage, Statistics, StatisticsRequest
from secagg.selection import Layout
from secagg.statistics.draws import sample, witness
from secagg.statistics.opening import WITNESS_DEVIATIONS
from secagg.update import Manifest, TensorSpec

CIPHERTEXTS = 12
VALUES = CIPHERTEXTS * PROFILE.values_per_ciphertext
PRIME = PROFILE.modulus


def layout_over(values: int) -> Layout:
    """Everything hidden, one tensor."""
    return layout_of("full", manifest=Manifest(tensors=(TensorSpec(name="w", shape=(values,)),)))


def seeds(count: int) -> list[bytes]:
    """Different ones."""
    return [number.to_bytes(32, "little") for number in range(count)]


def test_a_sample_is_the_same_for_everybody_and_another_for_every_seed_and_block() -> None:
    """Ascending, without repetition, as many as asked for; all of them if so many."""
    chosen = [tuple(sample(seed, block, 40, 10)) for seed in seeds(20) for block in (0, 1)]
    assert chosen == [tuple(sample(seed, block, 40, 10)) for seed in seeds(20) for block in (0, 1)]
    assert len(set(chosen)) == len(chosen)
    for item in chosen:
        assert list(item) == sorted(set(item)) and len(item) == 10 and set(item) <= set(range(40))
    assert sample(seeds(1)[0], 0, 40, 40) == list(range(40))
    # Anchored: a build that draws otherwise opens other estimates than this one.
    assert sample(bytes(32), 0, 10, 4) == [2, 4, 5, 7]


def test_every_ciphertext_is_drawn_equally_often() -> None:
    """Over 4000 seeds within six binomial deviations; so are pairs of them."""
    drawn = np.array([sample(seed, 3, 20, 5) for seed in seeds(4000)])
    hits = np.zeros((4000, 20))
    np.put_along_axis(hits, drawn, 1.0, axis=1)
    share = 5 / 20
    assert np.abs(hits.mean(axis=0) - share).max() <= 6 * sqrt(share * (1 - share) / 4000)
    both = hits.T @ hits / 4000
    expected = share * 4 / 19
    off = ~np.eye(20, dtype=np.bool_)
    assert np.abs(both[off] - expected).max() <= 6 * sqrt(expected * (1 - expected) / 4000)


@pytest.mark.parametrize(("count", "drawn"), [(20, 5), (100, 10), (7, 6)])
def test_estimates_are_unbiased_and_deviate_as_stated(count: int, drawn: int) -> None:
    """(C/k)·Σ of the drawn parts: mean within six deviations of the sum, C·S·sqrt((1/k)(1 − k/C)) within a
    tenth.

    The deviation of a deviation over 4000 estimates is about 1/sqrt(8000), 1.1 %.
    """
    parts = np.random.default_rng(5).normal(0.3, 1.0, count)
    estimates = np.array([parts[sample(seed, 0, count, drawn)].sum() * count / drawn for seed in seeds(4000)])
    stated = count * float(np.std(parts, ddof=1)) * sqrt((1 - drawn / count) / drawn)
    assert abs(float(estimates.mean()) - float(parts.sum())) <= 6 * stated / sqrt(4000)
    assert abs(float(estimates.std()) / stated - 1) <= 0.1


@cache
def long_vectors() -> tuple[Vector, ...]:
    """Three, one of them with most of its length in one ciphertext."""
    vectors = [vector_of(seed, VALUES) for seed in range(3)]
    vectors[2][: VALUES // CIPHERTEXTS] *= 8
    return tuple(vectors)


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5])
def test_products_over_a_sample_are_those_of_the_drawn_ciphertexts_scaled_up(
    tmp_path: Path, share: float
) -> None:
    """Norms go with them: C/k times the Gram matrix of the drawn parts, so that distances stay distances.

    An error is C/k times that of the parts.
    """
    layout, vectors = layout_over(VALUES), long_vectors()
    updates = [spooled(tmp_path, layout, flat) for flat in vectors]
    drawn = max(1, round(share * CIPHERTEXTS))
    for seed in seeds(3):
        release = Release(
            updates=updates, request=StatisticsRequest(pairs=True, sample=share), seed=seed, parts=2
        )
        assert release.front.drawn == (drawn,)
        opened, scale = release.opened(tmp_path), CIPHERTEXTS / drawn
        places = sample(seed, 0, CIPHERTEXTS, drawn)
        cut = np.stack([flat.reshape(CIPHERTEXTS, -1)[places].ravel() for flat in vectors]).astype(np.float64)
        exact = scale * cut @ cut.T
        allowed = scale * bound_of(vectors[2], vectors[2], layout)
        assert np.abs(opened.gram - exact).max() <= allowed
        apart = np.square(cut[:, None, :] - cut[None, :, :]).sum(axis=2) * scale
        assert np.abs(opened.squared_distances - apart).max() <= 4 * allowed


def test_history_is_scaled_up_like_the_products_that_it_is_sampled_with(tmp_path: Path) -> None:
    """Summed updates whose ciphertexts are all alike: any sample of them estimates the whole exactly."""
    layout = layout_over(VALUES)
    vectors = [np.tile(vector_of(seed, VALUES // CIPHERTEXTS), CIPHERTEXTS) for seed in range(2)]
    updates = [spooled(tmp_path, layout, flat) for flat in vectors]
    release = Release(
        updates=updates,
        request=StatisticsRequest(pairs=True, history=True, sample=0.25),
        histories=[summed(tmp_path, [u], (1,), additions=Additions(divisor=1, since=0)) for u in updates],
    )
    opened = release.opened(tmp_path)
    exact = np.stack(vectors).astype(np.float64) @ np.stack(vectors).T
    allowed = 4 * bound_of(vectors[0], vectors[1], layout)
    assert np.abs(opened.gram - exact).max() <= allowed
    assert opened.history is not None
    assert np.abs(opened.history - exact).max() <= allowed


# --- witnesses


@pytest.mark.parametrize("values", [1, 1000, 122_880, 122_881, 10**6])
def test_a_witness_fits_the_profile_and_takes_only_odd_steps(values: int) -> None:
    """‖z‖² is within what products hold; entries are odd multiples of a/2^9, a the largest power of two
    that fits.
    """
    z, amplitude = witness(seeds(1)[0], 0, values, PROFILE)
    assert z.shape == (values,) and z.dtype == np.float32
    assert float(np.square(z, dtype=np.float64).sum()) <= max_squared_norm(PROFILE)
    steps = z / np.float32(amplitude) * 2**9
    assert np.array_equal(steps, np.rint(steps)) and (steps % 2 == 1).all()
    assert np.abs(steps).max() <= 2**9 - 1
    assert amplitude == 1.0 or values * (2 * amplitude) ** 2 > max_squared_norm(PROFILE)
    assert not np.array_equal(z, witness(seeds(2)[1], 0, values, PROFILE)[0]) or values == 1
    assert not np.array_equal(z, witness(seeds(1)[0], 1, values, PROFILE)[0]) or values == 1


def test_honest_updates_are_never_flagged(tmp_path: Path) -> None:
    """Small and large, spiked, constant, nearly zero and zero: over 20 seeds, at most 1, and mostly far
    below.
    """
    values, layout = 5000, layout_over(5000)
    spiked = np.zeros(values, dtype=np.float32)
    spiked[77] = 100.0
    vectors = [
        vector_of(1, values),
        vector_of(2, values, 3.0),
        spiked,
        np.full(values, 0.5, dtype=np.float32),
        vector_of(3, values, 1e-5),
        np.zeros(values, dtype=np.float32),
    ]
    updates = [spooled(tmp_path, layout, flat) for flat in vectors]
    for seed in seeds(20):
        opened = Release(updates=updates, request=StatisticsRequest(), seed=seed).opened(tmp_path)
        assert opened.witnesses is not None
        assert opened.witnesses.shape == (6,)
        assert (opened.witnesses >= 0).all() and (opened.witnesses <= 1).all()


def wrapped(folder: Path, layout: Layout, value: int, place: int, rest: Vector) -> UpdateFile:
    """An update that holds ``value`` at one place, past every check of the sealing side."""
    honest = b"".join([Sealer(pair().secret).seal(rest)])
    step = PROFILE.sealed_ciphertext_bytes
    index, at = divmod(place, PROFILE.values_per_ciphertext)
    start = HEADER_BYTES + index * step
    sealed = parse_sealed(honest[start : start + step], PROFILE)
    ring = ring_of(PROFILE)
    message = np.zeros((1, PROFILE.poly_degree), dtype=np.int64)
    message[0, at] = value
    polynomial = (sealed.polynomial + ring.reduce(message[0])[None, :]) % np.uint64(PRIME)  # type: ignore[union-attr]
    hostile = pack_sealed(SealedCiphertext(polynomial=polynomial, seed=sealed.seed), PROFILE)
    path = folder / "hostile"
    path.write_bytes(honest[:start] + hostile + honest[start + step :])
    file = UpdateFile(path=path, layout=layout, profile=PROFILE)
    file.check()
    return file


@pytest.mark.parametrize("place", [0, 4500])
def test_a_norm_that_wrapped_around_is_flagged_with_the_stated_probability(
    tmp_path: Path, place: int
) -> None:
    """⌈√p⌉ squares to almost 0 modulo p: the norm passes, the witness does not, but with 2^-9 + t·ν/|x|.

    Over 400 seeds more than 12 misses have a probability below 10^-7.
    """
    values, layout, root = 5000, layout_over(5000), isqrt(PRIME) + 1
    hostile = wrapped(tmp_path, layout, root, place, np.zeros(values, dtype=np.float32))
    opened = Release(updates=[hostile], request=StatisticsRequest()).opened(tmp_path)
    measured, real = sqrt(max(float(opened.squared_norms[0]), 0.0)), root / 2**16
    # 2·⌈√p⌉·e of its own noise, |e| ≤ 21, over scale², and less than 1 of ⌈√p⌉² − p.
    assert measured**2 < 12 < 16_000 < real
    stated = 2.0**-9 + WITNESS_DEVIATIONS * measured / real
    operand = SealedOperand(reader=hostile.ciphertexts(0))
    missed, opening = 0, opener()
    for seed in seeds(400):
        z, amplitude = witness(seed, 0, values, PROFILE)
        (scalar,) = inner_products([operand, PlainOperand(values=z)], [(0, 1)], values, pair().public)
        missed += abs(opening.open_scalar(scalar)) <= WITNESS_DEVIATIONS * amplitude * measured
    assert stated < 0.0045
    assert missed <= 12


def test_a_flagged_update_is_told_from_honest_ones(tmp_path: Path) -> None:
    """Through the artifact: only the one whose norm wrapped around is beyond 1, whatever else it carries."""
    values, layout = 5000, layout_over(5000)
    rest = vector_of(8, values)
    rest[4321] = 0.0
    updates = [
        spooled(tmp_path, layout, vector_of(1, values)),
        wrapped(tmp_path, layout, isqrt(PRIME) + 1, 4321, rest),
        spooled(tmp_path, layout, vector_of(2, values)),
    ]
    for stage, request in (
        (Stage.STATISTICS, StatisticsRequest(pairs=True)),
        (Stage.SCREENING, StatisticsRequest(pairs=True, screened=True)),
    ):
        opened = Release(updates=updates, request=request, stage=stage).opened(tmp_path)
        assert opened.witnesses is not None
        assert (opened.witnesses > 1).tolist() == [False, True, False]
        assert opened.squared_norms[1] < 2 * opened.squared_norms[0]


# --- copies


def distances_of(folder: Path, vectors: list[NDArray[np.float32]]) -> tuple[Statistics, NDArray[np.float64]]:
    """Opened statistics, and ‖u_i − u_j‖² as it opens, not cut off at 0."""
    layout = layout_over(vectors[0].size)
    updates = [spooled(folder, layout, flat) for flat in vectors]
    opened = Release(updates=updates, request=StatisticsRequest(pairs=True)).opened(folder)
    norms = np.diagonal(opened.gram)
    return opened, norms[:, None] + norms[None, :] - 2 * opened.gram


@pytest.mark.parametrize("deviation", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("values", [10, 5000, 30_000])
def test_seals_of_one_vector_are_within_the_resolution_of_each_other_and_others_are_not(
    tmp_path: Path, values: int, deviation: float
) -> None:
    """Six seals of one vector: 15 distances; two honest vectors differ by far more, if they are long
    enough.
    """
    flat = vector_of(1, values, deviation)
    opened, apart = distances_of(tmp_path, [flat] * 6 + [vector_of(2, values, deviation)])
    assert opened.resolution == distance_resolution(PROFILE, values)
    assert np.abs(apart[:6, :6][~np.eye(6, dtype=np.bool_)]).max() <= opened.resolution
    if values * deviation**2 > 100 * opened.resolution:
        assert apart[:6, 6].min() > 10 * opened.resolution


def test_the_resolution_of_very_long_vectors_counts_what_rounding_is_taken_off_for(tmp_path: Path) -> None:
    """Equal vectors round alike, so the distance has no rounding errors; but each norm's bias has n/12 of
    them.
    """
    values = 8_000_000
    flat = np.zeros(values, dtype=np.float32)
    layout = layout_over(values)
    updates = [spooled(tmp_path, layout, flat) for _ in range(2)]
    operands = [SealedOperand(reader=update.ciphertexts(0)) for update in updates]
    opening, pairs = opener(), [(0, 0), (1, 1), (0, 1)]
    first, second, product = map(opening.open_scalar, inner_products(operands, pairs, values, pair().public))
    apart = first + second - 2 * squared_norm_bias(PROFILE, values) - 2 * product
    assert abs(apart) <= distance_resolution(PROFILE, values)
    assert abs(first - squared_norm_bias(PROFILE, values)) <= distance_resolution(PROFILE, values)
