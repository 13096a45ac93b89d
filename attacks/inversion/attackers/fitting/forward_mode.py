"""Derivatives along directions."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch


def along(
    function: Callable[[torch.Tensor], torch.Tensor], point: torch.Tensor, direction: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """f(z) and J·v, by forward-mode differentiation; neither is differentiable.

    Args:
        function: [n] → [m].
        point, direction: z and v, [n].
    """
    with warnings.catch_warnings():
        # Forward mode compiles some of its own formulas when it is first used, in a way it deprecates.
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=DeprecationWarning)
        value, change = torch.func.jvp(function, (point,), (direction,))[:2]
    return value.detach(), change.detach()
