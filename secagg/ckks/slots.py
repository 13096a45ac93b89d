"""Sealing and opening under a profile of slots, as TenSEAL's ``ckks_vector`` does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from secagg.ckks.context import SlotRing, ring_of
from secagg.ckks.encoding import Values
from secagg.ckks.keys import SecretKey
from secagg.ckks.wire import SealedCiphertext, pack_sealed, parse_aggregate


def seal_slots(values: Values, key: SecretKey) -> Iterator[bytes]:
    """Fresh ciphertexts of values [n], N/2 in each, in their wire form."""
    ring, step = _ring(key), key.profile.values_per_ciphertext
    for start in range(0, values.size, step):
        plaintext = ring.encode(values[start : start + step].astype(np.float64))
        polynomial, seed = ring.seeded_form.read(key.seal_encryptor.encrypt_symmetric(plaintext))
        yield pack_sealed(SealedCiphertext(polynomial=polynomial, seed=seed), key.profile)


def open_slots(body: memoryview, key: SecretKey, weight_total: int) -> Iterator[NDArray[np.float64]]:
    """The values, float64 [N/2] each time, of aggregate ciphertexts, divided by the weight total.

    Raises:
        CiphertextError: as ``parse_aggregate``.
    """
    ring, step = _ring(key), key.profile.aggregate_ciphertext_bytes
    for start in range(0, len(body), step):
        plaintext = seal.Plaintext()
        item = ring.ciphertext(parse_aggregate(body[start : start + step], key.profile))
        key.seal_decryptor.decrypt(item, plaintext)
        yield ring.decode(plaintext) / weight_total


def _ring(key: SecretKey) -> SlotRing:
    ring = ring_of(key.profile)
    assert isinstance(ring, SlotRing)
    return ring
