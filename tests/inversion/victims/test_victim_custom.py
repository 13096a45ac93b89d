"""The user's own network: what is taken, and what one line says of what can't be."""

import random
import sys

import numpy as np
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


class Ended(nn.Module):
    """A forward pass with something done to what comes out."""

    def __init__(self, end) -> None:
        super().__init__()
        self.linear, self.end = nn.Linear(36, 3), end

    def forward(self, inputs):
        return self.end(self.linear(inputs.flatten(1)))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(36, 36), nn.Linear(36, 36), nn.Linear(36, 3)
        self.second.weight = self.first.weight

    def forward(self, inputs):
        return self.last(self.second(self.first(inputs.flatten(1)).sigmoid()))


def plain(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(inplace=True), nn.Linear(8, classes))


def normalised(shape, classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, classes))


def frozen(shape, classes):
    module = plain(shape, classes)
    module[1].requires_grad_(False)
    return module


def repeated(shape, classes):
    layer = nn.Linear(36, 36)
    return nn.Sequential(nn.Flatten(), layer, nn.Sigmoid(), layer, nn.Linear(36, classes))


def repeated_frozen(shape, classes):
    module = repeated(shape, classes)
    module[1].requires_grad_(False)
    return module


def numpys(shape, classes):
    module = plain(shape, classes)
    module[1].weight.data[0, 0] = np.random.default_rng().random()
    return module


def pythons(shape, classes):
    module = plain(shape, classes)
    module.register_buffer("extra", torch.tensor(random.random()))
    return module


def numpys_seeded(shape, classes):
    module = plain(shape, classes)
    module[1].weight.data[0, 0] = np.random.default_rng(3).random()
    module.register_buffer("missing", torch.tensor(float("nan")))
    return module


def meta(shape, classes):
    return plain(shape, classes).to("meta")


def failing(shape, classes):
    raise RuntimeError("no weights\nfor you")


CASES = {
    "plain": plain,
    "normalised": normalised,
    "frozen": frozen,
    "failing": failing,
    "without_arguments": lambda: plain(SHAPE, 3),
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
    "exiting": lambda shape, classes: sys.exit(7),
    "exiting_later": lambda shape, classes: Ended(lambda _: sys.exit(7)),
    "lazy": lambda shape, classes: nn.Sequential(nn.Flatten(), nn.LazyLinear(classes)),
    "meta": meta,
    "repeated": repeated,
    "repeated_frozen": repeated_frozen,
    "tied": lambda shape, classes: Tied(),
    "numpys": numpys,
    "pythons": pythons,
    "numpys_seeded": numpys_seeded,
    "detached": lambda shape, classes: Ended(torch.Tensor.detach),
    "constant": lambda shape, classes: Ended(lambda logits: logits * 0),
    "undefined": lambda shape, classes: Ended(lambda logits: logits * float("nan")),
    "pair": lambda shape, classes: Ended(lambda logits: (logits, logits)),
    "table": lambda shape, classes: Ended(lambda logits: {"logits": logits}),
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The cases as attributes of a module in the working folder."""
    (tmp_path / "own_networks.py").write_text(
        "import sys, torch\nDRAWN = torch.rand(1)\n"
        "globals().update(sys.modules['test_victim_custom'].CASES)\n"
        "def imported(shape, classes):\n"
        "    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, classes))\n"
        "    module.register_buffer('drawn', DRAWN)\n"
        "    return module\n"
    )
    monkeypatch.setitem(sys.modules, "test_victim_custom", sys.modules[__name__])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield lambda case, seed=2: load_victim(f"own_networks:{case}", shape=SHAPE, classes=3, seed=seed)
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


def test_weights_of_another_generator_are_taken_if_they_are_always_the_same(own):
    """A seed of one's own, and NaN in a buffer that nothing reads: no difference between two networks."""
    assert own("numpys_seeded").size == own("plain").size


def test_what_a_module_draws_when_imported_does_not_hang_on_the_first_seed(own):
    """Processes play seeds in any order; which one imports the module must not show in the network."""
    first = own("imported", seed=4)
    sys.modules.pop("own_networks")
    own("plain", seed=5)
    assert torch.equal(first.module.drawn, own("imported", seed=4).module.drawn)


@pytest.mark.parametrize("case", ["tied", "repeated_frozen"])
def test_shared_tensors_and_frozen_layers_in_two_places_are_no_obstacle(own, case):
    """The gradient is that of plain autograd, and the module keeps its own weights."""
    found = own(case)
    kept = list(found.module.parameters())
    inputs = torch.rand(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(2)
    gradient = found.gradient(found.parameters(), inputs, labels)
    assert all(a is b for a, b in zip(kept, found.module.parameters(), strict=True))
    loss = nn.functional.cross_entropy(found.module(inputs), labels)
    expected = torch.autograd.grad(loss, [weight for weight in kept if weight.requires_grad])
    assert torch.allclose(gradient, torch.cat([each.flatten() for each in expected]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("failing", "RuntimeError: no weights"),
        ("failing", "called as failing(shape, classes), here failing((1, 6, 6), 3)"),
        ("without_arguments", "called as without_arguments(shape, classes)"),
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
        ("exiting", "failed with SystemExit: 7"),
        ("exiting_later", "can't take samples of shape (1, 6, 6): SystemExit: 7"),
        ("lazy", "1.weight has no shape yet; run one forward pass first"),
        ("meta", "1.weight is on the meta device"),
        ("repeated", "layers 1 and 3 are one module"),
        ("numpys", "other weights each time"),
        ("pythons", "other weights each time"),
        ("detached", "gradient that does not depend on the samples"),
        ("constant", "gradient that does not depend on the samples"),
        ("undefined", "outputs that are not finite"),
        ("pair", "gives a tuple; one tensor of logits is needed"),
        ("table", "gives a dict; one tensor of logits is needed"),
    ],
)
def test_networks_that_cant_be_attacked_are_refused_in_one_line(own, case, said):
    assert said in refused(own, case)


@pytest.mark.parametrize("name", [":build", "no_such_module_anywhere:build"])
def test_names_that_lead_nowhere_are_refused(name):
    with pytest.raises(ConfigError) as caught:
        load_victim(name, shape=SHAPE, classes=3, seed=0)
    assert caught.value.code is Code.CONFIG_INVALID
    assert "called as" not in caught.value.message
