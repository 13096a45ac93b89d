"""What batch norm in inference mode divides by."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn
from torch.nn.functional import interpolate
from torch.nn.modules.batchnorm import _BatchNorm

from attacks.inversion.victims.victim import Victim

SAMPLES = 16
"""Enough for layers of a few pixels, few enough that large networks are ready at once."""
COARSE = 4


def smooth_noise(shape: tuple[int, ...], count: int = SAMPLES) -> torch.Tensor:
    """Random images in [0, 1] without fine detail, from the global generator; other shapes: uniform noise.

    Args:
        shape: of one sample.
        count: how many.
    """
    if len(shape) != 3:
        return torch.rand(count, *shape)
    coarse = torch.rand(count, shape[0], min(COARSE, shape[1]), min(COARSE, shape[2]))
    return interpolate(coarse, size=shape[1:], mode="bilinear", align_corners=False)


def running(module: nn.Module) -> list[_BatchNorm]:
    """The batch norms in inference mode that divide by running statistics."""
    return [
        layer
        for layer in module.modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats and not layer.training
    ]


def set_running_statistics(module: nn.Module, inputs: torch.Tensor) -> None:
    """Running mean and variance of every batch norm in inference mode := those of these inputs.

    Each layer sees what the layers before it make of their batch statistics, as in training.
    """
    layers = running(module)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over forward passes, of which there is one
        layer.train()
    if layers:
        with torch.no_grad():
            module(inputs)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def calibrated(victim: Victim, inputs: torch.Tensor) -> Victim:
    """The same victim with its batch norm's running statistics taken from these samples.

    Args:
        inputs: [n, *shape], n ≥ 2; more give steadier statistics.
    """
    module = copy.deepcopy(victim.module)
    set_running_statistics(module, inputs.to(device=victim.device, dtype=victim.dtype))
    return replace(victim, module=module)
