"""Convolutions after the last but one pooling, taken off layer by layer: what they read, to rounding."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d, max_pool2d
from torch.nn.modules.batchnorm import _BatchNorm

from attacks.inversion.attackers.layers.unpooling import correlated, unpooled
from attacks.inversion.exposure import Exposure

SILENT = 5e-7
"""Share of the largest activation below which a ReLU counts as off."""
AGREES = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Peeled:
    """The layers that are left, and what they must give.

    Args:
        head: inputs [B, …] → activations.
        features: of the sample, [1, channels, height, width].
    """

    head: Callable[[torch.Tensor], torch.Tensor]
    features: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Stage:
    """conv, batch norm in inference mode or none, ReLU: y = ReLU(s·(W*a + b) + …)."""

    weight: str
    slope: torch.Tensor


def peeled(exposure: Exposure) -> Peeled | None:
    """What the convolutions after the last but one pooling read of a single sample; None where that fails.

    The network ends in (conv, batch norm, ReLU) x n, max pooling, one linear layer. Its gradient gives that
    layer's input h and ∂L/∂h (``analytic``); of each pooling window the last convolution has one δ, whose
    place ``unpooled`` finds. With δ known, ∂L/∂W = Σ_p δ_p ⊗ patch_p(a) is linear in a convolution's input a,
    as in R-GAP (Zhu, Blaschko, ICLR 2021, arXiv 2010.07733), and mostly has far more equations than
    unknowns. a's zeros say where the ReLU before it was off, so the next δ is known, too. Held against h.

    Args:
        exposure: one round of one sample, of a single gradient, without noise, these layers visible.
    """
    if exposure.batch_size != 1 or not exposure.training.is_gradient or exposure.noise > 0:
        return None
    module = exposure.victim.module
    layers = list(module.named_children()) if type(module) is nn.Sequential else []
    values = exposure.victim.named(exposure.parameters)
    parted = _parted(layers, values)
    if parted is None:
        return None
    first, stages, pool, linear = parted
    tail = [name for name, _ in layers[first:]]
    shown = exposure.victim.named(exposure.compared)
    if not all(bool(seen.all()) for name, seen in shown.items() if name.rpartition(".")[0] in tail):
        return None
    gradients = exposure.victim.named(exposure.visible)
    head = nn.Sequential(OrderedDict(layers[:first]))
    kept = {name: value for name, value in values.items() if name in dict(head.named_parameters())}

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        outputs = torch.func.functional_call(head, kept, (inputs,))
        assert isinstance(outputs, torch.Tensor)
        return outputs

    with torch.no_grad():
        place = forward(exposure.parameters.new_zeros((1, *exposure.victim.shape))).shape
        residual = gradients[f"{linear}.bias"].double()
        if not bool(residual.abs().max() > 0):
            return None
        output = residual @ gradients[f"{linear}.weight"].double() / residual.square().sum()
        slopes = residual @ values[f"{linear}.weight"].double()
        slopes = torch.where(output > SILENT * output.max(), slopes, 0.0)
        high, wide = place[2] // pool, place[3] // pool
        last = stages[-1]
        slopes = slopes.view(-1, high, wide) * last.slope[:, None, None]
        delta = unpooled(gradients[last.weight].double(), slopes, pool, (place[2], place[3]))
        if delta is None:
            return None
        read = correlated(delta, gradients[last.weight].double())
        # Once more with the places that the network itself chooses then: δ is exact, and so are a's zeros.
        delta = _placed(read, values[last.weight].double(), last.slope, slopes, pool)
        for stage, before in zip(reversed(stages), [*reversed(stages[:-1]), None], strict=True):
            read = correlated(delta, gradients[stage.weight].double())
            if before is not None:
                weight = values[stage.weight].double()
                back = conv_transpose2d(delta[None], weight, padding=weight.shape[-1] // 2)[0]
                delta = back * (read > SILENT * read.max()) * before.slope[:, None, None]
        features = read[None].to(exposure.parameters)
        rest = nn.Sequential(OrderedDict(layers[first:-1]))
        names = dict(rest.named_parameters())
        again = torch.func.functional_call(rest, {n: v for n, v in values.items() if n in names}, (features,))
    if not float((again.reshape(-1).double() - output).norm()) <= AGREES * float(output.norm()):
        return None
    return Peeled(head=forward, features=features)


def _placed(
    read: torch.Tensor, weight: torch.Tensor, slope: torch.Tensor, slopes: torch.Tensor, pool: int
) -> torch.Tensor:
    """δ of pooled values at the place of each window's largest, [outputs, height, width]."""
    values = slope[:, None, None] * conv2d(read[None], weight, padding=weight.shape[-1] // 2)[0]
    places = max_pool2d(values[None], pool, return_indices=True)[1][0]
    flat = torch.zeros_like(values).flatten(1)
    return flat.scatter(1, places.flatten(1), slopes.flatten(1)).view_as(values)


def _parted(
    layers: list[tuple[str, nn.Module]], values: Mapping[str, torch.Tensor]
) -> tuple[int, list[_Stage], int, str] | None:
    """Where the tail starts, its stages, the size of its pooling, and its linear layer's name."""
    if len(layers) < 5:
        return None
    (_, pool), (_, flatten), (linear, last) = layers[-3:]
    if not (isinstance(last, nn.Linear) and last.bias is not None and isinstance(flatten, nn.Flatten)):
        return None
    size = pool.kernel_size if isinstance(pool, nn.MaxPool2d) else None
    if not isinstance(pool, nn.MaxPool2d) or not isinstance(size, int) or pool.stride != size:
        return None
    if pool.padding != 0 or pool.dilation != 1 or pool.ceil_mode:
        return None
    stages: list[_Stage] = []
    end = len(layers) - 3
    while end >= 2 and isinstance(layers[end - 1][1], nn.ReLU):
        normed = isinstance(layers[end - 2][1], _BatchNorm)
        start = end - (3 if normed else 2)
        name, conv = layers[start] if start >= 0 else ("", None)
        if not isinstance(conv, nn.Conv2d) or not _plain(conv) or f"{name}.weight" not in values:
            break
        slope = conv.weight.new_ones(conv.out_channels, dtype=torch.float64)
        if normed:
            norm_name, norm = layers[start + 1]
            assert isinstance(norm, _BatchNorm)
            if norm.training or norm.running_var is None or f"{norm_name}.weight" not in values:
                break
            slope = values[f"{norm_name}.weight"].double() / (norm.running_var.double() + norm.eps).sqrt()
        stages.insert(0, _Stage(weight=f"{name}.weight", slope=slope))
        end = start
    kernel = values[stages[-1].weight].shape[-1] if stages else 0
    return (end, stages, size, linear) if kernel >= size else None


def _plain(conv: nn.Conv2d) -> bool:
    high, wide = conv.kernel_size
    same = high == wide and high % 2 == 1 and conv.padding == (high // 2, high // 2)
    return (
        same and conv.stride == conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
    )
