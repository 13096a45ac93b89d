"""A malicious aggregator's imprint layer copies samples into its gradient, unhidden if it is scaled."""

import pytest
import torch
from handwriting import digits, exposed, nearness, victim
from torch import nn

from attacks.inversion.attackers import load_attacker
from attacks.inversion.attackers.attacker import Budget, Status
from attacks.inversion.attackers.imprint import (
    BIAS,
    WEIGHT,
    ActiveAttacker,
    Imprint,
    imprinted,
    quiet_scale,
)
from attacks.inversion.attackers.layers.linear import probe_inputs
from attacks.inversion.exposure import Exposure
from attacks.inversion.protections.protection import Significance
from attacks.inversion.victims import Victim
from secagg.errors import Code, ConfigError

PUBLIC = digits(0, 300).inputs


def hidden_share(exposure: Exposure, whole: Exposure) -> float:
    """Of the imprint's entries that are not 0, how many are hidden."""
    places = [exposure.victim.manifest.slice_of(name) for name in (WEIGHT, BIAS)]
    hidden = torch.cat([exposure.hidden[place] for place in places])
    active = torch.cat([whole.visible[place] for place in places]) != 0
    return float(hidden[active].double().mean())


@pytest.mark.parametrize("name", ["mlp", "lenet", "lenet-sigmoid"])
@pytest.mark.parametrize("size", [8, 16])
def test_most_samples_of_a_batch_are_read(name: str, size: int) -> None:
    """Without a mask at least three quarters of a batch come back above 40 dB."""
    batch, attack = digits(1000, size), Imprint(public=PUBLIC)
    exposure = exposed(attack.prepare(victim(name)), batch)
    near = nearness(attack.attack(exposure, seed=0, budget=Budget()), batch)
    assert int((near.psnr_db > 40).sum()) >= 0.75 * size
    assert near.labels[near.psnr_db > 40].double().mean() >= 0.75


def test_bins_without_public_samples_still_read_most() -> None:
    """An aggregator that only assumes a range of brightness reads more than half of 8."""
    batch, attack = digits(1000, 8), Imprint()
    exposure = exposed(attack.prepare(victim("mlp")), batch)
    near = nearness(attack.attack(exposure, seed=0, budget=Budget()), batch)
    assert int((near.psnr_db > 40).sum()) > 4


def test_scaled_imprint_travels_in_the_clear_where_the_plain_one_is_hidden() -> None:
    """Magnitude 10%, 12 bins: a loud layer is mostly hidden; scaled, it reads as if there were no mask."""
    network, batch = victim("mlp"), digits(1000, 4)
    loud, quiet = Imprint(bins=12, public=PUBLIC, scale=4.0), Imprint(bins=12, public=PUBLIC, ratio=0.1)
    shares, read = [], []
    for attack in (loud, quiet):
        prepared = attack.prepare(network)
        exposure = exposed(prepared, batch, 0.1)
        whole = exposed(prepared, batch)
        shares.append(hidden_share(exposure, whole))
        for seen in (exposure, whole):
            found = attack.attack(seen, seed=0, budget=Budget())
            read.append(int((nearness(found, batch).psnr_db > 40).sum()))
    assert shares[0] > 0.5 and shares[1] == 0.0
    masked_loud, whole_loud, masked_quiet, whole_quiet = read
    assert masked_loud < whole_loud and masked_quiet == whole_quiet >= 2


@pytest.mark.parametrize("name", ["mlp", "lenet", "lenet-sigmoid"])
def test_quiet_imprint_defeats_a_mask_of_forty_percent(name: str) -> None:
    """Its 256 bins read at least 9 of 12 samples at magnitude 40%, where the plain one reads at most 3."""
    batch, read = digits(1000, 12), []
    for attack in (Imprint(public=PUBLIC, ratio=0.4), Imprint(public=PUBLIC)):
        exposure = exposed(attack.prepare(victim(name)), batch, 0.4)
        near = nearness(attack.attack(exposure, seed=0, budget=Budget()), batch)
        read.append(int((near.psnr_db > 40).sum()))
    assert read[0] >= 9 and read[1] <= 3


