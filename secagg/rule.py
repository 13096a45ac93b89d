"""The seam between the middleware and the rules that turn statistics into weights.

A deterministic rule whose result turns with its input is g + Σ a_i·u_i, u_i being client i's update (its
model minus g, the model the round started from) and the coefficients a a function of the updates' Gram matrix
alone. The aggregator computes the entries of that matrix on ciphertexts; decryptors open them and each run
``Rule.screen`` and ``Rule.decide``; the aggregator turns their signed answers into the round's with
``Rule.settle``. Rules live in the ``defenses`` package and only see this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from secagg.update import Manifest

Floats = NDArray[np.float64]


class Reason(IntEnum):
    """Why an update does not count; numbers are part of ballots and journals and never change meaning."""

    KEPT = 0
    """It counts."""
    NORM = 1
    """Its measured norm is beyond the bound."""
    UNLIKE = 2
    """It points where no other update does: a probe, or noise."""
    DUPLICATE = 3
    """It repeats another client's update, as it is or scaled."""
    RULE = 4
    """The rule gives it no weight."""
    SCALES = 5
    """It is sealed in other scales than most."""
    IMPOSSIBLE = 6
    """No vector has the statistics that it is said to have."""
    ROOT = 7
    """It is the root update: others are compared with it, and it is not summed."""
    TOO_FEW = 8
    """Fewer updates would count than must: the sum would say too much of each."""


class Stage(IntEnum):
    """What decryptors are asked about a round; part of ballots."""

    SCREENING = 1
    """Who gets more than squared norms and products with references released."""
    STATISTICS = 2
    """What each update counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsRequest:
    """Which entries of the augmented Gram matrix a rule needs, and over which tensors.

    Squared norms are always released.

    Args:
        blocks: groups of the manifest's tensor names; inner products are released for each group. Empty: one
            group of all tensors.
        pairs: release ⟨u_i, u_j⟩ of all pairs of updates.
        references: release products with so many earlier models: 0; 1: ⟨u_i, g⟩, g being the model that the
            round started from; 2: ⟨u_i, g'⟩ as well, g' being the one before (g again in the first round).
        root: release products of every update with the root client's.
        history: release the Gram matrix of Σ_t u_i, each client's updates of all rounds so far.
        screened: squared norms and products with references first; what ``Rule.screen`` drops gets no other
            number released.
        sample: share of the ciphertexts that ``pairs`` run over, in (0, 1]; they are drawn once all updates
            are in, and what comes out is scaled up.
        models: models travel instead of differences. Statistics are told of differences all the same.
    """

    blocks: tuple[tuple[str, ...], ...] = ()
    pairs: bool = False
    references: int = 0
    root: bool = False
    history: bool = False
    screened: bool = False
    sample: float = 1.0
    models: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Statistics:
    """Opened statistics of one round. Entries that were not released are NaN.

    Args:
        round: the round they belong to.
        update_ids: n ids, in the order of the matrices' first n rows.
        blocks: float64 [B, n+2, n+2], symmetric: the augmented Gram matrix of each block; row n is g, the
            model the round started from, and row n+1 the one before it.
        sample_counts: int64 [n], the clients' sample counts after the plan's cap.
        root: index of the root client's update; None if there is none.
        history: float64 [n, n], the Gram matrix of each client's summed updates; None if not asked for.
        witnesses: float64 [n]; witness_i > 1 if the measured ‖u_i‖ is not its norm (``draws.witnesses``);
            None if not released.
        norms: float64 [n], ‖u_i‖² over all blocks as measured over all ciphertexts; None: the diagonal of
            ``blocks``. The two differ where pairs run over a sample, and with them the squared norms that
            distances and cosines are formed with.
        resolution: how far ‖u_i − u_j‖² of equal updates may open from 0.
        dropped: how many updates were screened out before, so that no row tells of them.
    """

    round: int
    update_ids: tuple[str, ...]
    blocks: Floats
    sample_counts: NDArray[np.int64]
    root: int | None = None
    history: Floats | None = None
    witnesses: Floats | None = None
    norms: Floats | None = None
    resolution: float = 0.0
    dropped: int = 0

    @property
    def size(self) -> int:
        """n."""
        return len(self.update_ids)

    @property
    def gram(self) -> Floats:
        """⟨u_i, u_j⟩ over all blocks, float64 [n, n]."""
        whole: Floats = self.blocks.sum(axis=0)[: self.size, : self.size]
        return whole

    @property
    def squared_norms(self) -> Floats:
        """‖u_i‖² over all blocks, float64 [n], never of a sample."""
        return np.diagonal(self.gram).copy() if self.norms is None else self.norms.copy()

    @property
    def reference_dots(self) -> Floats:
        """⟨u_i, g⟩ over all blocks, float64 [n]."""
        whole: Floats = self.blocks.sum(axis=0)[: self.size, self.size]
        return whole

    @property
    def reference_norm(self) -> float:
        """‖g‖² over all blocks."""
        return float(self.blocks[:, self.size, self.size].sum())

    @property
    def model_gram(self) -> Floats:
        """⟨w_i, w_j⟩ of the models w_i = g + u_i, float64 [n, n]."""
        dots = self.reference_dots
        return self.gram + dots[:, None] + dots[None, :] + self.reference_norm

    @property
    def squared_distances(self) -> Floats:
        """‖u_i − u_j‖² = G_ii + G_jj − 2·G_ij, float64 [n, n], at least 0, the diagonal exactly 0."""
        gram = self.gram
        norms = np.diagonal(gram)
        distances = np.maximum(norms[:, None] + norms[None, :] - 2 * gram, 0.0)
        np.fill_diagonal(distances, 0.0)
        return distances

    def of(self, kept: NDArray[np.bool_]) -> Statistics:
        """The statistics of some of the updates, bool [n]; the others count as dropped."""
        places = np.flatnonzero(kept)
        rows = np.append(places, [self.size, self.size + 1])
        root = None if self.root is None or not kept[self.root] else int(np.sum(kept[: self.root]))
        return Statistics(
            round=self.round,
            update_ids=tuple(self.update_ids[i] for i in places),
            blocks=self.blocks[:, rows[:, None], rows],
            sample_counts=self.sample_counts[places],
            root=root,
            history=None if self.history is None else self.history[np.ix_(places, places)],
            witnesses=None if self.witnesses is None else self.witnesses[places],
            norms=None if self.norms is None else self.norms[places],
            resolution=self.resolution,
            dropped=self.dropped + self.size - len(places),
        )


def statistics_of(
    updates: Floats,
    *,
    base: Floats | None = None,
    before: Floats | None = None,
    sample_counts: Sequence[int] | None = None,
    root: int | None = None,
    history: Floats | None = None,
    blocks: Sequence[slice] = (slice(None),),
    round: int = 1,
) -> Statistics:
    """The statistics that an aggregator would compute that sees everything: plain float64 inner products.

    Args:
        updates: float64 [n, d].
        base, before: g and g', float64 [d]; zeros if not given.
        sample_counts: n counts; 1 each if not given.
        root: index of the root client's update.
        history: each client's summed updates, float64 [n, d].
        blocks: the entries of each block.
        round: whose statistics they are.
    """
    rows = np.vstack([updates, *(np.zeros(updates.shape[1]) if r is None else r for r in (base, before))])
    return Statistics(
        round=round,
        update_ids=tuple(f"{i:032x}" for i in range(len(updates))),
        blocks=np.stack([rows[:, block] @ rows[:, block].T for block in blocks]),
        sample_counts=np.asarray(
            [1] * len(updates) if sample_counts is None else sample_counts, dtype=np.int64
        ),
        root=root,
        history=None if history is None else history @ history.T,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What becomes of each update, as one decryptor or as all of them see it.

    Args:
        weights: float64 [n], each in [0, 1]: the coefficients a_i; while screening, 1 or 0. All 0: the round
            can't go on, and ``reasons`` say why.
        reasons: uint8 [n], of ``Reason``; KEPT where the weight is positive, and nowhere else.
    """

    weights: Floats
    reasons: NDArray[np.uint8]

    @classmethod
    def of(cls, weights: Floats, reasons: NDArray[np.uint8] | None = None) -> Answer:
        """Weights with their reasons; where the weight is 0 and none is given, the rule is the reason."""
        given = np.zeros(weights.shape, dtype=np.uint8) if reasons is None else reasons
        told = np.where((weights > 0), Reason.KEPT, np.where(given == Reason.KEPT, Reason.RULE, given))
        return cls(weights=weights.astype(np.float64), reasons=told.astype(np.uint8))

    @classmethod
    def refusal(cls, size: int, reason: Reason) -> Answer:
        """Nothing counts: the round can't go on."""
        return cls(weights=np.zeros(size), reasons=np.full(size, reason, dtype=np.uint8))

    def same(self, other: Answer) -> bool:
        """True if both say the same, to the last bit."""
        return np.array_equal(self.weights, other.weights) and np.array_equal(self.reasons, other.reasons)


