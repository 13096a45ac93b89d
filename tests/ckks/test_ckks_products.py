"""Released inner products are right, and nothing but one number can be opened from them."""

from itertools import pairwise

import numpy as np
import pytest
import tenseal.sealapi as seal
from numpy.typing import NDArray
from scipy.stats import chi2
from sealed_readers import aggregate_reader, sealed_reader

from secagg.ckks import (
    AggregateOperand,
    CiphertextReader,
    Itself,
    KeyPair,
    Opener,
    PlainOperand,
    SealedOperand,
    Sealer,
    generate,
    inner_products,
    weighted_sum,
)
from secagg.ckks.context import conjugate, context_of
from secagg.ckks.products import add_product
from secagg.ckks.wire import ScalarKind, parse_scalar, parse_sealed, scalar_bytes
from secagg.errors import Code, ConfigError, UpdateError


def sealed(pair: KeyPair, values: NDArray[np.float32]) -> CiphertextReader:
    """A reader over the freshly sealed vector."""
    return sealed_reader(Sealer(pair.secret).seal(values), pair.secret.profile)


@pytest.mark.parametrize("values", [1, 2, 4095, 4097, 30_000])
@pytest.mark.parametrize("size", [1e-3, 0.05, 1.0])
def test_opened_scalars_equal_inner_products_within_the_bound(
    robust: KeyPair, values: int, size: float
) -> None:
    """Squared norm, another sealed vector, an aggregate under weights, a plain vector: all in one pass."""
    profile, generator = robust.secret.profile, np.random.default_rng(values)
    u, v, w = (generator.normal(0, size, values).astype(np.float32) for _ in range(3))
    readers = [sealed(robust, vector) for vector in (u, v, w)]
    weights = [65_000, 500, 36]
    aggregate = b"".join(weighted_sum(readers, weights, values, profile))
    mean = sum(a * b.astype(np.float64) for a, b in zip(weights, (u, v, w), strict=True)) / sum(weights)
    operands = {
        "norm": (Itself(), u),
        "sealed": (SealedOperand(reader=readers[1]), v),
        "aggregate": (
            AggregateOperand(reader=aggregate_reader(aggregate, profile), weight_total=sum(weights)),
            mean,
        ),
        "plain": (PlainOperand(values=w), w),
    }
    released = inner_products(
        readers[0], [operand for operand, _ in operands.values()], values, robust.public
    )
    opener, left = Opener(robust.secret), u.astype(np.float64)
    for scalar, (name, (_, right)) in zip(released, operands.items(), strict=True):
        bound = profile.product_error_bound(float(np.linalg.norm(u)), float(np.linalg.norm(right)), values)
        assert abs(opener.open_scalar(scalar) - left @ right) <= bound, name


def test_product_bound_is_not_vacuous(robust: KeyPair) -> None:
    """Over eight squared norms the largest error reaches a fiftieth of the bound."""
    profile, opener = robust.secret.profile, Opener(robust.secret)
    errors, bounds = [], []
    for seed in range(8):
        u = np.random.default_rng(seed).normal(0, 0.1, 20_000).astype(np.float32)
        (scalar,) = inner_products(sealed(robust, u), [Itself()], u.size, robust.public)
        errors.append(abs(opener.open_scalar(scalar) - float(u.astype(np.float64) @ u)))
        norm = float(np.linalg.norm(u))
        bounds.append(profile.product_error_bound(norm, norm, u.size))
    assert max(errors) >= max(bounds) / 50


def test_largest_products_do_not_wrap_around(robust: KeyPair) -> None:
    """At the norm limit, both signs, with an aggregate of full weight total."""
    profile, opener = robust.secret.profile, Opener(robust.secret)
    u = np.full(4096, 0.999 * (profile.max_squared_norm / 4096) ** 0.5, dtype=np.float32)
    reader, opposite = sealed(robust, u), sealed(robust, -u)
    aggregate = b"".join(weighted_sum([opposite], [65_536], u.size, profile))
    operand = AggregateOperand(reader=aggregate_reader(aggregate, profile), weight_total=65_536)
    exact = float(u.astype(np.float64) @ u)
    bound = profile.product_error_bound(exact**0.5, exact**0.5, u.size)
    released = inner_products(reader, [operand, Itself()], u.size, robust.public)
    assert abs(opener.open_scalar(released[0]) + exact) <= bound
    assert abs(opener.open_scalar(released[1]) - exact) <= bound


def test_zero_plain_operand_gives_zero(robust: KeyPair) -> None:
    """Also where whole ciphertexts of the plain vector are zero, which SEAL would not multiply with."""
    u = np.ones(9000, dtype=np.float32)
    plain = np.zeros(9000, dtype=np.float32)
    opener = Opener(robust.secret)
    reader = sealed(robust, u)
    for last in (0.0, 2.0):
        plain[-1] = last
        (scalar,) = inner_products(reader, [PlainOperand(values=plain)], 9000, robust.public)
        bound = robust.secret.profile.product_error_bound(float(np.linalg.norm(u)), last, 9000)
        assert abs(opener.open_scalar(scalar) - last) <= bound


def test_transparent_product_is_added_like_any_other(robust: KeyPair) -> None:
    """Where SEAL would raise, as a hostile update could have it: the residues are right all the same."""
    context = context_of(robust.secret.profile)
    shape = (2, len(context.primes), context.poly_degree)
    residues, factor = np.zeros(shape, dtype=np.uint64), np.zeros(shape[1:], dtype=np.uint64)
    residues[0, :, 5], residues[1, :, 9], factor[:, 5] = 3, 1, 7
    left, plaintext = context.ciphertext(residues), context.plaintext(factor)
    running = add_product(context, None, left, plaintext)
    running = add_product(context, running, left, plaintext)
    expected = np.zeros(shape, dtype=np.uint64)
    expected[0, :, 5] = 42
    assert np.array_equal(context.residues(running), expected)


