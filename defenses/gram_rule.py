"""What all rules from one Gram matrix have in common: parameters, gates, the majority of equal answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from defenses import gates
from secagg.errors import Code, ConfigError, RoundError
from secagg.rule import Answer, Floats, Reason, Rule, Statistics, StatisticsRequest
from secagg.update import Manifest

STEP = 2.0**-20
"""Answers are rounded to multiples of it: two machines' last bits must not make two answers of one."""


class Common(TypedDict, total=False):
    """The parameters that every rule from one Gram matrix takes; ``GramRule`` says what they mean."""

    f: float | None
    norm_bound: float
    k_min: float
    layers: float
    sample: float


class GramRule:
    """A rule whose coefficients follow from the statistics; a subclass gives ``coefficients`` and its
    inequality.

    Every decryptor runs the same deterministic function on the same opened statistics and signs what comes
    out; a round's weights are what more than half of the contributors have signed, to the last bit. A lying
    minority changes nothing.

    Args:
        f: how many updates may be malicious; None: as many as the rule bears with the updates there are.
        norm_bound: an update whose norm exceeds so many times the median norm is dropped before anything
            else is released; at least 1.
        k_min: least effective number of updates in a sum, (Σa)²/Σa²; 1 allows rules that open a single
            update.
        layers: 1: inner products per layer (all tensors that share a name up to the last dot) instead of over
            everything at once, and the norm bound holds for each layer.
        sample: share of the ciphertexts that inner products of pairs run over.

    Raises:
        ConfigError: CONFIG_INVALID for a value out of range.
    """

    name = ""
    inequality = "n ≥ 1"
    """What n and f must satisfy, as people write it."""
    mixable = True
    """True if nothing but the updates' geometry matters, so that mixed updates will do (``nnm+…``)."""
    pairs, references, root, history = True, 0, False, False
    """What the rule asks for besides squared norms, as in ``StatisticsRequest``."""
    screened = True
    """Norms are looked at before anything else is released; False for a rule that needs nothing else."""

    def __init__(
        self,
        *,
        f: float | None = None,
        norm_bound: float = 5.0,
        k_min: float = 2,
        layers: float = 0,
        sample: float = 1.0,
    ) -> None:
        whole = f is None or (f >= 0 and float(f).is_integer())
        self.require_that(whole, f"f = {f} must be a whole number ≥ 0")
        self.require_that(norm_bound >= 1, f"norm_bound = {norm_bound} must be at least 1")
        self.require_that(k_min >= 1, f"k_min = {k_min} must be at least 1")
        self.require_that(layers in (0, 1), f"layers = {layers} must be 0 or 1")
        self.require_that(0 < sample <= 1, f"sample = {sample} must lie in (0, 1]")
        self.f = None if f is None else int(f)
        self.norm_bound, self.k_min, self.layers, self.sample = norm_bound, k_min, bool(layers), sample

    # What a subclass gives.

    def least(self, f: int) -> int:  # noqa: ARG002
        """The fewest updates that the rule works with if f are malicious: ``inequality`` solved for n."""
        return 1

    def coefficients(self, statistics: Statistics, f: int) -> Floats:
        """The coefficients a_i ≥ 0, float64 [n]; the new model is g + Σ a_i·u_i.

        Args:
            statistics: of n updates with finite, possible entries, none of them a repetition of another.
            f: how many of them may be malicious; ``least(f) ≤ n``.
        """
        raise NotImplementedError

    def judged(self, statistics: Statistics, f: int) -> Answer:
        """The coefficients with reasons; a rule overrides it to say more than that it gives no weight."""
        return Answer.of(self.coefficients(statistics, f))

    # What follows from it.

    @property
    def fewest(self) -> int:
        """k_min as a whole number: equal weights need as many updates."""
        return ceil(self.k_min)

    def require_that(self, holds: bool, complaint: str) -> None:
        """Raises ConfigError CONFIG_INVALID with the complaint unless it holds."""
        if not holds:
            raise ConfigError(Code.CONFIG_INVALID, f"{self.name}: {complaint}")

    def bearable(self, size: int) -> int:
        """The largest f with ``least(f) ≤ size``; 0 if there is none."""
        return max((f for f in range(size) if self.least(f) <= size), default=0)

    def request(self, manifest: Manifest) -> StatisticsRequest | None:
        """What the rule's attributes say; over layers if asked for."""
        return StatisticsRequest(
            blocks=layer_blocks(manifest) if self.layers else (),
            pairs=self.pairs,
            references=self.references,
            root=self.root,
            history=self.history,
            screened=self.screened,
            sample=self.sample,
        )

    def require(self, clients: int) -> None:
        """See that n = ``clients`` satisfies the rule's inequality.

        Raises:
            ConfigError: RULE_UNSUPPORTED, with the inequality.
        """
        f = self.f if self.f is not None else 0
        if clients < self.least(f):
            raise ConfigError(
                Code.RULE_UNSUPPORTED,
                f"{self.name} needs {self.inequality}: with f = {f} at least {self.least(f)} updates; "
                f"a round may go on with n = {clients}",
            )

    def screen(self, statistics: Statistics) -> Answer:
        """Who passes the gates that need norms only: weight 1 each, others 0; all pass if not screened."""
        if not self.screened:
            return Answer.of(np.ones(statistics.size))
        return gates.screen(statistics, self.norm_bound)

    def decide(self, statistics: Statistics) -> Answer:
        """The coefficients of those that repeat no other, as a decryptor signs them."""
        size, root = statistics.size, statistics.root
        if not gates.possible(statistics) or (self.pairs and not np.isfinite(statistics.gram).all()):
            return Answer.refusal(size, Reason.IMPOSSIBLE)
        reasons = gates.duplicates(statistics)
        if not self.screened:
            first = gates.screen(statistics, self.norm_bound).reasons
            reasons = np.where(first == Reason.KEPT, reasons, first)
        if root is not None:
            reasons[root] = Reason.ROOT
        kept = reasons == Reason.KEPT
        f = self.remaining_f(statistics, int(kept.sum()))
        if not kept.any() or int(kept.sum()) < self.least(f):
            return Answer.refusal(size, Reason.TOO_FEW)
        left = statistics.of(kept | (reasons == Reason.ROOT))
        found = self.judged(left, f)
        told = np.arange(left.size) != left.root
        weights = np.zeros(size)
        # Adding 0 turns −0 into 0: answers are compared bit by bit.
        weights[kept] = np.round(np.clip(found.weights[told], 0.0, 1.0) / STEP) * STEP + 0.0
        reasons[kept] = found.reasons[told]
        if gates.effective(weights) < self.k_min:
            return Answer.refusal(size, Reason.TOO_FEW)
        return Answer.of(weights, reasons)

    def remaining_f(self, statistics: Statistics, kept: int) -> int:
        """How many of those kept may still be malicious: each that a gate dropped is one less."""
        if self.f is None:
            return self.bearable(kept)
        size = statistics.size - (statistics.root is not None) + statistics.dropped
        return max(0, self.f - (size - kept))

    def settle(
        self,
        answers: Sequence[Answer],
        voters: int,
        sample_counts: NDArray[np.int64],
    ) -> Answer:
        """What more than half of the voters have answered alike.

        Raises:
            RoundError: NO_DECISION without such a majority; STATISTICS_IMPOSSIBLE or TOO_FEW_CONTRIBUTORS
                if the majority says so.
        """
        shape = sample_counts.shape
        sound = [a for a in answers if a.weights.shape == shape and a.reasons.shape == shape]
        ranked = Counter(a.weights.tobytes() + a.reasons.tobytes() for a in sound).most_common(1)
        if not ranked or 2 * ranked[0][1] <= voters:
            most = ranked[0][1] if ranked else 0
            raise RoundError(
                Code.NO_DECISION,
                f"{self.name}: {most} of {voters} decryptors agree; more than half must",
            )
        chosen = next(a for a in sound if a.weights.tobytes() + a.reasons.tobytes() == ranked[0][0])
        if not chosen.weights.any():
            reasons = set(chosen.reasons.tolist())
            if Reason.IMPOSSIBLE in reasons:
                raise RoundError(
                    Code.STATISTICS_IMPOSSIBLE,
                    f"{self.name}: no vectors have these statistics (NaN, or negative)",
                )
            raise RoundError(
                Code.TOO_FEW_CONTRIBUTORS,
                f"{self.name}: too few updates are left ({self.inequality}, k_min = {self.k_min:g})",
            )
        return chosen


def judge(rule: Rule, statistics: Statistics) -> Answer:
    """What a rule makes of a round whose statistics are all known at once: ``screen``, then ``decide`` on
    the rest.

    This is what a federation does in two steps, so that what is screened out gets no more released.

    Args:
        rule: with a request.
        statistics: of all updates; a root update is in it.
    """
    first = rule.screen(statistics)
    kept = first.weights > 0
    if statistics.root is not None:
        kept[statistics.root] = True
    if not first.weights.any():
        return first
    second = rule.decide(statistics.of(kept))
    if not second.weights.any():
        return Answer.refusal(statistics.size, Reason(int(second.reasons[0])))
    weights, reasons = np.zeros(statistics.size), first.reasons.copy()
    weights[kept], reasons[kept] = second.weights, second.reasons
    return Answer(weights=weights, reasons=reasons)


def layer_blocks(manifest: Manifest) -> tuple[tuple[str, ...], ...]:
    """The manifest's tensors by layer: those that share a name up to its last dot, in order."""
    layers: dict[str, list[str]] = {}
    for spec in manifest.tensors:
        layers.setdefault(spec.name.rpartition(".")[0] or spec.name, []).append(spec.name)
    return tuple(tuple(names) for names in layers.values())
