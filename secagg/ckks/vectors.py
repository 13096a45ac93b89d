"""Sealing vectors, summing sealed vectors without the key, opening sums and scalars."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NoReturn

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from secagg.ckks.context import context_of
from secagg.ckks.keys import SecretKey
from secagg.ckks.opening import LweSecret
from secagg.ckks.profiles import WEIGHT_TOTAL, Profile
from secagg.ckks.wire import (
    AGGREGATE_HEADER_BYTES,
    SealedCiphertext,
    aggregate_header,
    check_length,
    pack_aggregate,
    pack_sealed,
    parse_aggregate,
    parse_aggregate_header,
    parse_scalar,
    parse_sealed,
    sealed_header,
)
from secagg.errors import Code, UpdateError

Values = NDArray[np.float32] | NDArray[np.float64]

CiphertextReader = Callable[[int], bytes | memoryview]
"""Index of a ciphertext within its vector -> that ciphertext's bytes, of whatever form."""

_CHECKED_AT_ONCE = 2**20


def check_values(values: Values, profile: Profile) -> None:
    """See that a vector can be sealed under a profile.

    Raises:
        UpdateError: UPDATE_SHAPE unless it is one-dimensional, UPDATE_DTYPE unless float32 or float64,
            UPDATE_NOT_FINITE for NaN or infinity, UPDATE_OUT_OF_RANGE beyond ± ``profile.max_abs``.
    """
    if values.ndim != 1:
        raise UpdateError(Code.UPDATE_SHAPE, f"a vector to seal has one dimension, not shape {values.shape}")
    if values.dtype not in (np.float32, np.float64):
        raise UpdateError(Code.UPDATE_DTYPE, f"a vector to seal is float32 or float64, not {values.dtype}")
    for start in range(0, values.size, _CHECKED_AT_ONCE):
        part = values[start : start + _CHECKED_AT_ONCE]
        largest = float(np.abs(part).max())
        if not np.isfinite(largest):
            raise UpdateError(
                Code.UPDATE_NOT_FINITE, f"a vector to seal holds NaN or infinity from entry {start} on"
            )
        if largest > profile.max_abs:
            raise UpdateError(
                Code.UPDATE_OUT_OF_RANGE,
                f"a value of size {largest:.6g}; profile {profile.name} seals up to {profile.max_abs:g}",
            )


def check_norm(values: Values, profile: Profile) -> None:
    """See that no inner product of a vector with its like can wrap around the modulus.

    Raises:
        UpdateError: UPDATE_OUT_OF_RANGE beyond ``profile.max_squared_norm``.
    """
    squared = sum(
        float(np.square(values[start : start + _CHECKED_AT_ONCE], dtype=np.float64).sum())
        for start in range(0, values.size, _CHECKED_AT_ONCE)
    )
    if squared > profile.max_squared_norm:
        raise UpdateError(
            Code.UPDATE_OUT_OF_RANGE,
            f"squared norm {squared:.6g}; inner products under profile {profile.name} hold up to "
            f"{profile.max_squared_norm:.6g}",
        )


def slots_of(values: Values, start: int, profile: Profile) -> NDArray[np.complex128]:
    """Slots of the ciphertext that begins at ``start``: complex128 [N/2], neighbours paired, zeros last."""
    part = np.zeros(profile.values_per_ciphertext, dtype=np.float64)
    taken = values[start : start + part.size]
    part[: taken.size] = taken
    return part.view(np.complex128)


class Sealer:
    """Seals vectors under one secret key. Holds the key, so it is not pickled either.

    Args:
        secret_key: the federation's.
    """

    def __init__(self, secret_key: SecretKey) -> None:
        self.profile = secret_key.profile
        self._key = secret_key
        self._context = context_of(secret_key.profile)

    def __repr__(self) -> str:
        return f"<Sealer of profile {self.profile.name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a sealer holds a secret key and is not pickled")

    def seal(self, values: Values) -> bytes:
        """The sealed vector (see ``wire``) of float32 or float64 values [n]; empty for n = 0.

        Raises:
            UpdateError: as ``check_values``.
        """
        return b"".join(self.seal_blocks(values))

    def seal_blocks(self, values: Values) -> Iterator[bytes]:
        """The same bytes piece by piece: header, then one ciphertext after the other.

        No more than one ciphertext is held. The whole vector is checked before this returns.

        Raises:
            UpdateError: as ``check_values``.
        """
        check_values(values, self.profile)
        if not values.size:
            return iter(())
        starts = range(0, values.size, self.profile.values_per_ciphertext)
        return chain((sealed_header(self.profile),), (self._seal_at(values, start) for start in starts))

    def _seal_at(self, values: Values, start: int) -> bytes:
        context = self._context
        plaintext = context.encode(slots_of(values, start, self.profile).tolist())
        fresh = self._key.seal_encryptor.encrypt_symmetric(plaintext)
        polynomial, seed = context.seeded_form.read(fresh)
        return pack_sealed(SealedCiphertext(polynomial=polynomial, seed=seed), self.profile)


