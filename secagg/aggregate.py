"""A round's aggregate: the weighted mean of its updates, hidden blocks still sealed."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.profiles import WEIGHT_TOTAL, Profile
from secagg.ckks.vectors import CiphertextReader, weighted_sum
from secagg.ckks.wire import AGGREGATE_HEADER_BYTES, parse_aggregate_header
from secagg.custody.custody import Decryptor
from secagg.errors import CiphertextError, Code
from secagg.payload import UpdateFile, read_exactly, read_floats
from secagg.selection.layout import FLOAT32_BYTES, Layout

AGGREGATE_VERSION = 1
_HEADER = struct.Struct("<BQI")


def aggregate_bytes(layout: Layout, profile: Profile) -> int:
    """Exact length of an aggregate artifact.

    Version byte, u64 round, u32 weight total; each block's aggregate vector (none for a block that hides
    nothing); each block's visible mean as float32.
    """
    hidden = sum(profile.aggregate_bytes(count) for count in layout.hidden_counts)
    return _HEADER.size + hidden + FLOAT32_BYTES * sum(layout.visible_counts)


def write_aggregate(
    out: Path, *, round: int, paths: Sequence[Path], weights: Sequence[int], layout: Layout, profile: Profile
) -> None:
    """Write the weighted mean of spooled updates, streamed: memory does not grow with clients or values.

    Hidden blocks are summed exactly on ciphertexts, the weight total being divided out by whoever opens them.
    Visible means are formed in float64, in the order of ``paths``, and rounded to float32.

    Args:
        out: the artifact; it appears whole or not at all.
        round: whose aggregate it is.
        paths: spooled payloads, each checked before (``UpdateFile.check``).
        weights: one integer ≥ 0 per payload, 1 ≤ Σ ≤ ``WEIGHT_TOTAL``; a payload of weight 0 is not read.
        layout, profile: of the round's plan.

    Raises:
        CiphertextError, ServerError: if a spooled payload is no longer what it was; ``out`` is not there
            then.
    """
    total = sum(weights)
    if len(paths) != len(weights) or min(weights, default=0) < 0 or not 1 <= total <= WEIGHT_TOTAL:
        raise ValueError(
            f"weights must be ≥ 0, one per update, with a sum of 1 to {WEIGHT_TOTAL}, not {total}"
        )
    counted = [
        (UpdateFile(path=path, layout=layout, profile=profile), weight)
        for path, weight in zip(paths, weights, strict=True)
        if weight
    ]
    factors = [weight for _, weight in counted]
    with appearing(out) as file:
        file.write(_HEADER.pack(AGGREGATE_VERSION, round, total))
        for block, count in enumerate(layout.hidden_counts):
            readers = [update.ciphertexts(block) for update, _ in counted]
            for piece in weighted_sum(readers, factors, count, profile):
                file.write(piece)
        for block in range(len(layout.blocks)):
            for parts in zip(*(update.visible(block) for update, _ in counted), strict=True):
                mean = _weighted_mean(parts, factors, total)
                file.write(mean.astype("<f4").tobytes())


def _weighted_mean(
    parts: Sequence[NDArray[np.float32]], weights: Sequence[int], total: int
) -> NDArray[np.float64]:
    running = np.zeros(parts[0].size, dtype=np.float64)
    for part, weight in zip(parts, weights, strict=True):
        running += weight * part.astype(np.float64)
    return running / total


@contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """A file that is at ``path``, whole and on disk, once the block has ended, and not at all if it fails."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateFile:
    """An aggregate artifact on disk, read by position; what the server compares later updates with.

    Args:
        path: the file.
        round: whose aggregate it must be.
        layout, profile: of that round's plan.
    """

    path: Path
    round: int
    layout: Layout
    profile: Profile

    def weight_total(self) -> int:
        """The weight total, after a check of header and length.

        Raises:
            CiphertextError: AGGREGATE_MALFORMED.
        """
        size = self.path.stat().st_size
        front = read_exactly(self.path, 0, min(size, _HEADER.size))
        return _check_front(front, size, self.round, self.layout, self.profile)

    def ciphertexts(self, block: int) -> CiphertextReader:
        """Reads one block's aggregate ciphertexts by index; the bytes are not yet parsed."""
        start = _offsets(self.layout, self.profile)[0][block] + AGGREGATE_HEADER_BYTES
        size = self.profile.aggregate_ciphertext_bytes
        return lambda index: read_exactly(self.path, start + index * size, size)

    def visible(self, block: int) -> Iterator[NDArray[np.float32]]:
        """One block's visible mean, in the same pieces as ``UpdateFile.visible``."""
        start = _offsets(self.layout, self.profile)[1][block]
        return read_floats(self.path, start, self.layout.visible_counts[block])


