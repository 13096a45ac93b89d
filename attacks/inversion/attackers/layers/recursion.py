"""A single sample, read layer by layer from the last to the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from attacks.inversion.attackers.layers.convolutions import Convolution, relu_layers
from attacks.inversion.attackers.layers.layer_input import LEAST_ERROR, Inputs, Outputs, layer_input
from attacks.inversion.attackers.layers.linear import last_layer
from attacks.inversion.attackers.layers.rank import completed
from attacks.inversion.exposure import Exposure

GUESSES = 15
"""How often it is guessed anew which of the unknown ReLUs are on."""
EXACT, CONSISTENT = 1e-4, 1e-2
"""Misfits: of right guesses, and of some from which an optimiser may still go on."""
NOISY, MARGIN = 1e-3, 30.0
"""Noise, relative to what is seen, of which nothing is asked; and how often it may be misfitted by."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """A sample that explains a gradient.

    Args:
        inputs: [1, *shape] in [0, 1].
        misfit: the largest of its layers'.
        determined: False if others explain it as well, of which this is the smoothest.
    """

    inputs: torch.Tensor
    misfit: float
    determined: bool

    @property
    def exact(self) -> bool:
        """True if no other sample explains it, and nothing but rounding is left."""
        return self.determined and self.misfit <= EXACT


def recursed(exposure: Exposure, *, over: Callable[[], bool] = lambda: False) -> Solution | None:
    """The sample whose layers explain a gradient one after the other.

    The linear layer's gradient has rank 1: completed, it gives what the layer read, but for a factor if its
    bias is hidden. Then each convolution's input follows from its visible gradient and its outputs
    (``layer_input``), and tells which ReLUs before it are on. Values whose column is hidden as a whole are
    taken for positive at first, as a mask hides large gradients and zeros have none; then for what the layer
    gives with the input that was found, until the two agree. A factor common to all of the gradient, as of
    clipping, changes nothing. Of several rounds, the one that is explained best.

    Args:
        exposure: what is known.
        over: asked between layers; True ends it with None.

    Returns:
        None if it is not single gradients of a single sample, nearly without noise, the network is another
        than ``relu_layers`` describes, or no guess explains what is seen.
    """
    found = [solution for one in exposure.rounds if (solution := _solved(one, over)) is not None]
    return min(found, key=lambda solution: solution.misfit, default=None)


def _solved(exposure: Exposure, over: Callable[[], bool]) -> Solution | None:
    largest = float(exposure.visible.abs().max())
    if exposure.batch_size != 1 or not exposure.training.is_gradient or not 0 < largest < float("inf"):
        return None
    layers = relu_layers(exposure.victim, exposure.parameters)
    # Of a size that squares of it have a double.
    exposure = replace(
        exposure, visible=exposure.visible.double() / largest, noise=exposure.noise / largest, earlier=()
    )
    seen = exposure.visible[exposure.compared]
    noise = exposure.noise / float(seen.square().mean().sqrt()) if len(seen) else 1.0
    if layers is None or noise > NOISY:
        return None
    try:
        return _through(layers, exposure, max(EXACT, MARGIN * noise), over)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return None


def _through(
    layers: list[Convolution], exposure: Exposure, exact: float, over: Callable[[], bool]
) -> Solution | None:
    outputs = _features(exposure, layers[-1])
    gradients, shown = (
        {name: part.cpu() for name, part in exposure.victim.named(flat).items()}
        for flat in (exposure.visible, exposure.compared)
    )
    misfit, determined = 0.0, True
    for layer in reversed(layers):
        if outputs is None or over():
            return None
        found = _read(
            layer,
            gradients[layer.name],
            shown[layer.name],
            outputs,
            positive=layer is not layers[0],
            noise=exposure.noise,
            exact=exact,
        )
        if found is None or not found.misfit <= max(CONSISTENT, exact):
            return None
        misfit, determined = max(misfit, found.misfit), determined and found.determined
        outputs = Outputs(
            values=found.values,
            errors=found.errors,
            slopes=layer.pulled(found.slopes),
            scaled=True,
            off=torch.zeros_like(found.values, dtype=torch.bool),
        )
    assert outputs is not None
    inputs = outputs.values[None].clamp(0.0, 1.0).to(exposure.parameters)
    return Solution(inputs=inputs, misfit=misfit, determined=determined)


def _read(
    layer: Convolution,
    gradient: torch.Tensor,
    seen: torch.Tensor,
    outputs: Outputs,
    *,
    positive: bool,
    noise: float,
    exact: float,
) -> Inputs | None:
    """What a layer read, by the guess of unknown outputs that explains most."""
    best: Inputs | None = None
    for _ in range(GUESSES):
        found = layer_input(layer, gradient, seen, outputs, positive=positive, noise=noise)
        if found is None:
            return best
        if best is None or found.misfit < best.misfit:
            best = found
        off = outputs.unknown & found.off
        if found.misfit <= exact or torch.equal(off, outputs.off):
            break
        outputs = replace(outputs, off=off)
    return best


def _features(exposure: Exposure, layer: Convolution) -> Outputs | None:
    """What the linear layer read and ∂L/∂a of it; None if no column of its gradient is visible."""
    linear = last_layer(exposure.victim)
    if linear is None or linear.positions != 1:
        return None
    whole = completed(exposure, seed=0, layers=[linear])
    values, seen = (part.double().cpu() for part in linear.gradient(whole))
    matrix, weights = values[:, : linear.inputs], seen[:, : linear.inputs]
    scaled = linear.bias is not None and bool(seen[:, -1].all())
    if scaled:
        errors = values[:, -1]
    else:
        columns = weights.bool().all(dim=0) & (matrix != 0).any(dim=0)
        if not bool(columns.any()):
            return None
        errors = torch.linalg.svd(matrix[:, columns], full_matrices=False)[0][:, 0]
    power = errors.square() @ weights
    if not bool(power.max() > 0):
        return None
    features = torch.where(power > 0, errors @ (weights * matrix) / power, torch.nan)
    if not scaled and float(features.nansum()) < 0:
        # A singular vector has either sign; a ReLU's outputs have one.
        features, errors = -features, -errors
    parameters = exposure.victim.named(exposure.parameters)
    slopes = errors @ parameters[linear.weight].detach().double().cpu()
    if features.numel() != torch.Size(layer.outputs).numel():
        return None
    most = float(features.nan_to_num(0.0).abs().max())
    # Of a value itself, and of the errors that it was divided by.
    length = float(errors.norm())
    error = max(LEAST_ERROR * most, exposure.noise * (1 + most) / length)
    return Outputs(
        values=features.view(layer.outputs),
        errors=torch.full(layer.outputs, error, dtype=torch.float64),
        slopes=slopes.view(layer.outputs),
        scaled=scaled,
        off=torch.zeros(layer.outputs, dtype=torch.bool),
    )
