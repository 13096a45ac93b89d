"""What comes of an attack that sees nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attacks.inversion.attackers.attacker import Budget, Reconstruction
from attacks.inversion.attackers.fitting.descent import descend
from attacks.inversion.attackers.fitting.penalties import total_variation
from attacks.inversion.attackers.fitting.restarts import Clock, slopes_of
from attacks.inversion.attackers.fitting.unknowns import GREY, Unknowns, no_images
from attacks.inversion.exposure import Exposure


@dataclass(slots=True, kw_only=True)
class PriorOnly:
    """min TV(x) + mean (x − 0.5)², x in [0, 1]: ``InvertingGradients`` without any gradient.

    The line that attacks have to beat: what they reach by guessing that images are smooth and grey. Labels
    that are not known count as drawn at random.

    Args:
        name: as asked for.
        rate: Adam's first, in pixels.
        iterations: of Adam.
    """

    name: str = "prior-only"
    rate: float = 0.1
    iterations: int = 100

    def unsuited(self, exposure: Exposure) -> str:
        """Text has no pixels."""
        return no_images(exposure)

    def attack(self, exposure: Exposure, *, seed: int, budget: Budget) -> Reconstruction:
        """As ``Attacker.attack``; of the exposure it reads shapes, and labels if they are known."""
        clock = Clock(budget)
        labels = exposure.labels
        if labels is None:
            generator = torch.Generator().manual_seed(seed)
            labels = torch.randint(exposure.victim.classes, (exposure.batch_size,), generator=generator)
        unknowns = Unknowns.of(exposure, labels)

        def loss(point: torch.Tensor) -> torch.Tensor:
            inputs, _ = unknowns.split(point)
            return total_variation(inputs) + (inputs - GREY).square().mean()

        outcome = descend(
            slopes_of(loss, exposure.victim.size),
            unknowns.starts(seed, budget.restarts),
            iterations=budget.iterations(self.iterations),
            rate=self.rate,
            boxed=unknowns.boxed,
            clock=clock,
        )
        return outcome.reconstruction(unknowns)
