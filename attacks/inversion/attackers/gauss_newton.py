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
NOISE = 4
"""And of no more than so many times noise's."""
CONSISTENT = 1e-3
"""A loss above which not even the best fit explains what is seen."""
SOLVED, SMOOTHEST = "layer by layer", "layer by layer, the smoothest"
SCALED, WARM = "but for a factor", "warm start"
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
        steps = budget.iterations(self.iterations)
        found = list[_Found]()
        solution = recursed(exposure, over=lambda: clock.over)
        if solution is not None:
            fit = solver.fit(unknowns.at(solution.inputs), iterations=steps, clock=clock)
            found.append(_Found(fit, SOLVED if solution.determined else SMOOTHEST))
            if fit.loss <= max(ROUNDING * solved(objective), NOISE * noise_share(exposure)):
                return _reconstruction(unknowns, found)
            if solution.exact:
                # Layers agree, the whole doesn't: the gradient was multiplied on its way, as by clipping.
                return unknowns.reconstruction(
                    unknowns.at(solution.inputs),
                    loss=solution.misfit,
                    iterations=1,
                    diverged=False,
                    detail=SCALED,
                )
        detail, patience, done = "", PATIENCE, 0
        if not is_smooth(objective, starts[0]):
            # From where a Jacobian helps it helps at once; elsewhere each only costs time.
            detail, patience = WARM, 1
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
            damping = DAMPINGS[index % len(DAMPINGS)]
            fit = solver.fit(start, iterations=steps, clock=clock, damping=damping, patience=patience)
            found.append(_Found(fit, detail))
            if fit.loss <= solved(objective) or clock.over:
                break
        if min(one.fit.loss for one in found) > CONSISTENT:
            # Nothing fits, as if the gradient had been multiplied on its way.
            free = LevenbergMarquardt(Objective(exposure, unknowns, hinge=self.hinge, free_scale=True))
            fit = free.fit(starts[0], iterations=steps, clock=clock, patience=patience)
            done += fit.iterations
            if fit.loss <= ROUNDING * solved(objective):
                found = [_Found(fit, SCALED)]
        return _reconstruction(unknowns, found, done=done)

    def _rough(self, objective: Objective) -> Loss:
        return lambda point: objective.angles(point) + self.tv * objective.variation(point)


@dataclass(frozen=True, slots=True)
class _Found:
    """A fit, and what it started from."""

    fit: Fit
    detail: str


def _reconstruction(unknowns: Unknowns, found: Sequence[_Found], *, done: int = 0) -> Reconstruction:
    """That of the least loss, the first of equals, after so many other iterations."""
    best = min(found, key=lambda one: one.fit.loss)
    return unknowns.reconstruction(
        best.fit.point,
        loss=best.fit.loss,
        iterations=done + sum(one.fit.iterations for one in found),
        diverged=best.fit.diverged,
        detail=best.detail,
    )


def noise_share(exposure: Exposure) -> float:
    """What noise is expected to add to the squared distance, in units of what is seen: Σ_rounds n·σ²/‖g‖²."""
    total = 0.0
    for one in exposure.rounds:
        seen = one.visible[one.compared].double()
        power = float(seen.square().sum())
        total += len(seen) * one.noise**2 / power if power > 0 else 0.0
    return total


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
