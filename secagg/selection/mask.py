"""The round's common mask: True = encrypted."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from secagg.errors import Code, UpdateError
from secagg.plan import Protection, ProtectionMode, Significance
from secagg.update import MAX_VALUES, Manifest

MASK_VERSION = 1
PROPOSAL_MARGIN = 1e-3
"""Relative; what two processors' rounding makes of a difference that matters is far below it."""
_HEADER = struct.Struct("<BQ")
_RANDOM_DOMAIN = b"secagg/v1/random-mask\0"


@dataclass(frozen=True, eq=False)
class Mask:
    """Which of an update's d entries are encrypted.

    Args:
        hidden: bool [d], True = encrypted; made read-only.

    Raises:
        UpdateError: MASK_MALFORMED for another dtype, dimension or no entry.
    """

    hidden: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.hidden.dtype != np.bool_ or self.hidden.ndim != 1 or self.hidden.size == 0:
            raise _malformed(f"a mask is a bool vector, not {self.hidden.dtype} of shape {self.hidden.shape}")
        # One answer for all entries, spread without memory (``all_or_none``), can't be written to anyway.
        if self.hidden.strides != (0,):
            frozen = self.hidden.copy()
            frozen.setflags(write=False)
            object.__setattr__(self, "hidden", frozen)

    @classmethod
    def all_or_none(cls, size: int, *, hidden: bool) -> Mask:
        """The mask of a large model that is encrypted whole, or not at all, in a byte."""
        return cls(np.broadcast_to(np.array(hidden), (size,)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and np.array_equal(self.hidden, other.hidden)

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def size(self) -> int:
        """d, how many entries an update has."""
        return self.hidden.size

    @cached_property
    def hidden_count(self) -> int:
        """How many entries are encrypted."""
        return int(np.count_nonzero(self.hidden))

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of ``to_bytes``, 32 bytes."""
        return hashlib.sha256(self.to_bytes()).digest()

    @staticmethod
    def wire_bytes(size: int) -> int:
        """Exact length of the wire form of a mask over ``size`` entries."""
        return _HEADER.size + (size + 7) // 8

    def to_bytes(self) -> bytes:
        """Version byte, u64 d, then the bitmap: entry i is bit 7 - i mod 8 of byte i // 8, tail bits 0."""
        return _HEADER.pack(MASK_VERSION, self.size) + np.packbits(self.hidden).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, *, size: int | None = None) -> Mask:
        """Inverse of ``to_bytes``.

        Args:
            data: the wire form.
            size: d, where it is known; a mask over another number of entries is refused.

        Raises:
            UpdateError: MASK_MALFORMED for another version or length, or tail bits that are set;
                MASK_MISMATCH for another d than asked for.
        """
        if len(data) < _HEADER.size:
            raise _malformed(f"mask has {len(data)} bytes; its header alone has {_HEADER.size}")
        version, entries = _HEADER.unpack_from(data)
        if version != MASK_VERSION:
            raise _malformed(f"mask version {version} is unknown; this build reads {MASK_VERSION}")
        if not 1 <= entries <= MAX_VALUES:
            raise _malformed(f"mask over {entries} entries; 1 to {MAX_VALUES} are possible")
        if size is not None and entries != size:
            raise UpdateError(Code.MASK_MISMATCH, f"mask covers {entries} entries; the manifest has {size}")
        if len(data) != cls.wire_bytes(entries):
            raise _malformed(
                f"mask over {entries} entries has {cls.wire_bytes(entries)} bytes, not {len(data)}"
            )
        bitmap = np.frombuffer(data, dtype=np.uint8, offset=_HEADER.size)
        bits = np.unpackbits(bitmap)
        if bits[entries:].any():
            raise _malformed("mask has bits set behind its last entry")
        return cls(bits[:entries].astype(np.bool_))


def entries_to_hide(size: int, ratio: float) -> int:
    """k = ceil(ratio·d), at most d; a product within 1e-9 above an integer counts as that integer."""
    return min(size, max(0, ceil(ratio * size - 1e-9)))


def derive_mask(
    protection: Protection, manifest: Manifest, federation_id: bytes, round: int, mask: Mask | None = None
) -> Mask:
    """The mask that follows from a plan, or the one that its digest names.

    plain hides nothing, full everything, ``layers`` the named tensors; ``random`` the ceil(ratio·d) entries
    with the smallest draws of a ChaCha20 key stream keyed by SHA-256(federation_id, round), 64 bits per
    entry, ties by index. ``magnitude`` can't be derived: it takes the round's agreed mask, and hides
    everything while there is none (the federation's first rounds).

    Args:
        protection, manifest, round: as in the plan.
        federation_id: 16 bytes.
        mask: the agreed mask, for a plan whose ``mask_sha256`` is not empty; None otherwise.

    Raises:
        UpdateError: MASK_MISMATCH if an agreed mask is given where none belongs, or covers another d.
    """
    size = manifest.size
    if mask is not None:
        if protection.significance is not Significance.MAGNITUDE:
            raise UpdateError(
                Code.MASK_MISMATCH, "an agreed mask only belongs to significance = magnitude", round=round
            )
        if mask.size != size:
            raise UpdateError(
                Code.MASK_MISMATCH,
                f"mask covers {mask.size} entries; the manifest has {size}",
                round=round,
            )
        return mask
    if protection.mode is ProtectionMode.PLAIN:
        return Mask.all_or_none(size, hidden=False)
    if protection.significance is Significance.LAYERS:
        hidden = np.zeros(size, dtype=np.bool_)
        for name in protection.layers:
            hidden[manifest.slice_of(name)] = True
        return Mask(hidden)
    if protection.significance is Significance.RANDOM:
        draws = _draws(federation_id, round, size)
        return _smallest(draws, entries_to_hide(size, protection.ratio))
    return Mask.all_or_none(size, hidden=True)


def propose_mask(previous: NDArray[np.float32], current: NDArray[np.float32], ratio: float) -> Mask:
    """The ceil(ratio·d) entries in which two aggregates differ most; ties go to the smaller index.

    Every client that opened the same two aggregates proposes the same mask, bit for bit: the difference is
    taken in float32.

    Args:
        previous, current: float32 [d], the aggregates of two rounds.
        ratio: share of entries to encrypt, in (0, 1].

    Raises:
        UpdateError: UPDATE_SHAPE, UPDATE_DTYPE.
    """
    return mask_of_scores(_change(previous, current), ratio)


def mask_of_scores(scores: NDArray[np.floating], ratio: float) -> Mask:
    """The ceil(ratio·d) entries with the largest scores; ties go to the smaller index.

    Args:
        scores: [d], float32 or float64; ±infinity are scores like others.
        ratio: share of entries to encrypt, in [0, 1].

    Raises:
        UpdateError: UPDATE_NOT_FINITE if a score is NaN: it has no place in any order.
    """
    # The maximum is NaN if any entry is, and needs no memory.
    if np.isnan(scores.max(initial=-np.inf)):
        raise UpdateError(Code.UPDATE_NOT_FINITE, "scores hold NaN; no mask follows from them")
    return _smallest(-scores, entries_to_hide(scores.size, ratio))


def required_mask(previous: NDArray[np.float32], current: NDArray[np.float32], ratio: float) -> Mask:
    """The least that an honest server's next mask hides: what every honest client proposes to hide.

    Clients on different processors may open aggregates that differ in the last bits, so entries within
    ``PROPOSAL_MARGIN`` (and float32's own rounding) of the last one chosen may be missing from another's
    proposal; the others may not.

    Args, raises: as ``propose_mask``.
    """
    change = _change(previous, current)
    last = float(change[propose_mask(previous, current, ratio).hidden].min())
    rounding = 4 * float(np.finfo(np.float32).eps) * float(np.abs(current).max())
    return Mask(change > last * (1 + PROPOSAL_MARGIN) + rounding)


def _change(previous: NDArray[np.float32], current: NDArray[np.float32]) -> NDArray[np.float32]:
    if previous.shape != current.shape or previous.ndim != 1:
        raise UpdateError(
            Code.UPDATE_SHAPE, f"aggregates of shapes {previous.shape} and {current.shape} can't be compared"
        )
    if previous.dtype != np.float32 or current.dtype != np.float32:
        raise UpdateError(
            Code.UPDATE_DTYPE, f"aggregates are {previous.dtype} and {current.dtype}, not float32"
        )
    change: NDArray[np.float32] = np.abs(current - previous)
    return change


def _smallest(keys: NDArray[np.floating] | NDArray[np.uint64], count: int) -> Mask:
    """The ``count`` entries with the smallest keys, ties to the smaller index."""
    hidden = np.zeros(keys.size, dtype=np.bool_)
    if count == keys.size:
        hidden[:] = True
    elif count:
        threshold = np.partition(keys, count - 1)[count - 1]
        hidden |= keys < threshold
        ties = np.flatnonzero(keys == threshold)
        hidden[ties[: count - int(np.count_nonzero(hidden))]] = True
    return Mask(hidden)


def _draws(federation_id: bytes, round: int, size: int) -> NDArray[np.uint64]:
    key = hashlib.sha256(_RANDOM_DOMAIN + federation_id + struct.pack("<Q", round)).digest()
    stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(8 * size))
    return np.frombuffer(stream, dtype="<u8")


def _malformed(message: str) -> UpdateError:
    return UpdateError(Code.MASK_MALFORMED, message)
