"""What all rules from one Gram matrix have in common: parameters, gates, the majority of equal answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from defenses import gates
from secagg.errors import Code, ConfigError, RoundError
from secagg.rule import Answer, Floats, Reason, Rule, Statistics, StatisticsRequest
from secagg.update import Manifest

_MOST = 2**31
STEP = 2.0**-20
"""Answers are rounded to multiples of it: two machines' last bits must not make two answers of one."""

SAMPLED = 1.5
"""A sample is a whole number of ciphertexts: products are scaled up by so many times 1/sample at most."""


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
    out. All contributors are asked, while screening too, those that were screened out as well; a round's
    weights are what more than half of those asked have signed, to the last bit. A lying minority changes
    nothing, and a lying majority can't open a sum of fewer than k_min updates.

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
    majority = True
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
        whole = f is None or (0 <= f < _MOST and float(f).is_integer())
        self.require_that(whole, f"f = {f} must be a whole number ≥ 0")
        self.require_that(norm_bound >= 1, f"norm_bound = {norm_bound} must be at least 1")
        self.require_that(
            1 <= k_min < _MOST, f"k_min = {k_min:g} must be at least 1, and a number of updates"
        )
        self.require_that(layers in (0, 1), f"layers = {layers} must be 0 or 1")
        self.require_that(0 < sample <= 1, f"sample = {sample} must lie in (0, 1]")
        self.f = None if f is None else int(f)
        self.norm_bound, self.k_min, self.layers, self.sample = norm_bound, k_min, bool(layers), sample

    # What a subclass gives.

    def least(self, f: int) -> int:  # noqa: ARG002
        """The fewest updates that the rule works with if f are malicious: ``inequality`` solved for n.

        The root update is not summed and not counted; ``require`` counts it.
        """
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

        Args:
            clients: how many updates a round may go on with; the root's is one of them if there is one.

        Raises:
            ConfigError: RULE_UNSUPPORTED, with the inequality.
        """
        f = self.f if self.f is not None else 0
        least, among = self.least(f) + self.root, ", the root's among them" if self.root else ""
        if clients < least:
            raise ConfigError(
                Code.RULE_UNSUPPORTED,
                f"{self.name} needs {self.inequality}: with f = {f} at least {least} updates{among}; "
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
        # What is scaled up from a sample is as much less exact.
        if self.sample < 1:
            statistics = replace(statistics, resolution=SAMPLED * statistics.resolution / self.sample)
        reasons = gates.consistent(statistics, 1.0 if self.sample == 1 else SAMPLED / self.sample)
        if not self.screened:
            first = gates.screen(statistics, self.norm_bound).reasons
            reasons = np.where(reasons == Reason.KEPT, first, reasons)
        unrooted = root is not None and reasons[root] == Reason.IMPOSSIBLE
        if unrooted or gates.hopeless(reasons) or not gates.complete(statistics, pairs=self.pairs):
            return Answer.refusal(size, Reason.IMPOSSIBLE)
        # What can't be, or is left out, is not repeated.
        passed = reasons == Reason.KEPT
        reasons[passed] = gates.duplicates(statistics.of(passed))
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
        """What more than half of those asked have answered alike.

        An answer does not count that has another length, a weight outside [0, 1], or a reason that does not
        fit its weight (KEPT where it is positive, and nowhere else).

        Args:
            answers: those that arrived.
            voters: how many were asked: all contributors.
            sample_counts: int64 [n].

        Raises:
            RoundError: NO_DECISION without such a majority; STATISTICS_IMPOSSIBLE or TOO_FEW_CONTRIBUTORS
                if the majority says so; TOO_FEW_CONTRIBUTORS also if its weights are those of fewer than
                k_min effective updates: those who lie may be the majority.
        """
        sound = [answer for answer in answers if _sound(answer, len(sample_counts))]
        ranked = Counter(a.weights.tobytes() + a.reasons.tobytes() for a in sound).most_common(1)
        if not ranked or 2 * ranked[0][1] <= voters:
            most = ranked[0][1] if ranked else 0
            raise RoundError(
                Code.NO_DECISION,
                f"{self.name}: {most} of {voters} decryptors agree; more than half must",
            )
        chosen = next(a for a in sound if a.weights.tobytes() + a.reasons.tobytes() == ranked[0][0])
        if set(chosen.reasons.tolist()) == {Reason.IMPOSSIBLE}:
            raise RoundError(
                Code.STATISTICS_IMPOSSIBLE,
                f"{self.name}: no vectors have these statistics (not finite, negative, or products beyond "
                "the norms)",
            )
        if gates.effective(chosen.weights) < self.k_min:
            raise RoundError(
                Code.TOO_FEW_CONTRIBUTORS,
                f"{self.name}: too few updates are left ({self.inequality}, k_min = {self.k_min:g})",
            )
        return chosen


def _sound(answer: Answer, size: int) -> bool:
    """True for an answer of so many weights in [0, 1], KEPT where positive and nowhere else."""
    weights, reasons = answer.weights, answer.reasons
    if weights.shape != (size,) or reasons.shape != (size,):
        return False
    within = (weights >= 0) & (weights <= 1)  # not NaN
    return bool((within & ((weights > 0) == (reasons == Reason.KEPT))).all())


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
