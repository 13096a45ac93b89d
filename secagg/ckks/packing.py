"""Residues packed to their prime's width: uint64 [n] <-> n·bits/8 bytes, in numpy."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from secagg.errors import CiphertextError, Code

PACKABLE_BITS = range(32, 61, 4)
"""Widths of which two residues fill whole bytes and overlap in less than a word."""


def packed_bytes(count: int, bits: int) -> int:
    """Exact length of ``count`` packed residues of this width; the count is even."""
    return count * bits // 8


def pack(residues: NDArray[np.uint64], bits: int) -> bytes:
    """One little-endian bit string: residue i takes bits [i·bits, (i+1)·bits).

    Args:
        residues: uint64, any shape with an even number of residues, each < 2^bits, in C order.
        bits: width, one of ``PACKABLE_BITS``.
    """
    packed = np.empty(residues.size // 2, dtype=pair_of(bits))
    pack_pairs(np.ascontiguousarray(residues).reshape(-1, 2), bits, packed)
    return packed.tobytes()


def pack_pairs(pairs: NDArray[np.uint64], bits: int, packed: NDArray[np.void]) -> None:
    """Pairs of residues uint64 [..., 2] into ``pair_of(bits)`` [...]."""
    low, high = pairs[..., 0], pairs[..., 1]
    # Two words that overlap hold a pair; in their common bits they agree.
    packed["bottom"] = low | high << np.uint64(bits)
    packed["top"] = low >> np.uint64(2 * bits - 64) | high << np.uint64(64 - bits)


def unpack(data: bytes | memoryview, count: int, prime: int) -> NDArray[np.uint64]:
    """Inverse of ``pack`` at the prime's own width: uint64 [count], each < prime.

    Raises:
        CiphertextError: CIPHERTEXT_MALFORMED for another length, or a residue that is not below the prime.
    """
    bits = prime.bit_length()
    if len(data) != packed_bytes(count, bits):
        raise CiphertextError(
            Code.CIPHERTEXT_MALFORMED,
            f"{count} residues of {bits} bits take {packed_bytes(count, bits)} bytes, not {len(data)}",
        )
    return unpack_pairs(np.frombuffer(data, dtype=pair_of(bits)), prime)


def unpack_pairs(packed: NDArray[np.void], prime: int) -> NDArray[np.uint64]:
    """Inverse of ``pack_pairs`` at the prime's own width: uint64 [..., 2n], each < prime, of pairs [..., n].

    Raises:
        CiphertextError: CIPHERTEXT_MALFORMED for a residue that is not below the prime.
    """
    bits = prime.bit_length()
    pairs = np.empty((*packed.shape, 2), dtype=np.uint64)
    np.bitwise_and(packed["bottom"], np.uint64((1 << bits) - 1), out=pairs[..., 0])
    np.right_shift(packed["top"], np.uint64(64 - bits), out=pairs[..., 1])
    residues = pairs.reshape(*packed.shape[:-1], -1)
    if residues.size and int(residues.max()) >= prime:
        raise CiphertextError(
            Code.CIPHERTEXT_MALFORMED,
            f"residue {int(np.argmax(residues >= prime))} is not below its prime {prime}",
        )
    return residues


@cache
def pair_of(bits: int) -> np.dtype[np.void]:
    """Two residues' 2·bits bits as their lowest 64 and their highest 64."""
    size = bits // 4
    return np.dtype(
        {
            "names": ["bottom", "top"],
            "formats": ["<u8", "<u8"],
            "offsets": [0, size - 8],
            "itemsize": size,
        }
    )
