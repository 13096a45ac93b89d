"""ARC: clip the largest updates, as many as the number of attackers calls for."""

from __future__ import annotations

import numpy as np

from defenses.mixing import Mixing
from defenses.norm_clipping import clipped
from secagg.rule import Floats, Statistics


class ARC(Mixing):
    """Adaptive robust clipping (Allouah et al., ICLR 2025, arXiv 2405.14432, Algorithm 1).

    The k = ⌊2(f/n)(n − f)⌋ longest updates are cut to the norm of the next longest. Then their mean, or the
    rule that follows ``arc+``, which is what the paper proves something about. Only norms are opened.
    Changes when all updates are shifted alike: norms are. With f = 0 nothing is cut, and the mean is left.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> updates = np.diag([1.0, 2.0, 4.0, 10.0])             # ⌊2(1/4)(3)⌋ = 1 is cut, to 4
    >>> ARC().coefficients(statistics_of(updates), 1).tolist()
    [0.25, 0.25, 0.25, 0.1]
    """

    name = "arc"
    pairs, screened = False, False
    inequality = "n ≥ 2f + 1"

    def least_to_mix(self, f: int) -> int:
        """Of more than half nothing can be learnt."""
        return 2 * f + 1

    def mixing(self, statistics: Statistics, f: int) -> Floats:
        """diag(min(1, C/‖u_i‖)), C being the norm that is the (n − k)-th smallest."""
        norms = np.sqrt(np.maximum(statistics.squared_norms, 0.0))
        size = statistics.size
        # In whole numbers: ⌊2(f/n)(n − f)⌋ in floating point may be one less.
        kept = size - 2 * f * (size - f) // size
        return np.diag(clipped(norms, float(np.sort(norms)[kept - 1])))