def open_aggregate(
    source: Path | bytes, *, round: int, layout: Layout, profile: Profile, opener: Decryptor | None
) -> NDArray[np.float32]:
    """The weighted mean that an aggregate artifact holds: float32 [d], rounded to nearest.

    Before that rounding a hidden value is within ``Profile.error_bound`` of the exact mean.

    Args:
        source: the artifact, or the file it was downloaded to.
        round: whose aggregate it must be.
        layout, profile: of that round's plan.
        opener: of the federation's custody; None if the layout hides nothing.

    Raises:
        CiphertextError: AGGREGATE_MALFORMED for another version, round or length, an impossible weight total
            or a visible value that is not finite; CIPHERTEXT_MALFORMED or PROFILE_MISMATCH from a hidden
            block.
    """
    if isinstance(source, bytes):
        return _open(memoryview(source), round, layout, profile, opener)
    with source.open("rb") as file:
        if not source.stat().st_size:
            raise _malformed("an aggregate of 0 bytes")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Not closed by hand: the traceback of a refusal may still hold views of it.
    return _open(memoryview(mapped), round, layout, profile, opener)


def _open(
    view: memoryview, round: int, layout: Layout, profile: Profile, opener: Decryptor | None
) -> NDArray[np.float32]:
    total = _check_front(view[: _HEADER.size], len(view), round, layout, profile)
    hidden_at, visible_at = _offsets(layout, profile)
    hidden: list[NDArray[np.float64]] = []
    for start, count in zip(hidden_at, layout.hidden_counts, strict=True):
        if not count:
            hidden.append(np.empty(0, dtype=np.float64))
            continue
        if opener is None:
            raise ValueError("a layout that hides entries needs an opener")
        with view[start : start + profile.aggregate_bytes(count)] as vector:
            if parse_aggregate_header(vector, profile) != total:
                raise _malformed("a block's weight total differs from the aggregate's")
            hidden.append(opener.open_vector(vector, count))
    visible = [
        np.frombuffer(bytes(view[start : start + FLOAT32_BYTES * count]), dtype="<f4")
        for start, count in zip(visible_at, layout.visible_counts, strict=True)
    ]
    if not all(np.isfinite(part).all() for part in visible):
        raise _malformed("the visible mean holds NaN or infinite values")
    return layout.join(hidden, visible).astype(np.float32)


def _offsets(layout: Layout, profile: Profile) -> tuple[list[int], list[int]]:
    """Where each block's aggregate vector and visible mean begin."""
    at = _HEADER.size
    starts: tuple[list[int], list[int]] = ([], [])
    sizes = (
        [profile.aggregate_bytes(count) for count in layout.hidden_counts],
        [FLOAT32_BYTES * count for count in layout.visible_counts],
    )
    for places, lengths in zip(starts, sizes, strict=True):
        for length in lengths:
            places.append(at)
            at += length
    return starts


def _check_front(front: bytes | memoryview, size: int, round: int, layout: Layout, profile: Profile) -> int:
    if len(front) < _HEADER.size:
        raise _malformed(f"an aggregate of {size} bytes is shorter than its header")
    version, found, total = _HEADER.unpack(front)
    if version != AGGREGATE_VERSION:
        raise _malformed(f"aggregate version {version} is unknown; this build reads {AGGREGATE_VERSION}")
    if found != round:
        raise _malformed(f"the aggregate of round {found}, not of round {round}")
    if not 1 <= total <= WEIGHT_TOTAL:
        raise _malformed(f"a weight total of {total}; 1 to {WEIGHT_TOTAL} are possible")
    if size != aggregate_bytes(layout, profile):
        raise _malformed(
            f"an aggregate has {aggregate_bytes(layout, profile)} bytes under this plan, not {size}"
        )
    return int(total)


def _malformed(message: str) -> CiphertextError:
    return CiphertextError(Code.AGGREGATE_MALFORMED, message)