def uniform_p_value(residues: NDArray[np.uint64], prime: int, cells: int = 64) -> float:
    """Chi-square p-value of residues against the uniform distribution on [0, prime)."""
    counts = np.bincount((residues.astype(np.float64) / prime * cells).astype(np.int64), minlength=cells)
    expected = residues.size / cells
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), cells - 1))


def products_before_masking(pair: KeyPair, reader: CiphertextReader) -> NDArray[np.uint64]:
    """p1, p2, p3 of a one-ciphertext squared norm as coefficients [3, primes, N], from the ciphertext."""
    context = context_of(pair.secret.profile)
    parsed = parse_sealed(reader(0), pair.secret.profile)
    left = context.seeded_ciphertext(parsed.polynomial, parsed.seed)
    right = conjugate(context.residues(left))
    parts = []
    for factor in right:
        product = seal.Ciphertext()
        context.evaluator.multiply_plain(left, context.plaintext(factor), product)
        context.evaluator.transform_from_ntt_inplace(product)
        parts.append(context.residues(product))
    return np.stack([parts[0][1], parts[1][0], parts[1][1]])


def test_released_polynomials_are_uniform_even_to_who_knows_the_ciphertext(robust: KeyPair) -> None:
    """Chi-square over residues of a1 and a2 as they are, and less what an observer could compute.

    Knowing the sealed ciphertext and s, one knows p1 and p2; what was added to them must still look uniform,
    and differ between two releases of one number. The third polynomial carries no message and is exactly p3.
    """
    profile = robust.secret.profile
    primes = np.array(profile.primes, dtype=np.uint64)[:, None]
    reader = sealed(robust, np.full(4096, 0.5, dtype=np.float32))
    known = products_before_masking(robust, reader)
    masks = []
    for _ in range(2):
        (data,) = inner_products(reader, [Itself()], 4096, robust.public)
        scalar = parse_scalar(data, profile)
        assert np.array_equal(scalar.polynomials[2], known[2])
        for index in (0, 1):
            added = (scalar.polynomials[index] + primes - known[index]) % primes
            masks.append(added)
            for row, prime in enumerate(profile.primes):
                assert uniform_p_value(scalar.polynomials[index][row], prime) > 1e-6
                assert uniform_p_value(added[row], prime) > 1e-6
    for left, right in pairwise(masks):
        difference = (left + primes - right) % primes
        assert all(
            uniform_p_value(row, prime) > 1e-6 for row, prime in zip(difference, profile.primes, strict=True)
        )


def test_one_release_answers_exactly_one_linear_question(robust: KeyPair) -> None:
    """All the opener can form with the message in it is b + Σ⟨a_j, s_j⟩; one body of N is there."""
    profile = robust.secret.profile
    reader = sealed(robust, np.ones(8192, dtype=np.float32))
    for operand, kind in (
        (Itself(), ScalarKind.BILINEAR),
        (PlainOperand(values=np.ones(8192)), ScalarKind.LINEAR),
    ):
        (data,) = inner_products(reader, [operand], 8192, robust.public)
        # However many values went in: header, kind, weight total, one body, and this kind's masks.
        assert len(data) == 3 + 1 + 4 + 8 * len(profile.primes) + kind * profile.polynomial_bytes
        assert len(data) == scalar_bytes(kind, profile) <= profile.released_bytes
        scalar = parse_scalar(data, profile)
        assert len(scalar.constant) == len(profile.primes)
        assert scalar.polynomials.shape == (kind, len(profile.primes), profile.poly_degree)


def test_constant_without_the_secret_says_nothing(robust: KeyPair) -> None:
    """b alone is uniform: over 256 releases of one number its leading bits fill all cells evenly."""
    profile = robust.secret.profile
    reader = sealed(robust, np.ones(2, dtype=np.float32))
    bodies = [
        parse_scalar(
            inner_products(reader, [PlainOperand(values=np.ones(2))], 2, robust.public)[0], profile
        ).constant[0]
        for _ in range(256)
    ]
    assert uniform_p_value(np.array(bodies, dtype=np.uint64), profile.primes[0], cells=8) > 1e-6


def test_scalar_does_not_open_under_another_key(robust: KeyPair) -> None:
    """The number is far from the right one."""
    reader = sealed(robust, np.ones(10, dtype=np.float32))
    (data,) = inner_products(reader, [Itself()], 10, robust.public)
    profile = robust.secret.profile
    assert abs(Opener(robust.secret).open_scalar(data) - 10) <= profile.product_error_bound(
        10**0.5, 10**0.5, 10
    )
    # Under another key the body is uniform modulo q: closer than 1000 with probability below 2^-10.
    assert abs(Opener(generate(profile).secret).open_scalar(data) - 10) > 1e3


def test_profile_without_products_refuses_them(precise: KeyPair) -> None:
    """RULE_UNSUPPORTED names a profile that can."""
    with pytest.raises(ConfigError, match="robust") as caught:
        inner_products(lambda _: b"", [Itself()], 1, precise.public)
    assert caught.value.code is Code.RULE_UNSUPPORTED


def test_plain_operand_beyond_the_norm_limit_is_refused(robust: KeyPair) -> None:
    """The product could wrap around, so it isn't formed."""
    reader = sealed(robust, np.ones(4096, dtype=np.float32))
    with pytest.raises(UpdateError, match="squared norm") as caught:
        inner_products(reader, [PlainOperand(values=np.full(4096, 200.0))], 4096, robust.public)
    assert caught.value.code is Code.UPDATE_OUT_OF_RANGE
