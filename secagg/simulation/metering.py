"""A participant looks at its own plan with an attacker's eyes, before it sends anything."""

from __future__ import annotations

from math import prod

import numpy as np

from secagg.client.round import Round
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


def read_meter(task: Task, samples: Samples, upcoming: Round, model: Tensors) -> dict[str, object]:
    """What the round's visible part would give away of this participant's samples, for the launcher.

    Args:
        model: what the round starts from.
    """
    # Who doesn't ask for it need not wait for these.
    from attacks.inversion.attackers import load_attacker
    from attacks.inversion.meter import Meter
    from attacks.inversion.recorded import batch_of, training_of

    schedule = task.schedule
    meter = Meter(
        build_model(task.model, task.shape, task.classes, seed=0).train(),
        shape=task.shape,
        classes=task.classes,
        training=training_of(schedule, 1),
        attackers=[load_attacker(name) for name in ATTACKERS],
        seed=task.stream[0],
    )
    large = upcoming.layout.size * prod(task.shape) > LARGE
    chosen = samples.take(np.arange(1 if large else min(SAMPLES, len(samples))))
    reading = meter.read(model=model, layout=upcoming.layout, batch=batch_of(chosen))
    return {**reading.flat(), "lines": reading.lines}
