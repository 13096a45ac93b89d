"""FoolsGold: clients whose updates resemble each other's, round after round, count little."""

from __future__ import annotations

import numpy as np

from defenses.geometry import cosines
from defenses.gram_rule import GramRule
from secagg.rule import Floats, Statistics

_ALMOST = 0.99
_NOTHING = 1e-9


class FoolsGold(GramRule):
    """FoolsGold (Fung, Yoon, Beschastnikh, RAID 2020, arXiv 1808.04866, Algorithm 1).

    With c_ij the cosine of the sums of all updates of clients i and j so far, c_ii = 0, and v_i = max_j c_ij:

        c_ij ← c_ij·v_i/v_j where v_i < v_j;    α_i = 1 − max_j c_ij, scaled so that the largest is 1;
        α_i ← ln(α_i/(1 − α_i)) + ½, cut to [0, 1];    result = Σ α_i u_i / Σ α.

    The paper adds up gradients at a learning rate; updates must not be, so that they are averaged here. It
    looks at the features that matter most to the output; here all values count. Norms are not bounded by
    it, only by the gate. It is made against sybils that share one aim: a lone attacker looks as different
    as an honest client, and there is no number of attackers up to which it holds. Changes when all updates
    are shifted alike.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> updates = np.array([[1.0, 0.1, 0.0], [0.0, 1.0, 0.1], [-1.0, 0.0, 1.0], [-1.0, 0.0, 1.01]])
    >>> FoolsGold().coefficients(statistics_of(updates, history=updates), 1).round(2).tolist()
    [0.5, 0.5, 0.0, 0.0]
    """

    name = "foolsgold"
    mixable = False
    pairs, history = False, True
    inequality = "n ≥ f + k_min"

    def least(self, f: int) -> int:
        """f + k_min, and two to compare."""
        return max(2, f + self.fewest)

    def coefficients(self, statistics: Statistics, f: int) -> Floats:  # noqa: ARG002
        """α_i/Σα."""
        assert statistics.history is not None
        alike = cosines(statistics.history)
        np.fill_diagonal(alike, 0.0)
        highest = alike.max(axis=1)
        # v_j > v_i ≥ 0, as c_jj = 0 is among those the maximum is taken of.
        pardon = np.divide(
            highest[:, None],
            highest[None, :],
            out=np.ones_like(alike),
            where=highest[:, None] < highest[None, :],
        )
        trust = np.clip(1.0 - (alike * pardon).max(axis=1), 0.0, 1.0)
        # Who has sent nothing so far points nowhere, and must not look like the only one that is different.
        squared = np.diagonal(statistics.history)
        trust[squared <= max(statistics.resolution, 1e-6 * float(np.median(squared)))] = 0.0
        if not trust.max() > _NOTHING:
            return np.zeros_like(trust)  # all are one sybil
        trust = np.minimum(trust / trust.max(), _ALMOST)
        logits = np.full_like(trust, -np.inf)
        np.log(trust / (1.0 - trust), out=logits, where=trust > 0)
        trust = np.clip(logits + 0.5, 0.0, 1.0)
        return np.asarray(trust / trust.sum())
