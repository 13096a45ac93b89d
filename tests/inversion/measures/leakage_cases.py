"""Victims whose Jacobian is known on paper, and exposures made by hand."""

import torch
from torch import nn

from attacks.inversion.batch import Batch
from attacks.inversion.exposure import Exposure
from attacks.inversion.training import Training
from attacks.inversion.victims import load_victim
from attacks.inversion.victims.victim import Victim

CLASSES, PIXELS = 4, 9
SHAPE = (1, 3, 3)
TRAINING = Training()


def regression(*, zero: bool = False) -> Victim:
    """Softmax regression: ∂loss/∂W = (p − y)xᵀ. With W = 0 the update is linear in x."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, CLASSES)).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.0 * drawn if zero else drawn)
    return Victim(name="softmax regression", module=module, shape=SHAPE, classes=CLASSES)


def perceptron() -> Victim:
    """One hidden layer of sigmoids on images of 4x4: nothing about its J is special, and it is quick."""
    layers = (nn.Flatten(), nn.Linear(16, 24), nn.Sigmoid(), nn.Linear(24, CLASSES))
    module = nn.Sequential(*layers).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return Victim(name="perceptron", module=module, shape=(1, 4, 4), classes=CLASSES)


def lenet(*, sigmoid: bool = True) -> Victim:
    """On images of 8x8."""
    name = "lenet-sigmoid" if sigmoid else "lenet"
    return load_victim(name, shape=(1, 8, 8), classes=10, seed=5)


def samples(victim: Victim, count: int, *, seed: int = 0) -> Batch:
    """Pixels in [0, 1], different labels."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand((count, *victim.shape), generator=generator, dtype=torch.float64)
    return Batch(inputs=inputs, labels=torch.arange(count) % victim.classes)


def nothing(victim: Victim) -> torch.Tensor:
    """A mask that hides no entry."""
    return torch.zeros(victim.size, dtype=torch.bool)


def random_mask(victim: Victim, ratio: float, *, seed: int = 0) -> torch.Tensor:
    """Hides this share; the masks of one seed are nested."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(victim.size, generator=generator, dtype=torch.float64) < ratio


def exposed(
    victim: Victim,
    batch: Batch,
    hidden: torch.Tensor,
    *,
    noise: float = 0.0,
    earlier: tuple[Exposure, ...] = (),
    training: Training = TRAINING,
) -> Exposure:
    """The update at the victim's own parameters with these entries hidden, and noise on the others."""
    parameters = victim.parameters()
    update = training.update(victim, parameters, batch)
    drawn = torch.randn(update.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    return Exposure(
        victim=victim,
        parameters=parameters,
        training=training,
        batch_size=len(batch),
        visible=torch.where(hidden, 0, update + noise * drawn),
        hidden=hidden,
        labels=batch.labels,
        noise=noise,
        earlier=earlier,
    )


def residuals(batch: Batch) -> torch.Tensor:
    """δ = p − y at W = 0, [B, classes]."""
    return 1 / CLASSES - nn.functional.one_hot(batch.labels, CLASSES).to(torch.float64)
