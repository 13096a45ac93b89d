"""The payload of one update: each block's sealed vector, then each block's visible values as float32."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.bounds import max_squared_norm
from secagg.ckks.parameters import HEADER_BYTES, Profile
from secagg.ckks.quantisation import Carry
from secagg.ckks.vectors import CHUNK, CiphertextReader, check_norm, check_values
from secagg.ckks.wire import Form, check_header, parse_sealed
from secagg.custody.custody import Encryptor
from secagg.errors import CiphertextError, Code, ServerError, UpdateError
from secagg.scales import Scales
from secagg.selection.layout import FLOAT32_BYTES, Layout

_CHECKED_AT_ONCE = 2**20

VISIBLE_AT_ONCE = 2**16
"""Visible values handled together where they are streamed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """How a client seals under a quantising profile.

    Args:
        scales: of the round.
        weight: what hidden values are sealed times, in (0, 1]: ``RoundPlan.own_weight``.
        carry: block -> error feedback of its hidden values; None for none.
    """

    scales: Scales
    weight: float
    carry: Callable[[int], Carry] | None = None


def seal_update(
    flat: NDArray[np.float32],
    layout: Layout,
    sealer: Encryptor | None,
    quantisation: Quantisation | None = None,
) -> Iterator[bytes]:
    """The payload of an update, piece by piece; the pieces' total length is ``layout.payload_bytes``.

    Beside the update itself, one block's hidden or visible values are held if they are not one run, and the
    few ciphertexts that ``Sealer.seal_blocks`` works on. Everything is checked before this returns, so
    nothing of a refused update is ever sent.

    Args:
        flat: float32 [d], from ``Manifest.flatten``.
        layout: of the round's plan.
        sealer: under the federation's key; None if the layout hides nothing.
        quantisation: for a quantising profile; None for others.

    Raises:
        UpdateError: UPDATE_SHAPE, UPDATE_DTYPE, UPDATE_NOT_FINITE; UPDATE_OUT_OF_RANGE for a hidden value
            beyond the profile's range, or, where the profile has inner products, a block they run over whose
            norm is.
    """
    if flat.shape != (layout.size,):
        raise UpdateError(
            Code.UPDATE_SHAPE,
            f"the flat vector has shape {flat.shape}; the manifest asks for ({layout.size},)",
        )
    if flat.dtype != np.float32:
        raise UpdateError(Code.UPDATE_DTYPE, f"the flat vector is {flat.dtype}, not float32")
    # Piece by piece: for a large model a bool per value is not nothing.
    if not all(
        np.isfinite(flat[at : at + _CHECKED_AT_ONCE]).all() for at in range(0, flat.size, _CHECKED_AT_ONCE)
    ):
        raise UpdateError(Code.UPDATE_NOT_FINITE, "the flat vector holds NaN or infinite values")
    if sum(layout.hidden_counts):
        if sealer is None:
            raise ValueError("a layout that hides entries needs a sealer")
        for block in range(len(layout.blocks)):
            check_values(layout.hidden_of(flat, block), sealer.profile)
        if max_squared_norm(sealer.profile):
            for block in layout.product_blocks:
                check_norm(layout.hidden_of(flat, block), sealer.profile)
    return _pieces(flat, layout, sealer, quantisation)


def _pieces(
    flat: NDArray[np.float32],
    layout: Layout,
    sealer: Encryptor | None,
    quantisation: Quantisation | None,
) -> Iterator[bytes]:
    blocks = range(len(layout.blocks))
    for block in blocks:
        if sealer is None or not layout.hidden_counts[block]:
            continue
        hidden = layout.hidden_of(flat, block)
        if quantisation is None:
            yield from sealer.seal_blocks(hidden)
            continue
        carry, runs = quantisation.carry, layout.hidden_runs(block)
        steps = quantisation.scales.steps(sealer.profile, runs, weight=quantisation.weight)
        yield from sealer.seal_blocks(hidden, steps=steps, carry=carry(block) if carry else None)
    for block in blocks:
        visible = layout.visible_of(flat, block)
        for start in range(0, visible.size, VISIBLE_AT_ONCE):
            yield visible[start : start + VISIBLE_AT_ONCE].astype("<f4", copy=False).tobytes()


