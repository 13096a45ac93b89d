"""Summing spooled updates into an aggregate artifact, on ciphertexts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from secagg.aggregate.form import AggregateFile, Shares, aggregate_bytes, offsets, pack_front
from secagg.ckks.bounds import error_bound
from secagg.ckks.parameters import Profile
from secagg.ckks.vectors import weighted_sum
from secagg.ckks.wire import AGGREGATE_HEADER_BYTES, aggregate_header
from secagg.payload import UpdateFile
from secagg.selection.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """How differences become an aggregate: what it holds is added to the model of an earlier round.

    Args:
        divisor: what the weighted sum is divided by: the plan's.
        since: the round whose model it adds to; 0 for the initial one.
        before: the aggregate of the round between, if there is one: what this one's sum is added to. It adds
            to the same model, and has the same layout and divisor.
    """

    divisor: int
    since: int
    before: AggregateFile | None = None


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
        additions: for updates that are differences; None for models.

    Raises:
        ValueError: weights beyond the profile's headroom, or shares or additions that do not belong to it.
    """

    round: int
    paths: tuple[Path, ...]
    weights: tuple[int, ...]
    layout: Layout
    profile: Profile
    shares: Shares | None = None
    additions: Additions | None = None

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.weights) or min(self.weights, default=0) < 0 or self.total < 1:
            raise ValueError("weights must be ≥ 0, one per update, with a positive sum")
        if sum(self.factors) > self.profile.weight_total:
            raise ValueError(f"profile {self.profile.name} has headroom for {self.profile.weight_total}")
        if (self.shares is not None) != self.profile.quantised:
            raise ValueError(f"profile {self.profile.name} and shares {self.shares} do not belong together")
        if self.additions is not None and self.shares is not None:
            raise ValueError(f"profile {self.profile.name} does not sum differences")

    @property
    def total(self) -> int:
        """What the sum is divided by."""
        return self.additions.divisor if self.additions is not None else sum(self.weights)

    @property
    def before(self) -> AggregateFile | None:
        """The aggregate that the sum is added to, if there is one."""
        return self.additions.before if self.additions is not None else None

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
    Of differences this is what one round adds to the error.

    Args:
        max_abs: bound on |value| of every update.
    """
    counted = np.array([weight for weight in updates.weights if weight], dtype=np.int64)
    if updates.additions is not None:
        # The bound is that of a mean, and the same sum is divided by something else.
        mean = error_bound(updates.profile, updates.layout.size, counted, max_abs=max_abs)
        return mean * float(counted.sum()) / updates.total
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


Combination = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Values of n updates, float64 [n, k], to those of the aggregate, float64 [k]."""


def lay_out(file: BinaryIO, updates: WeightedUpdates, combine: Combination | None = None) -> None:
    """Write all of an aggregate artifact but its ciphertexts, which ``write_sums`` puts where they belong.

    Visible means are formed in float64, in the order of the updates, and rounded to float32.

    Args:
        combine: what forms visible values instead of the weighted mean.

    Raises:
        ServerError: if a spooled payload is no longer what it was.
    """
    layout, profile, total = updates.layout, updates.profile, updates.total
    hidden_at, visible_at = offsets(layout, profile)
    file.truncate(aggregate_bytes(layout, profile))
    since = updates.additions.since if updates.additions is not None else None
    file.write(pack_front(updates.round, since, total, updates.shares))
    for start, count in zip(hidden_at, layout.hidden_counts, strict=True):
        if count:
            file.seek(start)
            divisor = total if updates.additions is not None else sum(updates.factors)
            file.write(aggregate_header(profile, divisor))
    for block, start in enumerate(visible_at):
        file.seek(start)
        before = updates.before.visible(block) if updates.before is not None else None
        for parts in zip(*(update.visible(block) for update, _ in updates.counted), strict=True):
            if combine is not None:
                file.write(combine(np.stack(parts).astype(np.float64)).astype("<f4").tobytes())
                continue
            running = np.zeros(parts[0].size, dtype=np.float64)
            for part, (_, weight) in zip(parts, updates.counted, strict=True):
                running += weight * part.astype(np.float64)
            running /= total
            if before is not None:
                running += next(before)
            file.write(running.astype("<f4").tobytes())


def write_sums(file: BinaryIO, updates: WeightedUpdates, block: int, ciphertexts: range) -> None:
    """Put some of a block's summed ciphertexts into a laid-out artifact; other ranges can be written
    elsewhere at the same time.

    Hidden values are summed exactly on ciphertexts; whoever opens them divides by the weight total.

    Raises:
        CiphertextError, ServerError: if a spooled payload is no longer what it was.
    """
    profile = updates.profile
    start = offsets(updates.layout, profile)[0][block] + AGGREGATE_HEADER_BYTES
    file.seek(start + ciphertexts.start * profile.aggregate_ciphertext_bytes)
    readers = [update.ciphertexts(block) for update, _ in updates.counted]
    onto = updates.before.ciphertexts(block) if updates.before is not None else None
    for piece in weighted_sum(readers, updates.factors, profile, ciphertexts=ciphertexts, onto=onto):
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
