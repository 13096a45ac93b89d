"""Opening released statistics: from the artifact's bytes to what a rule looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.bounds import FLOODING, NOISE_VARIANCE, distance_resolution, squared_norm_bias
from secagg.ckks.parameters import FixedPoint, Profile
from secagg.custody.custody import Decryptor
from secagg.payload import VISIBLE_AT_ONCE
from secagg.rule import Floats, Stage, Statistics, StatisticsRequest
from secagg.selection.layout import Layout
from secagg.statistics.draws import WITNESSES
from secagg.statistics.form import (
    Entry,
    Front,
    Quantity,
    Reader,
    drawn_of,
    malformed,
    pairs_in,
    possible_scalars,
)

WITNESS_DEVIATIONS = 10
"""t of ``draws.witnesses``: an honest update's witness is beyond its bound once in 10^21."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Expectation:
    """What statistics must be to be opened at all.

    Args:
        round, stage: whose they are.
        layout, profile: of the round's plan.
        request: of the agreed rule; no more and no less must be released.
        min_updates: the fewest updates they must speak of, dropped ones included.
        references: g and g' as this client holds them, float32 [d]; as many as the request asks for.
        same_models: g' is g, so that products with g are released once and serve for both.
        max_updates: the most updates they may speak of: what is held grows with the square.
    """

    round: int
    stage: Stage
    layout: Layout
    profile: Profile
    request: StatisticsRequest
    min_updates: int = 1
    references: Sequence[NDArray[np.float32]] = ()
    same_models: bool = False
    max_updates: int = 4096


def open_statistics(data: bytes, expected: Expectation, opener: Decryptor | None) -> Statistics:
    """The statistics that an artifact holds; each entry's error is within ``bounds.product_error_bound``.

    A squared norm opens larger by what the encryption's own noise adds, in the mean; that is taken off, but
    for ``history``, where it depends on how often a client took part: there a squared norm over T rounds is
    T times ``squared_norm_bias`` too large in the mean. Where models travel, what is told is that of their
    differences to the base model all the same: ⟨w_i − g, w_j − g⟩ and so on.

    Args:
        data: the artifact.
        expected: what it must be.
        opener: of the federation's custody; None if nothing is hidden.

    Raises:
        CiphertextError: STATISTICS_MALFORMED for another version, round, stage or length, too few or repeated
            updates, other quantities or samples, a visible part that is not finite, or a scalar where none
            belongs; CIPHERTEXT_MALFORMED or PROFILE_MISMATCH from a scalar. Nothing is opened before the
            whole is checked.
    """
    reader = Reader(data)
    front = Front.read(reader)
    _check_front(front, expected)
    parts = list(_parts(front, expected, reader))
    reader.end()
    if any(expected.layout.hidden_counts) and opener is None:
        raise ValueError("a layout that hides entries needs an opener")
    table = _Table(front, expected)
    for part in parts:
        table.enter(part, sum(opener.open_scalar(scalar) for scalar in part.entry.scalars) if opener else 0.0)
    return table.statistics()


def joined(screening: Statistics, rest: Statistics) -> Statistics:
    """Both stages' statistics of those updates that passed the first.

    Raises:
        CiphertextError: STATISTICS_MALFORMED if the second speaks of an update that the first does not.
    """
    kept = np.array([update in rest.update_ids for update in screening.update_ids], dtype=np.bool_)
    ours = screening.of(kept)
    if ours.update_ids != rest.update_ids:
        raise malformed("they speak of other updates than those that were screened, or in another order")
    if not np.array_equal(ours.sample_counts, rest.sample_counts) or rest.dropped != ours.dropped:
        raise malformed("their sample counts or dropped updates are not those of the screening")
    return replace(
        rest,
        blocks=np.where(np.isnan(rest.blocks), ours.blocks, rest.blocks),
        witnesses=ours.witnesses,
        norms=ours.norms,
    )


