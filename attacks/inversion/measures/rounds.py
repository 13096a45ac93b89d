"""What the rounds of one exposure tell of their samples, made linear at the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from attacks.inversion.batch import Batch
from attacks.inversion.exposure import Exposure
from attacks.inversion.measures.jacobian import Derivative
from attacks.inversion.measures.noise import deviation, precision_of
from secagg.errors import Code, ConfigError


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """One exposure beside the update that it is of.

    Args:
        exposure: what is visible.
        derivative: J of the update at the true samples.
    """

    exposure: Exposure
    derivative: Derivative

    @cached_property
    def update(self) -> torch.Tensor:
        """g, as it was before any protection, float64 [d]."""
        return self.derivative.update().to(torch.float64)

    @cached_property
    def visible(self) -> torch.Tensor:
        """What was sent, float64 [d]; 0 where it is hidden, and maybe elsewhere."""
        return torch.where(self.exposure.hidden, 0, self.exposure.visible).to(torch.float64)

    @cached_property
    def nonzero(self) -> torch.Tensor:
        """Visible entries that are no zeros, neither of themselves nor by a protection, bool [d]."""
        return (self.visible != 0) & (self.update != 0)

    @cached_property
    def scale(self) -> float:
        """What a protection multiplied the update with, as clipping does; 1 if noise may be all there is."""
        sent, true = self.visible[self.nonzero], self.update[self.nonzero]
        square = float(true.square().sum())
        if not square:
            return 1.0
        scale = float((sent * true).sum()) / square
        # Rounding moves it by 1e-7 at most, noise by its deviation along the update.
        allowed = 1e-6 + 4 * self.exposure.noise / square**0.5
        return scale if abs(scale - 1) > allowed else 1.0

    @cached_property
    def weights(self) -> torch.Tensor:
        """V·Σ^-½, float64 [d]: 1/σ_i of visible entries in the update's own scale, 0 of hidden ones."""
        blur = deviation(
            self.derivative.victim.manifest,
            self.update,
            noise=self.exposure.noise / self.scale,
            carried=precision_of(self.exposure.visible),
            computed=self.derivative.parameters.dtype,
        )
        # Pruned, or rounded to zero: known to be as small as it is, no more.
        zeroed = (self.visible == 0) & (self.update != 0)
        blur = torch.where(zeroed, torch.hypot(blur, self.update), blur)
        return torch.where(self.exposure.hidden, 0, 1 / blur)

    @cached_property
    def missing(self) -> torch.Tensor:
        """δ = M·g and all else that a naive attacker takes for gradient, float64 [d].

        The update less what such an attacker believes it to be: hidden entries zero, visible ones as sent.
        """
        return self.update - self.visible


@dataclass(frozen=True, kw_only=True, eq=False)
class Rounds:
    """All rounds of an exposure, one beneath the other: H = Σ_t J_tᵀ V_t Σ_t⁻¹ V_t J_t.

    Args:
        each: at least one, all of the same samples.
    """

    each: Sequence[Round]

    @classmethod
    def of(cls, exposure: Exposure, batch: Batch) -> Rounds:
        """An exposure's rounds at the samples they are of.

        Raises:
            ConfigError: CONFIG_INVALID if the batch has another number of samples, or no real numbers.
        """
        for past in exposure.rounds:
            if past.batch_size != len(batch):
                raise ConfigError(
                    Code.CONFIG_INVALID,
                    f"an exposure of {past.batch_size} samples can't be measured at {len(batch)} samples",
                )
        return cls(
            each=[
                Round(
                    exposure=past,
                    derivative=Derivative(
                        victim=past.victim, parameters=past.parameters, training=past.training, batch=batch
                    ),
                )
                for past in exposure.rounds
            ]
        )

    @property
    def input_numbers(self) -> int:
        """n = B·d_x."""
        return self.each[0].derivative.input_numbers

    @property
    def entries(self) -> int:
        """Σ_t d_t: all entries of all rounds."""
        return sum(round.exposure.victim.size for round in self.each)

    @cached_property
    def update(self) -> torch.Tensor:
        """All rounds' g, float64 [Σ d]."""
        return torch.cat([round.update for round in self.each])

    @property
    def nonzero_visible(self) -> int:
        """Visible entries that are no zeros, of all rounds."""
        return sum(int(round.nonzero.sum()) for round in self.each)

    @cached_property
    def weights(self) -> torch.Tensor:
        """All rounds' V·Σ^-½, float64 [Σ d]."""
        return torch.cat([round.weights for round in self.each])

    @cached_property
    def missing(self) -> torch.Tensor:
        """All rounds' δ, float64 [Σ d]."""
        return torch.cat([round.missing for round in self.each])

    def forward(self, directions: torch.Tensor) -> torch.Tensor:
        """J v for every row v, float64: [k, n] → [k, Σ d]."""
        return torch.cat([round.derivative.forward(directions) for round in self.each], dim=1).double()

    def backward(self, cotangents: torch.Tensor) -> torch.Tensor:
        """Jᵀ u for every row u, float64: [k, Σ d] → [k, n]."""
        parts = torch.split(cotangents, [len(round.update) for round in self.each], dim=1)
        total = cotangents.new_zeros((len(cotangents), self.input_numbers), dtype=torch.float64)
        for round, part in zip(self.each, parts, strict=True):
            total = total + round.derivative.backward(part).double()
        return total

    def matrix(self) -> torch.Tensor:
        """J of all rounds, float64 [Σ d, n]."""
        return torch.cat([round.derivative.matrix() for round in self.each]).double()
