"""An aggregate artifact's bytes: front, summed ciphertexts of each block, visible values of each block."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.parameters import Profile
from secagg.ckks.vectors import CiphertextReader
from secagg.ckks.wire import AGGREGATE_HEADER_BYTES
from secagg.errors import CiphertextError, Code, SecaggError
from secagg.payload import StoredCiphertexts, read_exactly, read_floats
from secagg.scales import Scales
from secagg.selection.layout import FLOAT32_BYTES, Layout

AGGREGATE_VERSION = 3
_FRONT = struct.Struct("<BQBQQ")
_SHARES = struct.Struct("<Q")


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


def front_bytes(layout: Layout, profile: Profile) -> int:
    """Length of what precedes the blocks.

    Version byte, u64 round, u8 content (0 models, 1 differences), u64 round of the model that differences add
    to (0 for models), u64 weight total or divisor; under a quantising profile also the u64 count that stands
    for weight
    1, and one int8 per tensor: the scales.
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


def pack_front(round: int, since: int | None, total: int, shares: Shares | None) -> bytes:
    """What precedes the blocks.

    Args:
        round: whose aggregate it is.
        since: the round of the model that differences add to; None for the mean of models.
        total: weight total, or divisor of differences.
        shares: of a quantising profile.
    """
    front = _FRONT.pack(AGGREGATE_VERSION, round, since is not None, since or 0, total)
    return front if shares is None else front + _SHARES.pack(shares.unit) + shares.scales.to_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What precedes the blocks; ``since`` is None for models, ``shares`` unless the profile quantises."""

    total: int
    since: int | None
    shares: Shares | None


def check_front(front: bytes, size: int, round: int, layout: Layout, profile: Profile) -> Front:
    """The front of an artifact of ``size`` bytes.

    Raises:
        CiphertextError: AGGREGATE_MALFORMED.
    """
    if len(front) < front_bytes(layout, profile):
        raise malformed(f"an aggregate of {size} bytes is shorter than its header")
    version, found, content, since, total = _FRONT.unpack_from(front)
    if version != AGGREGATE_VERSION:
        raise malformed(f"aggregate version {version} is unknown; this build reads {AGGREGATE_VERSION}")
    if found != round:
        raise malformed(f"the aggregate of round {found}, not of round {round}")
    if content > 1 or (since >= round if content else since):
        raise malformed(f"content {content} that adds to the model of round {since}")
    if size != aggregate_bytes(layout, profile):
        raise malformed(
            f"an aggregate has {aggregate_bytes(layout, profile)} bytes under this plan, not {size}"
        )
    unit = _SHARES.unpack_from(front, _FRONT.size)[0] if profile.quantised else 0
    most = (unit or 1) * profile.weight_total
    if not 1 <= total <= most:
        raise malformed(f"a weight total of {total}; 1 to {most} are possible")
    shares = None
    if profile.quantised:
        try:
            shares = Shares(unit=unit, scales=Scales.from_bytes(front[_FRONT.size + _SHARES.size :]))
        except SecaggError as error:
            raise malformed(error.message) from None
    return Front(total=total, since=since if content else None, shares=shares)


def offsets(layout: Layout, profile: Profile) -> tuple[list[int], list[int]]:
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
        """The weight total or divisor. Raises as ``since``."""
        return self._front().total

    def since(self) -> int | None:
        """The round whose model it adds to; None if it is the mean of models.

        Raises:
            CiphertextError: AGGREGATE_MALFORMED for a front or a length that is not an aggregate's.
        """
        return self._front().since

    def _front(self) -> Front:
        size = self.path.stat().st_size
        front = read_exactly(self.path, 0, min(size, front_bytes(self.layout, self.profile)))
        return check_front(front, size, self.round, self.layout, self.profile)

    def ciphertexts(self, block: int) -> CiphertextReader:
        """Reads one block's aggregate ciphertexts by index; the bytes are not yet parsed."""
        return StoredCiphertexts(
            self.path,
            start=offsets(self.layout, self.profile)[0][block] + AGGREGATE_HEADER_BYTES,
            size=self.profile.aggregate_ciphertext_bytes,
            count=self.profile.ciphertext_count(self.layout.hidden_counts[block]),
        )

    def visible(self, block: int) -> Iterator[NDArray[np.float32]]:
        """One block's visible mean, in the same pieces as ``UpdateFile.visible``."""
        start = offsets(self.layout, self.profile)[1][block]
        return read_floats(self.path, start, self.layout.visible_counts[block])


def malformed(message: str) -> CiphertextError:
    """The refusal of an aggregate that is not what it should be."""
    return CiphertextError(Code.AGGREGATE_MALFORMED, message)
