"""A fully connected network."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from math import prod

from torch import nn

from secagg.errors import Code, ConfigError

HIDDEN = (128, 64)


def mlp(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Linear layers of 128, 64 and ``classes`` outputs, ReLU between them, torch's own initialisation.

    Args:
        shape: of one sample; it is flattened.
        classes: number of outputs.

    Raises:
        ConfigError: CONFIG_INVALID for an empty shape.
    """
    if not shape or min(shape) < 1:
        raise ConfigError(Code.CONFIG_INVALID, f"victim mlp can't take samples of shape {shape}")
    widths = (prod(shape), *HIDDEN)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for index, (before, after) in enumerate(pairwise(widths)):
        layers[f"linear{index}"] = nn.Linear(before, after)
        layers[f"act{index}"] = nn.ReLU()
    layers["linear"] = nn.Linear(widths[-1], classes)
    return nn.Sequential(layers).eval()
