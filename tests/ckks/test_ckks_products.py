"""Released inner products are right, for every kind of operand and however the work is shared."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from numpy.typing import NDArray
from sealed_vectors import aggregate_reader, mean_of, sealed

from secagg.ckks import (
    AggregateOperand,
    CiphertextReader,
    KeyPair,
    Opener,
    PlainOperand,
    ProductSum,
    Profile,
    SealedOperand,
    aggregate_vector,
    generate,
    gram_pairs,
    inner_products,
    product_sums,
    profile,
)
from secagg.ckks.bounds import max_squared_norm, product_error_bound, squared_norm_bias
from secagg.errors import CiphertextError, Code, ConfigError, UpdateError

ROBUST = profile("robust")


def bound_of(left: NDArray[np.floating], right: NDArray[np.floating]) -> float:
    """What theory allows for a product of vectors of one length."""
    return product_error_bound(ROBUST, float(np.linalg.norm(left)), float(np.linalg.norm(right)), left.size)


def aggregate_of(readers: list[CiphertextReader], weights: list[int], values: int) -> AggregateOperand:
    """An operand from the weighted sum of sealed vectors."""
    data = b"".join(aggregate_vector(readers, weights, values, ROBUST))
    return AggregateOperand(reader=aggregate_reader(data, ROBUST), weight_total=sum(weights))


def normal(seed: int, values: int, size: float) -> NDArray[np.float32]:
    """Values around 0."""
    return np.random.default_rng(seed).normal(0, size, values).astype(np.float32)


@pytest.mark.parametrize("values", [1, 2, 4095, 4097, 30_000])
@pytest.mark.parametrize("size", [1e-3, 0.05, 1.0])
def test_gram_matrix_is_that_of_the_vectors_within_the_bound(
    robust: KeyPair, values: int, size: float
) -> None:
    """A squared norm is too large by the noise's own, which is known in the mean: less it, the rest of the
    bound is enough.
    """
    vectors = [normal(seed, values, size) for seed in range(4)]
    operands = [SealedOperand(reader=sealed(robust, vector)) for vector in vectors]
    pairs, opener = gram_pairs(4), Opener(robust.secret)
    assert pairs == [(i, j) for i in range(4) for j in range(i, 4)]
    bias = squared_norm_bias(ROBUST, values)
    for (i, j), scalar in zip(pairs, inner_products(operands, pairs, values, robust.public), strict=True):
        exact = float(vectors[i].astype(np.float64) @ vectors[j].astype(np.float64))
        opened, bound = opener.open_scalar(scalar), bound_of(vectors[i], vectors[j])
        assert abs(opened - exact) <= bound
        if i == j:
            assert abs(opened - bias - exact) <= bound - bias


@pytest.mark.parametrize("values", [1, 4097, 30_000])
def test_aggregates_and_plain_vectors_multiply_like_sealed_ones(robust: KeyPair, values: int) -> None:
    """An aggregate under weights, one with the left operand in it, a plain vector of either type."""
    vectors, weights = [normal(seed, values, 0.05) for seed in range(3)], [1000, 20, 4]
    readers = [sealed(robust, vector) for vector in vectors]
    mean = mean_of(vectors, weights)
    rights = {
        "aggregate": (aggregate_of(readers, weights, values), mean),
        "itself": (SealedOperand(reader=readers[0]), vectors[0]),
        "float32": (PlainOperand(values=vectors[2]), vectors[2]),
        "float64": (PlainOperand(values=mean), mean),
    }
    operands = [SealedOperand(reader=readers[0]), *(operand for operand, _ in rights.values())]
    released = inner_products(operands, [(0, place) for place in range(1, 5)], values, robust.public)
    for scalar, (name, (_, right)) in zip(released, rights.items(), strict=True):
        exact = float(vectors[0].astype(np.float64) @ right)
        opened = Opener(robust.secret).open_scalar(scalar)
        assert abs(opened - exact) <= bound_of(vectors[0], right), name


def test_product_bound_is_not_vacuous(robust: KeyPair) -> None:
    """Over eight squared norms, less their bias, the largest error reaches a fiftieth of the bound."""
    opener, bias = Opener(robust.secret), squared_norm_bias(ROBUST, 20_000)
    errors, bounds = [], []
    for seed in range(8):
        u = normal(seed, 20_000, 0.1)
        (scalar,) = inner_products([SealedOperand(reader=sealed(robust, u))], [(0, 0)], u.size, robust.public)
        errors.append(abs(opener.open_scalar(scalar) - bias - float(u.astype(np.float64) @ u)))
        bounds.append(bound_of(u, u) - bias)
    assert max(errors) >= max(bounds) / 50


@pytest.mark.parametrize("offset", [-0.499, 0.25, 0.499])
def test_rounding_that_is_the_same_in_every_place_is_within_the_bound(robust: KeyPair, offset: float) -> None:
    """Equal values round alike, and what that costs grows with their number, not with its square root."""
    u = np.full(20_000, (300_000 + offset) / 2**16)
    v = np.full(20_000, (-20_000 + offset) / 2**16)
    operands = [*(SealedOperand(reader=sealed(robust, vector)) for vector in (u, v)), PlainOperand(values=v)]
    opener, rights = Opener(robust.secret), (u, v, v)
    released = inner_products(operands, [(0, 0), (0, 1), (0, 2)], u.size, robust.public)
    for scalar, right in zip(released, rights, strict=True):
        assert abs(opener.open_scalar(scalar) - float(u @ right)) <= bound_of(u, right)


def test_largest_products_do_not_wrap_around(robust: KeyPair) -> None:
    """At the norm limit, both signs, with an aggregate of full weight total."""
    opener = Opener(robust.secret)
    u = np.full(4096, 0.999 * (max_squared_norm(ROBUST) / 4096) ** 0.5, dtype=np.float32)
    reader, opposite = sealed(robust, u), sealed(robust, -u)
    operands = [SealedOperand(reader=reader), aggregate_of([opposite], [ROBUST.weight_total], u.size)]
    exact = float(u.astype(np.float64) @ u)
    released = inner_products(operands, [(0, 1), (0, 0)], u.size, robust.public)
    for scalar, number in zip(released, (-exact, exact), strict=True):
        assert abs(opener.open_scalar(scalar) - number) <= bound_of(u, u)


def test_more_operands_than_a_tile_holds_give_the_same_matrix(robust: KeyPair) -> None:
    """35 vectors over nine tiles, pairs in any order and some twice: each number is in its pair's place."""
    vectors = np.random.default_rng(5).normal(0, 1, (35, 12)).astype(np.float32)
    operands = [SealedOperand(reader=sealed(robust, vector)) for vector in vectors]
    pairs = [*gram_pairs(35), (34, 0), (20, 3), (3, 20)]
    order = np.random.default_rng(6).permutation(len(pairs))
    shuffled = [pairs[place] for place in order] + [(0, 17), (0, 17)]
    opener = Opener(robust.secret)
    released = inner_products(operands, shuffled, 12, robust.public)
    assert len(released) == len(shuffled)
    for (i, j), scalar in zip(shuffled, released, strict=True):
        exact = float(vectors[i].astype(np.float64) @ vectors[j])
        assert abs(opener.open_scalar(scalar) - exact) <= bound_of(vectors[i], vectors[j])


