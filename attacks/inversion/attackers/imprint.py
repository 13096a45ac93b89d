"""An aggregator that sends a model made to copy samples into its gradient."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.functional import relu

from attacks.inversion.attackers.analytic import finished, unsuited_reconstruction
from attacks.inversion.attackers.attacker import Attacker, Budget, Reconstruction
from attacks.inversion.attackers.layers.linear import (
    LinearLayer,
    last_layer,
    linear_layers,
    precision,
    probe_inputs,
)
from attacks.inversion.exposure import Exposure
from attacks.inversion.victims.victim import Victim
from secagg.errors import Code, ConfigError

WEIGHT, BIAS = "imprint.weight", "imprint.bias"
BINS = 256
CENTRE, SPREAD = 0.45, 0.2
"""Mean and standard deviation of brightness that an aggregator assumes that knows no data."""
MARGIN = 8.0
"""How far below the threshold a quiet imprint keeps its largest expected entry."""
TRIALS = 4
TRIAL_SAMPLES = 8
FAINT = 1e-3
ROUNDING = 8
"""Sums over the same samples differ by less than so many times what values are uncertain by."""


@runtime_checkable
class ActiveAttacker(Attacker, Protocol):
    """An attack whose aggregator also chooses the model that clients train."""

    def prepare(self, victim: Victim, *, known: torch.Tensor | None = None) -> Victim:
        """What clients are given instead of ``victim``; their updates, and exposures, are of it.

        Args:
            victim: what they would be given.
            known: samples of the same kind that the aggregator has, [n, *shape], if any.

        Raises:
            ConfigError: CONFIG_INVALID if such a victim can't be altered.
        """
        ...


class Imprinted(nn.Module):
    """x ↦ network(x + v·Σ_i relu(⟨m, x⟩ − c_i)): bins of a measurement in front of a network.

    Args:
        network: what is kept.
        direction: v, [d_x].
        thresholds: c, ascending, [bins].
    """

    def __init__(self, network: nn.Module, direction: torch.Tensor, thresholds: torch.Tensor) -> None:
        super().__init__()
        size, bins = len(direction), len(thresholds)
        # Built without values: their initialisation would draw from the global generator.
        kind, place = direction.dtype, direction.device
        self.imprint = nn.Linear(size, bins, device="meta", dtype=kind).to_empty(device=place)
        self.spread = nn.Linear(bins, size, bias=False, device="meta", dtype=kind).to_empty(device=place)
        with torch.no_grad():
            self.imprint.weight.fill_(1 / size)
            self.imprint.bias.copy_(-thresholds)
            self.spread.weight.copy_(direction[:, None].expand(size, bins))
        self.network = network

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits, [B, classes]."""
        bins = relu(self.imprint(inputs.flatten(1)))
        outputs = self.network(inputs + self.spread(bins).view_as(inputs))
        assert isinstance(outputs, torch.Tensor)
        return outputs