class Rule(Protocol):
    """A pure function from statistics to weights, split where it crosses the network."""

    @property
    def name(self) -> str:
        """The name used in configurations and plans."""
        ...

    @property
    def majority(self) -> bool:
        """True if ``settle`` takes what more than half of those asked have answered alike, or nothing."""
        ...

    def request(self, manifest: Manifest) -> StatisticsRequest | None:
        """What the aggregator must release, or None if the rule needs nothing opened.

        With a request, updates travel as differences to the model the round started from, and weights are the
        coefficients a_i; without one, models travel, and the new model is their weighted mean.

        Raises:
            ConfigError: RULE_UNSUPPORTED if the rule can't work on this manifest.
        """
        ...

    def require(self, clients: int) -> None:
        """See that the rule can work with as few as so many updates.

        Raises:
            ConfigError: RULE_UNSUPPORTED, with the inequality that does not hold.
        """
        ...

    def screen(self, statistics: Statistics) -> Answer:
        """One decryptor's answer to norms and products with references: who gets nothing else released."""
        ...

    def decide(self, statistics: Statistics) -> Answer:
        """One decryptor's answer to the round's statistics."""
        ...

    def settle(self, answers: Sequence[Answer], voters: int, sample_counts: NDArray[np.int64]) -> Answer:
        """The round's answer.

        Args:
            answers: those that arrived, in order of arrival; empty if ``request`` gave None.
            voters: how many could have answered.
            sample_counts: int64 [n], the clients' sample counts after the plan's cap.

        Raises:
            RoundError: NO_DECISION if none follows from the answers; STATISTICS_IMPOSSIBLE or
                TOO_FEW_CONTRIBUTORS if that is what they say.
        """
        ...


@runtime_checkable
class CoordinateRule(Rule, Protocol):
    """A rule that looks at each coordinate's values, which no Gram matrix tells: ``protect = plain`` only."""

    def combine(self, values: Floats) -> Floats:
        """The new model's values, float64 [k], from the clients', float64 [n, k]."""
        ...


RuleLoader = Callable[[str], Rule]
"""Name -> rule; raises ConfigError with RULE_UNKNOWN. ``defenses.load_rule`` is one."""
