"""Federated averaging: every update counts as much as it has samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secagg.errors import Code, RoundError
from secagg.rule import Statistics, StatisticsRequest
from secagg.update import Manifest


class Mean:
    """Weights proportional to the capped sample counts; nobody is rejected.

    w_i ∝ min(n_i, cap), the cap being the plan's (McMahan et al., AISTATS 2017, arXiv 1602.05629,
    Algorithm 1, with a cap because clients state their own n_i). No statistic is opened and no ballot
    is held.

    >>> import numpy as np
    >>> Mean().settle([], np.array([300, 100, 0])).tolist()
    [300.0, 100.0, 0.0]
    """

    name = "mean"

    def request(self, manifest: Manifest) -> StatisticsRequest | None:  # noqa: ARG002
        """Nothing has to be released."""
        return None

    def ballot(self, statistics: Statistics) -> NDArray[np.float64]:
        """Everybody's vote for everybody; the aggregator never asks for it."""
        return np.ones(len(statistics.update_ids))

    def settle(
        self,
        ballots: Sequence[NDArray[np.float64]],  # noqa: ARG002
        sample_counts: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """The capped sample counts themselves, float64 [n].

        Raises:
            RoundError: NO_DECISION if there is no update, or none has a sample.
        """
        counts = np.asarray(sample_counts, dtype=np.float64)
        if not counts.sum() > 0:
            raise RoundError(Code.NO_DECISION, f"the {counts.size} updates have no sample between them")
        return counts
