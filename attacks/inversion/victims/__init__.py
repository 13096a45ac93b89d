"""Victims by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from attacks.inversion.victims.convnet import convnet
from attacks.inversion.victims.custom import custom, probe
from attacks.inversion.victims.lenet import lenet
from attacks.inversion.victims.mlp import mlp
from attacks.inversion.victims.resnet import resnet18
from attacks.inversion.victims.statistics import calibrated, set_running_statistics, smooth_noise
from attacks.inversion.victims.trained import trained
from attacks.inversion.victims.transformer import bert, embedding_name, gpt2
from attacks.inversion.victims.victim import Victim
from secagg.errors import Code, ConfigError

__all__ = [
    "TEXT_VICTIMS",
    "VICTIMS",
    "Victim",
    "calibrated",
    "embedding_name",
    "load_victim",
    "trained",
]

_VECTORS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {
    "lenet-sigmoid": partial(lenet, sigmoid=True),
    "lenet": partial(lenet, sigmoid=False),
    "convnet": convnet,
    "resnet18": partial(resnet18, training=False),
    "resnet18-training": partial(resnet18, training=True),
    "mlp": mlp,
}
_TEXT = {"bert": bert, "gpt2": gpt2}
TEXT_VICTIMS = tuple(_TEXT)
"""Names of those that read text."""
VICTIMS = (*_VECTORS, *_TEXT)
"""Their names; ``bert:PATH``, ``gpt2:PATH`` and ``module:callable`` besides."""


def load_victim(
    name: str,
    *,
    shape: tuple[int, ...],
    classes: int = 2,
    seed: int,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    vocabulary: int | None = None,
) -> Victim:
    """The victim with this name; the same seed gives the same weights, whatever dtype and device.

    Batch norm in inference mode gets running statistics of smooth random images; ``calibrated`` takes those
    of real ones.

    Args:
        name: one of ``VICTIMS``; ``bert:PATH`` or ``gpt2:PATH``, a local folder; or ``module:callable``, a
            function of (shape, classes) that makes a ``torch.nn.Module``.
        shape: of one sample: (channels, height, width), (features,), or (tokens,) of text.
        classes: number of classes, at least 2.
        seed: of the weights.
        dtype: of the parameters, torch.float32 or torch.float64.
        device: where the parameters go.
        vocabulary: number of tokens of a random ``bert`` or ``gpt2``; default that of the real ones.

    Raises:
        ConfigError: CONFIG_INVALID for an unknown name, a shape that the network can't take, a layer that
            can't be attacked; DATA_MISSING or DATA_MALFORMED of a PATH; DEPENDENCY_MISSING.
    """
    if classes < 2:
        raise ConfigError(Code.CONFIG_INVALID, f"a victim tells 2 classes or more apart, not {classes}")
    if dtype not in (torch.float32, torch.float64):
        raise ConfigError(Code.CONFIG_INVALID, f"a victim's dtype is float32 or float64, not {dtype}")
    if vocabulary is not None and (name not in _TEXT or vocabulary < 1):
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"a vocabulary of {vocabulary} does not suit victim {name}; only a random "
            f"{' or '.join(_TEXT)} has one to choose, of 1 token or more",
        )
    kind, _, path = name.partition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in _VECTORS:
            module = _VECTORS[name](shape, classes)
            set_running_statistics(module, smooth_noise(shape))
        elif name in _TEXT:
            module = _TEXT[name](shape, classes, vocabulary=vocabulary)
        elif kind in _TEXT and path:
            module = _TEXT[kind](shape, classes, path=Path(path).expanduser())
        elif path:
            module = custom(name, shape, classes, seed=seed)
        else:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"no victim {name!r}: give {', '.join(VICTIMS)}, bert:PATH, gpt2:PATH or module:callable",
            )
    victim = Victim(
        name=name,
        module=module.to(device=device, dtype=dtype),
        shape=tuple(shape),
        classes=classes,
        vocabulary=_words(module),
    )
    if path and kind not in _TEXT:
        probe(victim)
    return victim


def _words(module: nn.Module) -> int:
    name = getattr(module, "word_embeddings", None)
    return module.get_parameter(name).shape[0] if isinstance(name, str) else 0
