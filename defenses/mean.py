"""Federated averaging: every update counts as much as it has samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secagg.errors import Code, RoundError
from secagg.rule import Answer, Statistics, StatisticsRequest
from secagg.update import Manifest


class Mean:
    """Weights proportional to the capped sample counts; nobody is rejected.

    w_i ∝ min(n_i, cap), the cap being the plan's (McMahan et al., AISTATS 2017, arXiv 1602.05629,
    Algorithm 1, with a cap because clients state their own n_i). No statistic is opened and nobody is asked.
    Moves with a shift of all models; a single malicious one carries it anywhere.

    >>> import numpy as np
    >>> Mean().settle([], 3, np.array([300, 100, 0])).weights.tolist()
    [300.0, 100.0, 0.0]
    """

    name = "mean"
    majority = False

    def request(self, manifest: Manifest) -> StatisticsRequest | None:  # noqa: ARG002
        """Nothing has to be released."""
        return None

    def require(self, clients: int) -> None:
        """Any number will do."""

    def screen(self, statistics: Statistics) -> Answer:
        """Everybody passes; nobody is ever asked."""
        return Answer.of(np.ones(statistics.size))

    def decide(self, statistics: Statistics) -> Answer:
        """Everybody counts by samples; nobody is ever asked."""
        return Answer.of(statistics.sample_counts.astype(np.float64))

    def settle(
        self,
        answers: Sequence[Answer],  # noqa: ARG002
        voters: int,  # noqa: ARG002
        sample_counts: NDArray[np.int64],
    ) -> Answer:
        """The capped sample counts themselves.

        Raises:
            RoundError: NO_DECISION if there is no update, or none has a sample.
        """
        counts = np.asarray(sample_counts, dtype=np.float64)
        if not counts.sum() > 0:
            raise RoundError(Code.NO_DECISION, f"the {counts.size} updates have no sample between them")
        return Answer.of(counts)
