"""Of a product of two vectors, its release lets the holder of the secret open one number and no more."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2
from sealed_vectors import sealed, sealed_reader

from secagg.ckks import (
    KeyPair,
    Opener,
    PlainOperand,
    ProductSum,
    SealedOperand,
    Sealer,
    inner_products,
    product_sums,
    profile,
)
from secagg.ckks.bounds import FLOODING, NOISE_VARIANCE, product_error_bound
from secagg.ckks.context import CoefficientRing, conjugate, ring_of
from secagg.ckks.encoding import FixedPointCode
from secagg.ckks.opening import conjugate_coefficients, exact_dot, negacyclic_product
from secagg.ckks.wire import (
    ReleasedScalar,
    ScalarKind,
    SealedCiphertext,
    pack_sealed,
    parse_scalar,
    parse_sealed,
    scalar_bytes,
)

ROBUST = profile("robust")
DEGREE = ROBUST.poly_degree
UNLIKELY = 1e-9
"""A p-value that an honest run falls below once in a billion."""


def ring() -> CoefficientRing:
    """The profile's ring."""
    found = ring_of(ROBUST)
    assert isinstance(found, CoefficientRing)
    return found


PRIME = ring().prime


def uniform_p_value(residues: NDArray[np.uint64], cells: int = 64) -> float:
    """Chi-square p-value of residues against the uniform distribution on [0, p)."""
    counts = np.bincount((residues.astype(np.float64) / PRIME * cells).astype(np.int64), minlength=cells)
    expected = residues.size / cells
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), cells - 1))


