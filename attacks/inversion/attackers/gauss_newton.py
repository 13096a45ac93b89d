"""Second-order inversion: all visible entries as equations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from attacks.inversion.attackers.attacker import Budget, Reconstruction
from attacks.inversion.attackers.fitting.descent import descend
from attacks.inversion.attackers.fitting.forward_mode import along
from attacks.inversion.attackers.fitting.levenberg_marquardt import (
    PATIENCE,
    Fit,
    LevenbergMarquardt,
    solved,
)
from attacks.inversion.attackers.fitting.objective import Objective
from attacks.inversion.attackers.fitting.restarts import Clock, Loss, slopes_of
from attacks.inversion.attackers.fitting.unknowns import Unknowns, known_labels, no_images
from attacks.inversion.attackers.layers.recursion import recursed
from attacks.inversion.exposure import Exposure

DAMPINGS = (1e-2, 1.0, 1e-4)
"""Restarts take them in turn."""
ROUNDING = 100
"""A loss of no more than so many times rounding's leaves nothing to find from elsewhere."""
SOLVED = "layer by layer"
NEAR, NEARER = 0.2, 0.025
"""Two distances, in pixels, at which a Jacobian's prediction is checked."""


@dataclass(slots=True, kw_only=True)
class GaussNewton:
    """min Σ_rounds ‖∇L(x) − g‖²/‖g‖² over visible entries, x in [0, 1], by Levenberg-Marquardt.

    Each visible entry is one equation; as long as there are more than pixels, and the network is smooth,
    the fit is exact to rounding within a few Jacobians. Where gradients jump with the input (ReLU, max
    pooling) a Jacobian says little about far points. A network of convolutions and ReLUs is solved from its
    last layer to its first (``recursed``), and only rounding is left to the fit; where that fails, a descent
    on angle and total variation as in ``InvertingGradients`` comes first.

    Args:
        name: as asked for.
        hinge: weight of mean max(0, 1 − |∇_i L|/τ)² over hidden entries; needs a mask by magnitude.
        iterations: Jacobians per restart.
        warmup: iterations of the descent where there is one.
        tv: weight of its total variation.
    """

    name: str = "gauss-newton"
    hinge: float = 0.0
    iterations: int = 25
    warmup: int = 200
    tv: float = 1e-2

    def unsuited(self, exposure: Exposure) -> str:
        """Text has no pixels."""
        return no_images(exposure)

    def attack(self, exposure: Exposure, *, seed: int, budget: Budget) -> Reconstruction:
        """As ``Attacker.attack``; restarts end when one fits to rounding."""
        clock = Clock(budget)
        unknowns = Unknowns.of(exposure, known_labels(exposure))
        objective = Objective(exposure, unknowns, hinge=self.hinge)
        solver = LevenbergMarquardt(objective)
        starts = unknowns.starts(seed, budget.restarts)
        fits, done, detail, patience = list[Fit](), 0, "", PATIENCE
        if not is_smooth(objective, starts[0]):
            solution = recursed(exposure)
            if solution is not None:
                steps = budget.iterations(self.iterations)
                fits = [solver.fit(unknowns.at(solution), iterations=steps, clock=clock)]
                if fits[0].loss <= ROUNDING * solved(objective):
                    return _reconstruction(unknowns, fits, detail=SOLVED)
            # From where a Jacobian helps it helps at once; elsewhere each only costs time.
            detail, patience = "warm start", 1
            warm = descend(
                slopes_of(self._rough(objective), exposure.victim.size),
                starts,
                iterations=budget.iterations(self.warmup),
                rate=0.1,
                boxed=unknowns.boxed,
                clock=clock,
            )
            starts, done = warm.points[warm.losses.argsort()], warm.iterations
        for index, start in enumerate(starts):
            fit = solver.fit(
                start,
                iterations=budget.iterations(self.iterations),
                clock=clock,
                damping=DAMPINGS[index % len(DAMPINGS)],
                patience=patience,
            )
            fits.append(fit)
            if fit.loss <= solved(objective) or clock.over:
                break
        return _reconstruction(unknowns, fits, done=done, detail=detail)

    def _rough(self, objective: Objective) -> Loss:
        return lambda point: objective.angles(point) + self.tv * objective.variation(point)


def _reconstruction(unknowns: Unknowns, fits: Sequence[Fit], *, done: int = 0, detail: str) -> Reconstruction:
    """That of the least loss, the first of equals, after so many other iterations."""
    best = min(fits, key=lambda fit: fit.loss)
    return unknowns.reconstruction(
        best.point,
        loss=best.loss,
        iterations=done + sum(fit.iterations for fit in fits),
        diverged=best.diverged,
        detail=detail,
    )


def is_smooth(objective: Objective, point: torch.Tensor) -> bool:
    """True if a Jacobian's error at distance h falls like h², not h, as where gradients jump."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(len(point), generator=generator, dtype=torch.float64).to(point)
    value, change = along(objective.residuals, point, direction)
    far, near = (
        float((objective.residuals(point + h * direction) - value - h * change).norm())
        for h in (NEAR, NEARER)
    )
    return bool(far > (NEAR / NEARER) ** 1.5 * near)