def test_entries_hidden_at_random_are_read_from_other_bins() -> None:
    """Bins between two samples have the same gradient: a random mask of 10% costs nothing."""
    batch, attack = digits(1000, 8), Imprint(public=PUBLIC)
    exposure = exposed(attack.prepare(victim("mlp")), batch, 0.1, significance=Significance.RANDOM)
    aware = nearness(attack.attack(exposure, seed=0, budget=Budget()), batch)
    naive = nearness(attack.attack(exposure.seen_by(aware=False), seed=0, budget=Budget()), batch)
    assert int((aware.psnr_db > 100).sum()) >= 6
    assert int((naive.psnr_db > 40).sum()) <= 1


def test_wire_precision_is_enough() -> None:
    """Values rounded to float32, scaled below a mask of 10%: still at least 6 of 8 above 40 dB."""
    batch, attack = digits(1000, 8), Imprint(public=PUBLIC, ratio=0.1)
    exposure = exposed(attack.prepare(victim("lenet")), batch, 0.1, precision="float32")
    near = nearness(attack.attack(exposure, seed=0, budget=Budget()), batch)
    assert int((near.psnr_db > 40).sum()) >= 6


def test_victim_answers_as_before_where_no_bin_is_active() -> None:
    """Thresholds above all brightness leave the network's outputs, and its own parameters, as they were."""
    network = victim("lenet")
    prepared = imprinted(network, 5, public=PUBLIC + 1.0)
    inputs = digits(0, 3).inputs
    parameters = prepared.parameters()
    parameters[prepared.manifest.slice_of(BIAS)] -= 10.0
    torch.testing.assert_close(
        prepared.outputs(parameters, inputs), network.outputs(network.parameters(), inputs), rtol=0, atol=0
    )
    assert prepared.size == network.size + 5 * 64 + 5 + 64 * 5
    assert prepared.name == "lenet+imprint" and network.name == "lenet"


def test_preparing_draws_nothing_from_the_global_generator() -> None:
    """And the same seed gives the same victim."""
    before = torch.random.get_rng_state()
    one, two = (Imprint(ratio=0.1).prepare(victim("mlp")) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.parameters(), two.parameters())


def test_quieter_masks_ask_for_smaller_scales() -> None:
    """The threshold falls with the ratio, and the scale with it."""
    scales = [quiet_scale(victim("lenet"), 64, ratio=ratio, public=PUBLIC) for ratio in (0.01, 0.1, 0.4)]
    assert scales[0] > scales[1] > scales[2] > 0


def test_victim_that_was_not_prepared_is_unsuited() -> None:
    """Grey samples, and a reason."""
    exposure = exposed(victim("mlp"), digits(0, 2))
    assert "not prepared" in Imprint().unsuited(exposure)
    found = Imprint().attack(exposure, seed=0, budget=Budget())
    assert found.status is Status.UNSUITED and found.inputs.shape == (2, 1, 8, 8)


def test_imprint_is_an_active_attacker_with_options() -> None:
    """The registry's form sets bins and ratio."""
    attack = load_attacker("imprint:bins=16,ratio=0.1")
    assert isinstance(attack, ActiveAttacker)
    assert (attack.bins, attack.ratio) == (16, 0.1)


@pytest.mark.parametrize(("bins", "scale"), [(0, 1.0), (8, 0.0), (8, float("inf"))])
def test_bins_and_scales_out_of_range_are_refused(bins: int, scale: float) -> None:
    """CONFIG_INVALID."""
    with pytest.raises(ConfigError) as caught:
        imprinted(victim("mlp"), bins, scale=scale)
    assert caught.value.code is Code.CONFIG_INVALID


def test_text_can_not_be_imprinted() -> None:
    """Tokens are no numbers to measure."""
    module = nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(32, 2))
    network = Victim(name="words", module=module, shape=(8,), classes=2, vocabulary=20)
    assert not probe_inputs(network, 2, seed=0).is_floating_point()
    with pytest.raises(ConfigError, match="tokens"):
        Imprint().prepare(network)
