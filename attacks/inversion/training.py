"""How a client's update comes about: one gradient, or local training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from attacks.inversion.batch import Batch
from attacks.inversion.victims.victim import Victim
from secagg.errors import Code, ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Gradient descent over a client's samples; attackers know all of it (FedAvg, McMahan et al. 2017).

    v ← momentum·v + ∇L(part), θ ← θ − learning_rate·v, where v starts at 0 (Polyak 1964, in the form of
    ``torch.optim.SGD``).

    Args:
        epochs: passes over the samples, at least 1.
        steps: gradient steps per pass, each on an equal part of the samples, in their order; at least 1.
        learning_rate: of each step, positive.
        momentum: in [0, 1); 0 for none.
        parts: which samples each of the epochs·steps steps is of, where those are neither equally many nor in
            their order; empty otherwise.

    Raises:
        ConfigError: CONFIG_INVALID for a value out of range.
    """

    epochs: int = 1
    steps: int = 1
    learning_rate: float = 0.01
    momentum: float = 0.0
    parts: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.steps < 1 or not 0 < self.learning_rate < float("inf"):
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"training needs epochs ≥ 1, steps ≥ 1 and a positive learning rate, not {self}",
            )
        if not 0 <= self.momentum < 1:
            raise ConfigError(Code.CONFIG_INVALID, f"momentum is {self.momentum}; it must be in [0, 1)")
        if self.parts and len(self.parts) != self.epochs * self.steps:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"parts are of {len(self.parts)} gradient steps; there are {self.epochs * self.steps}",
            )

    @property
    def is_gradient(self) -> bool:
        """True if the update is a single gradient."""
        return self.epochs * self.steps == 1

    @property
    def weight(self) -> float:
        """How many times learning_rate the T gradients count together: Σ_t (1 − momentum^t)/(1 − momentum).

        The t-th last gradient moves the model 1 + momentum + … + momentum^(t−1) learning rates; T in all
        without momentum.
        """
        return sum(
            (1 - self.momentum**t) / (1 - self.momentum) for t in range(1, self.epochs * self.steps + 1)
        )

    def update(self, victim: Victim, parameters: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(θ_0 − θ_T)/(learning_rate·weight), the mean of the T gradients on the way, each weighted by how
        often momentum counts it; [d].

        With one step this is the gradient itself, so attackers treat both alike. Differentiable in the
        inputs, if a batch of that kind is given.

        Args:
            parameters: θ_0, flat, [d].
            batch: all of the client's samples.

        Raises:
            ConfigError: CONFIG_INVALID if steps don't divide the number of samples.
        """
        return self.mean_gradient(victim, parameters, batch.inputs, batch.labels)

    def mean_gradient(
        self, victim: Victim, parameters: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """As ``update``; ``labels`` may also be probabilities, [B, classes]."""
        current, velocity = parameters, torch.zeros_like(parameters)
        total = velocity
        for part in self._cut(len(inputs)):
            gradient = victim.gradient(current, inputs[part], labels[part])
            velocity = self.momentum * velocity + gradient
            total = total + velocity
            current = current - self.learning_rate * velocity
        return total / self.weight

    def _cut(self, count: int) -> Iterator[slice | list[int]]:
        """Which samples each gradient step is of."""
        if self.parts:
            yield from map(list, self.parts)
            return
        if count % self.steps:
            raise ConfigError(
                Code.CONFIG_INVALID, f"{count} samples can't be cut into {self.steps} equal steps"
            )
        size = count // self.steps
        for _ in range(self.epochs):
            for start in range(0, count, size):
                yield slice(start, start + size)
