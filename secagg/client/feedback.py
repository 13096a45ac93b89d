"""Error feedback on disk: what rounding has left over of a client's updates, for the next one."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secagg.selection.layout import FLOAT32_BYTES, Layout
from secagg.update import Manifest

FEEDBACK_VERSION = 1
_FRONT_BYTES = 64
_AT_ONCE = 2**18

MAX_LEFT_OVER = 2.0**20
"""No value that may be sealed leaves more over; a file that says so is damaged."""


class ErrorFeedback:
    """Two files in a client's state folder: what is left over for certain, and what the update under way
    leaves.

    The second becomes part of the first once the update is in an aggregate, and is forgotten otherwise. A
    lost or torn file costs precision, never correctness.

    Args:
        folder: the client's state folder.
    """

    def __init__(self, folder: Path) -> None:
        self._settled = folder / "carry"
        self._pending = folder / "carry.pending"

    def begin(self, layout: Layout) -> Callable[[int], BlockCarry]:
        """The feedback of each block for an update that is about to be sealed; an earlier pending one is
        dropped.
        """
        values = sum(layout.hidden_counts)
        descriptor = os.open(self._pending, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, FLOAT32_BYTES * values)
        finally:
            os.close(descriptor)
        settled = self._settled if self._belongs(layout.manifest) else None

        def block_carry(block: int) -> BlockCarry:
            before = sum(layout.hidden_counts[:block])
            return BlockCarry(settled, self._pending, layout.hidden_places(block), before)

        return block_carry

    def settle(self, layout: Layout) -> None:
        """The update that ``begin`` was called for is in an aggregate: what it left over is left over for
        certain.
        """
        hidden = sum(layout.hidden_counts)
        try:
            whole = self._pending.stat().st_size == FLOAT32_BYTES * hidden
        except FileNotFoundError:
            return
        if whole and hidden:
            self._make(layout.manifest)
            settled, forget_settled = _mapped(self._settled, _FRONT_BYTES, write=True)
            pending, forget_pending = _mapped(self._pending, 0)
            before = 0
            for block, count in enumerate(layout.hidden_counts):
                places = layout.hidden_places(block)
                for start in range(0, count, _AT_ONCE):
                    stop = min(start + _AT_ONCE, count)
                    settled[_part(places, start, stop)] = pending[before + start : before + stop]
                    forget_settled()
                    forget_pending()
                before += count
        self._pending.unlink()

    def forget(self) -> None:
        """What was left over went into an aggregate that this client has not opened: none of it is still
        owed.

        What that update left over in turn is lost: precision, no more.
        """
        self._settled.unlink(missing_ok=True)
        self._pending.unlink(missing_ok=True)

    def _belongs(self, manifest: Manifest) -> bool:
        try:
            with self._settled.open("rb") as file:
                front, size = file.read(_FRONT_BYTES), os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return False
        return front == _front(manifest) and size == _FRONT_BYTES + FLOAT32_BYTES * manifest.size

    def _make(self, manifest: Manifest) -> None:
        """A file of zeros, unless there is one for this manifest."""
        if self._belongs(manifest):
            return
        descriptor = os.open(self._settled, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_front(manifest))
            file.truncate(_FRONT_BYTES + FLOAT32_BYTES * manifest.size)


@dataclass(frozen=True, slots=True)
class BlockCarry:
    """``Carry`` of one block's hidden values.

    Args:
        settled: the file of what is left over for certain, by flat position; None for nothing yet.
        pending: the file of what the update under way leaves, in the order of the hidden values.
        places: where the block's hidden values lie in the flat vector.
        before: hidden values of earlier blocks.
    """

    settled: Path | None
    pending: Path
    places: slice | NDArray[np.intp]
    before: int

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """As ``Carry.read``."""
        if self.settled is None:
            return np.zeros(stop - start, dtype=np.float32)
        settled, forget = _mapped(self.settled, _FRONT_BYTES)
        taken = settled[_part(self.places, start, stop)].copy()
        forget()
        # A damaged disk's values would otherwise reach the sum, and come back for ever.
        return np.nan_to_num(np.clip(taken, -MAX_LEFT_OVER, MAX_LEFT_OVER), copy=False, nan=0.0)

    def write(self, start: int, left_over: NDArray[np.float32]) -> None:
        """As ``Carry.write``."""
        descriptor = os.open(self.pending, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, left_over.astype("<f4").tobytes(), FLOAT32_BYTES * (self.before + start))
        finally:
            os.close(descriptor)


def _part(places: slice | NDArray[np.intp], start: int, stop: int) -> slice | NDArray[np.intp]:
    if isinstance(places, slice):
        return slice(places.start + start, places.start + stop)
    return places[start:stop]


def _mapped(
    path: Path, offset: int, *, write: bool = False
) -> tuple[NDArray[np.float32], Callable[[], None]]:
    """A file's float32 values in place, and a call that gives the pages in memory back to the system."""
    with path.open("r+b" if write else "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)
    # It is closed with its last view.
    return np.frombuffer(mapped, dtype="<f4", offset=offset), lambda: mapped.madvise(mmap.MADV_DONTNEED)


def _front(manifest: Manifest) -> bytes:
    return (bytes((FEEDBACK_VERSION,)) + manifest.digest).ljust(_FRONT_BYTES, b"\0")
