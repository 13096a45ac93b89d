"""What must hold of an update's derivative."""

import pytest
import torch
from leakage_cases import CLASSES, PIXELS, TRAINING, lenet, regression, samples

from attacks.inversion.batch import Batch
from attacks.inversion.measures import Derivative, jacobian
from attacks.inversion.training import Training
from secagg.errors import ConfigError


def test_jacobian_of_softmax_regression_is_the_one_on_paper() -> None:
    """∂(δ_c x_j)/∂x_k = δ_c·[j = k] + x_j·(SW)_ck and ∂δ/∂x = SW with S = diag p − ppᵀ; each over B."""
    victim, count = regression(), 2
    batch = samples(victim, count)
    found = jacobian(victim, victim.parameters(), TRAINING, batch)
    named = victim.named(victim.parameters())
    weight, bias = named["1.weight"], named["1.bias"]
    expected = torch.zeros(victim.size, count, PIXELS, dtype=torch.float64)
    for index in range(count):
        x = batch.inputs[index].reshape(-1)
        p = torch.softmax(weight @ x + bias, dim=0)
        delta = p - torch.nn.functional.one_hot(batch.labels[index], CLASSES)
        change = (torch.diag(p) - torch.outer(p, p)) @ weight
        of_weight = torch.einsum("c,jk->cjk", delta, torch.eye(PIXELS, dtype=torch.float64))
        of_weight = of_weight + torch.einsum("j,ck->cjk", x, change)
        expected[:, index] = torch.cat([of_weight.reshape(-1, PIXELS), change]) / count
    torch.testing.assert_close(found, expected.view(victim.size, -1), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("training", [Training(), Training(epochs=2, steps=2, learning_rate=0.5)])
def test_jacobian_is_the_limit_of_differences(training: Training) -> None:
    """Central differences at h are off by O(h²) and by rounding, O(1e-16/h): 1e-8 or so at h = 1e-5.

    That goes for local training of several steps, too.
    """
    victim = lenet()
    batch = samples(victim, 2)
    parameters = victim.parameters()
    direction = samples(victim, 2, seed=1).inputs - 0.5
    found = jacobian(victim, parameters, training, batch) @ direction.reshape(-1)
    step = 1e-5
    ahead, behind = (
        training.mean_gradient(victim, parameters, batch.inputs + sign * step * direction, batch.labels)
        for sign in (1, -1)
    )
    expected = (ahead - behind) / (2 * step)
    assert torch.linalg.vector_norm(found - expected) < 1e-7 * torch.linalg.vector_norm(expected)


def test_maps_multiply_with_the_jacobian() -> None:
    """``forward`` is J and ``backward`` its transpose, for more rows than fit one pass."""
    victim = lenet()
    batch = samples(victim, 1)
    derivative = Derivative(victim=victim, parameters=victim.parameters(), training=TRAINING, batch=batch)
    matrix = derivative.matrix()
    generator = torch.Generator().manual_seed(2)
    directions = torch.randn(70, 64, generator=generator, dtype=torch.float64)
    cotangents = torch.randn(70, victim.size, generator=generator, dtype=torch.float64)
    assert derivative.at_once < 70
    torch.testing.assert_close(derivative.forward(directions), directions @ matrix.T)
    torch.testing.assert_close(derivative.backward(cotangents), cotangents @ matrix)
    torch.testing.assert_close(derivative.update(), TRAINING.update(victim, victim.parameters(), batch))


def test_tokens_have_no_derivative() -> None:
    """The message says what can be measured instead."""
    victim = regression()
    batch = Batch(inputs=torch.zeros(1, 5, dtype=torch.int64), labels=torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"CONFIG_INVALID.*embeddings"):
        jacobian(victim, victim.parameters(), TRAINING, batch)
