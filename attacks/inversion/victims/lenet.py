"""The small convolutional network that gradient inversion began with."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from attacks.inversion.victims.sizes import pixels

WIDTH = 12
KERNEL = 5
STRIDES = (2, 2, 1)


def lenet(shape: tuple[int, ...], classes: int, *, sigmoid: bool) -> nn.Module:
    """Three convolutions 5x5 with 12 channels, strides 2, 2, 1, then one linear layer.

    Zhu, Liu, Han: Deep Leakage from Gradients, NeurIPS 2019, arXiv 1906.08935. With ``sigmoid`` as there:
    all weights and biases uniform in ±0.5, every derivative exists and none is 0. Without, ReLU and torch's
    own initialisation: about half of a gradient's entries are then exactly 0.

    Args:
        shape: of one image, (channels, height, width).
        classes: number of outputs.
        sigmoid: False for ReLU.

    Raises:
        ConfigError: CONFIG_INVALID for a shape that is no image of at least 4x4.
    """
    channels, height, width = pixels("lenet", shape, at_least=4)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, stride in enumerate(STRIDES):
        layers[f"conv{index}"] = nn.Conv2d(channels, WIDTH, KERNEL, stride=stride, padding=KERNEL // 2)
        layers[f"act{index}"] = nn.Sigmoid() if sigmoid else nn.ReLU()
        channels = WIDTH
        height, width = -(-height // stride), -(-width // stride)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels * height * width, classes)
    module = nn.Sequential(layers)
    if sigmoid:
        for parameter in module.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)
    return module.eval()
