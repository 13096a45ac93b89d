"""Labels are read from the last layer's gradient, and from where it is hidden."""

import pytest
import torch
from handwriting import CLASSES, digits, exposed, nearness, victim
from torch import nn

from attacks.inversion.attackers.attacker import Reconstruction
from attacks.inversion.attackers.labels import (
    infer_labels,
    labels_from_errors,
    labels_from_last_layer,
    labels_from_mask,
    remaining_labels,
)
from attacks.inversion.attackers.layers.linear import closed, first_layer, last_layer
from attacks.inversion.batch import Batch
from attacks.inversion.exposure import Exposure
from attacks.inversion.protections.protection import Significance
from attacks.inversion.victims import Victim, calibrated
from attacks.inversion.victims.convnet import convnet

IMAGES = 40


def right(guess: object, network: Victim, ratio: float, *, side: int, count: int = IMAGES) -> float:
    """Share of single images whose label is guessed."""
    batch = digits(0, count, side)
    hits = 0
    for index in range(count):
        one = batch.take(torch.tensor([index]))
        hits += int(guess(exposed(network, one, ratio))[0] == one.labels[0])
    return hits / count


@pytest.mark.parametrize("name", ["lenet-sigmoid", "lenet", "mlp"])
@pytest.mark.parametrize("ratio", [0.01, 0.1])
def test_label_is_the_last_layers_row_with_most_hidden_entries(name: str, ratio: float) -> None:
    """Encrypting the largest tenth or hundredth of a gradient tells at least 85% of labels by its places."""
    assert right(labels_from_mask, victim(name, 16), ratio, side=16) >= 0.85


def test_label_of_a_convnet_shows_in_its_mask() -> None:
    """The same of the ConvNet with 16 channels instead of 64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = convnet((1, 8, 8), CLASSES, width=16)
    network = calibrated(
        Victim(name="narrow", module=module.double(), shape=(1, 8, 8), classes=CLASSES),
        digits(200, 64).inputs,
    )
    assert right(labels_from_mask, network, 0.1, side=8) >= 0.85


@pytest.mark.parametrize("name", ["lenet-sigmoid", "lenet", "mlp"])
def test_mask_and_values_together_are_no_worse_than_the_mask(name: str) -> None:
    """An aware attacker's guess at 10% is right in at least 85%, and always if nothing is hidden."""
    network = victim(name, 16)
    assert right(infer_labels, network, 0.1, side=16) >= 0.85
    assert right(infer_labels, network, 0.0, side=16, count=10) == 1.0


def test_only_a_mask_tells_the_naive_attacker_nothing() -> None:
    """Hidden entries read as zeros at 10%: the naive guess is far worse than the aware one."""
    batch, network, naive = digits(0, IMAGES, 16), victim("lenet-sigmoid", 16), 0
    for index in range(IMAGES):
        one = batch.take(torch.tensor([index]))
        exposure = exposed(network, one, 0.1).seen_by(aware=False)
        naive += int(infer_labels(exposure)[0] == one.labels[0])
    assert naive / IMAGES <= 0.6


@pytest.mark.parametrize("name", ["lenet-sigmoid", "lenet"])
def test_labels_of_a_batch_are_counted(name: str) -> None:
    """Of batches of 8 at ratio 0 at least 90% of labels are counted right: answers are nearly all alike."""
    hits = 0
    for first in range(0, 80, 8):
        batch = digits(first, 8, 16)
        found = labels_from_last_layer(exposed(victim(name, 16), batch))
        counted, true = (torch.bincount(each, minlength=CLASSES) for each in (found, batch.labels))
        hits += int(torch.minimum(counted, true).sum())
        assert len(found) == 8
    assert hits / 80 >= 0.9


def test_labels_that_are_known_are_not_guessed() -> None:
    """What the attacker was told comes back as it is, in its order."""
    batch, network = digits(0, 3), victim("mlp")
    exposure = exposed(network, batch)
    told = Exposure(
        **{name: getattr(exposure, name) for name in ("victim", "parameters", "training", "batch_size")},
        visible=exposure.visible,
        hidden=exposure.hidden,
        labels=batch.labels,
    )
    assert infer_labels(told).tolist() == batch.labels.tolist()
    assert remaining_labels(told, batch.labels[:2]).tolist() == batch.labels[2:].tolist()


def test_a_columns_one_hidden_entry_follows_from_the_others() -> None:
    """Every column of the logits' layer sums to 0; two hidden entries of one column stay open."""
    network = victim("lenet-sigmoid")
    values, seen = last_layer(network).gradient(exposed(network, digits(0, 4)))
    holes = seen.clone()
    holes[3, :] = False
    holes[5, 0] = False
    filled, known = closed(torch.where(holes, values, 0.0), holes)
    assert not known[:, 0].all() and known[:, 1:].all()
    torch.testing.assert_close(filled[:, 1:], values[:, 1:], rtol=0, atol=1e-14)


def test_each_samples_label_is_that_which_explains_its_errors() -> None:
    """Errors at the first layer, from the network itself, name every sample's own label."""
    network, batch = victim("mlp"), digits(20, 6)
    layer = first_layer(network)
    exposure = exposed(network, batch)
    bias = network.manifest.slice_of(layer.bias)
    errors = torch.stack(
        [
            network.gradient(network.parameters(), batch.inputs[[s]], batch.labels[[s]])[bias] / 6
            for s in range(6)
        ]
    )
    assert labels_from_errors(exposure, layer, batch.inputs, errors).tolist() == batch.labels.tolist()


def test_network_without_a_linear_layer_for_its_logits_is_refused() -> None:
    """Its labels can't be read: ValueError names the victim."""

    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return 2 * self.linear(inputs)

    network = Victim(name="doubled", module=Doubled().double(), shape=(4,), classes=2)
    batch = Batch(inputs=torch.rand(1, 4, dtype=torch.float64), labels=torch.tensor([1]))
    exposure = exposed(network, batch, significance=Significance.MAGNITUDE)
    with pytest.raises(ValueError, match="doubled"):
        infer_labels(exposure)


def test_nearness_pairs_samples_with_their_own_reconstruction() -> None:
    """A batch returned in another order is recognised, labels with it."""
    batch = digits(0, 4)
    swapped = batch.take(torch.tensor([2, 0, 3, 1]))
    near = nearness(Reconstruction(inputs=swapped.inputs, labels=swapped.labels), batch)
    assert float(near.psnr_db.min()) > 300 and near.labels.all()
