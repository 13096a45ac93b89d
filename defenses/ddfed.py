"""DDFed in its reference form: encrypted similarity, mean threshold, plurality vote."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secagg.errors import Code, ConfigError, RoundError
from secagg.rule import Answer, Floats, Reason, Statistics, StatisticsRequest
from secagg.update import Manifest


class DDFed:
    """Dual Defense Federated Learning (R. Xu et al., NeurIPS 2024, arXiv 2502.05547).

    With l_i the last layer's weights of client i's model and g those of the previous global model,

        s_i = |⟨l_i, g⟩ / ‖l_i‖|,   ŝ_i = (s_i − min s) / (max s − min s),
        vote_i = [ŝ_i ≥ mean ŝ],    w_i = vote_i · n_i,

    where the vote that counts is the one most decryptors sent. ‖g‖ is common to all scores and vanishes
    in the scaling. If all scores are equal there is nothing to tell clients apart by, and everybody is
    selected. The threshold is the paper's: about half of the clients are left out even without attack.

    Where this differs from the paper: statistics are told of updates u_i, from which those of models
    follow, ⟨l_i, g⟩ = ⟨u_i, g⟩ + ‖g‖² and ‖l_i‖² = ‖u_i‖² + 2⟨u_i, g⟩ + ‖g‖²; norms are measured on the
    ciphertexts that are summed instead of being trusted to each client's normalisation; each decryptor uses
    its own threshold (which is the same for all); and a tie between votes decides nothing instead of
    falling to whoever came first.

    What the reference form does not see: |·| and the division make w, 8w and −w look alike; the sample
    counts are the clients' own words, bounded only by the plan's cap; a vote that a plurality sends counts,
    whether or not most agree. ``ddfed-hardened`` is the version without these.

    Args:
        epsilon: ε of the paper's Gaussian noise on the similarities; None, the default, adds none. The
            similarities lie in [−1, 1], so that ε = 0.01, the authors' setting, makes the vote random.
        delta: δ of the same noise, in (0, 1); σ = √(2 ln(1.25/δ)) / ε.

    Raises:
        ConfigError: CONFIG_INVALID for ε ≤ 0 or δ outside (0, 1).

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> g = np.array([1.0, 0.0])
    >>> models = np.array([[2.0, 0.5], [1.0, 0.2], [3.0, 1.0], [0.1, 1.0]])   # cosines .97 .98 .95 .10
    >>> statistics = statistics_of(models - g, base=g, sample_counts=[10, 20, 30, 40])
    >>> vote = DDFed().decide(statistics)
    >>> vote.weights.round(4).tolist()
    [0.1667, 0.3333, 0.5, 0.0]
    >>> DDFed().settle([vote, vote], 4, statistics.sample_counts).same(vote)
    True
    """

    name = "ddfed"
    majority = False

    def __init__(self, *, epsilon: float | None = None, delta: float = 1e-5) -> None:
        if epsilon is not None and not 0 < epsilon < np.inf:
            raise ConfigError(Code.CONFIG_INVALID, f"ddfed: epsilon = {epsilon} must be positive")
        if not 0 < delta < 1:
            raise ConfigError(Code.CONFIG_INVALID, f"ddfed: delta = {delta} must lie between 0 and 1")
        self._sigma = 0.0 if epsilon is None else float(np.sqrt(2 * np.log(1.25 / delta)) / epsilon)

    def request(self, manifest: Manifest) -> StatisticsRequest | None:
        """Norms and reference dots over the last tensor with two or more dimensions.

        Raises:
            ConfigError: RULE_UNSUPPORTED if the model has no such tensor.
        """
        layers = [spec.name for spec in manifest.tensors if len(spec.shape) >= 2]
        if not layers:
            raise ConfigError(
                Code.RULE_UNSUPPORTED,
                "ddfed compares a layer's weights; no tensor has two or more dimensions",
            )
        return StatisticsRequest(blocks=((layers[-1],),), references=1, models=True)

    def require(self, clients: int) -> None:
        """Any number will do: the paper names no inequality but fewer than half malicious."""

    def screen(self, statistics: Statistics) -> Answer:
        """Everybody passes: the paper has no gates."""
        return Answer.of(np.ones(statistics.size))

    def decide(self, statistics: Statistics) -> Answer:
        """Who is at least as similar to the previous model as the average, by capped sample counts of sum 1.

        A refusal (IMPOSSIBLE) if a norm or a product was not released or is not finite, or there is no
        update; TOO_FEW if those selected have no sample.
        """
        norm, dots = statistics.reference_norm, statistics.reference_dots
        products = dots + norm
        norms = statistics.squared_norms + 2 * dots + norm
        if not statistics.size or not np.isfinite([products, norms]).all():
            return Answer.refusal(statistics.size, Reason.IMPOSSIBLE)
        # A layer that is zero (or so small that noise made its norm negative) points nowhere.
        positive = norms > 0
        scores = np.zeros(norms.size)
        scores[positive] = np.abs(products[positive]) / np.sqrt(norms[positive])
        if self._sigma:
            scores = self._perturb(scores, statistics)
        low, high = scores.min(), scores.max()
        scaled = (scores - low) / (high - low) if high > low else np.ones(norms.size)
        return _counted(scaled >= scaled.mean(), statistics.sample_counts)

    def settle(self, answers: Sequence[Answer], voters: int, sample_counts: NDArray[np.int64]) -> Answer:  # noqa: ARG002
        """The most frequent vote.

        What is not a vote (another length, weights that are not the selected clients' sample counts, nobody
        selected) does not count: a single client can't stop the round with it.

        Raises:
            RoundError: NO_DECISION if no vote is left or two votes tie; STATISTICS_IMPOSSIBLE or
                TOO_FEW_CONTRIBUTORS if that is what most of them say.
        """
        size = len(sample_counts)
        refusals = {
            Answer.refusal(size, reason).reasons.tobytes(): reason
            for reason in (Reason.IMPOSSIBLE, Reason.TOO_FEW)
        }
        votes: Counter[bytes] = Counter()
        for answer in answers:
            if answer.weights.shape != (size,) or answer.reasons.shape != (size,):
                continue
            if answer.same(_counted(answer.weights > 0, sample_counts)) or (
                not answer.weights.any() and answer.reasons.tobytes() in refusals
            ):
                votes[answer.reasons.tobytes()] += 1
        ranked = votes.most_common(2)
        if not ranked:
            raise RoundError(Code.NO_DECISION, f"none of {len(answers)} answers is a vote on {size} updates")
        if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
            raise RoundError(Code.NO_DECISION, f"two different votes have {ranked[0][1]} ballots each")
        chosen = ranked[0][0]
        if refusals.get(chosen) is Reason.IMPOSSIBLE:
            raise RoundError(Code.STATISTICS_IMPOSSIBLE, "ddfed: a norm or product is missing or not finite")
        if chosen in refusals:
            raise RoundError(Code.TOO_FEW_CONTRIBUTORS, "ddfed: the selected updates have no sample")
        return _counted(np.frombuffer(chosen, dtype=np.uint8) == Reason.KEPT, sample_counts)

    def _perturb(self, scores: Floats, statistics: Statistics) -> Floats:
        # Decryptors must agree, so the draws come from public values: this reproduces what the noise
        # does to the selection, and hides nothing. The scores are cosines times ‖g‖, of which the
        # largest score is the best lower bound at hand.
        seed = hashlib.sha256(
            b"secagg/ddfed/noise\0"
            + statistics.round.to_bytes(8, "little")
            + "\0".join(statistics.update_ids).encode()
        ).digest()
        draws = np.random.default_rng(int.from_bytes(seed, "little")).normal(0.0, self._sigma, scores.size)
        scale = scores.max() or 1.0
        return np.abs(scores / scale + draws)


def _counted(selected: NDArray[np.bool_], sample_counts: NDArray[np.int64]) -> Answer:
    """Those selected, by sample counts of sum 1; a refusal if they have none."""
    weights: Floats = np.where(selected, sample_counts, 0).astype(np.float64)
    if not weights.sum() > 0:
        return Answer.refusal(len(weights), Reason.TOO_FEW)
    return Answer.of(weights / weights.sum())
