"""What is drawn once all updates are in: vectors that witness a norm, and samples of ciphertexts."""

from __future__ import annotations

import hashlib
import struct
from math import ceil, log

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from secagg.ckks.bounds import max_squared_norm
from secagg.ckks.parameters import Profile

_WITNESS, _SAMPLE = b"secagg/v1/witness\0", b"secagg/v1/sample\0"
_LEVELS_LOG2 = 9


def witness(seed: bytes, block: int, values: int, profile: Profile) -> tuple[NDArray[np.float32], float]:
    """A vector z whose product with an update tells whether the update's measured norm is its norm.

    On ciphertexts a squared norm is known modulo p/scale² only: a value whose square wraps around has a small
    one, and would be summed as it is. z has entries j·a/2^9 with j uniform on the odd numbers between −2^9
    and 2^9: for an update with norm ‖u‖, |⟨u, z⟩| ≤ t·a·‖u‖ with probability ≥ 1 − 2·exp(−t²/2) (Hoeffding).
    One that hides a value x behind a small measured norm ν stays within t·a·ν with probability ≤ 2^-9 +
    t·ν/|x| only, whatever its
    other entries are: given those, ⟨u, z⟩ takes 2^9 values in steps of a·|x|/2^8.

    Args:
        seed: 32 bytes.
        block: index of the block.
        values: n, how many values the block hides.
        profile: its squared norms must hold z: a is the largest power of two up to 1 with n·a² within.

    Returns:
        z, float32 [n], and a.
    """
    draws = np.frombuffer(_stream(_WITNESS, seed, block, 2 * values), dtype="<u2")
    levels = (draws >> (16 - _LEVELS_LOG2)).astype(np.float32) * 2 - (2**_LEVELS_LOG2 - 1)
    halvings = max(0, ceil(log(values / max_squared_norm(profile), 4)))
    amplitude = 2.0**-halvings
    z: NDArray[np.float32] = levels * np.float32(amplitude / 2**_LEVELS_LOG2)
    return z, amplitude


def sample(seed: bytes, block: int, count: int, drawn: int) -> list[int]:
    """Indices of ``drawn`` of a block's ciphertexts, ascending: the smallest draws of 64 bits, ties by index.

    Everyone can repeat it, and nobody could know it while updates could still be changed. With x_c the part
    of an inner product in ciphertext c of C, the estimate (C/k)·Σ x_c over k drawn ones is unbiased and
    deviates by C·S·sqrt((1/k)(1 − k/C)), S² the variance of the x_c (Cochran, *Sampling Techniques*, §2.5).
    An attacker that keeps to m ciphertexts is not seen at all with probability ((C−k)/C)^m at most.
    """
    draws = np.frombuffer(_stream(_SAMPLE, seed, block, 8 * count), dtype="<u8")
    return sorted(np.argsort(draws, kind="stable")[:drawn].tolist())


def _stream(domain: bytes, seed: bytes, block: int, size: int) -> bytes:
    key = hashlib.sha256(domain + seed + struct.pack("<I", block)).digest()
    return Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(size))
