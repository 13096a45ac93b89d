"""A residual network of 18 layers for small images."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import relu

from attacks.inversion.victims.sizes import pixels

STAGES = (64, 128, 256, 512)
BLOCKS = 2
SMALLEST = 2
"""Stages don't halve below this height: batch norm over a batch of one needs more than one pixel."""


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut around them."""

    def __init__(self, before: int, after: int, stride: int, *, running: bool) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm0 = nn.BatchNorm2d(after, track_running_stats=running)
        self.conv1 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after, track_running_stats=running)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False),
                nn.BatchNorm2d(after, track_running_stats=running),
            )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        inner = self.norm1(self.conv1(relu(self.norm0(self.conv0(inputs)))))
        return relu(inner + self.shortcut(inputs))


class _ResNet(nn.Module):
    def __init__(self, shape: tuple[int, int, int], classes: int, *, running: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], STAGES[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(STAGES[0], track_running_stats=running)
        blocks, before, side = [], STAGES[0], min(shape[1:])
        for stage, after in enumerate(STAGES):
            for block in range(BLOCKS):
                stride = 2 if stage and not block and side >= 2 * SMALLEST else 1
                blocks.append(_Block(before, after, stride, running=running))
                before, side = after, -(-side // stride)
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(before, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = self.blocks(relu(self.norm(self.conv(inputs))))
        outputs = self.linear(features.mean(dim=(2, 3)))
        assert isinstance(outputs, torch.Tensor)
        return outputs


def resnet18(shape: tuple[int, ...], classes: int, *, training: bool) -> nn.Module:
    """Four stages of two residual blocks, 64, 128, 256, 512 channels, mean over pixels, one linear layer.

    He, Zhang, Ren, Sun, CVPR 2016, arXiv 1512.03385, with a 3x3 convolution of stride 1 and no pooling in
    front, as is usual for images of 32x32; from 16x16 down the last stages keep their size.

    Args:
        shape: of one image, (channels, height, width).
        classes: number of outputs.
        training: True if batch norm uses the batch's own statistics (and keeps none: forward passes are
            functions); False if it uses running statistics.

    Raises:
        ConfigError: CONFIG_INVALID for a shape that is no image of at least 4x4.
    """
    module = _ResNet(pixels("resnet18", shape, at_least=4), classes, running=not training)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return module.train(training)
