"""Nonlinear least squares in a box, by exact normal equations or without any matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from attacks.inversion.attackers.fitting.forward_mode import along
from attacks.inversion.attackers.fitting.objective import Objective
from attacks.inversion.attackers.fitting.restarts import Clock

MOST_UNKNOWNS = 1_600
MOST_ENTRIES = 200_000_000
"""Of the Jacobian: beyond either, steps come from conjugate gradients."""
ENTRIES_AT_ONCE = 4_000_000
CONJUGATE_STEPS = 60
CHORDS = 8
DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-13, 1e8
STALLED, PATIENCE = 0.85, 2
"""It ends when the loss keeps more than this share in so many iterations on end."""
CONSISTENT = 1e-3
"""A loss from which on a Jacobian in single precision may be what holds it up."""

Residuals = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """Where a fit ended.

    Args:
        point: the last finite iterate with the least loss, [n].
        loss: ‖r‖²; infinite if it was never finite.
        iterations: Jacobians that were taken.
        diverged: True if residuals were NaN or infinite from the start.
    """

    point: torch.Tensor
    loss: float
    iterations: int
    diverged: bool


def solved(objective: Objective) -> float:
    """The loss at which nothing but rounding is left of the residuals.

    (50·eps)² of what the victim computes in. Values that travelled in single precision are off by up to
    eps/2 each, on average by less than 0.3·eps relative to all: a better fit would be one to that rounding.
    """
    rounds = objective.exposure.rounds
    computed = (50 * torch.finfo(objective.exposure.victim.dtype).eps) ** 2
    sent = (0.3 * torch.finfo(torch.float32).eps) ** 2
    single = all(torch.equal(each.visible.float().to(each.visible), each.visible) for each in rounds)
    return max(computed, sent) if single else computed


class Normal:
    """(JᵀJ + λ·D)⁻¹ b at one point, with J itself; D = diag(JᵀJ) + its mean: no unknown is undamped."""

    def __init__(self, residuals: Residuals, point: torch.Tensor, chunk: int) -> None:
        size = len(point)
        rows = []
        for start in range(0, size, chunk):
            unit = point.new_zeros((min(chunk, size - start), size))
            unit[torch.arange(len(unit)), torch.arange(start, start + len(unit))] = 1
            rows.append(torch.func.vmap(lambda row: along(residuals, point, row)[1])(unit))
        transposed = torch.cat(rows)
        self.matrix = (transposed @ transposed.T).to(torch.float64)
        diagonal = self.matrix.diagonal()
        self.damper = diagonal + diagonal.mean()

    def solve(self, vector: torch.Tensor, damping: float) -> torch.Tensor | None:
        """None if the damped matrix isn't positive definite in what precision it has."""
        if not bool(self.damper.isfinite().all()):
            return None
        factor, failed = torch.linalg.cholesky_ex(self.matrix + torch.diag(damping * self.damper))
        if int(failed):
            return None
        return torch.cholesky_solve(vector.to(torch.float64)[:, None], factor)[:, 0].to(vector)


class MatrixFree:
    """(JᵀJ + λ·c·I)⁻¹ b by conjugate gradients, c = bᵀJᵀJb/bᵀb; each step takes one jvp and one vjp."""

    def __init__(self, residuals: Residuals, point: torch.Tensor) -> None:
        self._residuals, self._point = residuals, point
        self._backward = torch.func.vjp(residuals, point)[1]

    def _product(self, vector: torch.Tensor) -> torch.Tensor:
        product = self._backward(along(self._residuals, self._point, vector)[1])[0]
        assert isinstance(product, torch.Tensor)
        return product.detach()

    def solve(self, vector: torch.Tensor, damping: float) -> torch.Tensor | None:
        """As far as ``CONJUGATE_STEPS`` lead, or until the remainder is a thousandth."""
        length = vector.norm()
        if not bool(length > 0):
            return None
        shift = damping * float(vector @ self._product(vector) / length.square())
        result, rest = torch.zeros_like(vector), vector.clone()
        direction, square = rest.clone(), rest @ rest
        for _ in range(CONJUGATE_STEPS):
            image = self._product(direction) + shift * direction
            curvature = direction @ image
            if not bool(curvature > 0):
                break
            length_of_step = square / curvature
            result = result + length_of_step * direction
            rest = rest - length_of_step * image
            square, before = rest @ rest, square
            if bool(square < 1e-6 * length.square()):
                break
            direction = rest + (square / before) * direction
        return result if bool(result.isfinite().all()) else None


