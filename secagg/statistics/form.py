"""The statistics artifact: what it says of itself, and which entries follow in which order."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntFlag

from secagg.ckks.parameters import HEADER_BYTES, Profile
from secagg.ckks.wire import ScalarKind, scalar_bytes
from secagg.errors import CiphertextError, Code
from secagg.rule import Stage, StatisticsRequest
from secagg.selection.layout import Layout

STATISTICS_VERSION = 2
UPDATE_ID_BYTES = 16
SEED_BYTES = 32
MAX_UPDATES = 2**16
PAIRS_AT_ONCE = 16
"""Pairs are released in squares of so many rows and columns, in the order of the squares."""
NOBODY = 2**32 - 1

_FRONT = struct.Struct("<BBQI")
_TERMS = struct.Struct("<IIB32sB")
_COUNT = struct.Struct("<Q")
_DRAWN = struct.Struct("<I")
_VISIBLE = struct.Struct("<d")

Pair = tuple[int, int]


class Quantity(IntFlag):
    """What is released, in the order of the bits; the first four of each update, the others of pairs.

    Of an update the first three are released for each block, then all witnesses over all blocks together.
    """

    NORM = 1
    """⟨u_i, u_i⟩."""
    BASE = 2
    """⟨u_i, g⟩."""
    EARLIER = 4
    """⟨u_i, g'⟩, g' being the model before g."""
    WITNESS = 8
    """⟨u_i, z⟩ with ``draws.WITNESSES`` random vectors z, each over all that is hidden."""
    PAIR = 16
    """⟨u_i, u_j⟩ of all pairs."""
    ROOT = 32
    """⟨u_i, u_r⟩ with the root client's update u_r."""
    HISTORY = 64
    """⟨h_i, h_j⟩ of summed updates h, and their squared norms."""

    @classmethod
    def of(cls, request: StatisticsRequest, stage: Stage, *, same_models: bool = False) -> Quantity:
        """What a rule's request asks for in this stage of a round.

        Args:
            same_models: g' is g: one product serves for both, and no number is released twice.
        """
        # Reference forms take models, and have no gates that would look at witnesses.
        single = cls.NORM if request.models else cls.NORM | cls.WITNESS
        if request.references >= 1:
            single |= cls.BASE
        if request.references >= 2 and not same_models:
            single |= cls.EARLIER
        several = cls(0)
        for wanted, quantity in (
            (request.pairs, cls.PAIR),
            (request.root and not request.pairs, cls.ROOT),
            (request.history, cls.HISTORY),
        ):
            several |= quantity if wanted else cls(0)
        if not request.screened:
            return single | several
        return single if stage is Stage.SCREENING else several

    @property
    def single(self) -> list[Quantity]:
        """Those of one update in one block."""
        return [item for item in self if item < Quantity.WITNESS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What precedes the entries of a statistics artifact.

    Args:
        round: whose statistics they are.
        stage: of the round.
        update_ids: n distinct ids of 16 bytes, in the order of the rows.
        sample_counts: n counts, after the plan's cap.
        root: which of them is the root client's; None if none is.
        dropped: how many updates were screened out before.
        quantities: what is released, at least one.
        seed: 32 bytes from which witnesses and samples are drawn, made when all updates were in.
        drawn: of each block that products run over, how many of its ciphertexts pairs run over.
    """

    round: int
    stage: Stage
    update_ids: tuple[bytes, ...]
    sample_counts: tuple[int, ...]
    root: int | None
    dropped: int
    quantities: Quantity
    seed: bytes
    drawn: tuple[int, ...]

    def __post_init__(self) -> None:
        ids, size = self.update_ids, len(self.update_ids)
        if (
            not 1 <= size <= MAX_UPDATES
            or len(set(ids)) != size
            or {len(i) for i in ids} != {UPDATE_ID_BYTES}
        ):
            raise ValueError(
                f"{size} updates; there must be 1 to {MAX_UPDATES} with distinct ids of 16 bytes"
            )
        if len(self.sample_counts) != size or len(self.seed) != SEED_BYTES or not self.quantities:
            raise ValueError("one count per update, a seed of 32 bytes and at least one quantity are needed")
        if self.root is not None and not 0 <= self.root < size:
            raise ValueError(f"root is {self.root}; there are {size} updates")

    def to_bytes(self) -> bytes:
        """Version u8, stage u8, round u64, n u32, n ids, n counts u64, root u32 (2^32 − 1: none), dropped
        u32, quantities u8, seed, number of blocks u8, drawn u32 of each block."""
        root = NOBODY if self.root is None else self.root
        return b"".join(
            (
                _FRONT.pack(STATISTICS_VERSION, self.stage, self.round, len(self.update_ids)),
                *self.update_ids,
                *(_COUNT.pack(count) for count in self.sample_counts),
                _TERMS.pack(root, self.dropped, self.quantities, self.seed, len(self.drawn)),
                *(_DRAWN.pack(count) for count in self.drawn),
            )
        )

    @classmethod
    def read(cls, reader: Reader) -> Front:
        """Inverse of ``to_bytes``.

        Raises:
            CiphertextError: STATISTICS_MALFORMED.
        """
        version, stage, round, size = _FRONT.unpack(reader.take(_FRONT.size))
        if version != STATISTICS_VERSION:
            raise malformed(f"statistics version {version} is unknown; this build reads {STATISTICS_VERSION}")
        if stage not in (Stage.SCREENING, Stage.STATISTICS):
            raise malformed(f"statistics of unknown stage {stage}")
        if not 1 <= size <= MAX_UPDATES:
            raise malformed(f"statistics of {size} updates; 1 to {MAX_UPDATES} are possible")
        ids = tuple(bytes(reader.take(UPDATE_ID_BYTES)) for _ in range(size))
        counts = tuple(_COUNT.unpack(reader.take(_COUNT.size))[0] for _ in range(size))
        root, dropped, quantities, seed, blocks = _TERMS.unpack(reader.take(_TERMS.size))
        drawn = tuple(_DRAWN.unpack(reader.take(_DRAWN.size))[0] for _ in range(blocks))
        if not 1 <= quantities <= sum(Quantity):
            raise malformed(f"unknown quantities {quantities:#x}")
        if not all(1 <= count < 2**63 for count in counts) or dropped >= MAX_UPDATES:
            raise malformed("impossible sample counts, or more dropped updates than there can be")
        try:
            return cls(
                round=round,
                stage=Stage(stage),
                update_ids=ids,
                sample_counts=counts,
                root=None if root == NOBODY else root,
                dropped=dropped,
                quantities=Quantity(quantities),
                seed=seed,
                drawn=drawn,
            )
        except ValueError as error:
            raise malformed(str(error)) from None

    def tiles(self, quantity: Quantity) -> Iterator[list[Pair]]:
        """The pairs of rows of a quantity, in the order in which they follow, a square at a time.

        Of ``Quantity.PAIR`` not every block releases all of them: see ``pairs_in``.
        """
        size = len(self.update_ids)
        if quantity is Quantity.ROOT:
            others = [i for i in range(size) if i != self.root]
            for at in range(0, len(others), PAIRS_AT_ONCE**2):
                yield [(i, self.root or 0) for i in others[at : at + PAIRS_AT_ONCE**2]]
            return
        for top in range(0, size, PAIRS_AT_ONCE):
            for left in range(top, size, PAIRS_AT_ONCE):
                rows = range(top, min(top + PAIRS_AT_ONCE, size))
                columns = range(left, min(left + PAIRS_AT_ONCE, size))
                yield [(row, column) for row in rows for column in columns if column >= row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One number in parts: what is visible of it, and released scalars of what is hidden, which are added."""

    visible: float
    scalars: tuple[bytes | memoryview, ...]

    def to_bytes(self) -> bytes:
        """The visible part as float64, number of scalars u8, each as kind u8 and its bytes."""
        parts = [_VISIBLE.pack(self.visible), bytes((len(self.scalars),))]
        for scalar in self.scalars:
            parts += [bytes((kind_of(scalar),)), bytes(scalar)]
        return b"".join(parts)

    @classmethod
    def read(cls, reader: Reader, possible: tuple[tuple[ScalarKind, ...], ...], profile: Profile) -> Entry:
        """Inverse of ``to_bytes``.

        Args:
            possible: the kinds of scalars it may consist of.

        Raises:
            CiphertextError: STATISTICS_MALFORMED.
        """
        (visible,) = _VISIBLE.unpack(reader.take(_VISIBLE.size))
        if not -float("inf") < visible < float("inf"):
            raise malformed("a visible part that is not finite")
        kinds, scalars = [], []
        for _ in range(reader.take(1)[0]):
            kind = reader.take(1)[0]
            if kind not in (ScalarKind.LINEAR, ScalarKind.BILINEAR):
                raise malformed(f"a released scalar of kind {kind}")
            kinds.append(ScalarKind(kind))
            scalars.append(reader.take(scalar_bytes(ScalarKind(kind), profile)))
        if tuple(kinds) not in possible:
            raise malformed(f"an entry of scalars {kinds} where {possible} are possible")
        return cls(visible=visible, scalars=tuple(scalars))


def kind_of(scalar: bytes | memoryview) -> int:
    """The kind byte of a released scalar."""
    return scalar[HEADER_BYTES]


def possible_scalars(quantity: Quantity, *, hides: bool) -> tuple[tuple[ScalarKind, ...], ...]:
    """What an entry of this quantity may consist of, in a block that hides something or nothing."""
    linear, bilinear = ScalarKind.LINEAR, ScalarKind.BILINEAR
    if not hides:
        return ((),)
    if quantity is Quantity.WITNESS:
        return ((linear,),)
    if quantity in (Quantity.BASE, Quantity.EARLIER):
        return ((linear,), (bilinear,), (linear, bilinear))
    return ((bilinear,),)


def drawn_of(layout: Layout, profile: Profile, sample: float) -> tuple[int, ...]:
    """How many ciphertexts of each product block the products of pairs run over: at least one of each."""
    counts = (profile.ciphertext_count(layout.hidden_counts[block]) for block in layout.product_blocks)
    return tuple(min(count, max(1, round(sample * count))) for count in counts)


def pairs_in(tile: Sequence[Pair], *, summed: bool, sampled: bool) -> list[Pair]:
    """Those pairs of a tile that a block releases.

    Args:
        summed: the rows are updates summed over rounds; their squared norms are nowhere else.
        sampled: the block's products of pairs run over fewer ciphertexts than it has. Then so do the squared
            norms that go with them, as distances would not be distances otherwise. Where they run over all of
            them, each update's squared norm is among its own entries already, and not released again.
    """
    return [(row, column) for row, column in tile if row != column or summed or sampled]


class Reader:
    """Takes bytes from the front, and never more than there are."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def take(self, size: int) -> memoryview:
        """The next ``size`` bytes."""
        if len(self._rest) < size:
            raise malformed("the statistics end early")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def end(self) -> None:
        """See that nothing is left."""
        if len(self._rest):
            raise malformed(f"{len(self._rest)} bytes follow the statistics' end")


def malformed(message: str) -> CiphertextError:
    """The refusal of statistics that are not what they should be."""
    return CiphertextError(Code.STATISTICS_MALFORMED, message)
