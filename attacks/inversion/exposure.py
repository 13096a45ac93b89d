"""What an attacker knows of one client's update."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from attacks.inversion.training import Training
from attacks.inversion.victims.victim import Victim
from secagg.errors import Code, ConfigError


@dataclass(frozen=True, kw_only=True, eq=False)
class Exposure:
    """A client's update as it travels: hidden entries are gone, the others are what was sent.

    Args:
        victim: the network.
        parameters: θ_0, the model the client started from, flat, [d].
        training: how the update came about.
        batch_size: B, how many samples it is of.
        visible: the mean gradient (``Training.update``) as sent, [d]; 0 where it is hidden.
        hidden: True where it is encrypted, bool [d].
        aware: True if the attacker compares visible entries only; False if it takes hidden ones for zeros,
            as attackers do who don't know of the mask.
        labels: the samples' labels if the attacker knows them, int64 [B].
        noise: standard deviation of what the protection adds to visible entries; attackers know it.
        earlier: other rounds' exposures of the same samples.

    Raises:
        ConfigError: CONFIG_INVALID if the vectors don't have d entries.
    """

    victim: Victim
    parameters: torch.Tensor
    training: Training
    batch_size: int
    visible: torch.Tensor
    hidden: torch.Tensor
    aware: bool = True
    labels: torch.Tensor | None = None
    noise: float = 0.0
    earlier: tuple[Exposure, ...] = ()

    def __post_init__(self) -> None:
        size = (self.victim.size,)
        for name in ("parameters", "visible", "hidden"):
            if tuple(getattr(self, name).shape) != size:
                raise ConfigError(
                    Code.CONFIG_INVALID,
                    f"{name} has shape {tuple(getattr(self, name).shape)}; victim {self.victim.name} has "
                    f"{self.victim.size} parameters",
                )

    @cached_property
    def compared(self) -> torch.Tensor:
        """Where an attacker compares its own gradients with ``visible``, bool [d]."""
        return ~self.hidden if self.aware else torch.ones_like(self.hidden)

    @property
    def rounds(self) -> tuple[Exposure, ...]:
        """Earlier rounds', and this one's last."""
        return (*self.earlier, self)

    def seen_by(self, *, aware: bool) -> Exposure:
        """The same for an attacker that knows of the mask, or does not."""
        return replace(self, aware=aware, earlier=tuple(round.seen_by(aware=aware) for round in self.earlier))

    def of_tensor(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Visible values and hidden places of one tensor, in its shape.

        Raises:
            UpdateError: MANIFEST_MISMATCH if there is no such tensor.
        """
        place = self.victim.manifest.slice_of(name)
        (shape,) = (spec.shape for spec in self.victim.manifest.tensors if spec.name == name)
        return self.visible[place].view(shape), self.hidden[place].view(shape)