@pytest.mark.parametrize(("count", "tiles"), [(5, 1), (20, 2)])
def test_each_ciphertext_is_read_once_per_tile(robust: KeyPair, count: int, tiles: int) -> None:
    """What is read, and with it parsed and expanded, does not grow with the number of pairs: 20 operands make
    three tiles of 16 x 16, of which each operand is in two.
    """
    reads: list[tuple[int, int]] = []

    def counting(operand: int, reader: CiphertextReader) -> CiphertextReader:
        def read(index: int) -> bytes | memoryview:
            reads.append((operand, index))
            return reader(index)

        return read

    reader = sealed(robust, normal(0, 8193, 0.1))
    operands = [SealedOperand(reader=counting(place, reader)) for place in range(count)]
    product_sums(operands, gram_pairs(count), 8193, ROBUST)
    assert sorted(reads) == [(o, index) for o in range(count) for index in range(3) for _ in range(tiles)]


def equal(left: Iterable[ProductSum], right: Iterable[ProductSum]) -> bool:
    """The same numbers and masks, to the last residue."""
    return all(
        a.weight_total == b.weight_total and a.constant == b.constant and np.array_equal(a.masks, b.masks)
        for a, b in zip(left, right, strict=True)
    )


def test_parts_over_ranges_of_ciphertexts_add_up_to_the_whole(robust: KeyPair) -> None:
    """To the last residue, in any order and grouping, for every kind of operand."""
    values = 4 * 4096 + 5
    vectors = [normal(seed, values, 0.1) for seed in range(2)]
    readers = [sealed(robust, vector) for vector in vectors]
    operands = [
        *(SealedOperand(reader=reader) for reader in readers),
        aggregate_of(readers, [3, 4], values),
        PlainOperand(values=vectors[1]),
    ]
    pairs = [(0, 0), (0, 1), (1, 2), (0, 3)]
    whole = product_sums(operands, pairs, values, ROBUST)

    def over(chosen: range) -> list[ProductSum]:
        return product_sums(operands, pairs, values, ROBUST, ciphertexts=chosen)

    first, middle, last = over(range(0, 2)), over(range(2, 3)), over(range(3, 5))
    together = [a.plus(c, ROBUST).plus(b, ROBUST) for a, b, c in zip(first, middle, last, strict=True)]
    assert equal(together, whole)
    assert equal(over(range(5)), whole)
    nothing = over(range(0))
    assert equal([a.plus(b, ROBUST) for a, b in zip(nothing, whole, strict=True)], whole)
    # A block by itself is the product over its own values.
    opener, block = Opener(robust.secret), slice(2 * 4096, 3 * 4096)
    rights = [vectors[0], vectors[1], mean_of(vectors, [3, 4]), vectors[1]]
    for (left, _), right, part in zip(pairs, rights, middle, strict=True):
        a, b = vectors[left][block].astype(np.float64), right[block].astype(np.float64)
        assert abs(opener.open_scalar(part.release(robust.public)) - float(a @ b)) <= bound_of(a, b)


