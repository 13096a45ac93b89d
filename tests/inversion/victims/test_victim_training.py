"""Victims that have learnt something."""

import pytest
import torch
from victim_cases import victim

from attacks.inversion.batch import Batch
from attacks.inversion.data import load_images
from attacks.inversion.victims import load_victim, trained
from secagg.errors import ConfigError


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


def accuracy(found, samples):
    outputs = found.outputs(found.parameters(), samples.inputs)
    return float((outputs.argmax(dim=1) == samples.labels).double().mean())


def test_training_teaches_and_leaves_the_original_alone(digits):
    """Guessing gets a tenth of unseen digits right; four passes get most."""
    found = load_victim("mlp", shape=digits.shape, classes=10, seed=0)
    before = found.parameters()
    learnt = trained(found, digits.known(), epochs=4, seed=0)
    unseen = digits.batches(1, 300, seed=0)[0]
    assert accuracy(found, unseen) < 0.3 < 0.8 < accuracy(learnt, unseen)
    assert torch.equal(found.parameters(), before)


def test_the_seed_decides_the_order(digits):
    found, samples = victim("mlp"), digits.known(96, seed=0)
    samples = Batch(inputs=samples.inputs, labels=samples.labels % 3)
    one, two, other = (trained(found, samples, epochs=1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.parameters(), two.parameters())
    assert not torch.equal(one.parameters(), other.parameters())
    assert trained(found, samples, epochs=0, seed=1) is found


def test_batch_norm_ends_in_its_mode_with_the_samples_statistics():
    """A trained victim is attacked in the mode it had, with running statistics of what it was trained on."""
    found = victim("convnet")
    generator = torch.Generator().manual_seed(3)
    inputs = torch.rand(8, *found.shape, generator=generator, dtype=torch.float64)
    learnt = trained(found, Batch(inputs=inputs, labels=torch.arange(8) % 3), epochs=1, seed=0, batch_size=8)
    first = learnt.module.conv0(inputs)
    assert not learnt.module.norm0.training
    torch.testing.assert_close(learnt.module.norm0.running_mean, first.mean(dim=(0, 2, 3)))


@pytest.mark.parametrize(("name", "place"), [("bert", 0), ("gpt2", -1)])
def test_text_can_be_learnt(name, place):
    """The word that is classified decides the label: what is seen over and over is known at last."""
    found = victim(name)
    tokens = torch.randint(50, (64, 6), generator=torch.Generator().manual_seed(0))
    samples = Batch(inputs=tokens, labels=tokens[:, place] % 3)
    learnt = trained(found, samples, epochs=10, seed=0, learning_rate=0.02, batch_size=16)
    assert accuracy(found, samples) < 0.6 < 0.8 < accuracy(learnt, samples)


@pytest.mark.parametrize(
    "settings",
    [{"epochs": -1}, {"learning_rate": 0.0}, {"batch_size": 0}, {"momentum": 1.0}, {"learning_rate": 1e200}],
)
def test_impossible_training_is_refused(settings):
    """Also training that diverges: a victim with NaN for weights is none."""
    found = victim("mlp")
    samples = Batch(inputs=torch.ones(8, 1, 8, 8, dtype=torch.float64), labels=torch.arange(8) % 3)
    with pytest.raises(ConfigError):
        trained(found, samples, **{"epochs": 4, "seed": 0, "batch_size": 4, **settings})


def test_samples_of_another_kind_are_refused():
    with pytest.raises(ConfigError, match="samples have shape"):
        trained(
            victim("mlp"),
            Batch(inputs=torch.zeros(2, 1, 9, 9), labels=torch.tensor([0, 1])),
            epochs=1,
            seed=0,
        )
