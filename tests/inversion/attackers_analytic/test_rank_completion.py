"""Hidden entries of linear layers follow from the visible ones, as their gradients have low rank."""

import pytest
import torch
from handwriting import digits, exposed, nearness, victim

from attacks.inversion.attackers.attacker import Budget
from attacks.inversion.attackers.layers import completion
from attacks.inversion.attackers.layers.completion import complete
from attacks.inversion.attackers.layers.linear import first_layer, linear_layers
from attacks.inversion.attackers.layers.rank import completed
from attacks.inversion.attackers.rank_completion import RankCompletion
from attacks.inversion.protections.protection import Significance
from attacks.inversion.training import Training

MAGNITUDE, RANDOM = Significance.MAGNITUDE, Significance.RANDOM


def low_rank(rows: int, columns: int, rank: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.randn(size, rank, generator=generator, dtype=torch.float64) for size in (rows, columns)
    )
    return left @ right.T


def scattered(matrix: torch.Tensor, ratio: float, seed: int = 0) -> torch.Tensor:
    """Where entries are seen, if this share of them is not."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(matrix.shape, generator=generator, dtype=torch.float64) >= ratio


@pytest.mark.parametrize(
    ("batch_size", "significance"), [(1, MAGNITUDE), (1, RANDOM), (2, MAGNITUDE), (4, RANDOM), (8, MAGNITUDE)]
)
def test_first_layers_hidden_entries_are_restored(batch_size: int, significance: Significance) -> None:
    """At 10% hidden every hidden entry of an MLP's first layer comes back to a relative error ≤ 1e-6."""
    network, batch = victim("mlp"), digits(100, batch_size)
    exposure = exposed(network, batch, 0.1, significance=significance)
    truth, _ = first_layer(network).gradient(exposed(network, batch))
    values, known = first_layer(network).gradient(completed(exposure, seed=0))
    _, seen = first_layer(network).gradient(exposure)
    assert int((~seen).sum()) > 200
    assert known.all()
    error = (values - truth)[~seen].norm() / truth[~seen].norm()
    assert float(error) <= 1e-6


def test_numbers_as_the_wire_sends_them_are_restored_to_their_own_precision() -> None:
    """Of float32 values 10% come back to 1e-5: sixteen times their largest relative rounding per factor."""
    network, batch = victim("mlp"), digits(100, 1)
    exposure = exposed(network, batch, 0.1, significance=RANDOM, precision="float32")
    truth, _ = first_layer(network).gradient(exposed(network, batch))
    values, known = first_layer(network).gradient(completed(exposure, seed=0))
    hidden = ~first_layer(network).gradient(exposure)[1]
    assert known.all()
    assert float((values - truth)[hidden].norm() / truth[hidden].norm()) <= 1e-5


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("name", ["mlp", "lenet", "lenet-sigmoid"])
@pytest.mark.parametrize("significance", [MAGNITUDE, RANDOM])
def test_nothing_is_made_up(name: str, ratio: float, significance: Significance) -> None:
    """Whatever is claimed to be known is right, and what the exposure showed is left as it was."""
    network, batch = victim(name), digits(40, 2)
    truth = exposed(network, batch).visible
    exposure = exposed(network, batch, ratio, significance=significance)
    whole = completed(exposure, seed=0)
    shown, now = ~exposure.hidden, exposure.hidden & ~whole.hidden
    assert not (whole.hidden & shown).any()
    assert torch.equal(whole.visible[shown], exposure.visible[shown])
    assert float(whole.visible[whole.hidden].abs().sum()) == 0
    if now.any():
        assert float((whole.visible - truth)[now].norm()) <= 1e-6 * float(truth[now].norm())


def test_layers_that_are_not_linear_stay_as_they_are() -> None:
    """A convolution's hidden entries stay hidden: its gradient has full rank."""
    network = victim("lenet-sigmoid")
    exposure = exposed(network, digits(40, 1), 0.1, significance=RANDOM)
    whole = completed(exposure, seed=0)
    for name in ("conv0.weight", "conv2.bias"):
        assert torch.equal(whole.of_tensor(name)[1], exposure.of_tensor(name)[1])
    assert not whole.of_tensor("linear.weight")[1].any()


def test_naive_attackers_have_nothing_to_complete() -> None:
    """Who takes hidden entries for zeros gets its exposure back."""
    exposure = exposed(victim("mlp"), digits(0, 1), 0.1).seen_by(aware=False)
    assert completed(exposure, seed=0) is exposure


