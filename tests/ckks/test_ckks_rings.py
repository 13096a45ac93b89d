"""Arithmetic modulo p and X^N + 1 is exact, whatever the residues."""

from collections.abc import Callable

import numpy as np
import pytest
import tenseal.sealapi as seal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.ckks import PROFILES
from secagg.ckks.context import MAX_POLYNOMIALS, CoefficientRing, SlotRing, conjugate, ring_of
from secagg.ckks.opening import conjugate_coefficients, exact_dot, negacyclic_product
from secagg.ckks.seal_stream import Form
from secagg.errors import ServerError

DEGREE = 4096


def coefficient_ring() -> CoefficientRing:
    """The ring of every profile but NVFlare's."""
    ring = ring_of(PROFILES["robust"])
    assert isinstance(ring, CoefficientRing)
    return ring


RING = coefficient_ring()
PRIME = RING.prime
RESIDUE = st.one_of(st.sampled_from([0, 1, PRIME // 2, PRIME // 2 + 1, PRIME - 1]), st.integers(0, PRIME - 1))
INTEGER = st.one_of(st.sampled_from([0, 1, -1, PRIME - 1, 1 - PRIME]), st.integers(1 - PRIME, PRIME - 1))


def uniform(seed: int, *shape: int) -> NDArray[np.uint64]:
    """Residues uniform on [0, p)."""
    return np.random.default_rng(seed).integers(0, PRIME, shape, dtype=np.uint64)


@given(left=st.lists(RESIDUE, min_size=1, max_size=20), data=st.data())
def test_sums_of_residues_and_integers_are_reduced(left: list[int], data: st.DataObject) -> None:
    """``sum``, ``shifted`` and ``reduce`` equal Python's integers modulo p, at the edges as elsewhere."""
    size = len(left)
    right = data.draw(st.lists(RESIDUE, min_size=size, max_size=size))
    integers = data.draw(st.lists(INTEGER, min_size=size, max_size=size))
    residues, signed = np.array(left, dtype=np.uint64), np.array(integers, dtype=np.int64)
    both = RING.sum(residues, np.array(right, dtype=np.uint64))
    assert both.tolist() == [(a + b) % PRIME for a, b in zip(left, right, strict=True)]
    assert RING.shifted(residues, signed).tolist() == [
        (a + b) % PRIME for a, b in zip(left, integers, strict=True)
    ]
    assert RING.reduce(signed).tolist() == [b % PRIME for b in integers]


@given(residues=st.lists(RESIDUE, min_size=1, max_size=20))
def test_centred_residues_are_the_smallest_integers(residues: list[int]) -> None:
    """Congruent modulo p, and of size below p/2."""
    centred = RING.centred(np.array(residues, dtype=np.uint64)).tolist()
    assert all(abs(c) <= PRIME // 2 and c % PRIME == r for c, r in zip(centred, residues, strict=True))


@pytest.mark.parametrize("count", [1, 2, 3, MAX_POLYNOMIALS])
def test_transform_and_back_gives_the_same_polynomials(count: int) -> None:
    """For each number of polynomials that are transformed together, also for zeros."""
    polynomials = uniform(count, count, DEGREE)
    for item in (polynomials, np.zeros_like(polynomials)):
        there = RING.transform(item, to_ntt=True)
        assert there.shape == item.shape
        assert np.array_equal(RING.transform(there, to_ntt=False), item)


def rotated(polynomial: NDArray[np.uint64], places: int) -> NDArray[np.uint64]:
    """X^places times a polynomial: its coefficients move up, and change sign where they come round."""
    wrapped = np.where(polynomial == 0, polynomial, np.uint64(PRIME) - polynomial)
    return np.concatenate((wrapped[DEGREE - places :], polynomial[: DEGREE - places]))


@pytest.mark.parametrize("places", [0, 1, 5, DEGREE - 1])
def test_products_are_taken_modulo_x_to_the_n_plus_1(places: int) -> None:
    """Multiplying with a monomial rotates coefficients and negates those that come round."""
    monomial = np.zeros((1, DEGREE), dtype=np.uint64)
    monomial[0, places] = 1
    factor = RING.plaintext(RING.transform(monomial, to_ntt=True)[0])
    polynomials = uniform(9, 3, DEGREE)
    for count in (1, 3):
        product = RING.products(polynomials[:count], factor)
        assert all(
            np.array_equal(row, rotated(item, places))
            for row, item in zip(product, polynomials[:count], strict=True)
        )


def test_reversed_ntt_values_are_those_of_the_polynomial_in_1_over_x() -> None:
    """σ on NTT values, and on coefficients, is the same map; twice it is nothing."""
    polynomial = uniform(4, 1, DEGREE)
    mirrored = RING.transform(conjugate(RING.transform(polynomial, to_ntt=True)), to_ntt=False)[0]
    signed = conjugate_coefficients(RING.centred(polynomial[0]))
    assert np.array_equal(RING.centred(mirrored), signed)
    assert np.array_equal(conjugate_coefficients(signed), RING.centred(polynomial[0]))


def test_conjugate_of_coefficients_is_that_of_their_ntt_values() -> None:
    """σ on coefficients and σ on NTT values are one map; twice is nothing."""
    polynomial = uniform(9, 1, DEGREE)[0]
    mirrored = RING.transform(conjugate(RING.transform(polynomial[None, :], to_ntt=True)), to_ntt=False)[0]
    assert np.array_equal(RING.conjugate(polynomial), mirrored)
    assert np.array_equal(RING.conjugate(RING.conjugate(polynomial)), polynomial)
    assert not RING.conjugate(np.zeros(DEGREE, dtype=np.uint64)).any()


@pytest.mark.parametrize("factor", [1, 2, 3, 2**10, 2**16, 2**19, 2**20 - 1])
def test_ciphertext_times_an_integer_is_exact(factor: int) -> None:
    """Every coefficient of both polynomials is multiplied modulo p, for the whole documented range."""
    polynomials = uniform(5, 2, DEGREE)
    product = RING.polynomials(RING.times(RING.ciphertext(polynomials), factor))
    expected = [[int(c) * factor % PRIME for c in row] for row in polynomials]
    assert product.tolist() == expected


def test_slots_times_an_integer_are_exact() -> None:
    """Modulo each prime, at a scale that stays."""
    ring = ring_of(PROFILES["nvflare"])
    assert isinstance(ring, SlotRing)
    primes = ring.primes
    generator = np.random.default_rng(3)
    residues = np.stack(
        [[generator.integers(0, prime, ring.poly_degree, dtype=np.uint64) for prime in primes]] * 2
    )
    product = ring.times(ring.ciphertext(residues), 2**16)
    assert product.scale == 2.0**40
    for row, prime in enumerate(primes):
        expected = [int(c) * 2**16 % prime for c in residues[0, row]]
        assert ring.residues(product)[0, row].tolist() == expected


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_small_products_and_long_dots_are_exact(seed: int) -> None:
    """Against Python's integers: what opening a scalar is made of."""
    generator = np.random.default_rng(seed)
    left, right = generator.integers(-1, 2, (2, DEGREE))
    product = negacyclic_product(left, right)
    for place in (0, 1, int(generator.integers(DEGREE)), DEGREE - 1):
        # (l·r)[k] = Σ_{i ≤ k} l_i r_{k-i} - Σ_{i > k} l_i r_{N+k-i}.
        expected = left[: place + 1] @ right[place::-1] - left[place + 1 :] @ right[:place:-1]
        assert product[place] == expected
    residues = uniform(seed, DEGREE)
    residues[:2] = PRIME - 1
    small = np.where(generator.random(DEGREE) < 0.5, product, DEGREE)
    expected_dot = sum(int(a) * int(b) for a, b in zip(residues, small, strict=True))
    assert exact_dot(residues, small) == expected_dot


def test_sum_that_seal_calls_transparent_is_right_all_the_same() -> None:
    """Where SEAL would raise, as a hostile update could have it."""
    zero, one = np.zeros((2, DEGREE), dtype=np.uint64), np.zeros((2, DEGREE), dtype=np.uint64)
    one[0, 5], one[1, 9] = 3, 1
    opposite = RING.reduce(-one.view(np.int64))
    assert np.array_equal(RING.polynomials(RING.add(RING.ciphertext(one), RING.ciphertext(opposite))), zero)
    assert np.array_equal(RING.polynomials(RING.add(None, RING.ciphertext(one))), one)
    factor = np.zeros(DEGREE, dtype=np.uint64)
    factor[5] = 7
    product = RING.multiply(RING.ciphertext(one, ntt=True), RING.plaintext(factor))
    running = RING.add(product, RING.multiply(RING.ciphertext(one, ntt=True), RING.plaintext(factor)))
    expected = zero.copy()
    expected[0, 5] = 42
    assert np.array_equal(RING.polynomials(running), expected)


def test_other_refusals_of_seal_are_not_swallowed() -> None:
    """A sum of polynomials in different orders is a mistake, and stays one."""
    straight, transformed = (RING.ciphertext(uniform(1, 2, DEGREE), ntt=ntt) for ntt in (False, True))
    with pytest.raises(ValueError, match="NTT"):
        RING.add(straight, transformed)


class OtherStream:
    """A SEAL object of which one thing is not as this module knows it."""

    def __init__(self, form: Form, change: Callable[[bytes, bytes, int], bytes]) -> None:
        body = form.prefix + np.ones(form.shape, dtype="<u8").tobytes() + form.suffix + bytes(64)
        header = form.header[:5] + b"\0" + form.header[6:8] + (16 + len(body)).to_bytes(8, "little")
        self._stream = change(header, body, len(form.suffix) + 64)

    def save(self, path: str, /) -> None:
        """Write the stream."""
        # The path is the anonymous file's.
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(self._stream)


@pytest.mark.parametrize("name", ["robust", "nvflare"])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda header, body, _: header + body[:-65] + b"\x02" + body[-64:], "random generator 2"),
        (lambda header, body, _: b"\0\0" + header[2:] + body, "header 0000"),
        (lambda header, body, _: header[:5] + b"\x07" + header[6:] + body, "compression 7"),
        (lambda header, body, _: header + body[:200], "a body of 200 bytes"),
        (lambda header, body, tail: header + body[:-tail] + body[-64:], "a tail of 0 bytes"),
    ],
    ids=["generator", "magic", "compression", "short", "tail"],
)
def test_stream_of_another_seal_is_refused(
    name: str, change: Callable[[bytes, bytes, int], bytes], complaint: str
) -> None:
    """Seeds are only taken for the generator that the wire form means, residues only from a known form."""
    form = ring_of(PROFILES[name]).seeded_form
    with pytest.raises(ServerError, match=complaint):
        Form.of(OtherStream(form, change), form.shape, seeded=True)


def test_residues_of_another_shape_do_not_enter_a_form() -> None:
    """A programming mistake, found before SEAL sees anything."""
    with pytest.raises(ValueError, match="do not fit a form of shape"):
        RING.ciphertext_form.load(seal.Ciphertext(), RING.seal, np.zeros((2, 1, 8), dtype=np.uint64))
