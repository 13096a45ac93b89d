"""DDFed in its reference form: encrypted similarity, mean threshold, plurality vote."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secagg.errors import Code, ConfigError, RoundError
from secagg.rule import Statistics, StatisticsRequest
from secagg.update import Manifest


class DDFed:
    """Dual Defense Federated Learning (R. Xu et al., NeurIPS 2024, arXiv 2502.05547).

    With l_i the last layer's weights of client i's model and g those of the previous global model,

        s_i = |⟨l_i, g⟩ / ‖l_i‖|,   ŝ_i = (s_i − min s) / (max s − min s),
        vote_i = [ŝ_i ≥ mean ŝ],    w_i = vote_i · n_i,

    where the vote that counts is the one most decryptors sent. ‖g‖ is common to all scores and vanishes
    in the scaling. If all scores are equal there is nothing to tell clients apart by, and everybody is
    selected. The threshold is the paper's: about half of the clients are left out even without attack.

    Where this differs from the paper: norms are measured on the ciphertexts that are summed instead of
    being trusted to each client's normalisation, each decryptor uses its own threshold (which is the
    same for all), and a tie between votes decides nothing instead of falling to whoever came first.

    What the reference form does not see: |·| and the division make w, 8w and −w look alike; the sample
    counts are the clients' own words, bounded only by the plan's cap.

    Args:
        epsilon: ε of the paper's Gaussian noise on the similarities; None, the default, adds none. The
            similarities lie in [−1, 1], so that ε = 0.01, the authors' setting, makes the vote random.
        delta: δ of the same noise, in (0, 1); σ = √(2 ln(1.25/δ)) / ε.

    Raises:
        ConfigError: CONFIG_INVALID for ε ≤ 0 or δ outside (0, 1).

    >>> import numpy as np
    >>> gram = np.full((5, 5), np.nan)
    >>> np.fill_diagonal(gram, [4.0, 1.0, 9.0, 4.0, np.nan])      # ‖l_i‖² of four clients
    >>> gram[:-1, -1] = gram[-1, :-1] = [1.9, 0.96, 2.8, 0.2]     # ⟨l_i, g⟩
    >>> vote = DDFed().ballot(Statistics(round=1, update_ids=("a", "b", "c", "d"), gram=gram))
    >>> vote.tolist()                                             # scores .95 .96 .93 .10
    [1.0, 1.0, 1.0, 0.0]
    >>> DDFed().settle([vote, vote, np.ones(4)], np.array([10, 20, 30, 40])).tolist()
    [10.0, 20.0, 30.0, 0.0]
    """

    name = "ddfed"

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
        return StatisticsRequest(tensors=(layers[-1],), squared_norms=True, reference_dots=True)

    def ballot(self, statistics: Statistics) -> NDArray[np.float64]:
        """Who is at least as similar to the previous model as the average: 0 or 1 each, float64 [n].

        Raises:
            RoundError: NO_DECISION if a norm or a dot was not released or is not finite.
        """
        norms, dots = statistics.squared_norms, statistics.reference_dots
        bad = [
            name
            for name, norm, dot in zip(statistics.update_ids, norms, dots, strict=True)
            if not np.isfinite([norm, dot]).all()
        ]
        if bad or not norms.size:
            raise RoundError(
                Code.NO_DECISION,
                f"no finite similarity for {len(bad)} of {norms.size} updates ({', '.join(bad[:3])})",
                round=statistics.round,
            )
        # An update whose layer is zero (or so small that noise made its norm negative) points nowhere.
        positive = norms > 0
        scores = np.zeros(norms.size)
        scores[positive] = np.abs(dots[positive]) / np.sqrt(norms[positive])
        if self._sigma:
            scores = self._perturb(scores, statistics)
        low, high = scores.min(), scores.max()
        if high == low:
            return np.ones(norms.size)
        scaled = (scores - low) / (high - low)
        vote: NDArray[np.float64] = (scaled >= scaled.mean()).astype(np.float64)
        return vote

    def settle(
        self, ballots: Sequence[NDArray[np.float64]], sample_counts: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Capped sample counts of those the most frequent vote selects, 0 for the others; float64 [n].

        What is not a vote (another length, values besides 0 and 1, nobody selected) does not count: a
        single client can't stop the round with it.

        Raises:
            RoundError: NO_DECISION if no vote is left, two votes tie, or those selected have no sample.
        """
        counts = np.asarray(sample_counts, dtype=np.float64)
        votes = Counter(
            vote.astype(np.uint8).tobytes()
            for vote in map(np.asarray, ballots)
            if vote.shape == counts.shape and np.isin(vote, (0.0, 1.0)).all() and vote.any()
        )
        ranked = votes.most_common(2)
        if not ranked:
            raise RoundError(
                Code.NO_DECISION, f"none of {len(ballots)} ballots is a vote on {counts.size} updates"
            )
        if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
            raise RoundError(Code.NO_DECISION, f"two different votes have {ranked[0][1]} ballots each")
        weights = counts * np.frombuffer(ranked[0][0], dtype=np.uint8)
        if not weights.sum() > 0:
            raise RoundError(Code.NO_DECISION, "the selected updates have no sample between them")
        return weights

    def _perturb(self, scores: NDArray[np.float64], statistics: Statistics) -> NDArray[np.float64]:
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