class LevenbergMarquardt:
    """z ← box(z − (JᵀJ + λD)⁻¹ Jᵀr) on r(z), the residuals of an objective.

    Levenberg (1944), Marquardt (SIAM J. Applied Mathematics 11, 1963). λ falls after a step that lowers ‖r‖²
    and rises after one that doesn't, which is not taken. While it keeps halving the loss the same
    Jacobian serves for further steps with new residuals ("chords"): those cost one gradient instead of n. Up
    to ``MOST_UNKNOWNS`` the matrix is formed, at first from a Jacobian in single precision: residuals
    and Jᵀr have the victim's own, so that only the speed depends on it.

    Args:
        objective: its residuals are fitted.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._boxed = objective.unknowns.boxed
        self._coarse: Objective | None = None
        if objective.exposure.victim.dtype == torch.float64:
            self._coarse = objective.in_dtype(torch.float32)

    def fit(
        self,
        start: torch.Tensor,
        *,
        iterations: int,
        clock: Clock,
        damping: float = DAMPING,
        patience: int = PATIENCE,
    ) -> Fit:
        """From one starting point, [n].

        Args:
            start: z.
            iterations: Jacobians at most.
            clock: ends it early.
            damping: λ at first, relative to the diagonal.
            patience: Jacobians on end that may bring nearly nothing.
        """
        point, coarse, enough = start, self._coarse is not None, solved(self._objective)
        loss, pull = self._evaluated(point)
        if not loss < float("inf"):
            return Fit(point=start, loss=float("inf"), iterations=0, diverged=True)
        done = stalls = 0
        while done < iterations and loss > enough and not (done and clock.over):
            system = self._system(point, coarse=coarse)
            done, before = done + 1, loss
            while damping < MOST_DAMPING:
                trial = self._stepped(system, point, pull, damping)
                if trial is not None:
                    tried, new_pull = self._evaluated(trial)
                    if tried < loss:
                        point, loss, pull = trial, tried, new_pull
                        break
                damping = max(10 * damping, LEAST_DAMPING)
            damping = max(damping / (30 if loss < 0.1 * before else 5), LEAST_DAMPING)
            if isinstance(system, Normal):
                for _ in range(CHORDS):
                    trial = self._stepped(system, point, pull, damping)
                    if trial is None or loss <= enough:
                        break
                    tried, new_pull = self._evaluated(trial)
                    if not tried < 0.5 * loss:
                        break
                    point, loss, pull = trial, tried, new_pull
            stalls = stalls + 1 if loss > STALLED * before else 0
            if stalls and coarse and loss < CONSISTENT:
                coarse, stalls, damping = False, 0, min(damping, DAMPING)
            elif stalls == patience or loss == before:
                break
        return Fit(point=point, loss=loss, iterations=done, diverged=False)

    def _evaluated(self, point: torch.Tensor) -> tuple[float, torch.Tensor]:
        """‖r‖², infinite if it is not finite, and Jᵀr."""
        residuals, pull = torch.func.vjp(self._objective.residuals, point)[:2]
        slope: torch.Tensor = pull(residuals)[0].detach()
        loss = float(residuals.detach().square().sum())
        finite = loss < float("inf") and bool(slope.isfinite().all())
        return (loss if finite else float("inf")), slope

    def _stepped(
        self, system: Normal | MatrixFree, point: torch.Tensor, pull: torch.Tensor, damping: float
    ) -> torch.Tensor | None:
        step = system.solve(pull, damping)
        return None if step is None else self._boxed(point - step)

    def _system(self, point: torch.Tensor, *, coarse: bool) -> Normal | MatrixFree:
        compared = self._objective.compared
        if len(point) > MOST_UNKNOWNS or len(point) * compared > MOST_ENTRIES:
            return MatrixFree(self._objective.residuals, point)
        objective = self._objective
        if coarse:
            assert self._coarse is not None
            objective = self._coarse
        chunk = max(1, ENTRIES_AT_ONCE // max(1, self._objective.exposure.victim.size))
        return Normal(objective.residuals, point.to(objective.unknowns.like), chunk)
