"""Timing several things in turn, again and again: what else the machine does then, it does to all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter

TURN_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """What each thing took in each round, by its name; the same number of rounds for all."""

    of: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        """The median over the rounds."""
        return median(self.of[name])

    def ratio(self, name: str, other: str) -> float:
        """How many times as long as ``other`` something took: the median over the rounds."""
        return median(a / b for a, b in zip(self.of[name], self.of[other], strict=True))


def alternate(rounds: int, **things: Callable[[], object]) -> Seconds:
    """Each thing once, uncounted, so that all is loaded and made; then ``rounds`` times all in turn.

    In its turn a short thing is done again and again for ``TURN_S``, and its mean counts: one call alone
    would mostly show that what ran before has emptied the caches.
    """
    for thing in things.values():
        thing()
    taken: dict[str, list[float]] = {name: [] for name in things}
    for _ in range(rounds):
        for name, thing in things.items():
            started, calls, spent = perf_counter(), 0, 0.0
            while not calls or spent < TURN_S:
                thing()
                calls, spent = calls + 1, perf_counter() - started
            taken[name].append(spent / calls)
    return Seconds(of=taken)