def weighted_sum(
    readers: Sequence[CiphertextReader], weights: Sequence[int], values: int, profile: Profile
) -> Iterator[bytes]:
    """The aggregate vector Σ w_i·u_i of sealed vectors, piece by piece: header, then one ciphertext after
    the other.

    Exact on the ciphertexts: the integer weights multiply residues. At any time one client's ciphertext and
    the running sum are held, however many clients there are. Vectors of weight 0 are not read.

    Args:
        readers: one per client, giving its sealed ciphertexts by index.
        weights: integers ≥ 0 with 1 ≤ Σ ≤ ``WEIGHT_TOTAL``.
        values: n, the same for every vector.
        profile: theirs.

    Raises:
        CiphertextError: as ``parse_sealed``.
    """
    total = sum(weights)
    if len(readers) != len(weights) or min(weights, default=0) < 0 or not 1 <= total <= WEIGHT_TOTAL:
        raise ValueError(
            f"weights must be ≥ 0, one per vector, with a sum of 1 to {WEIGHT_TOTAL}, not {total}"
        )
    context = context_of(profile)
    counted = [
        (reader, context.integer(weight))
        for reader, weight in zip(readers, weights, strict=True)
        if weight > 0
    ]
    if values:
        yield aggregate_header(profile, total)
    for index in range(profile.ciphertext_count(values)):
        running = None
        for reader, factor in counted:
            parsed = parse_sealed(reader(index), profile)
            item = context.seeded_ciphertext(parsed.polynomial, parsed.seed)
            context.evaluator.multiply_plain_inplace(item, factor)
            if running is None:
                running = item
            else:
                context.evaluator.add_inplace(running, item)
        yield pack_aggregate(context.residues(running), profile)


class Opener:
    """Opens aggregates and released scalars with the secret key. Not pickled.

    Args:
        secret_key: the federation's.
    """

    def __init__(self, secret_key: SecretKey) -> None:
        self.profile = secret_key.profile
        self._key = secret_key
        self._context = context_of(secret_key.profile)
        self._lwe = LweSecret(secret_key)

    def __repr__(self) -> str:
        return f"<Opener of profile {self.profile.name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an opener holds a secret key and is not pickled")

    def open_vector(self, data: bytes | memoryview, values: int) -> NDArray[np.float64]:
        """The weighted mean float64 [values] that an aggregate vector holds; see ``Profile.error_bound``.

        Raises:
            CiphertextError: as ``parse_aggregate_header``, ``check_length`` and ``parse_aggregate``; nothing
                is opened then.
        """
        profile, context = self.profile, self._context
        check_length(data, profile.aggregate_bytes(values), f"an aggregate vector of {values} values")
        if not values:
            return np.empty(0, dtype=np.float64)
        view, step = memoryview(data), profile.aggregate_ciphertext_bytes
        total = parse_aggregate_header(view, profile)
        opened = np.empty(profile.ciphertext_count(values) * profile.values_per_ciphertext, dtype=np.float64)
        for index, start in enumerate(range(AGGREGATE_HEADER_BYTES, len(view), step)):
            residues = parse_aggregate(view[start : start + step], profile)
            plaintext = seal.Plaintext()
            self._key.seal_decryptor.decrypt(context.ciphertext(residues), plaintext)
            slots = np.array(context.encoder.decode_complex(plaintext), dtype=np.complex128)
            at = index * profile.values_per_ciphertext
            opened[at : at + profile.values_per_ciphertext] = slots.view(np.float64)
        return opened[:values] / total

    def open_scalar(self, data: bytes | memoryview) -> float:
        """The inner product that a released scalar holds; see ``Profile.product_error_bound``.

        Raises:
            CiphertextError: as ``parse_scalar``.
        """
        return self._lwe.open(parse_scalar(data, self.profile))
