"""What the aggregator releases of a round's updates, computed on the ciphertexts that are later summed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.aggregate import AggregateFile, appearing
from secagg.ckks.context import CoefficientRing, ring_of
from secagg.ckks.keys import PublicKey
from secagg.ckks.parameters import Profile
from secagg.ckks.products import (
    AggregateOperand,
    Operand,
    PlainOperand,
    ProductSum,
    SealedOperand,
    inner_products,
    product_sums,
)
from secagg.ckks.wire import parse_sealed
from secagg.errors import Code, ConfigError
from secagg.payload import VISIBLE_AT_ONCE, UpdateFile
from secagg.selection.layout import Layout
from secagg.statistics.draws import WITNESSES, sample, witnesses
from secagg.statistics.form import Entry, Front, Pair, Quantity, pairs_in

WITNESS_CIPHERTEXTS = 128
"""For so many ciphertexts of a vector a process keeps the witnesses from one update to the next (32 MiB)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An earlier model that updates are compared with: everybody's initial one, an aggregate, or their sum.

    Args:
        plain: float32 [d]; None if the aggregate is the model.
        aggregate: an earlier round's; None if the initial model is the one.
    """

    plain: NDArray[np.float32] | None = None
    aggregate: AggregateFile | None = None


def release_update(
    update: UpdateFile,
    *,
    quantities: Quantity,
    references: Sequence[Reference],
    seed: bytes,
    public_key: PublicKey | None,
) -> bytes:
    """One update's own entries, block after block, then its witnesses; updates may be worked on apart.

    Args:
        update: the spooled payload, checked before (``UpdateFile.check``).
        quantities: those of the artifact; only ``Quantity.single`` matter here.
        references: g and g', as far as they are asked for.
        seed: of the artifact.
        public_key: the federation's; None if nothing is hidden.

    Raises:
        ConfigError: RULE_UNSUPPORTED if the profile has no inner products, or a reference's hidden entries
            lie in other slots than the update's.
        CiphertextError, ServerError: if a spooled file is no longer what it was.
    """
    blocks = update.layout.product_blocks
    entries = [
        entry for block in blocks for entry in _single(update, block, quantities, references, public_key)
    ]
    if quantities & Quantity.WITNESS:
        entries += _witnessed(update, seed, public_key)
    return b"".join(entry.to_bytes() for entry in entries)


def _single(
    update: UpdateFile,
    block: int,
    quantities: Quantity,
    references: Sequence[Reference],
    public_key: PublicKey | None,
) -> list[Entry]:
    count = update.layout.hidden_counts[block]
    operands: list[Operand] = [SealedOperand(reader=update.ciphertexts(block))]
    visible: list[float] = []
    places: list[list[int]] = []  # of each entry, the operands that the update is multiplied with
    for quantity in quantities.single:
        if quantity is Quantity.NORM:
            places.append([0])
            visible.append(_visible_dot(update.visible(block), update.visible(block)))
            continue
        others, dot = _against(references[0 if quantity is Quantity.BASE else 1], update, block)
        visible.append(dot)
        places.append(list(range(len(operands), len(operands) + len(others))))
        operands += others
    if not count:
        return [Entry(visible=value, scalars=()) for value in visible]
    pairs = [(0, place) for entry in places for place in entry]
    scalars = iter(inner_products(operands, pairs, count, _required(public_key)))
    return [
        Entry(visible=value, scalars=tuple(next(scalars) for _ in entry))
        for value, entry in zip(visible, places, strict=True)
    ]


def _witnessed(update: UpdateFile, seed: bytes, public_key: PublicKey | None) -> list[Entry]:
    """The update's products with each witness, over all that it hides."""
    layout, profile = update.layout, update.profile
    hiding = [block for block in layout.product_blocks if layout.hidden_counts[block]]
    if not hiding:
        return [Entry(visible=0.0, scalars=())] * WITNESSES
    ring = ring_of(profile)
    assert isinstance(ring, CoefficientRing)
    sums: list[Any] = [None] * WITNESSES
    for block in hiding:
        reader = update.ciphertexts(block)
        for index in range(profile.ciphertext_count(layout.hidden_counts[block])):
            parsed = parse_sealed(reader(index), profile)
            item = ring.to_ntt(ring.expand(parsed.polynomial, parsed.seed))
            for place, factor in enumerate(_witness_factors(seed, block, index, ring)):
                sums[place] = ring.add(sums[place], ring.multiply(item, factor))
    released = []
    for item in sums:
        body, mask = ring.polynomials(ring.from_ntt(item))
        whole = ProductSum(weight_total=1, constant=int(body[0]), masks=mask[None, :])
        released.append(Entry(visible=0.0, scalars=(whole.release(_required(public_key)),)))
    return released


@lru_cache(maxsize=WITNESS_CIPHERTEXTS)
def _witness_factors(seed: bytes, block: int, index: int, ring: CoefficientRing) -> tuple[Any, ...]:
    """Plaintexts σz of all witnesses, for one ciphertext of any update; entries as they are, not scaled."""
    z = witnesses(seed, block, index, ring.poly_degree).astype(np.int64)
    # σ: the constant coefficient stays, and coefficient k comes from N − k with its sign changed.
    conjugated = np.concatenate((z[:, :1], -z[:, :0:-1]), axis=1)
    return tuple(ring.plaintext(item) for item in ring.transform(ring.reduce(conjugated), to_ntt=True))


