"""What is drawn once all updates are in: vectors that witness norms, and samples of ciphertexts."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

_WITNESS, _SAMPLE = b"secagg/v1/witness\0", b"secagg/v1/sample\0"
WITNESSES = 8
"""Products with random vectors per update: an update whose norm wrapped around passes all with probability
2^-8 at most, in every round that it tries."""


def witnesses(seed: bytes, block: int, ciphertext: int, degree: int) -> NDArray[np.int8]:
    """The part of each witness z that meets one ciphertext of a block: entries −1, 0, 0 or 1, equally likely.

    On ciphertexts a squared norm is known modulo p only. Residues of which some are no small integers, such
    as ⌈√p⌉ or four times 1/2 mod p, can have a small one, and would be summed as they are; a product with z
    shows them, as the range test of modular Johnson-Lindenstrauss projections does (Gentry, Halevi,
    Lyubashevsky, *Practical non-interactive publicly verifiable secret sharing with thousands of parties*,
    EUROCRYPT 2022). What is stated here follows from z alone, as z is drawn when the update can't be changed
    any more. Let x be an update's residues, centred, and B what |⟨x, z⟩ mod p| is held against; B follows
    from the measured norm and does not depend on z.

    - Small integers stay within: an entry of z is the mean of two independent signs, so |⟨x, z⟩| ≤
      t·‖x‖/sqrt(2) but with probability 2·exp(−t²/2) (Hoeffding).
    - If any |x_j| > 2B, one z misses with probability at most 1/2: given all other entries, 0 and ±1 for z_j
      give sums more than 2B apart modulo p, so that either only z_j = 0 stays within B, or only ±1 can.
      Each of the three cases has probability at most 1/2, 1/4, 1/4. ``WITNESSES`` independent ones all miss
      with probability at most 2^-WITNESSES.
    - If no |x_j| > 2B, but ‖x‖ as integers is not the measured norm, then ‖x‖² ≥ p − B². By Berry-Esseen
      (constant 0.56, Shevtsova 2010) one z misses with probability at most 3.1·B·sqrt(2)/‖x‖, which is below
      1/2 for B < ‖x‖/9 (and n·2B < p/2, so that the sum itself does not wrap).

    They cover padding, too, which squared norms run over.

    Args:
        seed: 32 bytes.
        block: index of the block.
        ciphertext: index within the block.
        degree: N, its coefficients.

    Returns:
        int8 [WITNESSES, N].
    """
    key = struct.pack("<II", block, ciphertext)
    stream = np.frombuffer(_stream(_WITNESS, seed, key, WITNESSES * degree // 4), dtype=np.uint8)
    signs = np.unpackbits(stream).view(np.int8).reshape(WITNESSES, degree, 2)
    z: NDArray[np.int8] = signs[:, :, 0] - signs[:, :, 1]
    return z


def sample(seed: bytes, block: int, count: int, drawn: int) -> list[int]:
    """Indices of ``drawn`` of a block's ciphertexts, ascending: the smallest draws of 64 bits, ties by index.

    Everyone can repeat it, and nobody could know it while updates could still be changed. With x_c the part
    of an inner product in ciphertext c of C, the estimate (C/k)·Σ x_c over k drawn ones is unbiased and
    deviates by C·S·sqrt((1/k)(1 − k/C)), S² the variance of the x_c (Cochran, *Sampling Techniques*, §2.5).
    An attacker that keeps to m ciphertexts is not seen at all with probability ((C−k)/C)^m at most.
    """
    draws = np.frombuffer(_stream(_SAMPLE, seed, struct.pack("<I", block), 8 * count), dtype="<u8")
    return sorted(np.argsort(draws, kind="stable")[:drawn].tolist())


def _stream(domain: bytes, seed: bytes, place: bytes, size: int) -> bytes:
    key = hashlib.sha256(domain + seed + place).digest()
    return Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(size))
