"""Samples read off the gradient of a first layer that is fully connected."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attacks.inversion.attackers.attacker import Budget, Reconstruction, Status
from attacks.inversion.attackers.labels import labels_from_errors, remaining_labels
from attacks.inversion.attackers.layers.linear import LinearLayer, first_layer, last_layer, precision
from attacks.inversion.attackers.layers.unmixing import ZERO, unmix
from attacks.inversion.exposure import Exposure

PRIOR = 0.5
"""What an attacker takes an input for that it saw nothing of: the middle of [0, 1]."""
ROUNDING = 64
IMAGE = 3
"""Dimensions of a sample that lies in [0, 1]."""


@dataclass(slots=True, kw_only=True)
class Analytic:
    """x = ∂L/∂W_i ÷ ∂L/∂b_i (Phong, Aono, Hayashi, Wang, Moriai, IEEE TIFS 2018, §3).

    A single sample's gradient is δ·[x | 1]ᵀ. Every row i in which ∂L/∂W_ij and ∂L/∂b_i are visible tells
    x_j, best where δ_i is large: x_j = Σ_i δ_i·∂L/∂W_ij / Σ_i δ_i² over these rows. Of several samples, rows
    that are visible as a whole are taken apart with ``unmix``; magnitude leaves the rows of small δ_i whole.
    Inputs that were seen nowhere are taken for ``PRIOR``.

    Args:
        name: as asked for.
        draws: sets of rows that ``unmix`` tries.
    """

    name: str = "analytic"
    draws: int = 60_000

    def unsuited(self, exposure: Exposure) -> str:
        """Needs a fully connected first layer with a bias, and the labels' layer to name them."""
        layer = first_layer(exposure.victim)
        if layer is None:
            return f"{exposure.victim.name} has no linear layer that reads samples"
        if layer.bias is None:
            return f"the first layer of {exposure.victim.name} has no bias"
        if exposure.labels is None and last_layer(exposure.victim) is None:
            return f"{exposure.victim.name} has no linear layer that gives its logits"
        return ""

    def attack(self, exposure: Exposure, *, seed: int, budget: Budget) -> Reconstruction:
        """What can be read off."""
        layer = first_layer(exposure.victim)
        if layer is None or layer.bias is None:
            return unsuited_reconstruction(exposure)
        values, seen = layer.gradient(exposure)
        values = values.to(torch.float64)
        errors = torch.where(seen[:, -1], values[:, -1], torch.nan)[None]
        detail = ""
        if exposure.batch_size == 1:
            samples = _single(values, seen)
        else:
            whole, parameters = seen.all(dim=1), exposure.victim.named(exposure.parameters)
            unmixed = unmix(
                values[whole],
                batch_size=exposure.batch_size,
                seed=seed,
                draws=budget.iterations(self.draws),
                layer=(
                    parameters[layer.weight][whole].to(torch.float64),
                    parameters[layer.bias][whole].to(torch.float64),
                ),
                zero=max(ZERO, ROUNDING * precision(exposure, layer)),
            )
            samples, found = unmixed.samples, len(unmixed.samples)
            errors = values.new_full((found, layer.outputs), torch.nan)
            errors[:, whole] = unmixed.errors
            detail = f"{found} of {exposure.batch_size} samples told apart"
            if not found:
                # The batch's mean, each sample weighted with its errors; nobody's errors are known.
                samples, errors = _single(values, seen), values.new_full((1, layer.outputs), torch.nan)
        return finished(exposure, layer, samples, errors, detail=detail)


def _single(values: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """x [1, inputs]; NaN where nothing is known."""
    weights = (seen[:, :-1] & seen[:, -1:]).to(torch.float64)
    errors = values[:, -1:]
    power = (weights * errors.square()).sum(dim=0)
    total = (weights * errors * values[:, :-1]).sum(dim=0)
    return torch.where(power > 0, total / power, torch.nan)[None]


def finished(
    exposure: Exposure, layer: LinearLayer, samples: torch.Tensor, errors: torch.Tensor, *, detail: str = ""
) -> Reconstruction:
    """A reconstruction of B samples from those that were found.

    Missing samples are the mean of those that were found, as no better guess is known.

    Args:
        layer: that the samples were read from.
        samples: [k, d_x], k ≤ B, NaN where nothing is known.
        errors: ∂L/∂y of each at that layer, [k, outputs], NaN where unknown; labels follow from them.
        detail: what to note.
    """
    victim, size = exposure.victim, exposure.batch_size
    samples = samples[:size].to(device=victim.device, dtype=victim.dtype)
    samples = torch.where(samples.isfinite(), samples, PRIOR)
    if len(victim.shape) == IMAGE:
        samples = samples.clamp(0.0, 1.0)
    certain = errors[:size].isfinite().any(dim=1).to(victim.device)
    filler = (
        samples.mean(dim=0, keepdim=True)
        if len(samples)
        else samples.new_full((1, victim.sample_size), PRIOR)
    )
    order = certain.to(torch.int64).argsort(descending=True, stable=True)
    samples, known = samples[order], int(certain.sum())
    inputs = torch.cat([samples, filler.expand(size - len(samples), -1)]).reshape(size, *victim.shape)
    labels = torch.zeros(0, dtype=torch.int64, device=victim.device)
    if known:
        labels = labels_from_errors(
            exposure, layer, inputs[:known], errors[:size][order][:known].to(victim.device, victim.dtype)
        )
    labels = torch.cat([labels, remaining_labels(exposure, labels)])
    return Reconstruction(inputs=inputs, labels=labels, iterations=1, detail=detail)


def unsuited_reconstruction(exposure: Exposure) -> Reconstruction:
    """Mid-grey samples of an attack that can't work on this exposure."""
    victim, size = exposure.victim, exposure.batch_size
    grey = torch.full((size, *victim.shape), PRIOR, dtype=victim.dtype, device=victim.device)
    labels = torch.zeros(size, dtype=torch.int64) if exposure.labels is None else exposure.labels
    return Reconstruction(inputs=grey, labels=labels.to(victim.device), status=Status.UNSUITED)