def _against(reference: Reference, update: UpdateFile, block: int) -> tuple[list[Operand], float]:
    """The reference's hidden part as operands, and the visible part's product with the update's."""
    layout, dot = update.layout, 0.0
    operands: list[Operand] = []
    hides = layout.hidden_counts[block] > 0
    if reference.plain is not None:
        if hides:
            operands.append(PlainOperand(values=layout.hidden_of(reference.plain, block)))
        dot += _visible_dot(update.visible(block), _pieces(layout.visible_of(reference.plain, block)))
    file = reference.aggregate
    if file is not None:
        if not layout.same_slots(file.layout, block):
            raise ConfigError(
                Code.RULE_UNSUPPORTED,
                "the previous aggregate hides other entries than this round's mask, so products over all "
                "tensors can't be formed; use protect = full, significance = layers, or a rule that names "
                "its tensors",
            )
        theirs = file.layout.blocks.index(layout.blocks[block])
        total = file.weight_total()
        if hides:
            operands.append(AggregateOperand(reader=file.ciphertexts(theirs), weight_total=total))
        dot += _visible_dot(update.visible(block), file.visible(theirs))
    return operands, dot


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What pairs are formed of: the round's updates, or each client's summed ones.

    Args:
        files: of update i; all with one layout and profile.
    """

    files: tuple[UpdateFile, ...] | tuple[AggregateFile, ...]

    @property
    def layout(self) -> Layout:
        """The files'."""
        return self.files[0].layout

    @property
    def profile(self) -> Profile:
        """The files'."""
        return self.files[0].profile

    def operand(self, row: int, block: int) -> Operand:
        """One row's hidden part of a block."""
        file = self.files[row]
        if isinstance(file, UpdateFile):
            return SealedOperand(reader=file.ciphertexts(block))
        return AggregateOperand(reader=file.ciphertexts(block), weight_total=file.weight_total())

    def pairs(self, tile: Sequence[Pair], front: Front, block: int) -> list[Pair]:
        """Those pairs of a tile that a block releases."""
        count = self.profile.ciphertext_count(self.layout.hidden_counts[block])
        return pairs_in(
            tile,
            summed=isinstance(self.files[0], AggregateFile),
            sampled=front.drawn[block - self.layout.product_blocks.start] < count,
        )


def pair_products(
    rows: Rows, tile: Sequence[Pair], front: Front, block: int, part: int, parts: int
) -> list[ProductSum]:
    """The hidden part of a tile's products over one of several equal parts of a block's drawn ciphertexts.

    One ciphertext of each of a tile's rows and four polynomials per pair are held, however long the vectors.

    Args:
        tile: pairs of rows, from ``Front.tiles``.
        front: of the artifact: says which ciphertexts were drawn.
        block: a product block that hides something.
    """
    count = rows.profile.ciphertext_count(rows.layout.hidden_counts[block])
    drawn = sample(front.seed, block, count, front.drawn[block - rows.layout.product_blocks.start])
    mine = drawn[part * len(drawn) // parts : (part + 1) * len(drawn) // parts]
    pairs = rows.pairs(tile, front, block)
    used = sorted({row for pair in pairs for row in pair})
    place = {row: at for at, row in enumerate(used)}
    return product_sums(
        [rows.operand(row, block) for row in used],
        [(place[left], place[right]) for left, right in pairs],
        rows.layout.hidden_counts[block],
        rows.profile,
        ciphertexts=mine,
    )


def release_tile(
    rows: Rows,
    tile: Sequence[Pair],
    hidden: Iterable[Sequence[Sequence[ProductSum]]],
    front: Front,
    public_key: PublicKey | None,
) -> bytes:
    """A tile's entries, block after block.

    Args:
        front: of the artifact.
        hidden: for each product block, ``pair_products`` of each part; no part where the block hides nothing.
    """
    entries = []
    for block, parts in zip(rows.layout.product_blocks, hidden, strict=True):
        pairs = rows.pairs(tile, front, block)
        scalars: list[tuple[bytes, ...]] = [() for _ in pairs]
        for place, sums in enumerate(zip(*parts, strict=True)):
            whole = sums[0]
            for other in sums[1:]:
                whole = whole.plus(other, rows.profile)
            scalars[place] = (whole.release(_required(public_key)),)
        visible = _visible_products(rows, pairs, block)
        entries += [
            Entry(visible=float(value), scalars=scalar)
            for value, scalar in zip(visible, scalars, strict=True)
        ]
    return b"".join(entry.to_bytes() for entry in entries)


def assemble_statistics(out: Path, front: Front, released: Iterable[bytes]) -> None:
    """Write the artifact: the front, then what was released, in the order of updates and then of tiles.

    Args:
        out: it appears whole or not at all.
    """
    with appearing(out) as file:
        file.write(front.to_bytes())
        for entries in released:
            file.write(entries)


def _visible_products(rows: Rows, tile: Sequence[Pair], block: int) -> NDArray[np.float64]:
    """The visible part of a tile's products, a piece of each row at a time."""
    if not tile:
        return np.zeros(0)
    used = sorted({row for pair in tile for row in pair})
    place = {row: at for at, row in enumerate(used)}
    gram = np.zeros((len(used), len(used)))
    for pieces in zip(*(rows.files[row].visible(block) for row in used), strict=True):
        matrix = np.stack(pieces).astype(np.float64)
        gram += matrix @ matrix.T
    return np.array([gram[place[left], place[right]] for left, right in tile])


def _visible_dot(left: Iterator[NDArray[np.float32]], right: Iterator[NDArray[np.float32]]) -> float:
    return sum(float(a.astype(np.float64) @ b.astype(np.float64)) for a, b in zip(left, right, strict=True))


def _pieces(values: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, values.size, VISIBLE_AT_ONCE):
        yield values[start : start + VISIBLE_AT_ONCE]


def _required(public_key: PublicKey | None) -> PublicKey:
    if public_key is None:
        raise ValueError("a layout that hides entries needs the public key")
    return public_key
