"""A round's aggregate: the weighted mean of its updates, hidden blocks still sealed."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.bounds import error_bound
from secagg.ckks.parameters import Profile
from secagg.ckks.vectors import CiphertextReader, weighted_sum
from secagg.ckks.wire import AGGREGATE_HEADER_BYTES, aggregate_header, parse_aggregate_header
from secagg.custody.custody import Decryptor
from secagg.errors import CiphertextError, Code, SecaggError
from secagg.payload import StoredCiphertexts, UpdateFile, read_exactly, read_floats
from secagg.scales import Scales
from secagg.selection.layout import FLOAT32_BYTES, Layout

AGGREGATE_VERSION = 2
_FRONT = struct.Struct("<BQQ")
_SHARES = struct.Struct("<Q")


def front_bytes(layout: Layout, profile: Profile) -> int:
    """Length of what precedes the blocks.

    Version byte, u64 round, u64 weight total; under a quantising profile also the u64 count that stands for
    weight 1, and one int8 per tensor: the scales.
    """
    shares = _SHARES.size + len(layout.manifest.tensors) if profile.quantised else 0
    return _FRONT.size + shares


def aggregate_bytes(layout: Layout, profile: Profile) -> int:
    """Exact length of an aggregate artifact.

    The front; each block's aggregate vector (none for a block that hides nothing); each block's visible mean
    as float32.
    """
    hidden = sum(profile.aggregate_bytes(count) for count in layout.hidden_counts)
    return front_bytes(layout, profile) + hidden + FLOAT32_BYTES * sum(layout.visible_counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How clients sealed under a quantising profile.

    Args:
        unit: the plan's ``count_unit``: if positive, hidden values are in the updates times min(n,
            unit)/unit.
        scales: what they sealed in.
    """

    unit: int
    scales: Scales


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedUpdates:
    """What an aggregate is made of.

    Args:
        round: whose aggregate it is.
        paths: spooled payloads, each checked before (``UpdateFile.check``).
        weights: one integer ≥ 0 per payload with a positive sum; a payload of weight 0 is not read. Where
            clients weighted their hidden values themselves, these are the counts they did it by; otherwise
            their sum is at most the profile's weight total.
        layout, profile: of the round's plan.
        shares: of a quantising profile, None for others.

    Raises:
        ValueError: weights beyond the profile's headroom, or shares that do not belong to it.
    """

    round: int
    paths: tuple[Path, ...]
    weights: tuple[int, ...]
    layout: Layout
    profile: Profile
    shares: Shares | None = None

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.weights) or min(self.weights, default=0) < 0 or self.total < 1:
            raise ValueError("weights must be ≥ 0, one per update, with a positive sum")
        if sum(self.factors) > self.profile.weight_total:
            raise ValueError(f"profile {self.profile.name} has headroom for {self.profile.weight_total}")
        if (self.shares is not None) != self.profile.quantised:
            raise ValueError(f"profile {self.profile.name} and shares {self.shares} do not belong together")

    @property
    def total(self) -> int:
        """What the sum is divided by."""
        return sum(self.weights)

    @property
    def factors(self) -> tuple[int, ...]:
        """What the counted updates' ciphertexts are multiplied with."""
        weighted = self.shares is not None and self.shares.unit > 0
        return tuple(1 if weighted else weight for weight in self.weights if weight)

    @property
    def counted(self) -> list[tuple[UpdateFile, int]]:
        """The updates of positive weight, each with its weight."""
        return [
            (UpdateFile(path=path, layout=self.layout, profile=self.profile), weight)
            for path, weight in zip(self.paths, self.weights, strict=True)
            if weight
        ]


def mean_error_bound(updates: WeightedUpdates, *, max_abs: float = 1.0) -> float:
    """Largest |opened - exact| of a hidden value; see ``bounds.error_bound``.

    Where clients weighted their values, k of them rounded to a step each and the sum is divided by Σ n/unit.

    Args:
        max_abs: bound on |value| of every update.
    """
    counted = np.array([weight for weight in updates.weights if weight], dtype=np.int64)
    if updates.shares is None:
        return error_bound(updates.profile, updates.layout.size, counted, max_abs=max_abs)
    step = updates.shares.scales.largest_step(updates.profile)
    if not updates.shares.unit:
        return error_bound(updates.profile, updates.layout.size, counted, max_abs=max_abs, step=step)
    return step * counted.size * updates.shares.unit / updates.total + 2.0**-22 * max_abs


