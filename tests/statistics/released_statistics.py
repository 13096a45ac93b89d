"""Statistics artifacts made of spooled updates as the server's workers make them, and what they must open
to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secagg.aggregate import Additions, AggregateFile, WeightedUpdates, write_aggregate
from secagg.ckks import KeyPair, Opener, Sealer, generate, profile
from secagg.ckks.bounds import product_error_bound
from secagg.payload import UpdateFile, seal_update
from secagg.plan import Protection, Significance
from secagg.rule import Stage, Statistics, StatisticsRequest
from secagg.selection import Layout, derive_mask
from secagg.statistics.form import Front, Quantity, drawn_of
from secagg.statistics.opening import Expectation, open_statistics
from secagg.statistics.release import (
    Reference,
    Rows,
    assemble_statistics,
    pair_products,
    release_tile,
    release_update,
)
from secagg.update import Manifest, TensorSpec

Vector = NDArray[np.float32]

MANIFEST = Manifest(
    tensors=(
        TensorSpec(name="first", shape=(70, 70)),
        TensorSpec(name="bias", shape=(70,)),
        TensorSpec(name="last", shape=(10, 70)),
    )
)
MODES = {
    "plain": Protection.plain(),
    "full": Protection.full(),
    "selective": Protection.selective(significance=Significance.RANDOM, ratio=0.2),
    "layers": Protection.selective(significance=Significance.LAYERS, layers=("first",)),
}
PROFILE = profile("robust")
SEED = bytes(range(32))
ROUND = 4


@cache
def pair() -> KeyPair:
    """One key pair for all tests."""
    return generate(PROFILE)


def layout_of(
    mode: str, blocks: Sequence[Sequence[str]] = (), round: int = 1, manifest: Manifest = MANIFEST
) -> Layout:
    """The layout of one protection mode in one round."""
    return Layout(manifest, derive_mask(MODES[mode], manifest, bytes(16), round), blocks)


def vector_of(seed: int, size: int = MANIFEST.size, deviation: float = 0.1) -> Vector:
    """Normal values around 0."""
    return np.random.default_rng(seed).normal(0, deviation, size).astype(np.float32)


def spooled(folder: Path, layout: Layout, flat: Vector) -> UpdateFile:
    """A sealed update on disk."""
    path = folder / f"update-{len(list(folder.iterdir()))}"
    path.write_bytes(b"".join(seal_update(flat, layout, Sealer(pair().secret))))
    return UpdateFile(path=path, layout=layout, profile=PROFILE)


def summed(
    folder: Path,
    updates: Sequence[UpdateFile],
    weights: Sequence[int],
    *,
    round: int = 1,
    additions: Additions | None = None,
) -> AggregateFile:
    """An aggregate on disk."""
    out, layout = folder / f"aggregate-{len(list(folder.iterdir()))}", updates[0].layout
    write_aggregate(
        out,
        WeightedUpdates(
            round=round,
            paths=tuple(update.path for update in updates),
            weights=tuple(weights),
            layout=layout,
            profile=PROFILE,
            additions=additions,
        ),
    )
    return AggregateFile(path=out, round=round, layout=layout, profile=PROFILE)


class CountingOpener(Opener):
    """Opens, and counts how often."""

    opened = 0

    def open_scalar(self, data: bytes | memoryview) -> float:
        self.opened += 1
        return super().open_scalar(data)


def opener() -> CountingOpener:
    """What holds the secret key."""
    return CountingOpener(pair().secret)


@dataclass(kw_only=True)
class Release:
    """A stage of a round whose updates are in, with what its rule asks for."""

    updates: Sequence[UpdateFile]
    request: StatisticsRequest
    stage: Stage = Stage.STATISTICS
    references: Sequence[Reference] = ()
    known: Sequence[Vector] = ()
    """The references as clients hold them."""
    histories: Sequence[AggregateFile] = ()
    root: int | None = None
    dropped: int = 0
    same_models: bool = False
    seed: bytes = SEED
    parts: int = 1
    changes: dict[str, object] = field(default_factory=dict)
    """Of the front."""

    @property
    def layout(self) -> Layout:
        return self.updates[0].layout

    @property
    def front(self) -> Front:
        """What precedes the entries."""
        quantities = Quantity.of(self.request, self.stage, same_models=self.same_models)
        sampled = bool(quantities & (Quantity.PAIR | Quantity.ROOT))
        values: dict[str, object] = {
            "round": ROUND,
            "stage": self.stage,
            "update_ids": tuple(bytes([index + 1]) * 16 for index in range(len(self.updates))),
            "sample_counts": tuple(10 + index for index in range(len(self.updates))),
            "root": self.root,
            "dropped": self.dropped,
            "quantities": quantities,
            "seed": self.seed,
            "drawn": drawn_of(self.layout, PROFILE, self.request.sample if sampled else 1.0),
        }
        return Front(**(values | self.changes))  # type: ignore[arg-type]

    def pieces(self) -> list[bytes]:
        """What workers release: updates from the last to the first, then each tile in parts from the last."""
        front, public = self.front, pair().public
        singles = [
            release_update(
                update,
                quantities=front.quantities,
                references=self.references,
                seed=front.seed,
                public_key=public,
            )
            for update in reversed(self.updates)
        ]
        return singles[::-1] + [
            self.tile(front, quantity, tile)
            for quantity in front.quantities
            if quantity > Quantity.WITNESS
            for tile in front.tiles(quantity)
        ]

    def tile(self, front: Front, quantity: Quantity, tile: list[tuple[int, int]]) -> bytes:
        """A tile's entries, made in so many parts."""
        rows = Rows(files=tuple(self.histories if quantity is Quantity.HISTORY else self.updates))
        hidden = [
            [
                pair_products(rows, tile, front, block, part, self.parts)
                for part in reversed(range(self.parts))
            ]
            if self.layout.hidden_counts[block]
            else []
            for block in self.layout.product_blocks
        ]
        return release_tile(rows, tile, hidden, front, pair().public)

    def artifact(self, folder: Path) -> bytes:
        """The bytes that clients get."""
        out = folder / "statistics"
        assemble_statistics(out, self.front, self.pieces())
        data = out.read_bytes()
        out.unlink()
        return data

    def expectation(self, **changes: object) -> Expectation:
        """What an honest client expects."""
        values: dict[str, object] = {
            "round": ROUND,
            "stage": self.stage,
            "layout": self.layout,
            "profile": PROFILE,
            "request": self.request,
            "min_updates": len(self.updates) + self.dropped,
            "references": self.known,
            "same_models": self.same_models,
        }
        return Expectation(**(values | changes))  # type: ignore[arg-type]

    def opened(self, folder: Path) -> Statistics:
        """What it opens to."""
        return open_statistics(self.artifact(folder), self.expectation(), opener())


