"""How an update follows its samples: J = ∂(update)/∂(inputs), whole or as a map."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from attacks.inversion.batch import Batch
from attacks.inversion.training import Training
from attacks.inversion.victims.victim import Victim
from secagg.errors import Code, ConfigError

MOST_AT_ONCE = 64
"""Directions that are differentiated along at once, at most."""
ENTRIES_AT_ONCE = 1 << 23
"""Entries of an update times directions at once, at most: 64 MiB of float64 per intermediate."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Derivative:
    """J of one client's update at its batch, as a map of both spaces; labels are held fixed.

    Nothing of size d·n is kept: ``forward`` is forward-mode differentiation (jvp) of the gradient,
    ``backward`` reverse-mode (vjp), each for several directions at a time. J is taken at the true samples:
    all that follows of it is local.

    Args:
        victim, parameters, training: as in ``Exposure``.
        batch: the true samples; inputs are real numbers. Text is measured in its embeddings,
            [B, tokens, width].

    Raises:
        ConfigError: CONFIG_INVALID if inputs are no real numbers.
    """

    victim: Victim
    parameters: torch.Tensor
    training: Training
    batch: Batch

    def __post_init__(self) -> None:
        if not self.batch.inputs.is_floating_point():
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"inputs are {self.batch.inputs.dtype}, which has no derivative: give a batch of the tokens' "
                "embeddings, [B, tokens, width]",
            )

    @property
    def input_numbers(self) -> int:
        """n = B·d_x."""
        return self.batch.inputs.numel()

    @property
    def at_once(self) -> int:
        """Directions per pass, so that memory stays bounded."""
        return max(1, min(MOST_AT_ONCE, ENTRIES_AT_ONCE // self.victim.size))

    def update(self) -> torch.Tensor:
        """The unprotected update itself, [d]."""
        return self._update(self._inputs).detach()

    def forward(self, directions: torch.Tensor) -> torch.Tensor:
        """J v for every row v: [k, n] → [k, d]."""

        def along(direction: torch.Tensor) -> torch.Tensor:
            change = torch.func.jvp(self._update, (self._inputs,), (direction,))[1]
            assert isinstance(change, torch.Tensor)
            return change.detach()

        with warnings.catch_warnings():
            # Forward mode compiles some of its own formulas when it is first used, in a way it deprecates.
            warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=DeprecationWarning)
            return self._each(along, directions.to(self._inputs))

    def backward(self, cotangents: torch.Tensor) -> torch.Tensor:
        """Jᵀ u for every row u: [k, d] → [k, n]."""
        return self._each(lambda row: self._pull(row)[0].detach(), cotangents.to(self._inputs))

    def matrix(self) -> torch.Tensor:
        """J itself, [d, n], float64 or the parameters' dtype."""
        size = self.input_numbers
        whole = self.parameters.new_empty((self.victim.size, size))
        for start in range(0, size, self.at_once):
            rows = torch.arange(start, min(start + self.at_once, size), device=whole.device)
            unit = whole.new_zeros((len(rows), size))
            unit[torch.arange(len(rows), device=whole.device), rows] = 1
            whole[:, rows] = self.forward(unit).T
        return whole

    @property
    def _inputs(self) -> torch.Tensor:
        return self.batch.inputs.detach().to(self.parameters).reshape(-1)

    @cached_property
    def _pull(self) -> Callable[[torch.Tensor], tuple[torch.Tensor]]:
        pull: Callable[[torch.Tensor], tuple[torch.Tensor]] = torch.func.vjp(self._update, self._inputs)[1]
        return pull

    def _update(self, flat: torch.Tensor) -> torch.Tensor:
        inputs = flat.view(self.batch.inputs.shape)
        labels = self.batch.labels.to(flat.device)
        return self.training.mean_gradient(self.victim, self.parameters, inputs, labels)

    def _each(self, function: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        mapped = torch.func.vmap(function, chunk_size=self.at_once)(rows)
        assert isinstance(mapped, torch.Tensor)
        return mapped


def jacobian(victim: Victim, parameters: torch.Tensor, training: Training, batch: Batch) -> torch.Tensor:
    """J = ∂(update)/∂(inputs) at a batch, exact (no differences), [d, B·d_x].

    Columns run over samples, then over a sample's numbers; rows are the manifest's entries. Forward mode
    over reverse mode, some columns at a time: memory is that of J and of ``MOST_AT_ONCE`` passes.

    Args:
        victim: the network.
        parameters: θ_0, flat, [d].
        training: how the update comes about.
        batch: the true samples; labels are held fixed.

    Raises:
        ConfigError: CONFIG_INVALID if inputs are no real numbers, or steps don't divide their number.
    """
    return Derivative(victim=victim, parameters=parameters, training=training, batch=batch).matrix()
