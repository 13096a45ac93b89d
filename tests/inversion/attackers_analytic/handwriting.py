"""Digits, the exposures of their gradients, and how near a reconstruction comes to them."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate

from attacks.inversion.attackers.attacker import Reconstruction
from attacks.inversion.batch import Batch
from attacks.inversion.exposure import Exposure
from attacks.inversion.protections.protection import Protection, Significance
from attacks.inversion.training import Training
from attacks.inversion.victims import Victim, load_victim

CLASSES = 10


@lru_cache
def victim(name: str, side: int = 8, dtype: torch.dtype = torch.float64) -> Victim:
    return load_victim(name, shape=(1, side, side), classes=CLASSES, seed=1, dtype=dtype)


@lru_cache
def digits(first: int, count: int, side: int = 8) -> Batch:
    """Consecutive images of the set, scaled up from 8x8."""
    images, labels = load_digits(return_X_y=True)
    part = slice(first, first + count)
    inputs = torch.tensor(images[part] / 16.0).view(-1, 1, 8, 8)
    if side != 8:
        inputs = interpolate(inputs, size=(side, side), mode="bilinear", align_corners=False)
    return Batch(inputs=inputs, labels=torch.tensor(labels[part], dtype=torch.int64))


def exposed(
    network: Victim,
    batch: Batch,
    ratio: float = 0.0,
    *,
    significance: Significance = Significance.MAGNITUDE,
    training: Training | None = None,
    precision: str = "float64",
) -> Exposure:
    """What an aware attacker sees, not told the labels."""
    return Protection(significance=significance, ratio=ratio).expose(
        network,
        network.parameters(),
        training or Training(),
        Batch(inputs=batch.inputs.to(network.dtype), labels=batch.labels),
        labels_known=False,
        seed=0,
        precision=precision,
    )


@dataclass(frozen=True)
class Nearness:
    """Per sample of the batch: PSNR in dB of pixels in [0, 1], and whether its label was found."""

    psnr_db: torch.Tensor
    labels: torch.Tensor


def nearness(found: Reconstruction, batch: Batch) -> Nearness:
    """Each sample compared with its own reconstruction, by the assignment with the least total error."""
    errors = (found.inputs[:, None].double() - batch.inputs[None]).square().flatten(2).mean(dim=2)
    rows, columns = linear_sum_assignment(errors.numpy())
    order = torch.tensor(rows)[torch.tensor(columns).argsort()]
    return Nearness(
        psnr_db=-10 * torch.log10(errors[order, torch.arange(len(batch))] + 1e-40),
        labels=found.labels[order] == batch.labels,
    )
