"""How an update's flat vector is cut into blocks, and each block into a hidden and a visible part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.parameters import Profile
from secagg.errors import Code, UpdateError
from secagg.selection.mask import Mask
from secagg.update import Manifest

_Places = slice | NDArray[np.intp]
"""Where a part's entries lie: a slice if they are one run (8 bytes per entry saved), otherwise indices."""

REST_BLOCK = "rest"
STATISTICS_BLOCK = "statistics"
FLOAT32_BYTES = 4


class Layout:
    """The order in which the entries of an update travel.

    Blocks come in the order "rest" (every tensor that statistics do not name), then one block for each group
    of tensors whose inner products are released: "statistics", or "statistics-1", "statistics-2", …; an empty
    one is left out. Within a block, hidden entries keep the order of the flat vector, and so do visible ones.

    If anything at all is hidden and the groups are a part of the model only, they are hidden whole, whatever
    the mask says of them: the product with an earlier model is formed slot by slot, so their entries must
    keep their slots while the mask changes; and in a last layer the positions of hidden entries alone betray
    labels.

    Args:
        manifest: names and shapes of the update's tensors.
        mask: which entries are encrypted.
        statistics_blocks: the groups of tensors; empty if no inner product is released, or over all tensors
            at once.

    Raises:
        UpdateError: MASK_MISMATCH if the mask covers another number of entries; MANIFEST_MISMATCH for a
            tensor that the manifest lacks.
    """

    def __init__(
        self, manifest: Manifest, mask: Mask, statistics_blocks: Sequence[Sequence[str]] = ()
    ) -> None:
        if mask.size != manifest.size:
            raise UpdateError(
                Code.MASK_MISMATCH, f"mask covers {mask.size} entries; the manifest has {manifest.size}"
            )
        self.manifest = manifest
        self.mask = mask
        self.statistics_blocks = tuple(tuple(names) for names in statistics_blocks)
        rest, hidden = np.ones(manifest.size, dtype=np.bool_), mask.hidden
        for names in self.statistics_blocks:
            for name in names:
                rest[manifest.slice_of(name)] = False
        if mask.hidden_count and rest.any():
            hidden = hidden | ~rest
        parts = [(REST_BLOCK, rest)] if rest.any() else []
        cut = [
            (name, _places(member & hidden), _places(member & ~hidden))
            for name, member in chain(parts, self._named_members())
        ]
        self.blocks: tuple[str, ...] = tuple(name for name, _, _ in cut)
        """Names of the blocks, in their order."""
        self._hidden = tuple(places for _, places, _ in cut)
        self._visible = tuple(places for _, _, places in cut)

    def _named_members(self) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Name and entries of each group, one at a time: a large model may have many."""
        several = len(self.statistics_blocks) > 1
        for number, names in enumerate(self.statistics_blocks, start=1):
            member = np.zeros(self.manifest.size, dtype=np.bool_)
            for tensor in names:
                member[self.manifest.slice_of(tensor)] = True
            yield (f"{STATISTICS_BLOCK}-{number}" if several else STATISTICS_BLOCK), member

    @property
    def size(self) -> int:
        """d, how many entries an update has."""
        return self.manifest.size

    @property
    def hidden_counts(self) -> tuple[int, ...]:
        """Encrypted entries of each block."""
        return tuple(_count(places) for places in self._hidden)

    @property
    def visible_counts(self) -> tuple[int, ...]:
        """Entries of each block that travel in the clear."""
        return tuple(_count(places) for places in self._visible)

    @property
    def product_blocks(self) -> range:
        """Indices of the blocks that products run over: those of the groups if there are any, else all."""
        return range(len(self.blocks) - len(self.statistics_blocks or self.blocks), len(self.blocks))

    def same_slots(self, other: Layout, block: int) -> bool:
        """True if both layouts put the same entries at the same places of this block's hidden part."""
        mine, theirs = self._hidden[block], other._hidden[other.blocks.index(self.blocks[block])]
        if isinstance(mine, slice) or isinstance(theirs, slice):
            return mine == theirs if isinstance(mine, slice) and isinstance(theirs, slice) else False
        return np.array_equal(mine, theirs)

    def sealed_offsets(self, profile: Profile) -> tuple[int, ...]:
        """Where each block's sealed vector begins in a payload; one without has its successor's place."""
        starts, at = [], 0
        for count in self.hidden_counts:
            starts.append(at)
            at += profile.sealed_bytes(count)
        return tuple(starts)

    def visible_offsets(self, profile: Profile) -> tuple[int, ...]:
        """Where each block's visible values begin in a payload."""
        at = sum(profile.sealed_bytes(count) for count in self.hidden_counts)
        starts = []
        for count in self.visible_counts:
            starts.append(at)
            at += FLOAT32_BYTES * count
        return tuple(starts)

    def payload_bytes(self, profile: Profile) -> int:
        """Exact length of an update's payload: all blocks' sealed vectors, then all float32 values."""
        sealed = sum(profile.sealed_bytes(count) for count in self.hidden_counts)
        return sealed + FLOAT32_BYTES * sum(self.visible_counts)

    def hidden_of(self, flat: NDArray[np.float32], block: int) -> NDArray[np.float32]:
        """The hidden entries of one block; a view where they are one run, so not to be written to."""
        return flat[self._hidden[block]]

    def visible_of(self, flat: NDArray[np.float32], block: int) -> NDArray[np.float32]:
        """The visible entries of one block; a view where they are one run, so not to be written to."""
        return flat[self._visible[block]]

    def hidden_places(self, block: int) -> slice | NDArray[np.intp]:
        """Where one block's hidden entries lie in the flat vector: one run, or indices in ascending order."""
        return self._hidden[block]

    def visible_places(self, block: int) -> slice | NDArray[np.intp]:
        """Where one block's visible entries lie in the flat vector, as ``hidden_places``."""
        return self._visible[block]

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """Which entries travel encrypted, bool [d]: the mask's, and those of blocks that are hidden whole."""
        hidden = np.zeros(self.size, dtype=np.bool_)
        for places in self._hidden:
            hidden[places] = True
        return hidden

    def hidden_runs(self, block: int) -> list[tuple[int, int]]:
        """Index of a tensor and how many of its entries one block hides, in the order of the hidden part."""
        places = self._hidden[block]
        ends = np.cumsum([spec.size for spec in self.manifest.tensors])
        if isinstance(places, slice):
            bounds = np.clip(ends, places.start, places.stop) - places.start
        else:
            bounds = np.searchsorted(places, ends)
        counts = np.diff(bounds, prepend=0)
        return [(tensor, int(count)) for tensor, count in enumerate(counts) if count]

    def split(self, flat: NDArray[np.float32]) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """Hidden and visible entries of every block.

        Args:
            flat: float32 [d].

        Raises:
            UpdateError: UPDATE_SHAPE for another length.
        """
        if flat.shape != (self.size,):
            raise UpdateError(
                Code.UPDATE_SHAPE,
                f"the flat vector has shape {flat.shape}; the manifest asks for ({self.size},)",
            )
        blocks = range(len(self.blocks))
        return [self.hidden_of(flat, b) for b in blocks], [self.visible_of(flat, b) for b in blocks]

    def join(
        self, hidden: Sequence[NDArray[np.floating]], visible: Sequence[NDArray[np.floating]]
    ) -> NDArray[np.float64]:
        """Inverse of ``split``: float64 [d].

        Raises:
            UpdateError: UPDATE_SHAPE if a part has another length than its block's.
        """
        flat = np.empty(self.size, dtype=np.float64)
        for parts, places in ((hidden, self._hidden), (visible, self._visible)):
            if [part.size for part in parts] != [_count(place) for place in places]:
                raise UpdateError(
                    Code.UPDATE_SHAPE,
                    f"parts have {[part.size for part in parts]} entries; "
                    f"the layout asks for {[_count(place) for place in places]}",
                )
            for part, place in zip(parts, places, strict=True):
                flat[place] = part
        return flat


def _places(members: NDArray[np.bool_]) -> _Places:
    """A slice for one run or none, indices otherwise: equal sets of entries give equal places."""
    count = int(np.count_nonzero(members))
    first = int(members.argmax())
    if members[first : first + count].all():
        return slice(first, first + count) if count else slice(0, 0)
    return np.flatnonzero(members)


def _count(places: _Places) -> int:
    return places.stop - places.start if isinstance(places, slice) else places.size
