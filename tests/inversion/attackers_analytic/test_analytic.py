"""Samples are read off the gradient of a fully connected first layer."""

import pytest
import torch
from handwriting import digits, exposed, nearness, victim
from torch import nn

from attacks.inversion.attackers.analytic import PRIOR, Analytic
from attacks.inversion.attackers.attacker import Budget, Status
from attacks.inversion.attackers.layers.unmixing import repaired, unmix
from attacks.inversion.batch import Batch
from attacks.inversion.exposure import Exposure
from attacks.inversion.protections.protection import Significance
from attacks.inversion.training import Training
from attacks.inversion.victims import Victim


def test_one_image_is_read_exactly_from_a_whole_gradient() -> None:
    """Ratio 0, float64: at least 100 dB, and its label."""
    batch = digits(5, 1)
    near = nearness(Analytic().attack(exposed(victim("mlp"), batch), seed=0, budget=Budget()), batch)
    assert float(near.psnr_db) >= 100 and near.labels.all()


def test_one_image_is_read_past_its_hidden_entries() -> None:
    """Each input is read from the rows in which it is visible: exact at 10%, magnitude or random."""
    batch = digits(5, 1)
    for significance in (Significance.MAGNITUDE, Significance.RANDOM):
        exposure = exposed(victim("mlp"), batch, 0.1, significance=significance)
        near = nearness(Analytic().attack(exposure, seed=0, budget=Budget()), batch)
        assert float(near.psnr_db) >= 100 and near.labels.all()


def test_naive_attacker_is_misled_by_zeros() -> None:
    """Random 10% read as zeros darken the image: below 35 dB."""
    batch = digits(5, 1)
    exposure = exposed(victim("mlp"), batch, 0.1, significance=Significance.RANDOM).seen_by(aware=False)
    assert float(nearness(Analytic().attack(exposure, seed=0, budget=Budget()), batch).psnr_db) < 35


def test_inputs_that_no_row_shows_are_taken_for_the_prior() -> None:
    """A column hidden as a whole stays grey, the others are exact."""
    network, batch = victim("mlp"), digits(5, 1)
    exposure = exposed(network, batch)
    hidden = exposure.hidden.clone()
    hidden[network.manifest.slice_of("linear0.weight")].view(128, 64)[:, 20] = True
    some = Exposure(
        victim=network,
        parameters=exposure.parameters,
        training=Training(),
        batch_size=1,
        visible=torch.where(hidden, 0.0, exposure.visible),
        hidden=hidden,
    )
    found = Analytic().attack(some, seed=0, budget=Budget()).inputs.flatten()
    expected = batch.inputs.flatten().clone()
    expected[20] = PRIOR
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ratio", [0.0, 0.1])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_batches_are_taken_apart(size: int, ratio: float) -> None:
    """ReLU's zeros tell samples apart: every one, with its own label, at ratio 0 and under magnitude."""
    batch = digits(100, size)
    found = Analytic().attack(exposed(victim("mlp"), batch, ratio), seed=0, budget=Budget())
    near = nearness(found, batch)
    assert float(near.psnr_db.min()) >= 100 and near.labels.all()
    assert found.detail == f"{size} of {size} samples told apart"


def test_wire_precision_still_shows_a_batch() -> None:
    """Values rounded to float32: four samples above 60 dB."""
    batch = digits(100, 4)
    exposure = exposed(victim("mlp"), batch, 0.1, precision="float32")
    near = nearness(Analytic().attack(exposure, seed=0, budget=Budget()), batch)
    assert float(near.psnr_db.min()) >= 60 and near.labels.all()


def test_samples_without_zeros_can_not_be_told_apart() -> None:
    """A dense mixture has no sparse direction: nothing is claimed."""
    generator = torch.Generator().manual_seed(0)
    errors = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    samples = torch.rand(3, 12, generator=generator, dtype=torch.float64)
    matrix = errors @ torch.cat([samples, torch.ones(3, 1, dtype=torch.float64)], dim=1)
    assert len(unmix(matrix, batch_size=3, seed=0, draws=5_000).samples) == 0


