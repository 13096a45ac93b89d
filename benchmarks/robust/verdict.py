"""What a rule makes of a round's updates: in the clear, and what all domains share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from defenses.gram_rule import judge
from secagg.errors import RoundError
from secagg.rule import CoordinateRule, Floats, Rule, StatisticsRequest, statistics_of
from secagg.update import Manifest

Flat = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Submissions:
    """One round's updates and what a rule may compare them with.

    Args:
        round: its number.
        base, before: the model the round started from and the one before it, float32 [d].
        updates: float32 [n, d].
        counts: how many samples each client says it has, int64 [n].
        root: the root client's update, float32 [d]; None if the rule asks for none.
        history: each client's summed updates of all rounds so far, float64 [n, d]; None if not asked for.
    """

    round: int
    base: Flat
    before: Flat
    updates: Flat
    counts: NDArray[np.int64]
    root: Flat | None = None
    history: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """What became of a round.

    Args:
        model: the new model, float32 [d]; the old one if the round was refused.
        weights: the coefficients a_i, float64 [n]; None where the aggregate is no weighted sum.
        refused: True if too little was left, or the statistics were impossible.
        server_s: seconds of the server: statistics, and the sum.
        weight_gap: max |a_i − a_i'|, a' being what the same updates give in the clear; None in the clear.
    """

    model: Flat
    weights: Floats | None
    refused: bool
    server_s: float
    weight_gap: float | None = None


class Domain(Protocol):
    """Where a rule sees the updates."""

    def round(self, submissions: Submissions) -> Verdict:
        """One round."""
        ...

    def close(self) -> None:
        """Let go of processes and keys."""
        ...


def arrangement(
    request: StatisticsRequest, manifest: Manifest
) -> tuple[Callable[[NDArray[np.generic]], Floats], list[slice]]:
    """How to put a vector's entries in the order of a request's blocks, in float64; where each block is then.

    Without blocks there is one, of everything.
    """
    if not request.blocks:
        return lambda vector: vector.astype(np.float64), [slice(0, manifest.size)]
    entries = [np.concatenate([np.r_[manifest.slice_of(name)] for name in names]) for names in request.blocks]
    order, ends = np.concatenate(entries), np.cumsum([len(block) for block in entries])
    blocks = [slice(int(end) - len(block), int(end)) for end, block in zip(ends, entries, strict=True)]
    return lambda vector: vector[..., order].astype(np.float64), blocks


class Plain:
    """A server that sees everything, in float64."""

    def __init__(self, rule: Rule, manifest: Manifest) -> None:
        self._rule, self._manifest = rule, manifest
        self._request = None if isinstance(rule, CoordinateRule) else rule.request(manifest)

    def round(self, submissions: Submissions) -> Verdict:
        """One round."""
        started = perf_counter()
        updates = submissions.updates.astype(np.float64)
        if isinstance(self._rule, CoordinateRule):
            model = self._rule.combine(submissions.base.astype(np.float64) + updates)
            return Verdict(
                model=as_model(model), weights=None, refused=False, server_s=perf_counter() - started
            )
        weights = self.weights(submissions)
        refused = not weights.any()
        # The sum in float64 over all values, like the inner products before it.
        model = submissions.base if refused else as_model(submissions.base + weights @ updates)
        return Verdict(model=model, weights=weights, refused=refused, server_s=perf_counter() - started)

    def weights(self, submissions: Submissions) -> Floats:
        """The coefficients a_i, float64 [n]; all 0 if the round is refused."""
        count = len(submissions.updates)
        if self._request is None:
            return mean_of(self._rule.settle([], count, submissions.counts).weights)
        take, blocks = arrangement(self._request, self._manifest)
        references = self._request.references
        statistics = statistics_of(
            take(with_root_update(submissions)),
            base=take(submissions.base) if references else None,
            before=take(submissions.before) if references > 1 else None,
            sample_counts=with_root(submissions).tolist(),
            root=None if submissions.root is None else count,
            history=with_root_history(submissions),
            blocks=blocks,
            round=submissions.round,
        )
        weights = settled(self._rule, judge(self._rule, statistics), with_root(submissions))[:count]
        return mean_of(weights) if self._request.models else weights

    def close(self) -> None:
        """There is nothing to let go of."""


def settled(rule: Rule, answer: object, counts: NDArray[np.int64]) -> Floats:
    """The round's coefficients if every decryptor gives the same answer; all 0 if the rule refuses."""
    try:
        return rule.settle([answer] * len(counts), len(counts), counts).weights  # type: ignore[list-item]
    except RoundError:
        return np.zeros(len(counts))


def mean_of(weights: Floats) -> Floats:
    """The coefficients of models that travel as a whole: those of their weighted mean; all 0 if all are."""
    total = weights.sum()
    return np.asarray(weights / total if total > 0 else weights, dtype=np.float64)


def with_root(submissions: Submissions) -> NDArray[np.int64]:
    """Sample counts, with one for the root update if there is one."""
    return submissions.counts if submissions.root is None else np.append(submissions.counts, 1)


def with_root_update(submissions: Submissions) -> Flat:
    """The updates, float32 [n, d] or, with the root's last, [n + 1, d]."""
    if submissions.root is None:
        return submissions.updates
    return np.vstack([submissions.updates, submissions.root])


def with_root_history(submissions: Submissions) -> Floats | None:
    """History, with the root update's in its last row if there is one."""
    if submissions.history is None or submissions.root is None:
        return submissions.history
    return np.vstack([submissions.history, submissions.root])


def as_model(values: Floats) -> Flat:
    """float32; what overflows is as bad as it should be, but finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.nan_to_num(values, posinf=1e30, neginf=-1e30).astype(np.float32)
