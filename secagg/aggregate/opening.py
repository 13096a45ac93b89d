"""Opening an aggregate artifact: the model it stands for."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secagg.aggregate.form import Shares, check_front, front_bytes, malformed, offsets
from secagg.ckks.parameters import Profile
from secagg.ckks.wire import parse_aggregate_header
from secagg.custody.custody import Decryptor
from secagg.selection.layout import FLOAT32_BYTES, Layout


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Onto:
    """What an aggregate of differences adds to.

    Args:
        since: the round of the model.
        model: float32 [d].
        divisor: what the sum must be divided by, if that is known.
    """

    since: int
    model: NDArray[np.float32]
    divisor: int | None = None


def open_aggregate(
    source: Path | bytes,
    *,
    round: int,
    layout: Layout,
    profile: Profile,
    opener: Decryptor | None,
    shares: Shares | None = None,
    onto: Onto | None = None,
) -> NDArray[np.float32]:
    """The model that an aggregate artifact stands for: float32 [d], rounded to nearest.

    Before that rounding a hidden value is within ``bounds.error_bound`` of the exact mean.

    Args:
        source: the artifact, or the file it was downloaded to.
        round: whose aggregate it must be.
        layout, profile: of that round's plan.
        opener: of the federation's custody; None if the layout hides nothing.
        shares: how the updates of a quantising profile must have been sealed, if that is known.
        onto: what it must add to, if it holds differences; None if it holds the mean of models.

    Raises:
        CiphertextError: AGGREGATE_MALFORMED for another version, round, content or length, an impossible
            weight total, other scales or a visible value that is not finite; CIPHERTEXT_MALFORMED or
            PROFILE_MISMATCH from a hidden block.
    """
    if isinstance(source, bytes):
        return _open(memoryview(source), round, layout, profile, opener, shares, onto)
    with source.open("rb") as file:
        if not source.stat().st_size:
            raise malformed("an aggregate of 0 bytes")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Not closed by hand: the traceback of a refusal may still hold views of it.
    return _open(memoryview(mapped), round, layout, profile, opener, shares, onto)


def _open(
    view: memoryview,
    round: int,
    layout: Layout,
    profile: Profile,
    opener: Decryptor | None,
    expected: Shares | None,
    onto: Onto | None,
) -> NDArray[np.float32]:
    front = check_front(bytes(view[: front_bytes(layout, profile)]), len(view), round, layout, profile)
    total, shares = front.total, front.shares
    if front.since != (onto.since if onto is not None else None):
        raise malformed(f"it adds to the model of round {front.since}; that is not what was agreed")
    if onto is not None and onto.divisor not in (None, total):
        raise malformed(f"its divisor is {total}; the plan's is {onto.divisor}")
    if expected is not None and shares != expected:
        raise malformed("its scales or its count unit are not those of this round's plan and base model")
    hidden_at, visible_at = offsets(layout, profile)
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
        raise malformed("the visible mean holds NaN or infinite values")
    flat = layout.join(hidden, visible)
    if onto is not None:
        flat += onto.model
    return flat.astype(np.float32)


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
            raise malformed(f"a weight total of {total} from {factors} updates of up to {shares.unit}")
        # What was summed is n_i/unit·v_i, each counted once.
        return opener.open_vector(vector, count, steps=steps) * (factors * shares.unit / total)
    if factors != total:
        raise malformed("a block's weight total differs from the aggregate's")
    return opener.open_vector(vector, count, steps=steps)
