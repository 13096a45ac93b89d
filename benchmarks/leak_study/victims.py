"""The federation's own networks as victims."""

from __future__ import annotations

import torch
from torch import nn

from secagg.simulation.config import ModelName
from secagg.simulation.models import build_model


def cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    """The ``cnn`` of ``secagg run``: 92,930 parameters for 14 x 14 x 1 and 2 classes; its caller seeds it."""
    return build_model(ModelName.CNN, shape, classes, torch.initial_seed())
