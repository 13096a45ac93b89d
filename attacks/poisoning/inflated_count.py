"""Inflated count: an honest update of few samples, said to be of many."""

from __future__ import annotations

from attacks.poisoning.attack import Attack


class InflatedCount(Attack):
    """n_i → strength·n_i, rounded up; the plan's cap on sample counts is all that bounds it.

    >>> InflatedCount(2.5).sample_count(9)
    23
    """

    name = "inflated-count"
    default_strength = 10.0

    def sample_count(self, count: int) -> int:
        """What the member says; at least 1."""
        return max(1, -int(-self.strength * count // 1))
