"""How long what is left of a sweep may take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from attacks.inversion.bench.cell import Cell

_Kind = tuple[str, str]


class Clock:
    """Cells that are left, at what cells of the same victim and attacker have taken so far.

    Args:
        cells: that are to be played.
        count: how many are played at once.
    """

    def __init__(self, cells: Sequence[Cell], count: int) -> None:
        self._left, self._count = Counter(map(_kind, cells)), max(1, count)
        self._seconds: Counter[_Kind] = Counter()
        self._ended: Counter[_Kind] = Counter()

    def ended(self, cell: Cell, seconds: float | None) -> None:
        """A cell has ended, after so many seconds; None if it failed."""
        kind = _kind(cell)
        self._left[kind] -= 1
        if seconds is not None:
            self._ended[kind] += 1
            # Counter's values are declared int; seconds are kept in whole milliseconds.
            self._seconds[kind] += round(1000 * seconds)

    def left_s(self) -> float | None:
        """Seconds that are left; None before any cell has ended."""
        if not self._ended.total():
            return None
        usual = self._seconds.total() / self._ended.total()
        spans = (
            count * (self._seconds[kind] / self._ended[kind] if self._ended[kind] else usual)
            for kind, count in self._left.items()
        )
        return sum(spans) / 1000 / self._count

    @property
    def text(self) -> str:
        """For people."""
        left = self.left_s()
        return "…" if left is None else f"{duration(left)} left"


def duration(seconds: float) -> str:
    """For people.

    >>> duration(125), duration(7260)
    ('2 min 5 s', '2 h 1 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _kind(cell: Cell) -> _Kind:
    return cell.victim, cell.attacker
