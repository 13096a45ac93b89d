"""How far the gradients of a guess are from what is seen."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch

from attacks.inversion.attackers.fitting.penalties import Mask, total_variation
from attacks.inversion.attackers.fitting.unknowns import Unknowns
from attacks.inversion.exposure import Exposure

_Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def one_minus_cosine(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 − ⟨a, b⟩/(‖a‖·‖b‖), which no scaling changes; 1 if either is 0; scalar."""
    smallest = torch.finfo(found.dtype).tiny ** 0.5
    norms = (found.square().sum() + smallest).sqrt() * (target.square().sum() + smallest).sqrt()
    distance: torch.Tensor = 1.0 - (found * target).sum() / norms
    return distance


class _Round:
    """One round's visible entries, scaled."""

    def __init__(self, exposure: Exposure, *, whiten: bool, by_mask: bool) -> None:
        self.exposure = exposure
        # Every entry, or an index: selecting by a boolean has a size that vmap can't know.
        every = bool(exposure.compared.all())
        self.index = None if every else exposure.compared.nonzero()[:, 0]
        target = self._selected(exposure.visible)
        # A number, unless entries weigh differently: networks have millions of them.
        weights = target.new_ones(())
        if whiten and exposure.noise > 0:
            weights = 1.0 / (target.abs() + exposure.noise)
        scale = float((weights * target).norm())
        self.weights = weights if scale == 0 else weights / scale
        self.target = self.weights * target
        self.mask = Mask(exposure) if by_mask and exposure.aware else None

    def _selected(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient if self.index is None else gradient.index_select(0, self.index)

    def gradient(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        known = self.exposure
        return known.training.mean_gradient(known.victim, known.parameters, inputs, labels)

    def compared(self, gradient: torch.Tensor) -> torch.Tensor:
        return self.weights * self._selected(gradient)


class Objective:
    """The terms of one exposure's attack loss, as functions of z (``Unknowns``); all work under vmap.

    Entries of all rounds are compared, each round's divided by the norm of what it shows: terms have no
    unit, and 1 is what a gradient of zeros scores.

    Args:
        exposure: what is known; hidden entries count as zeros if it isn't aware.
        unknowns: how z is laid out.
        hinge: weight of mean max(0, 1 − |∇_i L|/τ)² over hidden entries; see ``Mask``.
        likelihood: weight of −mean log P(mask | ∇L); see ``Mask``.
        whiten: True: where there is noise, entries are divided by |g_i| + σ, so that small ones count, too.
        free_scale: True: residuals are those of the factor that fits best, one per round, as after clipping.
    """

    def __init__(
        self,
        exposure: Exposure,
        unknowns: Unknowns,
        *,
        hinge: float = 0.0,
        likelihood: float = 0.0,
        whiten: bool = False,
        free_scale: bool = False,
    ) -> None:
        self.exposure, self.unknowns = exposure, unknowns
        self.hinge, self.likelihood, self.whiten = hinge, likelihood, whiten
        self.free_scale = free_scale
        by_mask = hinge > 0 or likelihood > 0
        self._rounds = [_Round(each, whiten=whiten, by_mask=by_mask) for each in exposure.rounds]

    @property
    def compared(self) -> int:
        """How many entries are compared, of all rounds."""
        return sum(len(each.target) for each in self._rounds)

    def in_dtype(self, dtype: torch.dtype) -> Objective:
        """The same in another precision."""
        known = in_dtype(self.exposure, dtype)
        return Objective(
            known,
            replace(self.unknowns, like=known.parameters),
            hinge=self.hinge,
            likelihood=self.likelihood,
            whiten=self.whiten,
            free_scale=self.free_scale,
        )

    def residuals(self, point: torch.Tensor) -> torch.Tensor:
        """Differences of all compared entries, and weighted hinges; their squared norm is a loss; [m]."""
        inputs, labels = self.unknowns.split(point)
        parts = []
        for each in self._rounds:
            gradient = each.gradient(inputs, labels)
            compared = each.compared(gradient)
            if self.free_scale:
                smallest = torch.finfo(compared.dtype).tiny ** 0.5
                compared = compared * ((compared @ each.target) / (compared @ compared + smallest))
            parts.append(compared - each.target)
            if self.hinge > 0 and each.mask is not None and each.mask.bites:
                parts.append((self.hinge / len(each.mask.hidden)) ** 0.5 * each.mask.hinges(gradient))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def squared(self, point: torch.Tensor) -> torch.Tensor:
        """Σ_rounds ‖∇L − g‖²/‖g‖² over compared entries, and what the mask says; scalar."""
        return self._summed(point, lambda found, target: (found - target).square().sum())

    def angles(self, point: torch.Tensor) -> torch.Tensor:
        """Σ_rounds 1 − cos(∇L, g) over compared entries, and what the mask says; scalar in [0, 2·rounds]."""
        return self._summed(point, one_minus_cosine)

    def variation(self, point: torch.Tensor) -> torch.Tensor:
        """Total variation of the pixels."""
        return total_variation(self.unknowns.split(point)[0])

    def _summed(self, point: torch.Tensor, distance: _Distance) -> torch.Tensor:
        inputs, labels = self.unknowns.split(point)
        total = point.new_zeros(())
        for each in self._rounds:
            gradient = each.gradient(inputs, labels)
            total = total + distance(each.compared(gradient), each.target)
            if each.mask is not None and each.mask.bites:
                if self.hinge > 0:
                    total = total + self.hinge * each.mask.hinges(gradient).square().mean()
                if self.likelihood > 0:
                    total = total + self.likelihood * each.mask.surprise(gradient)
        return total


def in_dtype(exposure: Exposure, dtype: torch.dtype) -> Exposure:
    """The same exposure with a copy of its victim that computes in another precision."""
    victim = replace(exposure.victim, module=copy.deepcopy(exposure.victim.module).to(dtype))
    return replace(
        exposure,
        victim=victim,
        parameters=exposure.parameters.to(dtype),
        visible=exposure.visible.to(dtype),
        earlier=tuple(
            replace(each, victim=victim, parameters=each.parameters.to(dtype), visible=each.visible.to(dtype))
            for each in exposure.earlier
        ),
    )
