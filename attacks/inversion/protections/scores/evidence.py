"""What scores are computed from."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attacks.inversion.batch import Batch
from attacks.inversion.training import Training
from attacks.inversion.victims.victim import Victim


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """A client's samples, or those of several clients together, and the update that came of them.

    Args:
        victim: the network.
        parameters: θ_0, where training began, [d].
        training: how the update came about.
        batch: the samples.
        update: their mean gradient (``Training.update``), as precise as it travels, [d].
        exposed: the model as far as it was ever seen in the clear, [d]; None for all of θ_0.
        seed: of what is drawn, where scores are estimates.
    """

    victim: Victim
    parameters: torch.Tensor
    training: Training
    batch: Batch
    update: torch.Tensor
    exposed: torch.Tensor | None = None
    seed: int = 0

    @property
    def latest(self) -> torch.Tensor:
        """θ_T = θ_0 − learning_rate·weight·update, where training ended, [d]."""
        return self.parameters - self.training.learning_rate * self.training.weight * self.update
