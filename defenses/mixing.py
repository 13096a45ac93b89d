"""Rules that first replace every update by a combination of updates, and what may follow them."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Unpack

import numpy as np

from defenses.gram_rule import Common, GramRule
from secagg.errors import Code, ConfigError
from secagg.rule import Floats, Statistics


class Mixing(GramRule):
    """Updates u'_i = Σ_j M_ij·u_j in place of the u_i, then their mean or another rule.

    All the next rule wants to know follows from the same statistics: G' = M·G·Mᵀ, and ⟨u'_i, g⟩ = Σ_j
    M_ij⟨u_j, g⟩. Its coefficients a' for the u'_i are a = Mᵀ·a' for the u_i, which is what is summed.

    Args:
        then: the rule that follows; None: the mean.

    Raises:
        ConfigError: RULE_UNSUPPORTED for a rule that looks at more than the updates' geometry.
    """

    def __init__(self, *, then: object = None, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        if then is not None and not (isinstance(then, GramRule) and then.mixable):
            name = getattr(then, "name", then)
            raise ConfigError(
                Code.RULE_UNSUPPORTED,
                f"{self.name}+{name}: {name} looks at more than inner products "
                "(coordinates, a root update, histories, sample counts), of which mixed ones have none; "
                "put a rule like krum or geometric-median behind the +",
            )
        self.then = then
        if then is not None:
            own = self.inequality
            self.name = f"{self.name}+{then.name}"
            self.inequality = own if own == then.inequality else f"{own} and {then.inequality}"
            self.pairs = self.pairs or then.pairs
            self.references = max(self.references, then.references)
            self.screened = self.screened or then.screened

    def mixing(self, statistics: Statistics, f: int) -> Floats:
        """M, entries ≥ 0, float64 [n, n]."""
        raise NotImplementedError

    def least_to_mix(self, f: int) -> int:
        """``least`` of the mixing alone."""
        raise NotImplementedError

    def least(self, f: int) -> int:
        """Enough for both."""
        following = ceil(self.k_min) if self.then is None else self.then.least(f)
        return max(self.least_to_mix(f), following, f + 1)

    def coefficients(self, statistics: Statistics, f: int) -> Floats:
        """Mᵀ·a'."""
        matrix = self.mixing(statistics, f)
        if self.then is None:
            return np.asarray(matrix.mean(axis=0))
        return np.asarray(matrix.T @ self.then.coefficients(mixed(statistics, matrix), f))


def mixed(statistics: Statistics, matrix: Floats) -> Statistics:
    """The statistics of the updates Σ_j M_ij·u_j.

    >>> import numpy as np
    >>> from secagg.rule import statistics_of
    >>> halves = np.array([[0.5, 0.5], [0.5, 0.5]])
    >>> mixed(statistics_of(np.array([[2.0, 0.0], [0.0, 4.0]])), halves).gram.tolist()
    [[5.0, 5.0], [5.0, 5.0]]
    """
    size, blocks = statistics.size, statistics.blocks.copy()
    # Part by part: what was not released is NaN, and must not spread to what was.
    blocks[:, :size, :size] = matrix @ blocks[:, :size, :size] @ matrix.T
    blocks[:, :size, size:] = matrix @ blocks[:, :size, size:]
    blocks[:, size:, :size] = blocks[:, :size, size:].transpose(0, 2, 1)
    return replace(statistics, blocks=blocks, norms=None)
