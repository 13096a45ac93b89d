"""A participant looks at its own plan with an attacker's eyes, before it sends anything that can be seen.

Under a mask by magnitude the first round is hidden whole: its mask follows from an aggregate that is not
there yet. Such a round says nothing of what later ones give away, so a participant says that it waits, and
measures the first one of which something is visible.
"""

from __future__ import annotations

from math import prod

import numpy as np

from secagg.client.round import Round
from secagg.plan import ProtectionMode
from secagg.simulation.datasets.dataset import Samples
from secagg.simulation.models import build_model
from secagg.simulation.task import Task
from secagg.update import Tensors

SAMPLES = 4
"""How many of its own samples are tried, each alone."""
LARGE = 2**26
"""Entries times numbers of a sample from which on it is one: the first round should not have to wait."""
ATTACKERS = ("analytic", "gauss-newton")
"""Those that are suited are tried, on the sample that holds most."""
EFFORT, WORK = 0.2, 2**28
"""Share of an attacker's usual iterations, and the entries · numbers · epochs from which on it shrinks."""
WAITS = "nothing is visible yet; it measures again before the first upload of which something is"


class Watch:
    """Which rounds a participant measures: the first one of which something is visible.

    The first round counts in any case, if only to say that nothing is.
    """

    def __init__(self) -> None:
        self._begun = self._done = False

    def wants(self, upcoming: Round) -> bool:
        """True if this round is to be measured; asked once per round."""
        if self._done:
            return False
        first, self._begun = not self._begun, True
        self._done = not upcoming.layout.hidden.all()
        return first or self._done


def read_meter(task: Task, samples: Samples, upcoming: Round, model: Tensors) -> dict[str, object]:
    """What the round's visible part would give away of this participant's samples, for the launcher.

    Args:
        model: what the round starts from.
    """
    # Who doesn't ask for it need not wait for these.
    from attacks.inversion.attackers import Budget, load_attacker
    from attacks.inversion.meter import Meter
    from attacks.inversion.recorded import batch_of, training_of

    schedule = task.schedule
    work = upcoming.layout.size * prod(task.shape)
    meter = Meter(
        build_model(task.model, task.shape, task.classes, seed=0).train(),
        shape=task.shape,
        classes=task.classes,
        training=training_of(schedule, 1),
        attackers=[load_attacker(name) for name in ATTACKERS],
        budget=Budget(effort=EFFORT * min(1.0, WORK / (work * schedule.epochs))),
        seed=task.stream[0],
    )
    chosen = samples.take(np.arange(1 if work > LARGE else min(SAMPLES, len(samples))))
    reading = meter.read(model=model, layout=upcoming.layout, batch=batch_of(chosen))
    lines = reading.lines
    if not reading.visible and upcoming.plan.protection.mode is ProtectionMode.SELECTIVE:
        lines = (WAITS,)
    return {**reading.flat(), "lines": [f"round {upcoming.number}: {lines[0]}", *lines[1:]]}
