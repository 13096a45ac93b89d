"""The statistics of a round, released so that nothing but one number per entry can be opened."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secagg.aggregate import AggregateFile, appearing
from secagg.ckks.bounds import squared_norm_bias
from secagg.ckks.keys import PublicKey
from secagg.ckks.parameters import Profile
from secagg.ckks.products import AggregateOperand, Operand, PlainOperand, SealedOperand, inner_products
from secagg.ckks.wire import ScalarKind, scalar_bytes
from secagg.custody.custody import Decryptor
from secagg.errors import CiphertextError, Code, ConfigError
from secagg.payload import VISIBLE_AT_ONCE, UpdateFile
from secagg.rule import Statistics, StatisticsRequest
from secagg.selection.layout import Layout

STATISTICS_VERSION = 1
UPDATE_ID_BYTES = 16
MAX_UPDATES = 2**16
_FRONT = struct.Struct("<BQI")
_VISIBLE = struct.Struct("<d")


class Quantity(IntFlag):
    """What is released of each update, in the order of the bits."""

    SQUARED_NORM = 1
    REFERENCE_DOT = 2

    @classmethod
    def of(cls, request: StatisticsRequest) -> Quantity:
        """What a rule's request asks for; 0 if that is nothing."""
        norms = cls.SQUARED_NORM if request.squared_norms else cls(0)
        return norms | (cls.REFERENCE_DOT if request.reference_dots else cls(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainReference:
    """A model that everybody knows: the one a federation starts from, float32 [d]."""

    flat: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateReference:
    """The aggregate of an earlier round, with the layout of that round's plan."""

    path: Path
    round: int
    layout: Layout


Reference = PlainReference | AggregateReference


def release_update(
    path: Path,
    *,
    layout: Layout,
    profile: Profile,
    public_key: PublicKey | None,
    squared_norms: bool,
    reference: Reference | None,
) -> bytes:
    """One update's entries of the statistics artifact; updates may be worked on apart, in any order.

    Products run over ``layout.product_block``: the statistics tensors if the plan names some, else
    everything.

    Args:
        path: the update's spooled payload, checked before (``UpdateFile.check``).
        layout, profile: of the round's plan.
        public_key: the federation's; None if the block hides nothing.
        squared_norms: release ⟨u, u⟩.
        reference: release ⟨u, r⟩ with this r; None to release no such product.

    Raises:
        ConfigError: RULE_UNSUPPORTED if the profile has no inner products, or the reference's hidden entries
            lie in other slots than the update's.
        CiphertextError, ServerError: if a spooled file is no longer what it was.
    """
    update = UpdateFile(path=path, layout=layout, profile=profile)
    opened = _open_reference(reference, layout, profile)
    return b"".join(_entries(update, squared_norms, opened, public_key))


def assemble_statistics(
    out: Path,
    *,
    round: int,
    update_ids: Sequence[bytes],
    released: Iterable[bytes],
    layout: Layout,
    quantities: Quantity,
) -> None:
    """Write the artifact from what ``release_update`` gave for each update, in the order of the ids.

    Version byte, u64 round, u32 n, n ids, quantities byte, the block (u8 length and name); then the entries.

    Args:
        out: the artifact; it appears whole or not at all.
        round: whose statistics they are.
        update_ids: 1 to ``MAX_UPDATES`` distinct ids of 16 bytes.
        released: in the order of the ids.
        layout: of the round's plan.
        quantities: what ``released`` holds of each update, at least one.
    """
    if not quantities or not 1 <= len(update_ids) <= MAX_UPDATES:
        raise ValueError(f"{len(update_ids)} updates and quantities {quantities!r} make no statistics")
    if len(set(update_ids)) != len(update_ids) or {len(item) for item in update_ids} != {UPDATE_ID_BYTES}:
        raise ValueError(f"update ids must be distinct and of {UPDATE_ID_BYTES} bytes")
    name = layout.blocks[layout.product_block].encode()
    with appearing(out) as file:
        file.write(_FRONT.pack(STATISTICS_VERSION, round, len(update_ids)) + b"".join(update_ids))
        file.write(bytes((quantities, len(name))) + name)
        for entries in released:
            file.write(entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenReference:
    """A reference cut to the product block: its hidden part as an operand, its visible part as float64."""

    operand: Operand | None
    visible: NDArray[np.float64]


def _open_reference(reference: Reference | None, layout: Layout, profile: Profile) -> _OpenReference | None:
    block = layout.product_block
    hides = layout.hidden_counts[block] > 0
    match reference:
        case None:
            return None
        case PlainReference():
            hidden, visible = layout.split(reference.flat)
            operand = PlainOperand(values=hidden[block]) if hides else None
            return _OpenReference(operand=operand, visible=visible[block].astype(np.float64))
        case AggregateReference():
            if not layout.same_slots(reference.layout, block):
                raise ConfigError(
                    Code.RULE_UNSUPPORTED,
                    "the previous aggregate hides other entries than this round's mask, so products over "
                    "all tensors can't be formed; use protect = full, significance = layers, or a rule that "
                    "names its tensors",
                )
            file = AggregateFile(
                path=reference.path, round=reference.round, layout=reference.layout, profile=profile
            )
            total = file.weight_total()
            where = reference.layout.blocks.index(layout.blocks[block])
            pieces = [part.astype(np.float64) for part in file.visible(where)]
            return _OpenReference(
                operand=AggregateOperand(reader=file.ciphertexts(where), weight_total=total)
                if hides
                else None,
                visible=np.concatenate(pieces) if pieces else np.empty(0, dtype=np.float64),
            )


def _entries(
    update: UpdateFile, squared_norms: bool, reference: _OpenReference | None, public_key: PublicKey | None
) -> Iterator[bytes]:
    """Per released quantity: visible part float64, kind byte, released scalar (none for kind 0)."""
    block = update.layout.product_block
    norm, dot = 0.0, 0.0
    for index, part in enumerate(update.visible(block)):
        exact = part.astype(np.float64)
        norm += float(exact @ exact)
        if reference is not None:
            start = index * VISIBLE_AT_ONCE
            dot += float(exact @ reference.visible[start : start + exact.size])
    visible = [norm] * squared_norms + [dot] * (reference is not None)
    count = update.layout.hidden_counts[block]
    if not count:
        for value in visible:
            yield _VISIBLE.pack(value) + b"\0"
        return
    if public_key is None:
        raise ValueError("a layout that hides entries needs the public key")
    operands: list[Operand] = [SealedOperand(reader=update.ciphertexts(block))]
    pairs = [(0, 0)] if squared_norms else []
    if reference is not None and reference.operand is not None:
        operands.append(reference.operand)
        pairs.append((0, 1))
    scalars = inner_products(operands, pairs, count, public_key)
    for (_, right), value, scalar in zip(pairs, visible, scalars, strict=True):
        kind = ScalarKind.LINEAR if isinstance(operands[right], PlainOperand) else ScalarKind.BILINEAR
        yield _VISIBLE.pack(value) + bytes((kind,)) + scalar


def open_release(
    data: bytes,
    *,
    round: int,
    layout: Layout,
    profile: Profile,
    opener: Decryptor | None,
    quantities: Quantity | None = None,
    min_updates: int = 1,
) -> Statistics:
    """The statistics that an artifact holds; each entry's error is within ``bounds.product_error_bound``.

    A squared norm opens larger by what the encryption's own noise adds, in the mean; that is taken off.

    Args:
        data: the artifact.
        round: whose statistics they must be.
        layout, profile: of the round's plan.
        opener: of the federation's custody; None if the product block hides nothing.
        quantities: what must be released of each update, no more and no less; None for any.
        min_updates: the fewest updates they must speak of.

    Raises:
        CiphertextError: STATISTICS_MALFORMED for another version, round, block or length, too few or repeated
            updates, other quantities, a visible part that is not finite, or a scalar where none belongs;
            CIPHERTEXT_MALFORMED or PROFILE_MISMATCH from a scalar. Nothing is opened before the whole is
            checked.
    """
    reader = _Reader(data)
    update_ids, wanted = _read_front(reader, round, layout)
    if quantities is not None and wanted != quantities:
        raise _malformed(f"statistics release {wanted!r} of each update; {quantities!r} was asked for")
    if len(update_ids) < min_updates:
        raise _malformed(f"statistics of {len(update_ids)} updates; at least {min_updates} must be in")
    hides = layout.hidden_counts[layout.product_block] > 0
    entries = [[_read_entry(reader, quantity, hides, profile) for quantity in wanted] for _ in update_ids]
    reader.end()
    if hides and opener is None:
        raise ValueError("a layout that hides entries needs an opener")
    size = len(update_ids)
    bias = squared_norm_bias(profile, layout.hidden_counts[layout.product_block]) if hides else 0.0
    gram = np.full((size + 1, size + 1), np.nan)
    for row, entry in enumerate(entries):
        for quantity, (visible, scalar) in zip(wanted, entry, strict=True):
            value = visible + (opener.open_scalar(scalar) if opener is not None and hides else 0.0)
            column = row if quantity is Quantity.SQUARED_NORM else size
            if quantity is Quantity.SQUARED_NORM:
                value -= bias
            gram[row, column] = gram[column, row] = value
    return Statistics(round=round, update_ids=tuple(item.hex() for item in update_ids), gram=gram)


def _read_front(reader: _Reader, round: int, layout: Layout) -> tuple[list[bytes], Quantity]:
    version, found, count = _FRONT.unpack(reader.take(_FRONT.size))
    if version != STATISTICS_VERSION:
        raise _malformed(f"statistics version {version} is unknown; this build reads {STATISTICS_VERSION}")
    if found != round:
        raise _malformed(f"the statistics of round {found}, not of round {round}")
    if not 1 <= count <= MAX_UPDATES:
        raise _malformed(f"statistics of {count} updates; 1 to {MAX_UPDATES} are possible")
    ids = bytes(reader.take(UPDATE_ID_BYTES * count))
    update_ids = [ids[at : at + UPDATE_ID_BYTES] for at in range(0, len(ids), UPDATE_ID_BYTES)]
    if len(set(update_ids)) != count:
        raise _malformed("an update appears twice")
    quantities, length = reader.take(2)
    if not 1 <= quantities <= sum(Quantity):
        raise _malformed(f"unknown quantities {quantities:#x}")
    name = bytes(reader.take(length))
    if name != layout.blocks[layout.product_block].encode():
        raise _malformed(f"statistics over block {name!r}, not {layout.blocks[layout.product_block]!r}")
    return update_ids, Quantity(quantities)


def _read_entry(
    reader: _Reader, quantity: Quantity, hides: bool, profile: Profile
) -> tuple[float, memoryview]:
    (visible,) = _VISIBLE.unpack(reader.take(_VISIBLE.size))
    if not np.isfinite(visible):
        raise _malformed("a visible part that is not finite")
    kind = reader.take(1)[0]
    if not hides:
        possible = {0}
    elif quantity is Quantity.SQUARED_NORM:
        possible = {int(ScalarKind.BILINEAR)}
    else:
        possible = {int(ScalarKind.LINEAR), int(ScalarKind.BILINEAR)}
    if kind not in possible:
        raise _malformed(f"an entry of kind {kind} where {sorted(possible)} are possible")
    return visible, reader.take(scalar_bytes(ScalarKind(kind), profile) if kind else 0)


class _Reader:
    """Takes bytes from the front, and never more than there are."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def take(self, size: int) -> memoryview:
        """The next ``size`` bytes."""
        if len(self._rest) < size:
            raise _malformed("the statistics end early")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def end(self) -> None:
        """See that nothing is left."""
        if len(self._rest):
            raise _malformed(f"{len(self._rest)} bytes follow the statistics' end")


def _malformed(message: str) -> CiphertextError:
    return CiphertextError(Code.STATISTICS_MALFORMED, message)
