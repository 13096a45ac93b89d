"""A network small enough for brute force, and samples for it."""

from functools import cache

import torch
from torch import nn

from attacks.inversion.batch import Batch
from attacks.inversion.protections import Evidence
from attacks.inversion.training import Training
from attacks.inversion.victims import Victim

FEATURES, CLASSES = 6, 3
TRAINING = Training(learning_rate=0.1)
SCORED = ("magnitude", "sensitivity", "product", "weighted", "maskcrypt")
CHOSEN = (*SCORED, "random", "first", "last")
"""Significances that take a ratio."""


def victim_of(*layers: nn.Module, classes: int = CLASSES) -> Victim:
    """A victim with drawn float64 weights."""
    module = nn.Sequential(*layers).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.7, 0.7, generator=generator)
    return Victim(name="tiny", module=module, shape=(FEATURES,), classes=classes)


@cache
def tiny() -> Victim:
    """6 → 5 → 3 with tanh: 53 parameters in 4 tensors of 30, 5, 15 and 3."""
    return victim_of(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, CLASSES))


def samples(seed: int, count: int = 3, classes: int = CLASSES) -> Batch:
    """Uniform samples in [-2, 2] with drawn labels."""
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        inputs=4 * torch.rand(count, FEATURES, generator=generator, dtype=torch.float64) - 2,
        labels=torch.randint(classes, (count,), generator=generator),
    )


def evidence(victim: Victim, batch: Batch, **more: object) -> Evidence:
    """What a client with these samples computes its scores from."""
    parameters = victim.parameters()
    return Evidence(
        victim=victim,
        parameters=parameters,
        training=TRAINING,
        batch=batch,
        update=TRAINING.update(victim, parameters, batch),
        **more,  # type: ignore[arg-type]
    )
