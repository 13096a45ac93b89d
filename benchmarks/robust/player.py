"""Who plays the campaign's cells, in whichever process: cells of one setting share a federation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.robust.cell import Cell
from benchmarks.robust.curve import Play
from benchmarks.robust.federation import Federation
from benchmarks.robust.store import Outcome


@dataclass(eq=False)
class CurvePlayer:
    """Plays one cell after another and tells of every round.

    Args:
        folder: where states before attacks are kept.
        data: folder with the named data sets; None: $SECAGG_DATA.
    """

    folder: Path
    data: Path | None
    _federation: Federation | None = field(default=None, init=False, repr=False)

    def play_telling(self, cell: Cell, tell: Callable[[], None]) -> Outcome:
        """What a cell comes to; ``tell`` is called as each round ends, those before the attack included.

        Raises:
            ConfigError: as ``Federation``.
        """
        return Play(cell, self._federation_of(cell)).run(self.folder, lambda _: tell())

    def _federation_of(self, cell: Cell) -> Federation:
        # One at a time: networks and data sets are large.
        if self._federation is None or self._federation.setting != cell.setting:
            self._federation = Federation(cell.setting, self.data)
        return self._federation