def imprinted(
    victim: Victim,
    bins: int,
    *,
    scale: float = 1.0,
    public: torch.Tensor | None = None,
    seed: int = 0,
) -> Victim:
    """The victim with an imprint layer in front (Fowl, Geiping, Czaja, Goldblum, Goldstein: Robbing the Fed,
    ICLR 2022, arXiv 2110.13057, §3).

    Thresholds are equally likely quantiles of the samples' mean brightness. All bins act on the network
    alike, so ∂L/∂W_i = Σ g_s·x_s over the samples brighter than c_i, and the difference of two neighbours'
    gradients is that of the samples between c_i and c_{i+1}.

    Args:
        victim: of images or features; its module is copied.
        bins: at least 1; many more than samples.
        scale: root mean square of v, of which g_s, and with it the layer's whole gradient, is a multiple.
        public: samples of the same kind, [n, *shape], whose quantiles are used; None for those of a normal
            distribution with mean ``CENTRE`` and standard deviation ``SPREAD``.
        seed: of v's direction, uniform.

    Raises:
        ConfigError: CONFIG_INVALID for text, no bins, or a scale that is not positive.
    """
    if victim.vocabulary:
        raise ConfigError(
            Code.CONFIG_INVALID, f"victim {victim.name} reads tokens; an imprint layer needs real inputs"
        )
    if bins < 1 or not 0 < scale < float("inf"):
        raise ConfigError(
            Code.CONFIG_INVALID, f"an imprint needs bins ≥ 1 and a positive scale, not {bins} and {scale}"
        )
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(victim.sample_size, generator=generator, dtype=torch.float64)
    direction = direction * (scale / direction.square().mean().sqrt())
    levels = torch.arange(bins, dtype=torch.float64) / bins
    if public is None:
        # The lowest level would be −∞; everything is brighter than four deviations below the mean.
        thresholds = CENTRE + SPREAD * torch.special.ndtri(levels).clamp_min(-4.0)
    else:
        brightness = public.flatten(1).mean(dim=1).to(device="cpu", dtype=torch.float64)
        thresholds = torch.quantile(brightness, levels)
        thresholds[0] -= brightness.max() - brightness.min()
    module = Imprinted(
        copy.deepcopy(victim.module),
        direction.to(dtype=victim.dtype, device=victim.device),
        thresholds.to(dtype=victim.dtype, device=victim.device),
    )
    module.train(victim.module.training)
    # train() reaches into the network, whose parts may have been in different modes.
    for ours, theirs in zip(module.network.modules(), victim.module.modules(), strict=True):
        ours.training = theirs.training
    return replace(victim, name=f"{victim.name}+imprint", module=module)


def quiet_scale(
    victim: Victim, bins: int, *, ratio: float, public: torch.Tensor | None = None, seed: int = 0
) -> float:
    """The scale at which an imprint layer's gradients stay below a magnitude mask's threshold.

    They are proportional to the scale. The aggregator plays clients on samples of its own with random
    labels: with k = ratio·d the k-th largest entry of all other tensors is the threshold if the imprint's
    entries are not among the k, and its largest entry is set to 1/``MARGIN`` of that; the least over several
    trials. The imprint's second layer helps, as its entries compete for places in the mask.

    Args:
        ratio: hidden entries / all, in [0, 1).
        public: samples to play with, [n, *shape]; None for noise.
        victim, bins, seed: as in ``imprinted``.
    """
    prepared = imprinted(victim, bins, scale=FAINT, public=public, seed=seed)
    parameters, own = prepared.parameters(), torch.zeros(prepared.size, dtype=torch.bool)
    for name in (WEIGHT, BIAS):
        own[prepared.manifest.slice_of(name)] = True
    pool = probe_inputs(victim, TRIALS * TRIAL_SAMPLES, seed=seed) if public is None else public
    pool = pool.to(device=victim.device, dtype=victim.dtype)
    generator = torch.Generator().manual_seed(seed)
    scales = []
    for _ in range(TRIALS):
        inputs = pool[torch.randperm(len(pool), generator=generator)[:TRIAL_SAMPLES]]
        labels = torch.randint(victim.classes, (len(inputs),), generator=generator).to(victim.device)
        gradient = prepared.gradient(parameters, inputs, labels).detach().abs().cpu()
        others = gradient[~own].sort(descending=True).values
        threshold = float(others[min(len(others) - 1, round(ratio * prepared.size))])
        if threshold == 0:
            # More places than entries that are not 0: stay below the least of these.
            threshold = float(others[others > 0][-1])
        scales.append(FAINT * threshold / (MARGIN * float(gradient[own].max())))
    return min(scales)


