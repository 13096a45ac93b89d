"""What the tests of optimising attackers share: small digits, small victims, exposures made by hand."""

import numpy as np
import torch
from sklearn.datasets import load_digits

from attacks.inversion.attackers import Budget, Reconstruction, load_attacker
from attacks.inversion.exposure import Exposure
from attacks.inversion.training import Training
from attacks.inversion.victims import Victim, load_victim

SHAPE = (1, 8, 8)


def digits(indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Handwritten digits, [n, 1, 8, 8] in [0, 1], and labels."""
    found = load_digits()
    images = torch.tensor(np.asarray(found.images)[indices] / 16.0, dtype=torch.float64)[:, None]
    return images, torch.tensor(np.asarray(found.target)[indices], dtype=torch.int64)


def victim(name: str = "lenet-sigmoid", seed: int = 0) -> Victim:
    return load_victim(name, shape=SHAPE, classes=10, seed=seed)


def exposed(
    which: Victim,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    ratio: float = 0.0,
    aware: bool = True,
    known: bool = True,
    training: Training | None = None,
    parameters: torch.Tensor | None = None,
) -> Exposure:
    """The largest magnitudes hidden; no noise."""
    training = training or Training()
    parameters = which.parameters() if parameters is None else parameters
    update = training.mean_gradient(which, parameters, inputs, labels)
    hidden = torch.zeros_like(update, dtype=torch.bool)
    hidden[update.abs().topk(round(ratio * len(update))).indices] = True
    return Exposure(
        victim=which,
        parameters=parameters,
        training=training,
        batch_size=len(inputs),
        visible=torch.where(hidden, 0.0, update),
        hidden=hidden,
        aware=aware,
        labels=labels if known else None,
    )


def played(
    name: str, exposure: Exposure, *, seed: int = 0, effort: float = 1.0, restarts: int = 1
) -> Reconstruction:
    return load_attacker(name).attack(exposure, seed=seed, budget=Budget(effort=effort, restarts=restarts))


def psnr_db(found: torch.Tensor, truth: torch.Tensor) -> float:
    """−10·log10 of the mean squared error, of the whole batch in its order."""
    return float(-10 * torch.log10((found.clamp(0, 1) - truth).square().mean()))
