"""Victims and samples that several test files share."""

from functools import cache

import torch

from attacks.inversion.victims import Victim, load_victim

SMALL = ("lenet-sigmoid", "lenet", "mlp")
NORMALISED = ("convnet", "resnet18", "resnet18-training")
IMAGE = (*SMALL, *NORMALISED)
TEXT = ("bert", "gpt2")
CLASSES = 3


@cache
def victim(name: str) -> Victim:
    if name in TEXT:
        return load_victim(name, shape=(6,), classes=CLASSES, seed=5, vocabulary=50)
    return load_victim(name, shape=(1, 8, 8) if name in SMALL else (1, 4, 4), classes=CLASSES, seed=5)


def samples(of: Victim, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs that a loss can be differentiated by, and labels."""
    generator = torch.Generator().manual_seed(7)
    shape = (*of.shape, 128) if of.vocabulary else of.shape
    inputs = torch.rand(count, *shape, generator=generator, dtype=torch.float64)
    return inputs, torch.arange(count) % of.classes


def mismatch(of: Victim, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Half the squared length of the gradient: what attackers differentiate, with a target of 0."""
    return of.gradient(of.parameters(), inputs, labels).square().sum() / 2
