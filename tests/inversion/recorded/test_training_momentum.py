"""Local training with momentum, as the update that attackers see."""

import pytest
import torch

from attacks.inversion.batch import Batch
from attacks.inversion.training import Training
from attacks.inversion.victims import load_victim
from secagg.errors import Code, ConfigError

VICTIM = load_victim("mlp", shape=(1, 3, 3), classes=3, seed=0)


def batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(4, 1, 3, 3, generator=generator, dtype=torch.float64)
    return Batch(inputs=inputs, labels=torch.tensor([0, 1, 2, 1]))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_update_is_the_path_of_gradient_descent_with_momentum(momentum):
    """θ_0 − θ_T of the textbook loop, v ← m·v + g, θ ← θ − η·v, over η·weight; to rounding."""
    training = Training(epochs=2, steps=2, learning_rate=0.3, momentum=momentum)
    start, samples = VICTIM.parameters(), batch()
    at, velocity = start.clone(), torch.zeros_like(start)
    for _ in range(2):
        for part in (slice(0, 2), slice(2, 4)):
            velocity = momentum * velocity + VICTIM.gradient(at, samples.inputs[part], samples.labels[part])
            at = at - 0.3 * velocity
    update = training.update(VICTIM, start, samples)
    torch.testing.assert_close(update, (start - at) / (0.3 * training.weight), rtol=1e-12, atol=1e-14)


def test_weights_count_how_often_momentum_uses_a_gradient():
    """1 + 1.5 + 1.75 for three steps at momentum ½; one per step without."""
    assert Training(epochs=3, momentum=0.5).weight == 1 + 1.5 + 1.75
    assert Training(epochs=3, steps=2).weight == 6
    assert Training(momentum=0.9).weight == 1 and Training(momentum=0.9).is_gradient


def test_a_constant_gradient_is_the_update_whatever_the_momentum():
    """So attackers may treat an update of several steps as a gradient: the model hardly moves at η = 1e-9."""
    training = Training(epochs=4, learning_rate=1e-9, momentum=0.9)
    samples = batch()
    gradient = VICTIM.gradient(VICTIM.parameters(), samples.inputs, samples.labels)
    update = training.update(VICTIM, VICTIM.parameters(), samples)
    torch.testing.assert_close(update, gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
def test_momentum_outside_its_range_is_refused(momentum):
    with pytest.raises(ConfigError, match="momentum") as caught:
        Training(momentum=momentum)
    assert caught.value.code is Code.CONFIG_INVALID
