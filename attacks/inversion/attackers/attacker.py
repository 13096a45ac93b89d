"""What an attacker is: a function from an exposure to a reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch

from attacks.inversion.exposure import Exposure


class Status(StrEnum):
    """How an attack ended."""

    DONE = "done"
    DIVERGED = "diverged"
    UNSUITED = "unsuited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long an attack may go on.

    Args:
        effort: what an attacker's own number of iterations is multiplied with; positive.
        restarts: how many starting points it tries, where it has any; the one with the least attack loss
            counts. At least 1.
        seconds: it stops at the best it has after so many; infinity for none. Reproducible results need
            none.
    """

    effort: float = 1.0
    restarts: int = 1
    seconds: float = float("inf")

    def iterations(self, usual: int) -> int:
        """How many of them, at least 1."""
        return max(1, round(self.effort * usual))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstruction:
    """What an attacker made of an exposure.

    Args:
        inputs: [B, *shape]; token ids, int64 [B, tokens], of text.
        labels: int64 [B].
        loss: the attacker's own, by which it chose among its restarts; NaN if it has none.
        status: DIVERGED if it ended in NaN or infinity: inputs are then the last finite ones.
        iterations: how many it made.
        detail: what else is worth a column; flat.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    loss: float = float("nan")
    status: Status = Status.DONE
    iterations: int = 0
    detail: str = ""


class Attacker(Protocol):
    """One attack. It never sees the samples it looks for; whoever plays it compares."""

    name: str

    def unsuited(self, exposure: Exposure) -> str:
        """Why it can't work on such an exposure, in a few words; empty if it can."""
        ...

    def attack(self, exposure: Exposure, *, seed: int, budget: Budget) -> Reconstruction:
        """What the samples were.

        Args:
            exposure: what is known; ``aware`` decides whether of the mask, too.
            seed: of everything that is drawn; the same seed gives the same reconstruction.
            budget: how long it may take.
        """
        ...
