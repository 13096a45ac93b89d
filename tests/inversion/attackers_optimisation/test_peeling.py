"""Layers behind the last but one pooling: what they read is known to rounding, and starts the descent."""

from dataclasses import replace

import pytest
import torch
from inversion_cases import digits, exposed, played, psnr_db
from torch import nn

from attacks.inversion.attackers.layers.peeling import peeled
from attacks.inversion.attackers.layers.unpooling import correlated, unpooled
from attacks.inversion.victims import Victim
from attacks.inversion.victims.statistics import set_running_statistics, smooth_noise


@pytest.fixture(scope="module")
def pooled():
    """Two poolings of 2x2, 64 channels for 16 places before the second."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(256, 10),
        ).eval()
        set_running_statistics(module, smooth_noise((1, 8, 8)))
    return Victim(name="pooled", module=module.double(), shape=(1, 8, 8), classes=10)


@pytest.mark.parametrize("digit", [3, 7, 11, 42])
@pytest.mark.parametrize("single", [False, True])
def test_features_are_read_off_to_rounding(pooled, digit, single):
    """Also of a gradient that travelled in single precision: 2^-24 per entry, amplified by the solves.

    Digits 11 and 42 have windows in which a channel's least sum mixes places until others are known.
    """
    inputs, labels = digits([digit])
    exposure = exposed(pooled, inputs, labels, known=False)
    if single:
        exposure = replace(exposure, visible=exposure.visible.float().double())
    found = peeled(exposure)
    assert found is not None
    with torch.no_grad():
        truth = pooled.module[:3](inputs)
    error = float((found.features - truth).norm() / truth.norm())
    assert error < (1e-4 if single else 1e-9)
    assert torch.allclose(found.head(inputs), truth)


def test_places_of_the_largest_are_found(pooled):
    """δ before the pooling, from ∂L/∂W and δ behind it alone, is that of back-propagation."""
    inputs, labels = digits([3])
    with torch.no_grad():
        read = pooled.module[:6](inputs)
    outputs = pooled.module[6](read).detach().requires_grad_()
    loss = nn.functional.cross_entropy(pooled.module[7:](outputs), labels)
    delta = torch.autograd.grad(loss, outputs)[0][0]
    weight = pooled.module[6].weight
    slope = torch.autograd.grad((pooled.module[6](read) * delta).sum(), weight)[0]
    slopes = nn.functional.avg_pool2d(delta[None], 2)[0] * 4
    found = unpooled(slope, slopes, 2, (4, 4))
    assert found is not None and torch.allclose(found, delta, atol=1e-4 * float(delta.abs().max()))
    assert torch.allclose(correlated(delta, slope), read[0], atol=1e-8 * float(read.max()))


def test_what_can_not_be_peeled_is_left_alone(pooled):
    """Two samples, noise, a hidden entry of these layers: no features, and the attack starts from noise."""
    inputs, labels = digits([3, 7])
    single = exposed(pooled, inputs[:1], labels[:1])
    assert peeled(exposed(pooled, inputs, labels)) is None
    assert peeled(replace(single, noise=1e-3)) is None
    hidden = torch.zeros_like(single.hidden)
    hidden[pooled.manifest.slice_of("6.weight").start] = True
    assert peeled(replace(single, hidden=hidden, visible=torch.where(hidden, 0.0, single.visible))) is None
    assert peeled(replace(single, visible=torch.zeros_like(single.visible))) is None


def test_descent_starts_from_an_image_with_these_features(pooled):
    """It says so, and it shows the digit; without the option it starts from noise."""
    inputs, labels = digits([3])
    exposure = exposed(pooled, inputs, labels)
    warm = played("inverting-gradients", exposure)
    cold = played("inverting-gradients:features=0", exposure, effort=0.02)
    assert warm.detail == "start from features" and not cold.detail
    assert psnr_db(warm.inputs, inputs) > 25
