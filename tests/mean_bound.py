"""How far an opened mean may be from the exact one, in a round that tests hold through clients and a
server.
"""

from collections.abc import Sequence

import numpy as np

from secagg.ckks import profile
from secagg.ckks.bounds import error_bound
from secagg.scales import Scales
from secagg.update import Manifest, Tensors


def mean_bound(name: str, base: Tensors, weights: Sequence[int], largest: float = 1.0) -> float:
    """Under the profile of this name, for a round that starts from ``base``.

    Under a quantising profile each of k clients rounds to a step, and what it carries over from its last
    update is below another; their sum is divided by Σ n/unit, unit being the largest count.
    """
    used, manifest = profile(name), Manifest.of(base)
    counts = np.array([weight for weight in weights if weight], dtype=np.int64)
    if not used.quantised:
        return error_bound(used, manifest.size, counts, max_abs=largest)
    step = Scales.around(manifest.flatten(base), manifest).largest_step(used)
    return float(2 * step * counts.size * counts.max() / counts.sum() + 2.0**-22 * largest)
