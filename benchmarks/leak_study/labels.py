"""The label that a mask alone gives away."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from attacks.inversion.attackers.labels import labels_from_mask
from attacks.inversion.bench.cell import Cell
from attacks.inversion.bench.play import Stage
from attacks.inversion.bench.store import Outcome

LABELS = "label-from-mask"
"""The attacker of a cell that guesses labels, and nothing else, from positions of hidden entries."""


@dataclass(kw_only=True, eq=False)
class LabelStage:
    """Plays cells of ``LABELS``, and all others as a sweep does.

    Args:
        stage: plays the others.
    """

    stage: Stage

    def play(self, cell: Cell) -> Outcome:
        """What a cell comes to."""
        return self._guessed(cell) if cell.attacker == LABELS else self.stage.play(cell)

    def _guessed(self, cell: Cell) -> Outcome:
        started = time.perf_counter()
        scene = self.stage.scene(cell)
        exposure = replace(
            scene.exposure(cell), labels=None, visible=torch.zeros_like(scene.victim.parameters())
        )
        try:
            found, why = labels_from_mask(exposure), ""
        except ValueError as error:
            found, why = None, str(error)
        wanted = scene.batch(cell).labels.sort().values
        rows = [
            {
                "sample": cell.update * len(wanted) + at,
                "label_correct": None if found is None else bool(found[at] == label),
                "detail": why,
            }
            for at, label in enumerate(wanted)
        ]
        return Outcome(rows=rows, seconds=time.perf_counter() - started)