def write_aggregate(out: Path, updates: WeightedUpdates) -> None:
    """Write the weighted mean of spooled updates, streamed: memory does not grow with clients or values.

    Args:
        out: the artifact; it appears whole or not at all.
        updates: what it is made of.

    Raises:
        CiphertextError, ServerError: if a spooled payload is no longer what it was; ``out`` is not there
            then.
    """
    with appearing(out) as file:
        lay_out(file, updates)
        for block, count in enumerate(updates.layout.hidden_counts):
            write_sums(file, updates, block, range(updates.profile.ciphertext_count(count)))


def lay_out(file: BinaryIO, updates: WeightedUpdates) -> None:
    """Write all of an aggregate artifact but its ciphertexts, which ``write_sums`` puts where they belong.

    Visible means are formed in float64, in the order of the updates, and rounded to float32.

    Raises:
        ServerError: if a spooled payload is no longer what it was.
    """
    layout, profile, total = updates.layout, updates.profile, updates.total
    hidden_at, visible_at = _offsets(layout, profile)
    file.truncate(aggregate_bytes(layout, profile))
    file.write(_FRONT.pack(AGGREGATE_VERSION, updates.round, total))
    if updates.shares is not None:
        file.write(_SHARES.pack(updates.shares.unit) + updates.shares.scales.to_bytes())
    for start, count in zip(hidden_at, layout.hidden_counts, strict=True):
        if count:
            file.seek(start)
            file.write(aggregate_header(profile, sum(updates.factors)))
    for block, start in enumerate(visible_at):
        file.seek(start)
        for parts in zip(*(update.visible(block) for update, _ in updates.counted), strict=True):
            running = np.zeros(parts[0].size, dtype=np.float64)
            for part, (_, weight) in zip(parts, updates.counted, strict=True):
                running += weight * part.astype(np.float64)
            file.write((running / total).astype("<f4").tobytes())


def write_sums(file: BinaryIO, updates: WeightedUpdates, block: int, ciphertexts: range) -> None:
    """Put some of a block's summed ciphertexts into a laid-out artifact; other ranges can be written
    elsewhere at the same time.

    Hidden values are summed exactly on ciphertexts; whoever opens them divides by the weight total.

    Raises:
        CiphertextError, ServerError: if a spooled payload is no longer what it was.
    """
    profile = updates.profile
    start = _offsets(updates.layout, profile)[0][block] + AGGREGATE_HEADER_BYTES
    file.seek(start + ciphertexts.start * profile.aggregate_ciphertext_bytes)
    readers = [update.ciphertexts(block) for update, _ in updates.counted]
    for piece in weighted_sum(readers, updates.factors, profile, ciphertexts=ciphertexts):
        file.write(piece)


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
        layout, profile: of that round's plan; the profile does not quantise.
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
        front = read_exactly(self.path, 0, min(size, front_bytes(self.layout, self.profile)))
        return _check_front(front, size, self.round, self.layout, self.profile)[0]

    def ciphertexts(self, block: int) -> CiphertextReader:
        """Reads one block's aggregate ciphertexts by index; the bytes are not yet parsed."""
        return StoredCiphertexts(
            self.path,
            start=_offsets(self.layout, self.profile)[0][block] + AGGREGATE_HEADER_BYTES,
            size=self.profile.aggregate_ciphertext_bytes,
            count=self.profile.ciphertext_count(self.layout.hidden_counts[block]),
        )

    def visible(self, block: int) -> Iterator[NDArray[np.float32]]:
        """One block's visible mean, in the same pieces as ``UpdateFile.visible``."""
        start = _offsets(self.layout, self.profile)[1][block]
        return read_floats(self.path, start, self.layout.visible_counts[block])


