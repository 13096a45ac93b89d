"""L-BFGS from many starting points at once."""

from __future__ import annotations

import torch

from attacks.inversion.attackers.fitting.restarts import Clock, Outcome, Slopes

HISTORY = 50
HALVINGS = 12
SUFFICIENT = 1e-4
SOLVED = 1e-28
STALLED, PATIENCE = 1e-4, 20
"""It ends when no restart's loss falls by this share in so many iterations."""


def minimise(slopes: Slopes, start: torch.Tensor, *, iterations: int, clock: Clock) -> Outcome:
    """Limited-memory BFGS (Liu, Nocedal, Mathematical Programming 45, 1989, algorithm 2.1), rate 1.

    Every restart has its own curvature pairs and step: 1, halved until the loss falls by Armijo's rule, where
    a fixed rate of 1, as published attacks have it, often diverges. A restart that finds no such step forgets
    its pairs once and then rests.

    Args:
        slopes: losses and gradients of rows.
        start: [R, size].
        iterations: at most so many.
        clock: ends it early.
    """
    points = start.clone()
    values, gradients = slopes(points)
    diverged = ~(values.isfinite() & gradients.isfinite().all(dim=1))
    values = torch.where(diverged, float("inf"), values)
    resting = diverged.clone()
    steps: list[torch.Tensor] = []
    changes: list[torch.Tensor] = []
    fresh = torch.ones_like(resting)
    earlier, done = values.clone(), 0
    while done < iterations and not resting.all() and float(values.min()) > SOLVED and not clock.over:
        direction = -_scaled(torch.where(resting[:, None], 0.0, gradients), steps, changes)
        slope = (direction * gradients).sum(dim=1)
        # No descent direction left in the pairs of a restart: its steepest one.
        wrong = ~(slope < 0)
        direction = torch.where(wrong[:, None], -gradients, direction)
        slope = torch.where(wrong, -gradients.square().sum(dim=1), slope)
        size = torch.where(fresh, 1.0 / gradients.abs().sum(dim=1).clamp(min=1e-300), 1.0).clamp(max=1.0)
        moved, new_values, new_gradients, found = _search(
            slopes, points, values, gradients, direction, slope, size, ~resting
        )
        # One that found nothing has its pairs cleared; if it had none, it rests.
        resting |= ~found & fresh
        step, change = moved - points, new_gradients - gradients
        useful = found & ((step * change).sum(dim=1) > 1e-12 * (step.norm(dim=1) * change.norm(dim=1)))
        if not found.all():
            for kept in (*steps, *changes):
                kept[~found] = 0.0
        steps.append(torch.where(useful[:, None], step, 0.0))
        changes.append(torch.where(useful[:, None], change, 0.0))
        del steps[:-HISTORY], changes[:-HISTORY]
        fresh = ~found
        points, values, gradients = moved, new_values, new_gradients
        done += 1
        if done % PATIENCE == 0:
            resting |= values > (1 - STALLED) * earlier
            earlier = values.clone()
    return Outcome(points=points, losses=values, diverged=diverged, iterations=done)


def _scaled(gradients: torch.Tensor, steps: list[torch.Tensor], changes: list[torch.Tensor]) -> torch.Tensor:
    """The inverse Hessian's estimate times gradients, row by row; pairs of zeros do nothing."""
    result, factors = gradients.clone(), []
    scale = torch.ones_like(gradients[:, 0])
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        product = (step * change).sum(dim=1)
        inverse = torch.where(product > 0, 1.0 / product.clamp(min=1e-300), 0.0)
        factor = inverse * (step * result).sum(dim=1)
        result = result - factor[:, None] * change
        factors.append((inverse, factor))
    seen = torch.zeros_like(scale, dtype=torch.bool)
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        product, length = (step * change).sum(dim=1), change.square().sum(dim=1)
        newest = ~seen & (product > 0)
        scale = torch.where(newest, product / length.clamp(min=1e-300), scale)
        seen |= newest
        if seen.all():
            break
    result = scale[:, None] * result
    for (inverse, factor), step, change in zip(reversed(factors), steps, changes, strict=True):
        back = inverse * (change * result).sum(dim=1)
        result = result + (factor - back)[:, None] * step
    return result


def _search(
    slopes: Slopes,
    points: torch.Tensor,
    values: torch.Tensor,
    gradients: torch.Tensor,
    direction: torch.Tensor,
    slope: torch.Tensor,
    size: torch.Tensor,
    wanted: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """New points, their losses and gradients, and which restarts found one; the others stay."""
    moved, new_values, new_gradients = points.clone(), values.clone(), gradients.clone()
    left = wanted.clone()
    for _ in range(HALVINGS):
        rows = left.nonzero()[:, 0]
        trial = points[rows] + size[rows, None] * direction[rows]
        tried, gradient = slopes(trial)
        fell = tried <= values[rows] + SUFFICIENT * size[rows] * slope[rows]
        fell &= gradient.isfinite().all(dim=1)
        good = rows[fell]
        moved[good], new_values[good], new_gradients[good] = trial[fell], tried[fell], gradient[fell]
        left[good] = False
        if not left.any():
            break
        size = torch.where(left, 0.5 * size, size)
    found = wanted & ~left
    return moved, new_values, new_gradients, found
