"""Adam, by the sign of gradients or by themselves, from many starting points at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from attacks.inversion.attackers.fitting.restarts import Clock, Outcome, Slopes

BETAS = (0.9, 0.999)
SOLVED = 1e-13
"""An attack loss without unit, below which nothing is left to gain."""


def descend(
    slopes: Slopes,
    start: torch.Tensor,
    *,
    iterations: int,
    rate: float,
    boxed: Callable[[torch.Tensor], torch.Tensor],
    clock: Clock,
    signed: bool = True,
    betas: tuple[float, float] = BETAS,
) -> Outcome:
    """z ← box(z − η_k·m̂/(√v̂ + ε)), Adam (Kingma, Ba, arXiv 1412.6980) on sign(∇) as in inverting gradients.

    The rate falls along a quarter cosine, η_k = η·cos(πk/2K), so that signs, which never get smaller, come
    to rest. Each restart keeps the iterate with its least loss; one that turns NaN or infinite stays there.

    Args:
        slopes: losses and gradients of rows.
        start: [R, size].
        iterations: K.
        rate: η, in units of z.
        boxed: the projection after every step.
        clock: ends it early.
        signed: False for plain Adam.
        betas: Adam's; a smaller second one lets steps keep their size while gradients shrink.
    """
    points, best = start, start.clone()
    first, second = torch.zeros_like(start), torch.zeros_like(start)
    losses = start.new_full((len(start),), float("inf"))
    diverged = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    done = 0
    for step in range(iterations + 1):
        values, gradients = slopes(points)
        diverged |= ~(values.isfinite() & gradients.isfinite().all(dim=1))
        better = ~diverged & (values < losses)
        losses = torch.where(better, values, losses)
        best = torch.where(better[:, None], points, best)
        if step == iterations or diverged.all() or float(losses.min()) < SOLVED or (step and clock.over):
            break
        moved = torch.where(diverged[:, None], 0.0, gradients.sign() if signed else gradients)
        first = betas[0] * first + (1 - betas[0]) * moved
        second = betas[1] * second + (1 - betas[1]) * moved.square()
        mean = first / (1 - betas[0] ** (step + 1))
        size = (second / (1 - betas[1] ** (step + 1))).sqrt()
        now = rate * math.cos(math.pi / 2 * step / iterations)
        points = boxed(points - now * mean / (size + 1e-8))
        done = step + 1
    return Outcome(points=best, losses=losses, diverged=diverged, iterations=done)