def read_exactly(path: Path, offset: int, size: int) -> bytes:
    """A part of a spooled file. The file is opened anew, so that any number of clients' files can be read in
    turn.

    Raises:
        ServerError: SPOOL_CORRUPT if the file is not there or ends early.
    """
    try:
        with path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
    except FileNotFoundError:
        raise ServerError(Code.SPOOL_CORRUPT, f"spooled file {path.name} is missing") from None
    if len(data) != size:
        raise ServerError(
            Code.SPOOL_CORRUPT,
            f"spooled file {path.name} has {len(data)} bytes at {offset} where {size} belong",
        )
    return data


class StoredCiphertexts:
    """A vector's ciphertexts by index, from a file that is opened anew for each ``CHUNK`` of them.

    Args:
        path: the file.
        start: where the first ciphertext begins.
        size: bytes of a ciphertext.
        count: how many there are.
    """

    def __init__(self, path: Path, *, start: int, size: int, count: int) -> None:
        self._path, self._start, self._size, self._count = path, start, size, count
        self._held, self._chunk = range(0), memoryview(b"")

    def __call__(self, index: int) -> memoryview:
        """The bytes of one ciphertext.

        Raises:
            ServerError: as ``read_exactly``.
        """
        if index not in self._held:
            held = range(index, min(index + CHUNK, self._count))
            at = self._start + index * self._size
            self._chunk = memoryview(read_exactly(self._path, at, len(held) * self._size))
            self._held = held
        at = (index - self._held.start) * self._size
        return self._chunk[at : at + self._size]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFile:
    """One update's payload in the spool, read by position.

    Args:
        path: the file.
        layout, profile: of the round's plan.
    """

    path: Path
    layout: Layout
    profile: Profile

    def check(self) -> None:
        """See that the whole payload is what the plan asks for, one ciphertext at a time.

        Raises:
            CiphertextError: CIPHERTEXT_MALFORMED for another length or a malformed ciphertext,
                PROFILE_MISMATCH.
            UpdateError: UPDATE_NOT_FINITE for a visible value that is NaN or infinite.
        """
        expected, size = self.layout.payload_bytes(self.profile), self.path.stat().st_size
        if size != expected:
            raise CiphertextError(
                Code.CIPHERTEXT_MALFORMED, f"a payload has {expected} bytes under this plan, not {size}"
            )
        for block, count in enumerate(self.layout.hidden_counts):
            if count:
                start = self.layout.sealed_offsets(self.profile)[block]
                check_header(read_exactly(self.path, start, HEADER_BYTES), Form.SEALED, self.profile)
                read = self.ciphertexts(block)
                for index in range(self.profile.ciphertext_count(count)):
                    parse_sealed(read(index), self.profile)
        for block, name in enumerate(self.layout.blocks):
            for part in self.visible(block):
                if not np.isfinite(part).all():
                    raise UpdateError(
                        Code.UPDATE_NOT_FINITE, f"visible part of block {name!r} holds NaN or infinite values"
                    )

    def ciphertexts(self, block: int) -> CiphertextReader:
        """Reads one block's sealed ciphertexts by index; the bytes are not yet parsed."""
        return StoredCiphertexts(
            self.path,
            start=self.layout.sealed_offsets(self.profile)[block] + HEADER_BYTES,
            size=self.profile.sealed_ciphertext_bytes,
            count=self.profile.ciphertext_count(self.layout.hidden_counts[block]),
        )

    def visible(self, block: int) -> Iterator[NDArray[np.float32]]:
        """One block's visible values, at most ``VISIBLE_AT_ONCE`` at a time."""
        start, count = self.layout.visible_offsets(self.profile)[block], self.layout.visible_counts[block]
        return read_floats(self.path, start, count)


def read_floats(path: Path, start: int, count: int) -> Iterator[NDArray[np.float32]]:
    """Little-endian float32 values of a file, at most ``VISIBLE_AT_ONCE`` at a time.

    Raises:
        ServerError: SPOOL_CORRUPT as ``read_exactly``.
    """
    for at in range(0, count, VISIBLE_AT_ONCE):
        taken = min(VISIBLE_AT_ONCE, count - at)
        data = read_exactly(path, start + FLOAT32_BYTES * at, FLOAT32_BYTES * taken)
        yield np.frombuffer(data, dtype="<f4")
