"""Convolutions with ReLUs before one linear layer, each as linear equations in what it reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d

from attacks.inversion.victims.victim import Victim

MOST_NUMBERS = 4_096
"""That a layer may read or give: beyond, its equations take too long to solve."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Convolution:
    """y = W*a + b before a ReLU, in float64 on the CPU.

    Args:
        name: of W's tensor in the manifest.
        weight: W, [outputs, inputs, height, width].
        bias: b, [outputs]; zeros for a layer without.
        stride, padding: as of ``torch.nn.Conv2d``.
        shape: of a, (inputs, height, width).
    """

    name: str
    weight: torch.Tensor
    bias: torch.Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    shape: tuple[int, int, int]

    def linear(self, inputs: torch.Tensor) -> torch.Tensor:
        """W*a, [B, outputs, …], of inputs [B, inputs, …]."""
        return conv2d(inputs, self.weight, stride=self.stride, padding=self.padding)

    def variance(self, variance: torch.Tensor) -> torch.Tensor:
        """That of y, [outputs, …], if entries of a err independently with these variances."""
        squared = self.weight.square()
        return conv2d(variance[None], squared, stride=self.stride, padding=self.padding)[0]

    @property
    def outputs(self) -> tuple[int, int, int]:
        """Shape of y."""
        channels, high, wide = self.linear(torch.zeros(1, *self.shape, dtype=torch.float64)).shape[1:]
        return channels, high, wide

    def pulled(self, slopes: torch.Tensor) -> torch.Tensor:
        """∂L/∂a from ∂L/∂y, both without a batch's dimension."""
        return self._transposed(slopes[None], self.weight)[0]

    def gradient_rows(self, slopes: torch.Tensor) -> torch.Tensor:
        """How ∂L/∂W of an input channel follows from that channel: ∂L/∂W[o, i, k] = Σ_q rows[o·k, q]·a[i, q].

        Args:
            slopes: ∂L/∂y, [outputs, …].

        Returns:
            [outputs·kernel, height·width], kernels in the order of W.
        """
        high, wide = self.weight.shape[2:]
        kernels = torch.eye(high * wide, dtype=torch.float64).view(1, high * wide, high, wide)
        return self._transposed(slopes[:, None], kernels).reshape(len(slopes) * high * wide, -1)

    def _transposed(self, slopes: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        """The transpose of a convolution; rows and columns that no kernel reached are part of it."""
        missing = [
            size - ((given - 1) * stride - 2 * padding + kernel)
            for size, given, stride, padding, kernel in zip(
                self.shape[1:], slopes.shape[2:], self.stride, self.padding, kernels.shape[2:], strict=True
            )
        ]
        return conv_transpose2d(
            slopes, kernels, stride=self.stride, padding=self.padding, output_padding=(missing[0], missing[1])
        )


def relu_layers(victim: Victim, parameters: torch.Tensor) -> list[Convolution] | None:
    """A network's convolutions, the first one first.

    Args:
        victim: the network.
        parameters: θ, flat, [d].

    Returns:
        None unless it is (convolution, ReLU) x n, flatten, linear, n ≥ 1, and no layer is too large.
    """
    layers = list(victim.module.named_children()) if type(victim.module) is nn.Sequential else []
    if len(layers) < 4 or len(layers) % 2 or len(victim.shape) != 3:
        return None
    *body, (_, flatten), (_, linear) = layers
    if not isinstance(flatten, nn.Flatten) or not isinstance(linear, nn.Linear):
        return None
    values = {name: part.detach().double().cpu() for name, part in victim.named(parameters).items()}
    channels, high, wide = victim.shape
    shape, found = (channels, high, wide), list[Convolution]()
    for (name, module), (_, relu) in zip(body[::2], body[1::2], strict=True):
        weight = values.get(f"{name}.weight")
        if weight is None or not isinstance(relu, nn.ReLU) or not _is_plain(module):
            return None
        assert isinstance(module, nn.Conv2d) and not isinstance(module.padding, str)
        layer = Convolution(
            name=f"{name}.weight",
            weight=weight,
            bias=_bias(module, values.get(f"{name}.bias")),
            stride=(module.stride[0], module.stride[1]),
            padding=(module.padding[0], module.padding[1]),
            shape=shape,
        )
        found.append(layer)
        shape = layer.outputs
        if max(torch.Size(layer.shape).numel(), torch.Size(shape).numel()) > MOST_NUMBERS:
            return None
    return found


def _bias(module: nn.Conv2d, trained: torch.Tensor | None) -> torch.Tensor:
    """The trained one, or one that is not trained, or zeros."""
    if trained is not None:
        return trained
    if module.bias is not None:
        return module.bias.detach().double().cpu()
    return torch.zeros(module.out_channels, dtype=torch.float64)


def _is_plain(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )
