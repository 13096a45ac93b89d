"""Local training and evaluation of one client. Importing this module imports torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from secagg.simulation.datasets.dataset import Samples
from secagg.simulation.task import Schedule

EVALUATION_BATCH = 1_000


def batches(count: int, schedule: Schedule, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Which of so many samples each gradient step is of, in all epochs; an epoch's last may be of fewer.

    Args:
        generator: orders the samples of each epoch.
    """
    for _ in range(schedule.epochs):
        order = generator.permutation(count)
        for start in range(0, count, schedule.batch_size):
            yield order[start : start + schedule.batch_size]


def train(module: nn.Module, samples: Samples, schedule: Schedule, generator: np.random.Generator) -> None:
    """Minimise the mean cross entropy over the samples, in place, by gradient descent with momentum.

    v ← momentum·v + ∇L(batch), θ ← θ − learning_rate·v (as ``torch.optim.SGD``, whose construction imports
    torch's compiler: a second for every participant process). v starts at 0 each time: no state but the
    model survives a round.

    Args:
        generator: orders the samples of each epoch.
    """
    values = torch.from_numpy(samples.scaled())
    labels = torch.from_numpy(samples.labels)
    parameters = list(module.parameters())
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    module.train()
    for indices in batches(len(samples), schedule, generator):
        batch = torch.from_numpy(indices)
        loss = nn.functional.cross_entropy(module(values[batch]), labels[batch])
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, velocity, gradient in zip(parameters, velocities, gradients, strict=True):
                velocity.mul_(schedule.momentum).add_(gradient)
                parameter.sub_(velocity, alpha=schedule.learning_rate)


def can_be_sealed(model: NDArray[np.float32], base: NDArray[np.float32], limit: float) -> bool:
    """Whether a participant sends this model after training; otherwise it sends the one it was given.

    Args:
        model, base: after and before training, flat, float32 [d].
        limit: no value of the model, nor of its difference to the base, may be larger: either is sealed.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # NaN is not below the limit.
        return bool(np.abs(model).max() <= limit and np.abs(model - base).max() <= limit)


def evaluate(module: nn.Module, samples: Samples) -> tuple[float, float]:
    """Accuracy in [0, 1] and mean cross entropy (natural logarithm) over the samples."""
    module.eval()
    hits, loss = 0, 0.0
    with torch.no_grad():
        for start in range(0, len(samples), EVALUATION_BATCH):
            part = samples.take(np.arange(start, min(start + EVALUATION_BATCH, len(samples))))
            labels = torch.from_numpy(part.labels)
            outputs = module(torch.from_numpy(part.scaled()))
            hits += int((outputs.argmax(dim=1) == labels).sum())
            loss += float(nn.functional.cross_entropy(outputs, labels, reduction="sum"))
    return hits / len(samples), loss / len(samples)