def open_aggregate(
    source: Path | bytes,
    *,
    round: int,
    layout: Layout,
    profile: Profile,
    opener: Decryptor | None,
    shares: Shares | None = None,
) -> NDArray[np.float32]:
    """The weighted mean that an aggregate artifact holds: float32 [d], rounded to nearest.

    Before that rounding a hidden value is within ``bounds.error_bound`` of the exact mean.

    Args:
        source: the artifact, or the file it was downloaded to.
        round: whose aggregate it must be.
        layout, profile: of that round's plan.
        opener: of the federation's custody; None if the layout hides nothing.
        shares: how the updates of a quantising profile must have been sealed, if that is known.

    Raises:
        CiphertextError: AGGREGATE_MALFORMED for another version, round or length, an impossible weight total,
            other scales or a visible value that is not finite; CIPHERTEXT_MALFORMED or PROFILE_MISMATCH from
            a hidden block.
    """
    if isinstance(source, bytes):
        return _open(memoryview(source), round, layout, profile, opener, shares)
    with source.open("rb") as file:
        if not source.stat().st_size:
            raise _malformed("an aggregate of 0 bytes")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Not closed by hand: the traceback of a refusal may still hold views of it.
    return _open(memoryview(mapped), round, layout, profile, opener, shares)


def _open(
    view: memoryview,
    round: int,
    layout: Layout,
    profile: Profile,
    opener: Decryptor | None,
    expected: Shares | None,
) -> NDArray[np.float32]:
    front = bytes(view[: front_bytes(layout, profile)])
    total, shares = _check_front(front, len(view), round, layout, profile)
    if expected is not None and shares != expected:
        raise _malformed("its scales or its count unit are not those of this round's plan and base model")
    hidden_at, visible_at = _offsets(layout, profile)
    hidden = [
        _open_block(
            view[start : start + profile.aggregate_bytes(count)], block, layout, total, shares, opener
        )
        if count
        else np.empty(0, dtype=np.float64)
        for block, (start, count) in enumerate(zip(hidden_at, layout.hidden_counts, strict=True))
    ]
    visible = [
        np.frombuffer(bytes(view[start : start + FLOAT32_BYTES * count]), dtype="<f4")
        for start, count in zip(visible_at, layout.visible_counts, strict=True)
    ]
    if not all(np.isfinite(part).all() for part in visible):
        raise _malformed("the visible mean holds NaN or infinite values")
    return layout.join(hidden, visible).astype(np.float32)


def _open_block(
    vector: memoryview,
    block: int,
    layout: Layout,
    total: int,
    shares: Shares | None,
    opener: Decryptor | None,
) -> NDArray[np.float64]:
    if opener is None:
        raise ValueError("a layout that hides entries needs an opener")
    count, factors = layout.hidden_counts[block], parse_aggregate_header(vector, opener.profile)
    steps = shares.scales.steps(opener.profile, layout.hidden_runs(block)) if shares is not None else None
    if shares is not None and shares.unit:
        if not factors <= total <= factors * shares.unit:
            raise _malformed(f"a weight total of {total} from {factors} updates of up to {shares.unit}")
        # What was summed is n_i/unit·v_i, each counted once.
        return opener.open_vector(vector, count, steps=steps) * (factors * shares.unit / total)
    if factors != total:
        raise _malformed("a block's weight total differs from the aggregate's")
    return opener.open_vector(vector, count, steps=steps)


def _offsets(layout: Layout, profile: Profile) -> tuple[list[int], list[int]]:
    """Where each block's aggregate vector and visible mean begin."""
    at = front_bytes(layout, profile)
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


def _check_front(
    front: bytes, size: int, round: int, layout: Layout, profile: Profile
) -> tuple[int, Shares | None]:
    """Weight total, and the shares of a quantising profile."""
    if len(front) < front_bytes(layout, profile):
        raise _malformed(f"an aggregate of {size} bytes is shorter than its header")
    version, found, total = _FRONT.unpack_from(front)
    if version != AGGREGATE_VERSION:
        raise _malformed(f"aggregate version {version} is unknown; this build reads {AGGREGATE_VERSION}")
    if found != round:
        raise _malformed(f"the aggregate of round {found}, not of round {round}")
    if size != aggregate_bytes(layout, profile):
        raise _malformed(
            f"an aggregate has {aggregate_bytes(layout, profile)} bytes under this plan, not {size}"
        )
    unit = _SHARES.unpack_from(front, _FRONT.size)[0] if profile.quantised else 0
    most = (unit or 1) * profile.weight_total
    if not 1 <= total <= most:
        raise _malformed(f"a weight total of {total}; 1 to {most} are possible")
    if not profile.quantised:
        return total, None
    try:
        scales = Scales.from_bytes(front[_FRONT.size + _SHARES.size :])
    except SecaggError as error:
        raise _malformed(error.message) from None
    return total, Shares(unit=unit, scales=scales)


def _malformed(message: str) -> CiphertextError:
    return CiphertextError(Code.AGGREGATE_MALFORMED, message)
