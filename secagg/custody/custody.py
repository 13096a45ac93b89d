"""Custody as its callers see it: whoever holds the secret key, what seals under it, what opens.

Callers assume neither that one party holds the whole key nor that opening is a local call; what lies behind
is chosen in ``shared``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.parameters import Profile
from secagg.ckks.quantisation import Carry, Steps


class Encryptor(Protocol):
    """Seals vectors for the federation."""

    @property
    def profile(self) -> Profile:
        """The CKKS profile it seals under."""
        ...

    def seal_blocks(
        self, values: NDArray[np.float32], *, steps: Steps | None = None, carry: Carry | None = None
    ) -> Iterator[bytes]:
        """The sealed vector of float32 [n], piece by piece; nothing for n = 0.

        A quantising profile needs ``steps``, and can be given error feedback.

        Raises:
            UpdateError: UPDATE_NOT_FINITE, UPDATE_OUT_OF_RANGE; before the first piece.
        """
        ...


class Decryptor(Protocol):
    """Opens what the federation may know: aggregates and released scalars."""

    @property
    def profile(self) -> Profile:
        """The CKKS profile of what it opens."""
        ...

    def open_vector(
        self, data: bytes | memoryview, values: int, *, steps: Steps | None = None
    ) -> NDArray[np.float64]:
        """The weighted mean float64 [values] that an aggregate vector holds; see ``bounds.error_bound``.

        Raises:
            CiphertextError: CIPHERTEXT_MALFORMED, PROFILE_MISMATCH; nothing is opened then.
        """
        ...

    def open_scalar(self, data: bytes | memoryview) -> float:
        """The inner product that a released scalar holds; see ``bounds.product_error_bound``.

        Raises:
            CiphertextError: CIPHERTEXT_MALFORMED, PROFILE_MISMATCH; nothing is opened then.
        """
        ...


class Custody(Protocol):
    """What a client needs of whoever holds the secret key."""

    @property
    def profile_name(self) -> str:
        """The CKKS profile the key belongs to."""
        ...

    @property
    def key_id(self) -> bytes:
        """16 bytes that name the key."""
        ...

    def sealer(self) -> Encryptor:
        """What seals this client's vectors."""
        ...

    def opener(self) -> Decryptor:
        """What opens aggregates and released scalars."""
        ...

    def close(self) -> None:
        """End what works for it; safe to repeat."""
        ...