def members(layout: Layout) -> list[NDArray[np.bool_]]:
    """The entries of each block that products run over."""
    manifest, found = layout.manifest, []
    for names in layout.statistics_blocks or ([spec.name for spec in manifest.tensors],):
        chosen = np.zeros(manifest.size, dtype=np.bool_)
        for name in names:
            chosen[manifest.slice_of(name)] = True
        found.append(chosen)
    return found


def bound_of(
    left: Vector | NDArray[np.float64], right: Vector | NDArray[np.float64], layout: Layout
) -> float:
    """What theory allows for one entry of one block; sums over blocks and references are bounded term by
    term.
    """
    one, other = float(np.linalg.norm(left)), float(np.linalg.norm(right))
    # Visible products are formed in float64, and a visible mean is rounded to float32 before it is compared
    # with.
    bound = 2.0**-23 * one * other + 1e-12
    if any(layout.hidden_counts):
        bound += product_error_bound(PROFILE, one, other, layout.size)
    return bound


def check_entries(
    statistics: Statistics,
    layout: Layout,
    rows: Sequence[Vector | NDArray[np.float64]],
    due: Callable[[int, int], bool],
    *,
    terms: int = 1,
) -> None:
    """Entries (i, j) that are due are right within the bound, block by block; every other one is NaN.

    Args:
        rows: the n updates, g and g'.
        terms: an entry consists of at most so many released scalars, each within the bound.
    """
    assert statistics.blocks.shape == (len(members(layout)), len(rows), len(rows))
    for place, chosen in enumerate(members(layout)):
        block = statistics.blocks[place]
        assert np.array_equal(block, block.T, equal_nan=True)
        for i, left in enumerate(rows):
            for j, right in enumerate(rows[: i + 1]):
                if not due(i, j):
                    assert np.isnan(block[i, j]), (place, i, j)
                    continue
                exact = float(left[chosen].astype(np.float64) @ right[chosen].astype(np.float64))
                assert abs(block[i, j] - exact) <= terms * bound_of(left[chosen], right[chosen], layout), (
                    i,
                    j,
                )
