"""Victims that have learnt something already; their gradients tell less."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from attacks.inversion.batch import Batch
from attacks.inversion.victims.statistics import running, set_running_statistics
from attacks.inversion.victims.victim import Victim
from secagg.errors import Code, ConfigError

LONGEST = 1.0
"""Length that gradients are cut to."""
SAMPLES = 512
"""How many samples running statistics are taken of."""


def trained(
    victim: Victim,
    samples: Batch,
    *,
    epochs: int,
    seed: int,
    learning_rate: float = 0.05,
    batch_size: int = 32,
    momentum: float = 0.9,
) -> Victim:
    """The victim after stochastic gradient descent on these samples: θ ← θ − rate·v.

    v ← momentum·v + g·min(1, 1/‖g‖₂), without whose second factor transformers leave at usual rates.

    Batch norm in inference mode learns with batch statistics, as is usual, and at the end takes its running
    statistics from (at most 512 of) the samples.

    Args:
        samples: what it learns.
        epochs: passes over them, each in an order of its own; 0 returns the victim unchanged.
        seed: of the orders.
        learning_rate: positive.
        batch_size: of each step; the last of a pass, if it is smaller, is left out.
        momentum: in [0, 1).

    Returns:
        A new victim; the given one keeps its weights.

    Raises:
        ConfigError: CONFIG_INVALID for samples that don't fit or numbers out of range, or if the loss stops
            being finite: the learning rate is too large.
    """
    victim.check(samples)
    if epochs < 0 or learning_rate <= 0 or batch_size < 1 or not 0 <= momentum < 1:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"training needs epochs ≥ 0, a positive learning rate, batch size ≥ 1 and momentum in [0, 1), "
            f"not {epochs}, {learning_rate}, {batch_size}, {momentum}",
        )
    if epochs == 0:
        return victim
    learner = replace(victim, module=copy.deepcopy(victim.module))
    inputs, labels = samples.inputs.to(victim.device), samples.labels.to(victim.device)
    if not victim.vocabulary:
        inputs = inputs.to(victim.dtype)
    size = min(batch_size, len(samples))
    generator = torch.Generator().manual_seed(seed)
    weights = [parameter for parameter in learner.module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(weights, lr=learning_rate, momentum=momentum)
    normalising = running(learner.module)
    for layer in normalising:
        layer.train()
    for _ in range(epochs):
        order = torch.randperm(len(samples), generator=generator).to(victim.device)
        for start in range(0, len(order) - size + 1, size):
            part = order[start : start + size]
            optimiser.zero_grad()
            loss = cross_entropy(learner.module(inputs[part]), labels[part])
            if not loss.isfinite():
                raise ConfigError(
                    Code.CONFIG_INVALID,
                    f"training {victim.name} at learning rate {learning_rate} made its loss {loss.item()}; "
                    "lower the rate",
                )
            loss.backward()  # type: ignore[no-untyped-call]
            clip_grad_norm_(weights, LONGEST)
            optimiser.step()
    learner.module.zero_grad(set_to_none=True)
    for layer in normalising:
        layer.eval()
    set_running_statistics(learner.module, inputs[:SAMPLES])
    return learner
