"""Surrogate model extension: several local steps as one gradient somewhere between both models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from attacks.inversion.attackers.attacker import Budget, Reconstruction
from attacks.inversion.attackers.fitting.descent import descend
from attacks.inversion.attackers.fitting.objective import one_minus_cosine
from attacks.inversion.attackers.fitting.penalties import total_variation
from attacks.inversion.attackers.fitting.restarts import Clock, slopes_of
from attacks.inversion.attackers.fitting.unknowns import Unknowns, known_labels, no_images
from attacks.inversion.exposure import Exposure


@dataclass(slots=True, kw_only=True)
class SurrogateModel:
    """min over x and α of Σ_rounds 1 − cos(∇L(x; α·θ_0 + (1 − α)·θ_T), g) + tv·TV(x), α in [0, 1].

    SME: Zhu, Yao, Blaschko, ICML 2023, arXiv 2306.00127, §3: of all models on the way the path of training
    passes near one whose gradient on all samples is parallel to the whole update. One gradient per
    iteration, however many local steps there were. θ_T = θ_0 − learning_rate·weight·g (``Training``);
    where g is hidden, θ_0 stands for it.

    Args:
        name: as asked for.
        tv: weight of the total variation.
        rate: Adam's first, for pixels.
        surrogate_rate: α's as a multiple of that.
        iterations: of Adam.
    """

    name: str = "sme"
    tv: float = 1e-2
    rate: float = 0.1
    surrogate_rate: float = 0.1
    iterations: int = 300

    def unsuited(self, exposure: Exposure) -> str:
        """Text has no pixels, and of a single step there is nothing to surrogate."""
        text = no_images(exposure)
        if not text and all(each.training.is_gradient for each in exposure.rounds):
            return "the update is a single gradient"
        return text

    def attack(self, exposure: Exposure, *, seed: int, budget: Budget) -> Reconstruction:
        """As ``Attacker.attack``."""
        clock = Clock(budget)
        unknowns = Unknowns.of(exposure, known_labels(exposure))
        rounds = [_Segment(each) for each in exposure.rounds]
        size, scale = unknowns.size, self.surrogate_rate

        def loss(row: torch.Tensor) -> torch.Tensor:
            inputs, labels = unknowns.split(row[:size])
            # The last number of a row is α/scale: signed steps are of one size for all.
            angles = [each.angle(inputs, labels, scale * row[size]) for each in rounds]
            return torch.stack(angles).sum() + self.tv * total_variation(inputs)

        def boxed(rows: torch.Tensor) -> torch.Tensor:
            alpha = rows[:, size:].clamp(0.0, 1.0 / scale)
            return torch.cat([unknowns.boxed(rows[:, :size]), alpha], dim=1)

        starts = unknowns.starts(seed, budget.restarts)
        middle = starts.new_full((len(starts), 1), 0.5 / scale)
        outcome = descend(
            slopes_of(loss, exposure.victim.size),
            torch.cat([starts, middle], dim=1),
            iterations=budget.iterations(self.iterations),
            rate=self.rate,
            boxed=boxed,
            clock=clock,
        )
        alpha = scale * float(outcome.points[outcome.best, size])
        pixels = replace(outcome, points=outcome.points[:, :size])
        return pixels.reconstruction(unknowns, detail=f"alpha {alpha:.2f}")


class _Segment:
    """One round's two ends."""

    def __init__(self, exposure: Exposure) -> None:
        self._victim, training = exposure.victim, exposure.training
        self._start = exposure.parameters
        self._way = -training.learning_rate * training.weight * exposure.visible
        self._compared = exposure.compared.to(exposure.visible.dtype)
        self._target = exposure.visible * self._compared

    def angle(self, inputs: torch.Tensor, labels: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        between = self._start + (1.0 - alpha) * self._way
        gradient = self._victim.gradient(between, inputs, labels)
        return one_minus_cosine(gradient * self._compared, self._target)
