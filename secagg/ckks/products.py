"""Inner products of sealed vectors without evaluation keys, released so that only the wanted number can be
opened.

Two neighbouring reals share a slot, so ⟨u, v⟩ = Re Σ z·conj(z'). For encoded polynomials m, m' the constant
coefficient of m·σ(m') is scale²·(2/N) times that number. σ of a ciphertext (b0, b1) under s needs no key: it
is (σb0, σb1) under σ(s). So, summed over a vector's ciphertexts,

    p0 = a0·σb0,  p1 = a1·σb0 (times s),  p2 = a0·σb1 (times σ(s)),  p3 = a1·σb1 (times s·σ(s)).

Only p0's constant coefficient is released, an LWE sample's body; of the rest of p0, where every other
coefficient of the product would be, nothing. p1 and p2 depend on the messages through σb0 and a0: an
encryption of zero under the public key is added to (p0, p1), and the conjugate of a second one to (p0, p2),
which makes them pseudo-random to the holder of s, too. p3 depends on seeds alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from secagg.ckks.context import Context, conjugate, context_of
from secagg.ckks.keys import PublicKey
from secagg.ckks.vectors import CiphertextReader, Values, check_norm, check_values, slots_of
from secagg.ckks.wire import ReleasedScalar, pack_scalar, parse_aggregate, parse_sealed
from secagg.errors import Code, ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Itself:
    """The other operand is the same sealed vector: the product is its squared norm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedOperand:
    """Another sealed vector, by ciphertext index."""

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


Operand = Itself | SealedOperand | AggregateOperand | PlainOperand


def inner_products(
    reader: CiphertextReader, operands: Sequence[Operand], values: int, public_key: PublicKey
) -> list[bytes]:
    """Released scalars of one sealed vector's inner products with each operand, in their order.

    The vector is read once, one ciphertext at a time.

    Args:
        reader: the sealed vector's ciphertexts by index.
        operands: what it is multiplied with.
        values: n ≥ 1, how many values the vector and each operand hold.
        public_key: of the federation; its profile is the vectors'.

    Raises:
        ConfigError: RULE_UNSUPPORTED if the profile has no inner products.
        CiphertextError: as ``parse_sealed`` and ``parse_aggregate``.
        UpdateError: as ``check_values`` and ``check_norm``, for a plain operand.
    """
    profile = public_key.profile
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
    context = context_of(profile)
    sums = [_Product(context, operand) for operand in operands]
    for index in range(profile.ciphertext_count(values)):
        parsed = parse_sealed(reader(index), profile)
        left = context.seeded_ciphertext(parsed.polynomial, parsed.seed)
        for item in sums:
            item.add(left, index)
    return [item.release(public_key) for item in sums]


class _Product:
    """The running sum of one inner product: (p0, p1), and (p2, p3) unless the operand is plain."""

    def __init__(self, context: Context, operand: Operand) -> None:
        self._context = context
        self._operand = operand
        self._straight: Any = None
        self._conjugated: Any = None

    def add(self, left: Any, index: int) -> None:
        """Add the product of one ciphertext with the operand's ciphertext of the same index."""
        context, operand = self._context, self._operand
        if isinstance(operand, PlainOperand):
            start = index * context.profile.values_per_ciphertext
            factor = context.encode(np.conj(slots_of(operand.values, start, context.profile)).tolist())
            # SEAL refuses products with zero, and they add nothing.
            if not factor.is_zero():
                self._straight = add_product(context, self._straight, left, factor)
            return
        right = conjugate(self._right(left, index))
        self._straight = add_product(context, self._straight, left, context.plaintext(right[0]))
        self._conjugated = add_product(context, self._conjugated, left, context.plaintext(right[1]))

    def _right(self, left: Any, index: int) -> NDArray[np.uint64]:
        context, operand = self._context, self._operand
        match operand:
            case AggregateOperand():
                return parse_aggregate(operand.reader(index), context.profile)
            case SealedOperand():
                parsed = parse_sealed(operand.reader(index), context.profile)
                return context.residues(context.seeded_ciphertext(parsed.polynomial, parsed.seed))
            case _:
                return context.residues(left)

    def release(self, public_key: PublicKey) -> bytes:
        """Re-randomise, go to coefficients, keep p0's constant one."""
        context, operand = self._context, self._operand
        straight = self._sum_of(self._straight, _encryption_of_zero(context, public_key))
        polynomials = []
        if not isinstance(operand, PlainOperand):
            zero = conjugate(_encryption_of_zero(context, public_key))
            straight[0] = self._add(straight[0], zero[0])
            shifted = np.stack([zero[1], np.zeros_like(zero[1])])
            polynomials = list(context.transform(self._sum_of(self._conjugated, shifted), to_ntt=False))
        body, mask = context.transform(straight, to_ntt=False)
        scalar = ReleasedScalar(
            weight_total=operand.weight_total if isinstance(operand, AggregateOperand) else 1,
            constant=tuple(int(row[0]) for row in body),
            polynomials=np.stack([mask, *polynomials]),
        )
        return pack_scalar(scalar, context.profile)

    def _sum_of(self, running: Any, residues: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return residues.copy() if running is None else self._add(self._context.residues(running), residues)

    def _add(self, left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Sum of residues [..., primes, N] modulo each prime (all below 2^60)."""
        primes = np.array(self._context.primes, dtype=np.uint64)[:, None]
        total = left + right
        reduced: NDArray[np.uint64] = np.where(total >= primes, total - primes, total)
        return reduced


def add_product(context: Context, running: Any, left: Any, factor: Any) -> Any:
    """``running`` (None at first) plus left·factor.

    SEAL computes a product or sum first and then objects to a "transparent" one, whose second part is zero.
    A client can bring that about with a first part of one residue that meets a zero of its seed's expansion.
    Here it is no secret's only cover, as encryptions of zero are added before anything is released; so it
    must not end the round.
    """
    product = seal.Ciphertext()
    try:
        context.evaluator.multiply_plain(left, factor, product)
    except RuntimeError:
        if not product.is_transparent():
            raise
    if running is None:
        return product
    try:
        context.evaluator.add_inplace(running, product)
    except RuntimeError:
        if not running.is_transparent():
            raise
    return running


def _encryption_of_zero(context: Context, public_key: PublicKey) -> NDArray[np.uint64]:
    """A fresh public-key encryption of zero: uint64 [2, primes, N] in NTT order."""
    item = seal.Ciphertext()
    public_key.seal_encryptor.encrypt_zero(item)
    return context.residues(item)
