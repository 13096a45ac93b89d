"""What luck explains: how often, and when it is no explanation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import bdtrc


def beyond_chance(hits: int, tries: int, chance: float, *, level: float) -> bool:
    """Whether luck is no explanation for so many hits: P(X ≥ hits) < level, with X ~ Binomial(tries, chance).

    Args:
        hits: how many came true, 0 … tries.
        tries: out of how many.
        chance: probability of each by luck alone, 0 … 1.
        level: 0 … 1.

    >>> [beyond_chance(hits, 8, 0.1, level=0.01) for hits in (3, 4)]
    [False, True]
    """
    return hits > 0 and chance < 1 and float(bdtrc(hits - 1, tries, chance)) < level


def blind_share(shares: Sequence[float], size: int) -> float:
    """What share of a batch's labels a guess names that knows how frequent each is, and no more; 0 … 1.

    A guess with m_c labels of class c names E[Σ_c min(N_c, m_c)] = Σ_c Σ_{k ≤ m_c} P(N_c ≥ k) of them, with
    N_c ~ Binomial(size, shares[c]). The terms fall with k, so the best guess has the ``size`` largest. Of one
    sample it is the most frequent label's share; of a large batch it comes near to 1.

    Args:
        shares: per class, sum 1.
        size: samples in a batch, positive.

    >>> blind_share([0.7, 0.3], 1)
    0.7
    """
    likely = bdtrc(np.arange(size)[None], size, np.asarray(shares, dtype=np.float64)[:, None])
    return float(np.sort(likely, axis=None)[-size:].sum() / size)
