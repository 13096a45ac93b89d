"""Many starting points at once, and which of them counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch

from attacks.inversion.attackers.attacker import Budget, Reconstruction
from attacks.inversion.attackers.fitting.unknowns import Unknowns

Loss = Callable[[torch.Tensor], torch.Tensor]
"""Of one z, [size] → a scalar."""
Slopes = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Of rows of z, [R, size] → losses [R] and gradients [R, size]."""

ENTRIES_AT_ONCE = 20_000_000
"""Restarts × parameters that are differentiated in one pass: what bounds memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """Where each restart ended.

    Args:
        points: the iterate of each with the least loss, [R, size], finite.
        losses: theirs, [R]; infinite if a restart never had a finite one.
        diverged: True where one ended in NaN or infinity, bool [R].
        iterations: how many there were.
    """

    points: torch.Tensor
    losses: torch.Tensor
    diverged: torch.Tensor
    iterations: int

    @property
    def best(self) -> int:
        """The restart with the least attack loss, the first of equals: all that an attacker can go by."""
        return int(self.losses.argmin())

    def reconstruction(self, unknowns: Unknowns, *, detail: str = "") -> Reconstruction:
        """That restart's."""
        return unknowns.reconstruction(
            self.points[self.best],
            loss=float(self.losses[self.best]),
            iterations=self.iterations,
            diverged=bool(self.diverged[self.best]),
            detail=detail,
        )


def slopes_of(loss: Loss, parameters: int) -> Slopes:
    """Losses and their gradients of many points: ``torch.func.vmap`` over restarts.

    Args:
        loss: of one point.
        parameters: d, for how many restarts fit in one pass.
    """
    transformed = torch.func.grad_and_value(loss)
    chunk = max(1, ENTRIES_AT_ONCE // max(1, parameters))

    def single(point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.enable_grad():
            at = point.detach().requires_grad_()
            value = loss(at)
            (gradient,) = torch.autograd.grad(value, at)
        return value.detach(), gradient

    def slopes(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(points) == 1 or chunk == 1:
            # Without vmap, whose grouped convolutions are slower than plain ones.
            values, gradients = zip(*map(single, points), strict=True)
            return torch.stack(values), torch.stack(gradients)
        slope, value = torch.func.vmap(transformed, chunk_size=chunk)(points)
        return value.detach(), slope.detach()

    return slopes


class Clock:
    """When a budget's seconds are over."""

    def __init__(self, budget: Budget) -> None:
        self._end = perf_counter() + budget.seconds

    @property
    def over(self) -> bool:
        """True from then on."""
        return perf_counter() >= self._end
