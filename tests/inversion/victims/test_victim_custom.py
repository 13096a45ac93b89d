"""The user's own network: what is taken, and what one line says of what can't be."""

import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import dropout

from attacks.inversion.victims import load_victim
from secagg.errors import Code, ConfigError

SHAPE = (1, 6, 6)


class Noisy(nn.Module):
    """Dropout that no layer stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(36, 3)

    def forward(self, inputs):
        return self.linear(dropout(inputs.flatten(1), 0.5, training=True))


class Counting(nn.Module):
    """A forward pass that is no function."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(36, 3)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, inputs):
        self.passes += 1
        return self.linear(inputs.flatten(1))


class Recurrent(nn.Module):
    """A layer that vmap does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(6, 4, batch_first=True)
        self.linear = nn.Linear(4, 3)

    def forward(self, inputs):
        return self.linear(self.layer(inputs.squeeze(1))[0][:, -1])


def plain(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(inplace=True), nn.Linear(8, classes))


def normalised(shape, classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, classes))


def frozen(shape, classes):
    module = plain(shape, classes)
    module[1].requires_grad_(False)
    return module


def failing(shape, classes):
    raise RuntimeError("no weights\nfor you")


CASES = {
    "plain": plain,
    "normalised": normalised,
    "frozen": frozen,
    "failing": failing,
    "number": lambda shape, classes: 3,
    "dropping": lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(36, classes)),
    "switched_off": lambda shape, classes: nn.Sequential(
        nn.Flatten(), nn.Dropout(0.1), nn.Linear(36, 3)
    ).eval(),
    "instance": lambda shape, classes: nn.Sequential(
        nn.InstanceNorm2d(1, track_running_stats=True), nn.Flatten(), nn.Linear(36, classes)
    ),
    "noisy": lambda shape, classes: Noisy(),
    "counting": lambda shape, classes: Counting(),
    "recurrent": lambda shape, classes: Recurrent(),
    "deep_recurrent": lambda shape, classes: nn.Sequential(nn.LSTM(6, 4, num_layers=2, dropout=0.5)),
    "too_wide": lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(35, classes)),
    "other_classes": lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(36, classes + 1)),
    "no_weights": lambda shape, classes: nn.Flatten(),
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The cases as attributes of a module in the working folder."""
    (tmp_path / "own_networks.py").write_text(
        "import sys\nglobals().update(sys.modules['test_victim_custom'].CASES)\n"
    )
    monkeypatch.setitem(sys.modules, "test_victim_custom", sys.modules[__name__])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield lambda case: load_victim(f"own_networks:{case}", shape=SHAPE, classes=3, seed=2)
    sys.modules.pop("own_networks", None)


def refused(make, case):
    with pytest.raises(ConfigError) as caught:
        make(case)
    message = caught.value.message
    assert caught.value.code is Code.CONFIG_INVALID and "\n" not in message and "own_networks" in message
    return message


def test_a_users_network_is_a_victim_with_seeded_weights(own):
    first, again = own("plain"), own("plain")
    assert first.size == 36 * 8 + 8 + 8 * 3 + 3 and first.dtype == torch.float64
    assert torch.equal(first.parameters(), again.parameters())


def test_frozen_parameters_are_no_part_of_an_update(own):
    """Only what requires gradients travels."""
    assert own("frozen").size == 8 * 3 + 3


def test_batch_norm_in_training_mode_keeps_its_mode_and_forgets_its_batches(own):
    """Batch statistics, as its clients would use them, without the side effect on running ones."""
    found = own("normalised")
    inputs = torch.rand(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alone, together = (found.outputs(found.parameters(), inputs[:n])[0] for n in (1, 2))
    assert not torch.allclose(alone, together, rtol=1e-3)
    assert found.module[1].running_mean.abs().max() == 0 and found.module[1].num_batches_tracked == 0


def test_dropout_in_inference_mode_is_no_obstacle(own):
    assert own("switched_off").size == 36 * 3 + 3


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("failing", "RuntimeError: no weights"),
        ("number", "returned int"),
        ("absent", "AttributeError"),
        ("dropping", "layer 1 is active dropout"),
        ("deep_recurrent", "active dropout"),
        ("instance", "updates its statistics in place"),
        ("noisy", "other outputs the second time"),
        ("counting", "changes its buffers"),
        ("recurrent", "differentiated twice"),
        ("too_wide", "can't take samples of shape (1, 6, 6)"),
        ("other_classes", "(2, 3) logits"),
        ("no_weights", "no parameter that is trained"),
    ],
)
def test_networks_that_cant_be_attacked_are_refused_in_one_line(own, case, said):
    assert said in refused(own, case)


@pytest.mark.parametrize("name", [":build", "no_such_module_anywhere:build"])
def test_names_that_lead_nowhere_are_refused(name):
    with pytest.raises(ConfigError) as caught:
        load_victim(name, shape=SHAPE, classes=3, seed=0)
    assert caught.value.code is Code.CONFIG_INVALID