@dataclass(slots=True, kw_only=True)
class Imprint:
    """Samples from the differences of neighbouring bins' gradients, x = Δ∂L/∂W_i ÷ Δ∂L/∂b_i.

    A bin that two samples fell into gives a mixture of both.

    Args:
        name: as asked for.
        bins: of the layer.
        scale: of the layer, as in ``imprinted``, unless ``ratio`` decides.
        ratio: of the magnitude mask below whose threshold the layer is kept (``quiet_scale``), so that it
            travels in the clear; 0 for a layer that pays no heed to masks.
        public: samples that the aggregator knows, [n, *shape]; None for those that ``prepare`` is given.
        seed: of what it draws.
    """

    name: str = "imprint"
    bins: int = BINS
    scale: float = 1.0
    ratio: float = 0.0
    public: torch.Tensor | None = None
    seed: int = 0

    def prepare(self, victim: Victim, *, known: torch.Tensor | None = None) -> Victim:
        """The victim with the layer in front, its thresholds those of ``public``, else of known samples."""
        scale, public = self.scale, known if self.public is None else self.public
        if self.ratio > 0:
            scale = quiet_scale(victim, self.bins, ratio=self.ratio, public=public, seed=self.seed)
        return imprinted(victim, self.bins, scale=scale, public=public, seed=self.seed)

    def unsuited(self, exposure: Exposure) -> str:
        """Needs an update of a prepared victim."""
        if all(spec.name != WEIGHT for spec in exposure.victim.manifest.tensors):
            return f"{exposure.victim.name} was not prepared with an imprint layer"
        if exposure.labels is None and last_layer(exposure.victim) is None:
            return f"{exposure.victim.name} has no linear layer that gives its logits"
        if exposure.aware and exposure.of_tensor(WEIGHT)[1].all():
            return "the imprint layer is hidden whole"
        return ""

    def attack(self, exposure: Exposure, *, seed: int, budget: Budget) -> Reconstruction:  # noqa: ARG002
        """One sample per bin whose gradient differs from its neighbour's."""
        if self.unsuited(exposure):
            return unsuited_reconstruction(exposure)
        layer = next(layer for layer in linear_layers(exposure.victim) if layer.weight == WEIGHT)
        samples, errors = read_bins(exposure, layer)
        detail = f"{min(len(samples), exposure.batch_size)} of {exposure.batch_size} samples in bins"
        return finished(exposure, layer, samples, errors, detail=detail)


def read_bins(exposure: Exposure, layer: LinearLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """What bins hold, the most plausible first, [k, d_x]; and g_s at every bin, [k, bins]; NaN where unknown.

    Between two samples lie bins with one and the same gradient, a plateau: an entry hidden in one of its rows
    is read from the others.
    """
    thresholds = -exposure.victim.named(exposure.parameters)[BIAS].to(torch.float64)
    values, seen = layer.gradient(exposure)
    values = values.to(torch.float64)
    bins, places = len(values), seen.any(dim=1).nonzero()[:, 0]
    if not len(places):
        return values[:0, :-1], values[:0, 0].expand(0, bins)
    values, seen = values[places], seen[places]
    level = values[seen].square().mean().sqrt()
    least = ROUNDING * precision(exposure, layer) * float(level)
    steps = torch.where(seen[:-1] & seen[1:], (values[:-1] - values[1:]).abs(), 0.0).amax(dim=1) > least
    plateau = torch.cat([torch.zeros(1, dtype=torch.int64, device=steps.device), steps.cumsum(dim=0)])
    count = int(plateau[-1]) + 1
    times = torch.zeros(count, seen.shape[1], dtype=torch.float64, device=values.device)
    times.index_add_(0, plateau, seen.to(torch.float64))
    means = torch.zeros_like(times).index_add_(0, plateau, torch.where(seen, values, 0.0))
    means = torch.where(times > 0, means / times, torch.nan)
    # Nothing is brighter than the bin after the last.
    differences = means - torch.cat([means[1:], torch.zeros_like(means[:1])])
    last = torch.stack([places[plateau == index][-1] for index in range(count)])
    filled = differences[:, -1].abs() > least
    differences, last = differences[filled], last[filled]
    samples = differences[:, :-1] / differences[:, -1:]
    # What mixes samples whose errors have opposite signs leaves the range of its bin.
    upper = torch.cat([thresholds, thresholds.new_full((1,), torch.inf)])[last + 1]
    brightness, slack = samples.nanmean(dim=1), 1e-3
    fits = (brightness > thresholds[last] - slack) & (brightness < upper + slack)
    strength = differences[:, -1].abs() / differences[:, -1].norm().clamp_min(1e-300)
    order = (strength + 2.0 * fits.to(torch.float64)).argsort(descending=True, stable=True)
    # A sample acts alike on all bins below its own, and on none above.
    below = torch.arange(bins, device=last.device)[None] <= last[order, None]
    errors = torch.where(below, differences[order, -1:], 0.0)
    return samples[order], errors