def difference(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """left - right modulo p."""
    return ring().sum(left, (np.uint64(PRIME) - right) % np.uint64(PRIME))


def norm_of(robust: KeyPair, vector: NDArray[np.float32]) -> ProductSum:
    """The squared norm of a freshly sealed vector, before its release."""
    operand = SealedOperand(reader=sealed(robust, vector))
    return product_sums([operand], [(0, 0)], vector.size, ROBUST)[0]


def released(item: ProductSum, robust: KeyPair) -> ReleasedScalar:
    """What an opener gets, parsed."""
    return parse_scalar(item.release(robust.public), ROBUST)


def secrets(robust: KeyPair) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What masks are multiplied with, entry by entry, for the constant coefficients of a·s and a·s·σ(s)."""
    s = robust.secret.coefficients.astype(np.int64)
    return conjugate_coefficients(s), conjugate_coefficients(negacyclic_product(s, conjugate_coefficients(s)))


def test_first_mask_is_uniform_even_to_who_knows_the_ciphertexts(robust: KeyPair) -> None:
    """Chi-square over the mask as it is, and less what an observer of the ciphertexts can compute.

    What was added must look uniform, neighbours together too, and differ between two releases of one number.
    The second mask depends on seeds alone and is released as it is.
    """
    item = norm_of(robust, np.full(DEGREE, 0.5, dtype=np.float32))
    known = item.masks
    added = []
    for _ in range(4):
        scalar = released(item, robust)
        assert np.array_equal(scalar.polynomials[1], known[1])
        added.append(difference(scalar.polynomials[0], known[0]))
        assert uniform_p_value(scalar.polynomials[0]) > UNLIKELY
        assert uniform_p_value(added[-1]) > UNLIKELY
        assert uniform_p_value(difference(added[-1][1:], added[-1][:-1])) > UNLIKELY
    for left, right in pairwise(added):
        assert uniform_p_value(difference(left, right)) > UNLIKELY


def test_a_mask_that_is_not_added_would_be_noticed(robust: KeyPair) -> None:
    """The test above can fail: a small noise instead of an encryption of zero is far from uniform."""
    noise = np.random.default_rng(0).binomial(42, 0.5, DEGREE) - 21
    assert uniform_p_value(ring().reduce(noise)) < UNLIKELY


def test_constants_without_the_secret_say_nothing(robust: KeyPair) -> None:
    """To a third party b alone is uniform: 512 releases of one number fill all cells evenly."""
    item = norm_of(robust, np.ones(2, dtype=np.float32))
    bodies = [released(item, robust).constant for _ in range(512)]
    assert uniform_p_value(np.array(bodies, dtype=np.uint64), cells=16) > UNLIKELY


def rank_modulo_p(matrix: list[list[int]]) -> int:
    """Rank over the field of p elements, by elimination."""
    rows, rank = [row[:] for row in matrix], 0
    for column in range(len(rows[0])):
        pivot = next((r for r in range(rank, len(rows)) if rows[r][column] % PRIME), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        inverse = pow(rows[rank][column], -1, PRIME)
        for r in range(rank + 1, len(rows)):
            factor = rows[r][column] * inverse % PRIME
            rows[r] = [(a - factor * b) % PRIME for a, b in zip(rows[r], rows[rank], strict=True)]
        rank += 1
    return rank


def test_exactly_one_linear_functional_of_a_release_is_free_of_its_mask(robust: KeyPair) -> None:
    """What the opener sees is b and N entries of the first mask, N + 1 numbers modulo p; the second mask
    knows no message. To each release is added z = (b·u + e0)[0] and a·u + e1, with u drawn afresh. A linear
    functional tells the message apart from u only if it vanishes on what u can make of z.

    1. Multiplication with a is a bijection, so a·u runs through all N dimensions: what is left is a space of
       (N + 1) - N = 1 dimension.
    2. It is that of (1, s): over many releases it gives one number, up to z's noise and what floods it.
    3. Nothing else does: on 40 entries chosen at random the masks of 41 releases have differences of full
       rank; with b in addition, less the opened number and what (1, s) takes from all other entries, the rank
       stays 40.
    """
    assert ring().prime == PRIME
    second = robust.public.residues[1, 0]
    assert second.all()
    item = norm_of(robust, np.random.default_rng(1).normal(0, 1, 5000).astype(np.float32))
    scalars = [released(item, robust) for _ in range(41)]
    first_dual, second_dual = secrets(robust)
    opened = [
        (
            scalar.constant
            + exact_dot(scalar.polynomials[0], first_dual)
            + exact_dot(scalar.polynomials[1], second_dual)
        )
        % PRIME
        for scalar in scalars
    ]
    spread = [(number - opened[0] + PRIME // 2) % PRIME - PRIME // 2 for number in opened]
    # Two encryptions of zero, each of proxy v(2N + 1); 12 deviations are exceeded with probability 2^-100.
    noise = 12 * (2 * NOISE_VARIANCE * (2 * DEGREE + 1)) ** 0.5
    assert max(map(abs, spread)) <= noise + 2 * FLOODING
    # Without flooding all of them would lie within the noise; 41 uniform draws do so with probability 10^-40.
    assert max(map(abs, spread)) > noise
    chosen = np.random.default_rng(2).choice(DEGREE, 40, replace=False)
    others = np.delete(np.arange(DEGREE), chosen)
    masks = [[int(entry) for entry in scalar.polynomials[0][chosen]] for scalar in scalars]
    bodies = [
        scalar.constant - number + exact_dot(scalar.polynomials[0][others], first_dual[others])
        for scalar, number in zip(scalars, opened, strict=True)
    ]
    views = [[body, *mask] for body, mask in zip(bodies, masks, strict=True)]
    changes = [[a - b for a, b in zip(view, views[0], strict=True)] for view in views[1:]]
    assert rank_modulo_p([change[1:] for change in changes]) == 40
    assert rank_modulo_p(changes) == 40


def test_of_the_product_only_its_constant_coefficient_is_in_a_release(robust: KeyPair) -> None:
    """The N coefficients of m·σ(m') = p0 + (what masks give): the functionals of them that can be evaluated
    from a release and s have rank 1.

    Even an observer who is handed all masks as they were before the release, and all of u, needs p0's
    coefficient for each of the product's: of the N only the first is in the bytes, however many values went
    in. Adding anything to the others changes no bit of what is released.
    """
    operands = [
        SealedOperand(reader=sealed(robust, np.ones(8192, dtype=np.float32))),
        PlainOperand(values=np.ones(8192)),
    ]
    for right, kind in ((0, ScalarKind.BILINEAR), (1, ScalarKind.LINEAR)):
        (item,) = product_sums(operands, [(0, right)], 8192, ROBUST)
        assert isinstance(item.constant, int)
        assert item.masks.shape == (kind, DEGREE)
        data = item.release(robust.public)
        assert len(data) == scalar_bytes(kind, ROBUST) == 3 + 1 + 4 + 8 + kind * ROBUST.polynomial_bytes
        assert parse_scalar(data, ROBUST).polynomials.shape == (kind, DEGREE)


def test_what_is_opened_is_the_one_linear_functional_of_the_message(robust: KeyPair) -> None:
    """Over unit messages e_j the number is left_j: the map from messages has rank 1, its row is the left one.

    The second mask is the same for any message under the same seeds; the first, once released, is uniform
    for each message and for the difference of two.
    """
    left = np.random.default_rng(3).integers(-8, 9, DEGREE).astype(np.float32)
    left_operand = SealedOperand(reader=sealed(robust, left))
    empty = parse_sealed(sealed(robust, np.zeros(DEGREE, dtype=np.float32))(0), ROBUST)
    places, opener, masks = [0, 1, 77, DEGREE - 1], Opener(robust.secret), []
    for place in places:
        unit = np.zeros(DEGREE)
        unit[place] = 1
        # The same encryption of zero under each message, so that nothing but the message differs.
        message = FixedPointCode(ROBUST).encode(unit, 0, 1)
        polynomial = ring().shifted(empty.polynomial, message)
        data = pack_sealed(SealedCiphertext(polynomial=polynomial, seed=empty.seed), ROBUST)
        operands = [left_operand, SealedOperand(reader=lambda _, data=data: data)]
        (item,) = product_sums(operands, [(0, 1)], DEGREE, ROBUST)
        masks.append(released(item, robust).polynomials)
        opened = opener.open_scalar(item.release(robust.public))
        bound = product_error_bound(ROBUST, float(np.linalg.norm(left)), 1.0, DEGREE)
        assert abs(opened - left[place]) <= bound
    for one, other in pairwise(masks):
        assert np.array_equal(one[1], other[1])
        assert uniform_p_value(difference(one[0], other[0])) > UNLIKELY


def hostile(polynomials: list[NDArray[np.uint64]]) -> SealedOperand:
    """A sealed vector whose first polynomials a client has chosen; its seeds are 1, 2, …."""
    data = b"".join(
        pack_sealed(SealedCiphertext(polynomial=polynomial[None, :], seed=bytes([n]) * 64), ROBUST)
        for n, polynomial in enumerate(polynomials, 1)
    )
    return SealedOperand(reader=sealed_reader(b"\0\0\0" + data, ROBUST))


def expanded(seed: int) -> NDArray[np.uint64]:
    """The second polynomial that a seed stands for, in NTT order."""
    item = ring().expand(np.ones((1, DEGREE), dtype=np.uint64), bytes([seed]) * 64)
    return ring().polynomials(ring().to_ntt(item))[1]


def test_products_that_cancel_each_other_do_not_raise(robust: KeyPair) -> None:
    """Two ciphertexts whose polynomials a client has chosen so that Σ a1·σ(b0) is zero.

    SEAL calls such a sum transparent and refuses it; it must not end the round. It opens to some number.
    """
    a, b = expanded(1), expanded(2)
    first = np.random.default_rng(4).integers(1, PRIME, DEGREE, dtype=np.uint64)
    quotients = [
        int(x) * int(y) * pow(int(z), -1, PRIME) for x, y, z in zip(a, conjugate(first), b, strict=True)
    ]
    second = conjugate(np.array([-quotient % PRIME for quotient in quotients], dtype=np.uint64))
    chosen = ring().transform(np.stack([first, second]), to_ntt=False)
    operand = hostile(list(chosen))
    honest = SealedOperand(reader=sealed(robust, np.ones(2 * DEGREE, dtype=np.float32)))
    (cancelled,) = product_sums([operand], [(0, 0)], 2 * DEGREE, ROBUST)
    conjugated = ring().transform(cancelled.masks[:1], to_ntt=False)
    # Σ a1·σ(b0) = 0 is half of the first mask; the other half is its mirror image, Σ σ(a0)·b1.
    assert not conjugated.any()
    opener = Opener(robust.secret)
    for scalar in inner_products([operand, honest], [(0, 0), (0, 1), (1, 0)], 2 * DEGREE, robust.public):
        assert np.isfinite(opener.open_scalar(scalar))


@pytest.mark.parametrize("value", [1, PRIME // 2, PRIME - 1])
def test_extreme_polynomials_multiply_like_any_other(robust: KeyPair, value: int) -> None:
    """One residue, or all of them, at the ends of the field: no error, and some number within ± q/2."""
    single, full = np.zeros(DEGREE, dtype=np.uint64), np.full(DEGREE, value, dtype=np.uint64)
    single[5] = value
    operands = [hostile([single]), hostile([full])]
    operands.append(SealedOperand(reader=sealed(robust, np.ones(DEGREE, dtype=np.float32))))
    pairs = [(i, j) for i in range(3) for j in range(3)]
    limit = PRIME / 2 / 2.0**32
    for scalar in inner_products(operands, pairs, DEGREE, robust.public):
        assert abs(Opener(robust.secret).open_scalar(scalar)) <= limit


def test_sealing_again_gives_another_product(robust: KeyPair) -> None:
    """Masks of two sealings of one vector have nothing in common."""
    vector = np.ones(10, dtype=np.float32)
    first, second = norm_of(robust, vector), norm_of(robust, vector)
    # a·σ(a) is its own mirror image: half of its residues are free.
    assert uniform_p_value(difference(first.masks[1], second.masks[1])[: DEGREE // 2]) > UNLIKELY
    assert Sealer(robust.secret).seal(vector) != Sealer(robust.secret).seal(vector)
