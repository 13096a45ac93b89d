"""CAF: weigh down what makes the updates' covariance large, until enough weight is gone."""

from __future__ import annotations

import numpy as np

from defenses.gram_rule import GramRule
from secagg.rule import Floats, Statistics


class CAF(GramRule):
    """Covariance-bound-agnostic filter (Allouah, Guerraoui, Stephan, ICML 2025, arXiv 2505.01874).

    From c = 1: with μ = Σc_i u_i/Σc and (λ, v) the top eigenpair of Σc_i(u_i − μ)(u_i − μ)ᵀ/Σc,

        c_i ← c_i·(1 − τ_i/max τ),    τ_i = ⟨u_i − μ, v⟩²,    while Σc > n − 2f.

    The result is the μ with the smallest λ. Eigenpairs are exact, from the Gram matrix; byzfl 0.0.11 takes
    one step of power iteration from a random vector, so that its result differs from call to call, and
    divides by the largest τ of all: if that is of an update without weight, it hardly ends. Here max τ is
    over those with weight. Unmoved by a shift of all updates.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> updates = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 40.0]])
    >>> CAF().coefficients(statistics_of(updates), 1).round(3).tolist()
    [0.25, 0.25, 0.254, 0.246, 0.0]
    """

    name = "caf"
    inequality = "n ≥ 2f + 1"

    def least(self, f: int) -> int:
        """n ≥ 2f + 1."""
        return max(2 * f + 1, self.fewest)

    def coefficients(self, statistics: Statistics, f: int) -> Floats:
        """c/Σc where λ is smallest."""
        gram, size = statistics.gram, statistics.size
        weights, best, smallest = np.ones(size), np.full(size, 1.0 / size), np.inf
        # Every pass takes the weight of one more update to 0, so that there are n passes at most.
        while weights.sum() > size - 2 * f and f:
            shares = weights / weights.sum()
            value, taus = top_direction(gram, shares)
            if value < smallest:
                best, smallest = shares, value
            highest = float(taus[weights > 0].max())
            if not highest > 1e-12 * float(np.diagonal(gram).max()):
                break  # what is left is one point
            weights = weights * np.maximum(1.0 - taus / highest, 0.0)
        return best


def top_direction(gram: Floats, shares: Floats) -> tuple[float, Floats]:
    """Top eigenvalue λ of Σp_i(u_i − μ)(u_i − μ)ᵀ, μ = Σp_i u_i, and ⟨u_i − μ, v⟩² along its eigenvector v.

    With K the Gram matrix of the u_i − μ and P = diag(p), P^½KP^½ has the same eigenvalues. y being its top
    eigenvector, v = Σ √p_i y_i (u_i − μ)/√λ, and ⟨u_i − μ, v⟩ = (K P^½ y)_i/√λ.

    Args:
        shares: p, ≥ 0, of sum 1, float64 [n].

    >>> round(top_direction(np.diag([9.0, 1.0]), np.array([0.5, 0.5]))[0], 9)
    2.5
    """
    means = gram @ shares
    centred = gram - means[:, None] - means[None, :] + shares @ means
    roots = np.sqrt(shares)
    values, vectors = np.linalg.eigh(centred * roots[:, None] * roots)
    value = max(float(values[-1]), 0.0)
    along = centred @ (roots * vectors[:, -1])
    return value, np.square(along) / value if value > 0 else np.zeros_like(along)