def _check_front(front: Front, expected: Expectation) -> None:
    wanted = Quantity.of(expected.request, expected.stage, same_models=expected.same_models)
    sampled = expected.request.sample if front.quantities & (Quantity.PAIR | Quantity.ROOT) else 1.0
    for name, found, due in (
        ("round", front.round, expected.round),
        ("stage", front.stage, expected.stage),
        ("quantities", front.quantities, wanted),
        ("sampled ciphertexts", front.drawn, drawn_of(expected.layout, expected.profile, sampled)),
        ("root", front.root is not None, expected.request.root),
    ):
        if found != due:
            raise malformed(f"statistics whose {name} is {found!r}, not {due!r}")
    if len(front.update_ids) > expected.max_updates:
        raise malformed(f"statistics of {len(front.update_ids)} updates; at most {expected.max_updates}")
    if len(front.update_ids) + front.dropped < expected.min_updates:
        raise malformed(
            f"statistics of {len(front.update_ids) + front.dropped} updates; at least {expected.min_updates} "
            "must be in"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """An entry and where it belongs; ``block`` counts the blocks that products run over.

    A witness belongs to all blocks; its ``column`` is its number.
    """

    quantity: Quantity
    block: int
    row: int
    column: int
    entry: Entry


def _parts(front: Front, expected: Expectation, reader: Reader) -> Iterator[_Part]:
    layout, profile, size = expected.layout, expected.profile, len(front.update_ids)
    hides = [layout.hidden_counts[block] > 0 for block in layout.product_blocks]
    columns = {Quantity.BASE: size, Quantity.EARLIER: size + 1}

    sampled = [scale > 1 for scale in _scales(front, expected)]

    def read(quantity: Quantity, block: int, row: int, column: int) -> _Part:
        hiding = any(hides) if quantity is Quantity.WITNESS else hides[block]
        entry = Entry.read(reader, possible_scalars(quantity, hides=hiding), profile)
        return _Part(quantity=quantity, block=block, row=row, column=column, entry=entry)

    for row in range(size):
        for block in range(len(hides)):
            for quantity in front.quantities.single:
                yield read(quantity, block, row, columns.get(quantity, row))
        if front.quantities & Quantity.WITNESS:
            for number in range(WITNESSES):
                yield read(Quantity.WITNESS, 0, row, number)
    for quantity in front.quantities:
        if quantity > Quantity.WITNESS:
            for tile in front.tiles(quantity):
                for block in range(len(hides)):
                    summed = quantity is Quantity.HISTORY
                    for row, column in pairs_in(tile, summed=summed, sampled=sampled[block]):
                        yield read(quantity, block, row, column)


def _scales(front: Front, expected: Expectation) -> list[float]:
    """What products of pairs are scaled up by in each block: its ciphertexts over those drawn."""
    layout, profile = expected.layout, expected.profile
    counts = (profile.ciphertext_count(layout.hidden_counts[block]) for block in layout.product_blocks)
    return [count / drawn if drawn else 1.0 for count, drawn in zip(counts, front.drawn, strict=True)]


class _Table:
    """Opened numbers, on their way to be ``Statistics``."""

    def __init__(self, front: Front, expected: Expectation) -> None:
        self._front, self._expected = front, expected
        layout, profile = expected.layout, expected.profile
        size, self._places = len(front.update_ids), list(layout.product_blocks)
        self._hidden = [layout.hidden_counts[block] for block in self._places]
        hides = any(self._hidden) and isinstance(profile.encoding, FixedPoint)
        self._scale = profile.encoding.scale if isinstance(profile.encoding, FixedPoint) else 1.0
        self._slack = witness_slack(profile) if hides else 1.0
        self._biases = [squared_norm_bias(profile, count) if count else 0.0 for count in self._hidden]
        self._scales = _scales(front, expected)
        self._blocks = np.full((len(self._places), size + 2, size + 2), np.nan)
        self._history = np.zeros((size, size)) if front.quantities & Quantity.HISTORY else None
        self._norms = np.full((len(self._places), size), np.nan)
        self._lengths, self._linear = np.zeros(size), np.zeros((WITNESSES, size))

    def enter(self, part: _Part, hidden: float) -> None:
        """Take an opened number."""
        block, row, column, visible = part.block, part.row, part.column, part.entry.visible
        match part.quantity:
            case Quantity.WITNESS:
                self._linear[column, row] = hidden
                return
            case Quantity.HISTORY:
                assert self._history is not None
                self._history[row, column] += visible + hidden * self._scales[block]
                self._history[column, row] = self._history[row, column]
                return
            case Quantity.NORM:
                # What is measured is the norm of what would be summed, its noise included; so are witnesses.
                self._lengths[row] += hidden + (self._slack / self._scale if self._hidden[block] else 0.0)
                hidden -= self._biases[block]
                self._norms[block, row] = visible + hidden
            case Quantity.PAIR | Quantity.ROOT:
                hidden = hidden * self._scales[block] - (self._biases[block] if row == column else 0.0)
        self._blocks[block, row, column] = self._blocks[block, column, row] = visible + hidden

    def statistics(self) -> Statistics:
        """What a rule looks at."""
        front, expected = self._front, self._expected
        self._enter_references()
        blocks, norms = self._blocks, self._norms
        if expected.request.models:
            blocks, norms = _of_differences(self._blocks), _norms_of_differences(self._norms, self._blocks)
        return Statistics(
            round=front.round,
            update_ids=tuple(item.hex() for item in front.update_ids),
            blocks=blocks,
            sample_counts=np.array(front.sample_counts, dtype=np.int64),
            root=front.root,
            history=self._history,
            witnesses=self._witnesses() if front.quantities & Quantity.WITNESS else None,
            norms=norms.sum(axis=0) if front.quantities & Quantity.NORM else None,
            resolution=sum(
                scale * distance_resolution(expected.profile, count)
                for scale, count in zip(self._scales, self._hidden, strict=True)
                if count
            ),
            dropped=front.dropped,
        )

    def _enter_references(self) -> None:
        """What this client computes by itself: products of earlier models with each other."""
        expected, size = self._expected, len(self._front.update_ids)
        for place, block in enumerate(self._places):
            for i, left in enumerate(expected.references):
                for j, right in enumerate(expected.references[: i + 1]):
                    value = block_dot(left, right, expected.layout, block)
                    self._blocks[place, size + i, size + j] = self._blocks[place, size + j, size + i] = value
        if expected.same_models and expected.request.references > 1:
            self._blocks[:, size + 1, :size] = self._blocks[:, size, :size]
            self._blocks[:, :size, size + 1] = self._blocks[:, :size, size]

    def _witnesses(self) -> Floats:
        """|⟨u_i, z⟩| over what it may be at most, float64 [n], the largest over the witnesses."""
        norms = np.sqrt(np.maximum(self._lengths, 0.0))
        # An opened number is divided by the squared scale; a witness is not scaled itself.
        products = np.abs(self._linear) * self._scale
        largest: Floats = (products / (WITNESS_DEVIATIONS / sqrt(2) * norms + self._slack)).max(axis=0)
        return largest


def witness_slack(profile: Profile) -> float:
    """By how much a released ⟨u, z⟩ may be off, in units of the update's values: about 1 in ``robust``.

    z is exact, and the update's noise belongs to what is measured. What is left is that of the released
    scalar: the noise of one encryption of zero (proxy v(2N + 1), see ``bounds.product_error_bound``) and
    ``FLOODING``, in units of 1/scale, as z is not scaled. Values that wrap around are in the thousands.
    """
    assert isinstance(profile.encoding, FixedPoint)
    zero = sqrt(NOISE_VARIANCE * (2 * profile.poly_degree + 1))
    return (WITNESS_DEVIATIONS * zero + FLOODING) / profile.encoding.scale


def block_dot(left: NDArray[np.float32], right: NDArray[np.float32], layout: Layout, block: int) -> float:
    """⟨left, right⟩ over one block's entries, hidden and visible.

    Products and sums are formed element by element in float64, not by a BLAS, whose order of additions is the
    machine's: two decryptors' results must be the same.
    """
    total = 0.0
    for part in (layout.hidden_of, layout.visible_of):
        one, other = part(left, block), part(right, block)
        for at in range(0, one.size, VISIBLE_AT_ONCE):
            piece = slice(at, at + VISIBLE_AT_ONCE)
            total += float((one[piece].astype(np.float64) * other[piece]).sum())
    return total


def _of_differences(blocks: Floats) -> Floats:
    """The augmented Gram matrix of w_i − g and g from that of w_i and g; rows n and n+1 stay g and g'."""
    size = blocks.shape[1] - 2
    told = blocks.copy()
    base = blocks[:, :size, size]  # ⟨w_i, g⟩
    norm = blocks[:, size, size]
    earlier = blocks[:, size + 1, size]
    told[:, :size, :size] += norm[:, None, None] - base[:, :, None] - base[:, None, :]
    told[:, :size, size] = told[:, size, :size] = base - norm[:, None]
    shifted = blocks[:, :size, size + 1] - earlier[:, None]
    told[:, :size, size + 1] = told[:, size + 1, :size] = shifted
    return told


def _norms_of_differences(norms: Floats, blocks: Floats) -> Floats:
    """‖w_i − g‖² from ‖w_i‖², float64 [B, n]."""
    size = norms.shape[1]
    told: Floats = norms - 2 * blocks[:, :size, size] + blocks[:, size, size, None]
    return told
