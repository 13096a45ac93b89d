"""Inner products of sealed vectors without evaluation keys, released so that only the wanted number can be
opened.

For integer polynomials m, m' the constant coefficient of m·σ(m'), σ: X -> 1/X, is the dot product of their
coefficients. σ of a ciphertext (b0, b1) under s needs no key: it is (σb0, σb1) under σ(s). So, summed over a
vector's ciphertexts,

    p0 = a0·σb0,  p1 = a1·σb0 (times s),  p2 = a0·σb1 (times σ(s)),  p3 = a1·σb1 (times s·σ(s)).

A constant coefficient is the same before and after σ, so p2·σ(s) may be replaced by σ(p2)·s, and what is left
is an LWE sample: the body, the constant coefficient of p0, with masks p1 + σ(p2) for s and p3 for s·σ(s). Of
the rest of p0, where every other coefficient of the product would be, nothing is released. Body and first
mask depend on the messages; a fresh encryption of zero under the public key is added to both, which makes
them pseudo-random to the holder of s, too, but for the wanted number. p3 depends on seeds alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from secagg.ckks.bounds import FLOODING
from secagg.ckks.context import CoefficientRing, conjugate, ring_of
from secagg.ckks.encoding import FixedPointCode, Values
from secagg.ckks.keys import PublicKey
from secagg.ckks.parameters import Profile
from secagg.ckks.vectors import CiphertextReader, check_norm, check_values
from secagg.ckks.wire import ReleasedScalar, pack_scalar, parse_aggregate, parse_sealed
from secagg.errors import Code, ConfigError

_TILE = 16
"""Pairs are worked on in squares of so many rows and columns: what is held does not grow with n²."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedOperand:
    """A sealed vector, by ciphertext index."""

    reader: CiphertextReader


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateOperand:
    """An aggregate vector, by ciphertext index, and the weight total of its header."""

    reader: CiphertextReader
    weight_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainOperand:
    """A vector that everybody knows, float32 or float64 [n]."""

    values: Values


Operand = SealedOperand | AggregateOperand | PlainOperand
Pair = tuple[int, int]
"""Indices of two operands, the first of them not plain; equal indices give a squared norm."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProductSum:
    """One inner product over some of its ciphertexts, not yet fit to be seen by anybody but the aggregator.

    Args:
        weight_total: what the number is divided by beside the squared scale.
        constant: the constant coefficient of p0, below p.
        masks: p1 + σ(p2) and, unless an operand is plain, p3, as coefficients; uint64 [1 or 2, N].
    """

    weight_total: int
    constant: int
    masks: NDArray[np.uint64]

    def plus(self, other: ProductSum, profile: Profile) -> ProductSum:
        """The product over both parts' ciphertexts."""
        ring = _ring(profile)
        return ProductSum(
            weight_total=self.weight_total,
            constant=(self.constant + other.constant) % ring.prime,
            masks=ring.sum(self.masks, other.masks),
        )

    def release(self, public_key: PublicKey) -> bytes:
        """The released scalar, re-randomised and flooded (``bounds.FLOODING``): two releases differ."""
        ring = _ring(public_key.profile)
        zero = seal.Ciphertext()
        public_key.seal_encryptor.encrypt_zero(zero)
        body, mask = ring.polynomials(zero)
        polynomials = self.masks.copy()
        polynomials[0] = ring.sum(polynomials[0], mask)
        flooding = secrets.randbelow(2 * FLOODING + 1) - FLOODING
        scalar = ReleasedScalar(
            weight_total=self.weight_total,
            constant=(self.constant + int(body[0]) + flooding) % ring.prime,
            polynomials=polynomials,
        )
        return pack_scalar(scalar, public_key.profile)


def inner_products(
    operands: Sequence[Operand], pairs: Sequence[Pair], values: int, public_key: PublicKey
) -> list[bytes]:
    """Released scalars of the pairs' inner products, in their order; arguments as ``product_sums``.

    Raises:
        ConfigError, CiphertextError, UpdateError: as ``product_sums``.
    """
    profile = public_key.profile
    sums = product_sums(operands, pairs, values, profile)
    return [item.release(public_key) for item in sums]


def gram_pairs(rows: int) -> list[Pair]:
    """The upper triangle of a Gram matrix, row by row: (0, 0), (0, 1), …, (rows-1, rows-1)."""
    return [(row, column) for row in range(rows) for column in range(row, rows)]


