"""FLTrust: updates count as far as they agree with one trained on the server's own data."""

from __future__ import annotations

import numpy as np

from defenses.gram_rule import GramRule
from secagg.rule import Floats, Statistics


class FLTrust(GramRule):
    """FLTrust (Cao, Fang, Liu, Gong, NDSS 2021, arXiv 2012.13995, Algorithm 2).

        t_i = max(0, cos(u_i, u_0)),    result = Σ t_i·(‖u_0‖/‖u_i‖)·u_i / Σ t_i,

    u_0 being the root client's update, which is trusted and not summed. Only norms and products with u_0
    are opened. Any number of attackers is borne as long as k_min honest updates are left. Changes when all
    updates are shifted alike, as cosines do. A coefficient beyond 1 (an update much shorter than u_0) is
    cut to 1.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> updates = np.array([[2.0, 0.0], [0.0, 1.0], [-3.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    >>> FLTrust().coefficients(statistics_of(updates, root=4), 1).round(3).tolist()
    [0.293, 0.0, 0.0, 0.293, 0.0]
    """

    name = "fltrust"
    mixable = False
    pairs, root = False, True
    inequality = "n ≥ f + k_min besides the root update"

    def least(self, f: int) -> int:
        """f + k_min besides the root update: what is summed may be the honest ones alone."""
        return f + self.fewest

    def coefficients(self, statistics: Statistics, f: int) -> Floats:  # noqa: ARG002
        """(t_i/Σt)·‖u_0‖/‖u_i‖."""
        root = statistics.root
        assert root is not None
        gram = statistics.gram
        norms = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
        pointing = (norms > 0) & (np.arange(statistics.size) != root) & bool(norms[root] > 0)
        trust, scale = np.zeros(statistics.size), np.zeros(statistics.size)
        trust[pointing] = np.maximum(gram[pointing, root] / (norms[pointing] * norms[root]), 0.0)
        scale[pointing] = norms[root] / norms[pointing]
        total = trust.sum()
        return trust * scale / total if total > 0 else np.zeros(statistics.size)
