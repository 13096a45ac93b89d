"""The convolutional network that inverting gradients is usually measured on."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from attacks.inversion.victims.sizes import pixels

WIDTH = 64
POOL = 3
_CHANNELS = (1, 2, 2, 4, 4, 4, 4, 4)
_POOL_AFTER = (5, 7)


def convnet(shape: tuple[int, ...], classes: int, *, width: int = WIDTH) -> nn.Module:
    """Eight 3x3 convolutions with batch norm and ReLU, pooling 3x3 after the sixth and the last, one linear.

    "ConvNet" of Geiping, Bauermeister, Dröge, Moeller: Inverting Gradients, NeurIPS 2020,
    arXiv 2003.14053: width, 2, 2, 4, 4, 4, 4, 4 times ``width`` channels. Smaller images than 9x9 are
    pooled by less.

    Args:
        shape: of one image, (channels, height, width).
        classes: number of outputs.
        width: channels of the first convolution.

    Raises:
        ConfigError: CONFIG_INVALID for a shape that is no image of at least 4x4.
    """
    channels, high, wide = pixels("convnet", shape, at_least=4)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, factor in enumerate(_CHANNELS):
        layers[f"conv{index}"] = nn.Conv2d(channels, factor * width, 3, padding=1)
        layers[f"norm{index}"] = nn.BatchNorm2d(factor * width)
        layers[f"act{index}"] = nn.ReLU()
        channels = factor * width
        if index in _POOL_AFTER:
            by = min(POOL, high, wide)
            layers[f"pool{index}"] = nn.MaxPool2d(by)
            high, wide = high // by, wide // by
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels * high * wide, classes)
    return nn.Sequential(layers).eval()
