"""Residues packed to their prime's width: uint64 [n] <-> n·bits/8 bytes, in numpy."""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import NDArray

from secagg.errors import CiphertextError, Code


def packed_bytes(count: int, bits: int) -> int:
    """Exact length of ``count`` packed residues of this width; count·bits is a multiple of 8."""
    return count * bits // 8


def pack(residues: NDArray[np.uint64], bits: int) -> bytes:
    """One little-endian bit string: residue i takes bits [i·bits, (i+1)·bits).

    Args:
        residues: uint64 [n], each < 2^bits; n a multiple of 8 / gcd(8, bits).
        bits: width, 8 to 63.
    """
    group = 8 // gcd(8, bits)
    # Residues of one group fill whole bytes; byte j of every group is formed at once.
    rows = np.ascontiguousarray(residues).reshape(-1, group)
    if group == 2 and bits > 32:
        return _pack_pairs(rows, bits)
    width = group * bits // 8
    packed = np.empty((rows.shape[0], width), dtype=np.uint8)
    for index in range(width):
        first, shift = divmod(8 * index, bits)
        byte = rows[:, first] >> np.uint64(shift)
        if bits - shift < 8 and first + 1 < group:
            byte = byte | (rows[:, first + 1] << np.uint64(bits - shift))
        packed[:, index] = byte.astype(np.uint8)
    return packed.tobytes()


def _pack_pairs(pairs: NDArray[np.uint64], bits: int) -> bytes:
    """Pairs of 36-, 44-, 52- or 60-bit residues a, b -> the low bytes of a + b·2^bits, in two words."""
    words = np.empty((pairs.shape[0], 2), dtype="<u8")
    words[:, 0] = pairs[:, 0] | (pairs[:, 1] << np.uint64(bits))
    words[:, 1] = pairs[:, 1] >> np.uint64(64 - bits)
    return words.view(np.uint8)[:, : bits // 4].tobytes()


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
    group = 8 // gcd(8, bits)
    width = group * bits // 8
    columns = np.frombuffer(data, dtype=np.uint8).reshape(-1, width)
    # Each residue lies within 9 bytes: eight read as one word, and the ninth where it reaches so far.
    padded = np.zeros((columns.shape[0], width + 8), dtype=np.uint8)
    padded[:, :width] = columns
    residues = np.empty((columns.shape[0], group), dtype=np.uint64)
    mask = np.uint64((1 << bits) - 1)
    for index in range(group):
        start, shift = divmod(index * bits, 8)
        word = padded[:, start : start + 8].copy().view("<u8")[:, 0] >> np.uint64(shift)
        if shift + bits > 64:
            word |= padded[:, start + 8].astype(np.uint64) << np.uint64(64 - shift)
        residues[:, index] = word & mask
    flat = residues.reshape(-1)
    if flat.size and int(flat.max()) >= prime:
        raise CiphertextError(
            Code.CIPHERTEXT_MALFORMED,
            f"residue {int(np.argmax(flat >= prime))} is not below its prime {prime}",
        )
    return flat