def product_sums(
    operands: Sequence[Operand],
    pairs: Sequence[Pair],
    values: int,
    profile: Profile,
    *,
    ciphertexts: Sequence[int] | None = None,
) -> list[ProductSum]:
    """Inner products of pairs of operands, in the order of ``pairs``.

    Each ciphertext is read once per tile of 16 x 16 operands; one ciphertext of each of a tile's operands and
    four polynomials per pair of the tile are held.

    Args:
        operands: sealed, aggregate or plain vectors of equally many values.
        pairs: which to multiply; the first of a pair is not plain.
        values: n ≥ 1.
        profile: the vectors'.
        ciphertexts: run over these only: a block of the vector, a part that another process completes
            (``ProductSum.plus``), or a sample. None for all.

    Raises:
        ConfigError: RULE_UNSUPPORTED if the profile has no inner products.
        CiphertextError: as ``parse_sealed`` and ``parse_aggregate``.
        UpdateError: as ``check_values`` and ``check_norm``, for a plain operand.
    """
    if not profile.inner_products:
        raise ConfigError(
            Code.RULE_UNSUPPORTED, f"profile {profile.name} has no inner products; choose profile robust"
        )
    for operand in operands:
        if isinstance(operand, PlainOperand):
            if operand.values.shape != (values,):
                raise ValueError(f"a plain operand of shape {operand.values.shape} for {values} values")
            check_values(operand.values, profile)
            check_norm(operand.values, profile)
    if any(isinstance(operands[left], PlainOperand) for left, _ in pairs):
        raise ValueError("the first operand of a pair must be a sealed or an aggregate vector")
    chosen = range(profile.ciphertext_count(values)) if ciphertexts is None else ciphertexts
    sums: dict[Pair, ProductSum] = {}
    for tile in _tiles(pairs):
        products = [_Product(profile, operands[left], operands[right]) for left, right in tile]
        for index in chosen:
            factors = _Factors(operands, tile, index, profile)
            for product, (left, right) in zip(products, tile, strict=True):
                product.add(factors.straight[left], factors.conjugated[right])
        sums |= {pair: product.sum() for pair, product in zip(tile, products, strict=True)}
    return [sums[pair] for pair in pairs]


def _tiles(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    def place(pair: Pair) -> Pair:
        return pair[0] // _TILE, pair[1] // _TILE

    for _, tile in groupby(sorted(set(pairs), key=lambda pair: (place(pair), pair)), key=place):
        yield list(tile)


class _Factors:
    """One ciphertext index of a tile's operands, ready to multiply, each parsed and expanded once."""

    def __init__(
        self, operands: Sequence[Operand], tile: Sequence[Pair], index: int, profile: Profile
    ) -> None:
        lefts, rights = ({pair[side] for pair in tile} for side in (0, 1))
        ring = _ring(profile)
        self.straight: dict[int, Any] = {}
        """SEAL ciphertexts (a0, a1) in NTT order."""
        self.conjugated: dict[int, tuple[Any, ...]] = {}
        """Plaintexts (σb0, σb1), or (σm,) of a plain operand; empty if that is zero."""
        for place in sorted(lefts | rights):
            operand = operands[place]
            if isinstance(operand, PlainOperand):
                self.conjugated[place] = _plain_factor(operand, index, ring, profile)
                continue
            item = ring.to_ntt(_ciphertext(operand, index, ring, profile))
            if place in lefts:
                self.straight[place] = item
            if place in rights:
                self.conjugated[place] = tuple(
                    ring.plaintext(conjugate(part)) for part in ring.polynomials(item)
                )


def _ciphertext(
    operand: SealedOperand | AggregateOperand, index: int, ring: CoefficientRing, profile: Profile
) -> Any:
    if isinstance(operand, AggregateOperand):
        return ring.ciphertext(parse_aggregate(operand.reader(index), profile)[:, 0])
    parsed = parse_sealed(operand.reader(index), profile)
    return ring.expand(parsed.polynomial, parsed.seed)


def _plain_factor(
    operand: PlainOperand, index: int, ring: CoefficientRing, profile: Profile
) -> tuple[Any, ...]:
    start = index * profile.values_per_ciphertext
    coefficients = FixedPointCode(profile).encode(operand.values, start, 1)
    if not coefficients.any():
        # SEAL refuses products with zero, and they add nothing.
        return ()
    return (ring.plaintext(conjugate(ring.transform(ring.reduce(coefficients), to_ntt=True)[0])),)


class _Product:
    """The running sum of one inner product: (p0, p1), and (p2, p3) unless the operand is plain."""

    def __init__(self, profile: Profile, left: Operand, right: Operand) -> None:
        self._ring = _ring(profile)
        totals = [item.weight_total for item in (left, right) if isinstance(item, AggregateOperand)]
        self._weight_total = prod(totals)
        self._sums: list[Any] = [None] if isinstance(right, PlainOperand) else [None, None]

    def add(self, left: Any, factors: tuple[Any, ...]) -> None:
        """Add the product of one ciphertext with the operand's ciphertext of the same index."""
        for place, factor in enumerate(factors):
            self._sums[place] = self._ring.add(self._sums[place], self._ring.multiply(left, factor))

    def sum(self) -> ProductSum:
        """What has been added so far; nothing can be added any more."""
        ring = self._ring
        nothing = np.zeros((2, ring.poly_degree), dtype=np.uint64)
        parts = [nothing if item is None else ring.polynomials(ring.from_ntt(item)) for item in self._sums]
        body, mask = parts[0]
        masks = [mask]
        if len(parts) == 2:
            masks = [ring.sum(mask, ring.conjugate(parts[1][0])), parts[1][1]]
        return ProductSum(weight_total=self._weight_total, constant=int(body[0]), masks=np.stack(masks))


def _ring(profile: Profile) -> CoefficientRing:
    ring = ring_of(profile)
    assert isinstance(ring, CoefficientRing)
    return ring
