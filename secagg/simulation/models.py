"""The networks that a simulated federation trains. Importing this module imports torch.

None has batch norm: its running statistics would have to be averaged too, and depend on each client's
class mix.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import prod

import torch
from torch import nn

from secagg.errors import Code, ConfigError
from secagg.simulation.config import ModelName

HIDDEN = 64
SMALL_SIDE = 16
"""Images with a side below this get padded convolutions; two unpadded ones would leave nothing of them."""


def build_model(model: ModelName, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """A freshly initialised network; the same seed gives the same weights.

    Args:
        model: linear, mlp or cnn.
        shape: of one sample, (channels, height, width) or (features,).
        classes: number of outputs.
        seed: of torch's generator, which is put back afterwards.

    Raises:
        ConfigError: CONFIG_INVALID for a cnn on anything but images of at least 4 x 4.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _BUILDERS[model](shape, classes)


def _linear(shape: tuple[int, ...], classes: int) -> nn.Module:
    return _named(flatten=nn.Flatten(), output=nn.Linear(prod(shape), classes))


def _mlp(shape: tuple[int, ...], classes: int) -> nn.Module:
    return _named(
        flatten=nn.Flatten(),
        hidden=nn.Linear(prod(shape), HIDDEN),
        relu=nn.ReLU(),
        output=nn.Linear(HIDDEN, classes),
    )


def _cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two convolutions and two dense layers; 225,034 parameters for 28 x 28 x 1 and 10 classes."""
    if len(shape) != 3 or min(shape[1:]) < 4:
        raise ConfigError(
            Code.CONFIG_INVALID, f"model = cnn needs images of at least 4 x 4, not samples of shape {shape}"
        )
    channels, height, width = shape
    padding = 1 if min(height, width) < SMALL_SIDE else 0
    # Each stage: a 3 x 3 convolution, then the side is halved.
    rows, columns = (((n - 2 + 2 * padding) // 2 - 2 + 2 * padding) // 2 for n in (height, width))
    return _named(
        conv1=nn.Conv2d(channels, 32, 3, padding=padding),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(32, 64, 3, padding=padding),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        hidden=nn.Linear(64 * rows * columns, 128),
        relu3=nn.ReLU(),
        output=nn.Linear(128, classes),
    )


def _named(**layers: nn.Module) -> nn.Module:
    """The layers in order; their names are the first half of the tensors' names (``output.weight``)."""
    return nn.Sequential(OrderedDict(layers))


_BUILDERS: dict[ModelName, Callable[[tuple[int, ...], int], nn.Module]] = {
    ModelName.LINEAR: _linear,
    ModelName.MLP: _mlp,
    ModelName.CNN: _cnn,
}
