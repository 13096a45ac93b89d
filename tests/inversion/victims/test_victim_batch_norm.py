"""Batch norm: whose statistics it uses, and that it keeps none of a forward pass."""

from contextlib import contextmanager

import pytest
import torch
from victim_cases import samples, victim

from attacks.inversion.victims import calibrated


@contextmanager
def outputs_of(layer):
    seen = []
    handle = layer.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs.detach()))
    try:
        yield seen
    finally:
        handle.remove()


def test_training_mode_normalises_by_the_batch():
    """Per channel mean 0 and variance v/(v + 1e-5) over the batch's pixels, before scale 1 and shift 0."""
    found = victim("resnet18-training")
    inputs, _ = samples(found, 3)
    with outputs_of(found.module.norm) as after, outputs_of(found.module.conv) as before:
        found.outputs(found.parameters(), inputs)
    spread = before[0].var(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(after[0].var(dim=(0, 2, 3), correction=0), spread / (spread + 1e-5))
    assert after[0].mean(dim=(0, 2, 3)).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("name", "mixes"), [("resnet18-training", True), ("resnet18", False), ("convnet", False)]
)
def test_only_training_mode_lets_samples_influence_each_other(name, mixes):
    """A sample's logits depend on its companions exactly if batch statistics are used."""
    found = victim(name)
    inputs, _ = samples(found, 2)
    alone = found.outputs(found.parameters(), inputs[:1])
    together = found.outputs(found.parameters(), inputs)[:1]
    difference = float((alone - together).norm() / alone.norm())
    assert difference > 1e-3 if mixes else difference < 1e-10


@pytest.mark.parametrize("name", ["resnet18-training", "resnet18", "convnet"])
def test_gradients_leave_buffers_alone(name):
    """A forward pass is a function: the second gives what the first gave, and no buffer has moved."""
    found = victim(name)
    inputs, labels = samples(found)
    before = {key: buffer.clone() for key, buffer in found.module.named_buffers()}
    first, second = (found.gradient(found.parameters(), inputs, labels) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(buffer, before[key]) for key, buffer in found.module.named_buffers())
    assert bool(before) is (name != "resnet18-training")


def test_running_statistics_are_those_of_the_samples_they_were_taken_from():
    """The first layer's running mean and variance are the mean and unbiased variance of what it sees."""
    found = victim("convnet")
    inputs, _ = samples(found, 20)
    fitted = calibrated(found, inputs)
    with outputs_of(fitted.module.conv0) as seen:
        fitted.outputs(fitted.parameters(), inputs)
    norm = fitted.module.norm0
    torch.testing.assert_close(norm.running_mean, seen[0].mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.running_var, seen[0].var(dim=(0, 2, 3)))
    assert not torch.equal(norm.running_mean, found.module.norm0.running_mean)
    assert torch.equal(fitted.parameters(), found.parameters())


def test_statistics_at_the_start_are_not_those_of_a_layer_that_has_seen_nothing():
    """Mean 0 and variance 1 would leave deep layers with vanishing activations."""
    norm = victim("resnet18").module.norm
    assert norm.running_mean.abs().max() > 0.05 and (norm.running_var - 1).abs().max() > 0.05