def test_zero_plain_operand_gives_zero(robust: KeyPair) -> None:
    """Also where whole ciphertexts of the plain vector are zero, which SEAL would not multiply with."""
    u, plain = np.ones(9000, dtype=np.float32), np.zeros(9000, dtype=np.float32)
    opener = Opener(robust.secret)
    operands = [SealedOperand(reader=sealed(robust, u)), PlainOperand(values=plain)]
    for last in (0.0, 2.0):
        plain[-1] = last
        (scalar,) = inner_products(operands, [(0, 1)], 9000, robust.public)
        assert abs(opener.open_scalar(scalar) - last) <= bound_of(u, plain)


def test_scalar_does_not_open_under_another_key(robust: KeyPair) -> None:
    """The number is far from the right one."""
    u = np.ones(10, dtype=np.float32)
    (data,) = inner_products([SealedOperand(reader=sealed(robust, u))], [(0, 0)], 10, robust.public)
    assert abs(Opener(robust.secret).open_scalar(data) - 10) <= bound_of(u, u)
    # Under another key the body is uniform modulo q: closer than 1000 with probability below 2^-16.
    assert abs(Opener(generate(ROBUST).secret).open_scalar(data) - 10) > 1e3


@pytest.mark.parametrize("name", ["compact", "compact-10", "precise", "nvflare"])
def test_profile_without_products_refuses_them(name: str) -> None:
    """RULE_UNSUPPORTED names a profile that can."""
    used: Profile = profile(name)
    for attempt in (
        lambda: product_sums([SealedOperand(reader=lambda _: b"")], [(0, 0)], 1, used),
        lambda: product_error_bound(used, 1.0, 1.0, 1),
        lambda: squared_norm_bias(used, 1),
    ):
        with pytest.raises(ConfigError, match="robust") as caught:
            attempt()
        assert caught.value.code is Code.RULE_UNSUPPORTED


def never(index: int) -> bytes:
    """A reader of operands that must not be read."""
    raise AssertionError("read")


@pytest.mark.parametrize(
    ("plain", "code"),
    [
        (np.full(4096, 200.0), Code.UPDATE_OUT_OF_RANGE),
        (np.full(4096, 257.0, dtype=np.float32), Code.UPDATE_OUT_OF_RANGE),
        (np.full(4096, np.nan), Code.UPDATE_NOT_FINITE),
        (np.zeros(4096, dtype=np.int32), Code.UPDATE_DTYPE),
    ],
)
def test_plain_operand_that_could_wrap_around_is_refused(plain: NDArray[np.generic], code: Code) -> None:
    """Beyond the norm limit or the range, not finite, of another type: before anything is read."""
    operands = [SealedOperand(reader=never), PlainOperand(values=plain)]  # type: ignore[arg-type]
    with pytest.raises(UpdateError) as caught:
        product_sums(operands, [(0, 1)], 4096, ROBUST)
    assert caught.value.code is code


def test_operands_that_do_not_fit_together_are_refused() -> None:
    """A plain vector of another length; a pair whose first operand is plain, which nothing would conceal."""
    plain = PlainOperand(values=np.zeros(10))
    for operands, pairs, complaint in (
        ([SealedOperand(reader=never), plain], [(0, 1)], r"shape \(10,\) for 11 values"),
        (
            [SealedOperand(reader=never), PlainOperand(values=np.zeros(11))],
            [(1, 0)],
            "sealed or an aggregate",
        ),
    ):
        with pytest.raises(ValueError, match=complaint):
            product_sums(operands, pairs, 11, ROBUST)


@pytest.mark.parametrize(
    "fault",
    [lambda data: data[:-1], lambda data: data[:100] + b"\xff" * 16 + data[116:], lambda _: b""],
    ids=["short", "residue", "empty"],
)
def test_malformed_operand_is_refused_wherever_it_stands(
    robust: KeyPair, fault: Callable[[bytes], bytes]
) -> None:
    """On the left, on the right, as an aggregate."""
    reader = sealed(robust, np.ones(10, dtype=np.float32))
    good, aggregate = SealedOperand(reader=reader), aggregate_of([reader], [1], 10)
    bad = SealedOperand(reader=lambda index: fault(bytes(reader(index))))
    worse = AggregateOperand(reader=lambda index: fault(bytes(aggregate.reader(index))), weight_total=1)
    for operands, pair in (([good, bad], (0, 1)), ([bad, good], (0, 1)), ([good, worse], (0, 1))):
        with pytest.raises(CiphertextError) as caught:
            product_sums(operands, [pair], 10, ROBUST)
        assert caught.value.code is Code.CIPHERTEXT_MALFORMED
