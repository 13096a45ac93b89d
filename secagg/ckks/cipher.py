"""Coefficients <-> the bytes of ciphertexts, a batch at a time, so that workers can share the work."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.context import MAX_POLYNOMIALS, CoefficientRing, ring_of
from secagg.ckks.keys import SecretKey
from secagg.ckks.wire import pack_sealed_batch, parse_aggregate

BATCH = MAX_POLYNOMIALS // 2
"""Ciphertexts sealed or opened together; nobody who seals or opens holds more per process."""


class Cipher:
    """Seals and opens batches of coefficients. Holds the key, so it is not pickled.

    Args:
        secret_key: of a profile whose ciphertexts live in a coefficient ring.
    """

    def __init__(self, secret_key: SecretKey) -> None:
        ring = ring_of(secret_key.profile)
        assert isinstance(ring, CoefficientRing)
        self.profile = secret_key.profile
        self._key, self._ring = secret_key, ring

    def __repr__(self) -> str:
        return f"<Cipher of profile {self.profile.name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a cipher holds a secret key and is not pickled")

    def seal(self, coefficients: NDArray[np.int64]) -> bytes:
        """Fresh ciphertexts of coefficients int64 [k, N], one after the other in their wire form.

        c0 = m + (an encryption of zero), which SEAL makes: its randomness is SEAL's alone.
        """
        ring = self._ring
        # All of the batch first: saving, which compresses, would push the ring's tables out of the cache.
        fresh = [self._key.seal_encryptor.encrypt_zero_symmetric() for _ in coefficients]
        zeros, seeds = np.empty(coefficients.shape, dtype=np.uint64), []
        for row, item in zip(zeros, fresh, strict=True):
            polynomial, seed = ring.seeded_form.read(item)
            row[:] = polynomial[0]
            seeds.append(seed)
        return pack_sealed_batch(ring.shifted(zeros, coefficients), seeds, self.profile)

    def open(self, data: bytes | memoryview) -> NDArray[np.int64]:
        """Centred coefficients int64 [k, N] of 1 to ``BATCH`` aggregate ciphertexts: c0 + c1·s.

        Raises:
            CiphertextError: as ``parse_aggregate``.
        """
        ring, view, step = self._ring, memoryview(data), self.profile.aggregate_ciphertext_bytes
        parsed = [parse_aggregate(view[at : at + step], self.profile) for at in range(0, len(view), step)]
        first, second = (np.stack([item[part, 0] for item in parsed]) for part in (0, 1))
        return ring.centred(ring.sum(first, ring.products(second, self._key.seal_factor)))
