"""Deep leakage from gradients: the squared distance, by L-BFGS."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attacks.inversion.attackers.attacker import Budget, Reconstruction
from attacks.inversion.attackers.fitting.lbfgs import minimise
from attacks.inversion.attackers.fitting.objective import Objective
from attacks.inversion.attackers.fitting.restarts import Clock, slopes_of
from attacks.inversion.attackers.fitting.unknowns import Unknowns, no_images
from attacks.inversion.exposure import Exposure


@dataclass(slots=True, kw_only=True)
class DeepLeakage:
    """min Σ_rounds ‖∇L(x, y) − g‖²/‖g‖² over images and labels, by L-BFGS at rate 1.

    DLG: Zhu, Liu, Han, NeurIPS 2019, arXiv 1906.08935, algorithm 1. Labels that are not known are
    probabilities, found with the images. Neither box nor prior. Steps that don't lower the loss are halved.

    Args:
        name: as asked for.
        iterations: of L-BFGS at most; it ends earlier where the loss stands still.
        hinge, likelihood: weights of what a mask by magnitude says about hidden entries; see ``Mask``.
    """

    name: str = "dlg"
    iterations: int = 300
    hinge: float = 0.0
    likelihood: float = 0.0

    def unsuited(self, exposure: Exposure) -> str:
        """Text has no pixels."""
        return no_images(exposure)

    def labels(self, exposure: Exposure) -> torch.Tensor | None:
        """What is taken for known, int64 [B]."""
        return exposure.labels

    def attack(self, exposure: Exposure, *, seed: int, budget: Budget) -> Reconstruction:
        """As ``Attacker.attack``."""
        clock = Clock(budget)
        unknowns = Unknowns.of(exposure, self.labels(exposure))
        objective = Objective(exposure, unknowns, hinge=self.hinge, likelihood=self.likelihood)
        outcome = minimise(
            slopes_of(objective.squared, exposure.victim.size),
            unknowns.starts(seed, budget.restarts),
            iterations=budget.iterations(self.iterations),
            clock=clock,
        )
        return outcome.reconstruction(unknowns)