def test_mixture_is_taken_apart_into_its_samples_and_errors() -> None:
    """Known sparse errors and samples come back, in some order."""
    generator = torch.Generator().manual_seed(0)
    errors = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    errors = errors * (torch.rand(60, 5, generator=generator, dtype=torch.float64) < 0.5)
    samples = torch.rand(5, 12, generator=generator, dtype=torch.float64)
    matrix = errors @ torch.cat([samples, torch.ones(5, 1, dtype=torch.float64)], dim=1)
    found = unmix(matrix, batch_size=5, seed=0)
    order = torch.cdist(samples, found.samples).argmin(dim=1)
    torch.testing.assert_close(found.samples[order], samples, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.errors[order], errors.T, rtol=0, atol=1e-8)


def test_weights_repair_one_wrong_direction() -> None:
    """δ_u mixed with all others: x_u is right, its inactive units give δ_u, and so all samples."""
    generator = torch.Generator().manual_seed(1)
    weights, samples, errors = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((60, 12), (5, 12), (60, 5))
    )
    bias = torch.zeros(60, dtype=torch.float64)
    errors = errors * (samples @ weights.T + bias > 0).T
    matrix = errors @ torch.cat([samples, torch.ones(5, 1, dtype=torch.float64)], dim=1)
    mixed = errors.clone()
    mixed[:, 4] += errors[:, :4] @ torch.tensor([0.3, -0.5, 0.2, 0.4], dtype=torch.float64)
    wrong = torch.linalg.pinv(mixed) @ matrix[:, :-1]
    assert float((wrong - samples)[:4].norm(dim=1).min()) > 0.1
    basis = torch.linalg.svd(matrix, full_matrices=False).U[:, :5]
    _, right = repaired(matrix, basis, mixed, wrong, (weights, bias), 1e-7)
    torch.testing.assert_close(right, samples, rtol=0, atol=1e-8)


def test_same_seed_gives_the_same_reconstruction() -> None:
    """Up to the rounding of sums, whose order depends on where memory lies."""
    exposure = exposed(victim("mlp"), digits(100, 4))
    one, two = (Analytic().attack(exposure, seed=3, budget=Budget()) for _ in range(2))
    torch.testing.assert_close(one.inputs, two.inputs, rtol=0, atol=1e-9)
    assert torch.equal(one.labels, two.labels)


def test_networks_it_does_not_suit_are_named() -> None:
    """Convolutions in front, or no bias: a reason, and a reconstruction that says unsuited."""
    exposure = exposed(victim("lenet"), digits(0, 2))
    assert "lenet" in Analytic().unsuited(exposure)
    found = Analytic().attack(exposure, seed=0, budget=Budget())
    assert found.status is Status.UNSUITED and found.inputs.shape == (2, 1, 8, 8)
    module = nn.Sequential(nn.Linear(6, 4, bias=False), nn.ReLU(), nn.Linear(4, 2)).double()
    network = Victim(name="bare", module=module, shape=(6,), classes=2)
    batch = Batch(inputs=torch.rand(1, 6, dtype=torch.float64), labels=torch.tensor([1]))
    assert "no bias" in Analytic().unsuited(exposed(network, batch))
    assert Analytic().unsuited(exposed(victim("mlp"), digits(0, 2))) == ""


def test_features_outside_the_unit_interval_are_not_cut_off() -> None:
    """Samples that aren't images come back with their own range."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)).double()
    network = Victim(name="table", module=module, shape=(6,), classes=2)
    inputs = torch.tensor([[-3.0, 5.0, 0.0, 1.5, -0.2, 9.0]], dtype=torch.float64)
    batch = Batch(inputs=inputs, labels=torch.tensor([1]))
    found = Analytic().attack(exposed(network, batch), seed=0, budget=Budget())
    torch.testing.assert_close(found.inputs, inputs, rtol=0, atol=1e-9)
