"""What rules that look at each coordinate by itself have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secagg.errors import Code, ConfigError
from secagg.rule import Answer, Floats, Statistics, StatisticsRequest
from secagg.update import Manifest


class CoordinateWise:
    """A rule on the order of each coordinate's values, which no inner product tells.

    It works on models in the clear only (``protect = plain``). As it commutes with adding the same number
    to all values of a coordinate, models and updates give the same. Its guarantee: each new value lies
    between honest values of that coordinate, as long as f are malicious at most.

    Args:
        f: how many models may be malicious; None: as many as there can be, ⌊(n − 1)/2⌋.

    Raises:
        ConfigError: CONFIG_INVALID for an f that is no whole number ≥ 0.
    """

    name = ""
    majority = False
    inequality = "n ≥ 2f + 1"

    def __init__(self, *, f: float | None = None) -> None:
        if f is not None and not (f >= 0 and float(f).is_integer()):
            raise ConfigError(Code.CONFIG_INVALID, f"{self.name}: f = {f} must be a whole number ≥ 0")
        self.f = None if f is None else int(f)

    def combine(self, values: Floats) -> Floats:
        """The new model's values, float64 [k], from the clients', float64 [n, k]."""
        raise NotImplementedError

    def assumed(self, size: int) -> int:
        """f, or the largest that so many models bear.

        Raises:
            ConfigError: RULE_UNSUPPORTED if 2f + 1 > n.
        """
        self.require(size)
        return (size - 1) // 2 if self.f is None else self.f

    def least(self, f: int) -> int:
        """``inequality`` solved for n."""
        return 2 * f + 1

    def require(self, clients: int) -> None:
        """See that n ≥ 2f + 1.

        Raises:
            ConfigError: RULE_UNSUPPORTED, with the inequality.
        """
        f = self.f or 0
        if clients < self.least(f):
            raise ConfigError(
                Code.RULE_UNSUPPORTED,
                f"{self.name} needs {self.inequality}: with f = {f} at least {self.least(f)} updates; "
                f"a round may go on with n = {clients}",
            )

    def request(self, manifest: Manifest) -> StatisticsRequest | None:  # noqa: ARG002
        """Nothing is released: the aggregator sees the models."""
        return None

    def screen(self, statistics: Statistics) -> Answer:
        """Everybody passes; nobody is ever asked."""
        return Answer.of(np.ones(statistics.size))

    def decide(self, statistics: Statistics) -> Answer:
        """Everybody counts; nobody is ever asked."""
        return Answer.of(np.ones(statistics.size))

    def settle(
        self,
        answers: Sequence[Answer],  # noqa: ARG002
        voters: int,  # noqa: ARG002
        sample_counts: NDArray[np.int64],
    ) -> Answer:
        """Every model is looked at: weight 1 each."""
        return Answer.of(np.ones(len(sample_counts)))
