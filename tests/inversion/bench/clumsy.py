"""A player of cells that fails, for whoever plays them elsewhere."""

import os
from dataclasses import dataclass

from attacks.inversion.bench.store import Outcome


@dataclass
class Clumsy:
    """Plays cells of update 0; the others end it, or its process."""

    def play(self, cell):
        if cell.update == 1:
            raise ValueError("that one")
        if cell.update == 2:
            os._exit(7)
        return Outcome(rows=[{"update": cell.update}], seconds=0.0)
