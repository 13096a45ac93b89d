"""Sealing vectors, summing sealed vectors without the key, opening sums and scalars."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.bounds import max_squared_norm
from secagg.ckks.cipher import BATCH
from secagg.ckks.context import CoefficientRing, ring_of
from secagg.ckks.crew import Crew
from secagg.ckks.encoding import Values, code_of
from secagg.ckks.keys import SecretKey
from secagg.ckks.opening import LweSecret
from secagg.ckks.parameters import Profile, Slots
from secagg.ckks.quantisation import Carry, Steps
from secagg.ckks.slots import open_slots, seal_slots
from secagg.ckks.wire import (
    AGGREGATE_HEADER_BYTES,
    aggregate_header,
    check_length,
    pack_aggregate,
    parse_aggregate,
    parse_aggregate_header,
    parse_scalar,
    parse_sealed_batch,
    sealed_header,
)
from secagg.errors import Code, UpdateError

CiphertextReader = Callable[[int], bytes | memoryview]
"""Index of a ciphertext within its vector -> that ciphertext's bytes, of whatever form."""

CHUNK = 4
"""Ciphertexts of a stored vector that are read, parsed and summed together."""

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
        # Both are NaN if any value is.
        largest = max(-float(part.min()), float(part.max()))
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
        UpdateError: UPDATE_OUT_OF_RANGE beyond ``max_squared_norm``.
    """
    limit = max_squared_norm(profile)
    squared = sum(
        float(np.square(values[start : start + _CHECKED_AT_ONCE], dtype=np.float64).sum())
        for start in range(0, values.size, _CHECKED_AT_ONCE)
    )
    if squared > limit:
        raise UpdateError(
            Code.UPDATE_OUT_OF_RANGE,
            f"squared norm {squared:.6g}; inner products under profile {profile.name} hold up to {limit:.6g}",
        )


class Sealer:
    """Seals vectors under one secret key. Holds the key, so it is not pickled either.

    Args:
        secret_key: the federation's.
        crew: the processes that long vectors are sealed in, of the same key; None: this one.
    """

    def __init__(self, secret_key: SecretKey, crew: Crew | None = None) -> None:
        self.profile = secret_key.profile
        self._key = secret_key
        self._crew = None if _has_slots(self.profile) else crew or Crew(secret_key)

    def __repr__(self) -> str:
        return f"<Sealer of profile {self.profile.name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a sealer holds a secret key and is not pickled")

    def seal(self, values: Values, *, steps: Steps | None = None, carry: Carry | None = None) -> bytes:
        """The sealed vector (see ``wire``) of float32 or float64 values [n]; empty for n = 0.

        Raises:
            UpdateError: as ``check_values``.
        """
        return b"".join(self.seal_blocks(values, steps=steps, carry=carry))

    def seal_blocks(
        self, values: Values, *, steps: Steps | None = None, carry: Carry | None = None
    ) -> Iterator[bytes]:
        """The same bytes piece by piece: header, then up to ``BATCH`` ciphertexts at a time.

        Beside the vector no more than ``BATCH`` ciphertexts are held per process that seals. The whole vector
        is checked before this returns.

        Args:
            values: float32 or float64 [n].
            steps: what a quantising profile seals the values in; None for others.
            carry: error feedback of a quantising profile.

        Raises:
            UpdateError: as ``check_values``.
        """
        check_values(values, self.profile)
        if not values.size:
            return iter(())
        return chain((sealed_header(self.profile),), self._batches(values, steps, carry))

    def _batches(self, values: Values, steps: Steps | None, carry: Carry | None) -> Iterator[bytes]:
        if self._crew is None:
            return seal_slots(values, self._key)
        profile, code = self.profile, code_of(self.profile, steps, values.size, carry)
        count = profile.ciphertext_count(values.size)
        encoded = (
            code.encode(values, first * profile.values_per_ciphertext, min(BATCH, count - first))
            for first in range(0, count, BATCH)
        )
        return self._crew.seal(encoded, count)


def weighted_sum(
    readers: Sequence[CiphertextReader],
    weights: Sequence[int],
    profile: Profile,
    *,
    ciphertexts: range,
    onto: CiphertextReader | None = None,
) -> Iterator[bytes]:
    """Some ciphertexts of the aggregate vector Σ w_i·u_i of sealed vectors, one after the other.

    Exact on the ciphertexts: the integer weights multiply residues. At any time ``CHUNK`` ciphertexts of one
    client and their running sums are held, however many clients there are. Vectors of weight 0 are not read.

    Args:
        readers: one per client, giving its sealed ciphertexts by index.
        weights: integers ≥ 0 with 1 ≤ Σ ≤ the profile's weight total.
        profile: the vectors'.
        ciphertexts: which; other ranges can be summed elsewhere at the same time. What precedes the first is
            ``wire.aggregate_header``.
        onto: an aggregate vector of equally many values that the sum is added to, by index; not for
            ``Slots``.

    Raises:
        CiphertextError: as ``parse_sealed`` and ``parse_aggregate``.
    """
    total = sum(weights)
    if len(readers) != len(weights) or min(weights, default=0) < 0 or not 1 <= total <= profile.weight_total:
        raise ValueError(
            f"weights must be ≥ 0, one per vector, with a sum of 1 to {profile.weight_total}, not {total}"
        )
    ring = ring_of(profile)
    counted = [(reader, weight) for reader, weight in zip(readers, weights, strict=True) if weight]
    for at in range(0, len(ciphertexts), CHUNK):
        chunk = ciphertexts[at : at + CHUNK]
        running: list[Any] = [None if onto is None else _summed(onto(index), profile) for index in chunk]
        for reader, weight in counted:
            polynomials, seeds = parse_sealed_batch([reader(index) for index in chunk], profile)
            for place, (polynomial, seed) in enumerate(zip(polynomials, seeds, strict=True)):
                item = ring.times(ring.expand(polynomial, seed), weight)
                running[place] = ring.add(running[place], item)
        for item in running:
            yield pack_aggregate(ring.residues(item), profile)


def _summed(data: bytes | memoryview, profile: Profile) -> Any:
    """A ciphertext of an aggregate vector, to be added to."""
    ring = ring_of(profile)
    assert isinstance(ring, CoefficientRing)
    return ring.ciphertext(parse_aggregate(data, profile)[:, 0])


def aggregate_vector(
    readers: Sequence[CiphertextReader], weights: Sequence[int], values: int, profile: Profile
) -> Iterator[bytes]:
    """The whole aggregate vector, header first; nothing for no values. Arguments as ``weighted_sum``."""
    if values:
        yield aggregate_header(profile, sum(weights))
    yield from weighted_sum(readers, weights, profile, ciphertexts=range(profile.ciphertext_count(values)))


class Opener:
    """Opens aggregates and released scalars with the secret key. Not pickled.

    Args:
        secret_key: the federation's.
        crew: the processes that long vectors are opened in, of the same key; None: this one.
    """

    def __init__(self, secret_key: SecretKey, crew: Crew | None = None) -> None:
        self.profile = secret_key.profile
        self._key = secret_key
        self._crew = None if _has_slots(self.profile) else crew or Crew(secret_key)
        self._lwe = LweSecret(secret_key) if self.profile.inner_products else None

    def __repr__(self) -> str:
        return f"<Opener of profile {self.profile.name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an opener holds a secret key and is not pickled")

    def open_vector(
        self, data: bytes | memoryview, values: int, *, steps: Steps | None = None
    ) -> NDArray[np.float64]:
        """The weighted mean float64 [values] that an aggregate vector holds; see ``bounds.error_bound``.

        Args:
            data: the vector.
            values: how many it holds.
            steps: what a quantising profile's values were sealed in; None for others.

        Raises:
            CiphertextError: as ``parse_aggregate_header``, ``check_length`` and ``parse_aggregate``; nothing
                is opened then.
        """
        profile = self.profile
        check_length(data, profile.aggregate_bytes(values), f"an aggregate vector of {values} values")
        opened = np.empty(values, dtype=np.float64)
        if not values:
            return opened
        total = parse_aggregate_header(data, profile)
        body = memoryview(data)[AGGREGATE_HEADER_BYTES:]
        at = 0
        for part in self._parts(body, values, steps, total):
            taken = part[: values - at]
            opened[at : at + taken.size] = taken
            at += taken.size
        return opened

    def _parts(
        self, body: memoryview, values: int, steps: Steps | None, total: int
    ) -> Iterator[NDArray[np.float64]]:
        if self._crew is None:
            yield from open_slots(body, self._key, total)
            return
        profile, code = self.profile, code_of(self.profile, steps, values)
        size, at = BATCH * profile.aggregate_ciphertext_bytes, 0
        batches = (body[start : start + size] for start in range(0, len(body), size))
        for coefficients in self._crew.open(batches, profile.ciphertext_count(values)):
            yield code.decode(coefficients, at, total)
            at += len(coefficients) * profile.values_per_ciphertext

    def open_scalar(self, data: bytes | memoryview) -> float:
        """The inner product that a released scalar holds; see ``bounds.product_error_bound``.

        Raises:
            CiphertextError: as ``parse_scalar``.
        """
        scalar = parse_scalar(data, self.profile)
        assert self._lwe is not None
        return self._lwe.open(scalar)


def _has_slots(profile: Profile) -> bool:
    """True where ciphertexts are sealed and opened by ``slots``, for exchange with TenSEAL, in this
    process.
    """
    return isinstance(profile.encoding, Slots)
