"""The seam between the middleware and the rules that turn statistics into weights.

The aggregator computes entries of the augmented Gram matrix on ciphertexts; decryptors open them and
each run ``Rule.ballot``; the aggregator turns the ballots into weights with ``Rule.settle``. Rules live
in the ``defenses`` package and only see this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from secagg.update import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsRequest:
    """Which entries of the augmented Gram matrix a rule needs, and over which tensors.

    Args:
        tensors: names of the manifest's tensors the inner products run over; empty means all of them.
        squared_norms: release ⟨u_i, u_i⟩.
        reference_dots: release ⟨u_i, r⟩, r being the model the round started from.
    """

    tensors: tuple[str, ...]
    squared_norms: bool
    reference_dots: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Opened statistics of one round: the augmented Gram matrix as far as it was released.

    Args:
        round: the round they belong to.
        update_ids: n ids, in the order of the matrix's first n rows.
        gram: float64 [n+1, n+1], symmetric; row n is the reference. Entries not released are NaN.
    """

    round: int
    update_ids: tuple[str, ...]
    gram: NDArray[np.float64]

    @property
    def squared_norms(self) -> NDArray[np.float64]:
        """⟨u_i, u_i⟩, float64 [n]."""
        return np.diagonal(self.gram)[:-1].copy()

    @property
    def reference_dots(self) -> NDArray[np.float64]:
        """⟨u_i, r⟩, float64 [n]."""
        return self.gram[:-1, -1].copy()


class Rule(Protocol):
    """A pure function from statistics to weights, split where it crosses the network."""

    @property
    def name(self) -> str:
        """The name used in configurations and plans."""
        ...

    def request(self, manifest: Manifest) -> StatisticsRequest | None:
        """What the aggregator must release, or None if the rule needs nothing opened.

        Raises:
            ConfigError: RULE_UNSUPPORTED if the rule can't work on this manifest.
        """
        ...

    def ballot(self, statistics: Statistics) -> NDArray[np.float64]:
        """One decryptor's answer: float64 [n], each in [0, 1], in the order of ``update_ids``."""
        ...

    def settle(
        self, ballots: Sequence[NDArray[np.float64]], sample_counts: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The round's weights, float64 [n], each ≥ 0 with a positive sum; 0 means rejected.

        Args:
            ballots: the answers that arrived, in order of arrival; empty if ``request`` gave None.
            sample_counts: int64 [n], the clients' sample counts after the plan's cap.

        Raises:
            RoundError: NO_DECISION if no weights follow from the ballots.
        """
        ...


RuleLoader = Callable[[str], Rule]
"""Name -> rule; raises ConfigError with RULE_UNKNOWN. ``defenses.load_rule`` is one."""