def test_epochs_raise_the_rank_of_layers_behind_the_first() -> None:
    """Two epochs over one sample: rank 1 where samples are read, 2 behind it; both layers are completed."""
    network, batch = victim("mlp"), digits(7, 1)
    training = Training(epochs=2, learning_rate=0.5)
    truth = exposed(network, batch, training=training)
    whole = completed(exposed(network, batch, 0.1, significance=RANDOM, training=training), seed=0)
    for layer, rank in zip(linear_layers(network)[:2], (1, 2), strict=True):
        matrix, _ = layer.gradient(truth)
        assert int(torch.linalg.matrix_rank(matrix, rtol=1e-10)) == rank
        values, known = layer.gradient(whole)
        assert known.all()
        torch.testing.assert_close(values, matrix, rtol=0, atol=1e-6 * float(matrix.abs().max()))


@pytest.mark.parametrize("shape", [(40, 25), (25, 40)])
@pytest.mark.parametrize("rank", [1, 3])
def test_matrices_of_low_rank_are_completed(shape: tuple[int, int], rank: int) -> None:
    """With 40% unseen, tall and wide ones alike, whatever lies at unseen places."""
    matrix = low_rank(*shape, rank)
    seen = scattered(matrix, 0.4)
    found = complete(torch.where(seen, matrix, torch.nan), seen, rank=rank, seed=0)
    assert found.known.all()
    torch.testing.assert_close(found.values, matrix, rtol=0, atol=1e-8)


def test_large_matrices_are_completed_alternately(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large for variable projection comes back by alternating least squares, still to 1e-6."""
    monkeypatch.setattr(completion, "LARGEST_SYSTEM", 10)
    matrix = low_rank(60, 50, 2)
    seen = scattered(matrix, 0.2)
    found = complete(matrix, seen, rank=2, seed=0)
    assert found.known.all()
    torch.testing.assert_close(found.values, matrix, rtol=0, atol=1e-6)


def test_equations_summed_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """One column at a time or all at once."""
    matrix = low_rank(20, 30, 2)
    seen = scattered(matrix, 0.3)
    at_once = complete(matrix, seen, rank=2, seed=0)
    monkeypatch.setattr(completion, "LARGEST_CHUNK", 1)
    apart = complete(matrix, seen, rank=2, seed=0)
    torch.testing.assert_close(apart.values, at_once.values, rtol=0, atol=1e-8)


def test_rows_and_columns_of_which_too_little_is_seen_stay_unknown() -> None:
    """One seen entry does not determine a column of rank 2, no seen entry nothing at all."""
    matrix = low_rank(30, 20, 2)
    seen = torch.ones(30, 20, dtype=torch.bool)
    seen[1:, 4] = False
    seen[7] = False
    found = complete(matrix, seen, rank=2, seed=0)
    assert torch.equal(found.known, seen)


def test_dead_units_are_known_only_if_enough_is_seen_of_them() -> None:
    """A row of zeros is a dead unit's if it is seen where others aren't zero; otherwise it tells nothing."""
    matrix = low_rank(30, 20, 1)
    matrix[3] = 0.0
    matrix[:, :5] = 0.0
    seen = torch.ones(30, 20, dtype=torch.bool)
    seen[3, 12] = False
    seen[9, 5:] = False
    found = complete(matrix, seen, rank=1, seed=0)
    assert bool(found.known[3, 12]) and float(found.values[3, 12]) == 0
    assert not found.known[9, 5:].any()


def test_another_rank_is_not_mistaken_for_a_fit() -> None:
    """A matrix of rank 3 taken for one of rank 2 leaves a residual, and nothing becomes known."""
    matrix = low_rank(30, 20, 3)
    seen = scattered(matrix, 0.2)
    found = complete(matrix, seen, rank=2, seed=0)
    assert found.residual > 1e-3
    assert torch.equal(found.known, seen)


def test_samples_follow_from_completed_layers() -> None:
    """Under a random mask of 10% the attack reads four samples and their labels; naively it reads none."""
    network, batch = victim("mlp"), digits(100, 4)
    exposure = exposed(network, batch, 0.1, significance=RANDOM)
    aware = nearness(RankCompletion().attack(exposure, seed=0, budget=Budget()), batch)
    naive = nearness(RankCompletion().attack(exposure.seen_by(aware=False), seed=0, budget=Budget()), batch)
    assert float(aware.psnr_db.min()) >= 100 and aware.labels.all()
    assert float(naive.psnr_db.max()) <= 30


def test_all_linear_layers_are_found_in_the_order_of_the_forward_pass() -> None:
    """The MLP's three: the first reads samples, the last gives logits."""
    layers = linear_layers(victim("mlp"))
    assert [layer.weight for layer in layers] == ["linear0.weight", "linear1.weight", "linear.weight"]
    assert [layer.reads_sample for layer in layers] == [True, False, False]
    assert [layer.gives_logits for layer in layers] == [False, False, True]
    assert all(layer.positions == 1 for layer in layers)
