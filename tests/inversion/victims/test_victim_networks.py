"""Every victim by name: its size, its gradients, and what its seed decides."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from victim_cases import IMAGE, SMALL, TEXT, mismatch, samples, victim

from attacks.inversion.victims import VICTIMS, load_victim
from secagg.errors import Code, ConfigError


def refused(name: str, **settings: object) -> str:
    call = {"shape": (1, 8, 8), "classes": 10, "seed": 0, **settings}
    with pytest.raises(ConfigError) as caught:
        load_victim(name, **call)
    assert caught.value.code is Code.CONFIG_INVALID and "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("name", "shape", "size"),
    [
        # conv 25·c·12 + 12, two of 25·12·12 + 12, linear 12·(h/4)·(w/4)·10 + 10
        ("lenet", (1, 16, 16), 9_466),
        ("lenet-sigmoid", (1, 28, 28), 13_426),
        ("lenet-sigmoid", (3, 32, 32), 15_826),
        # the size that Geiping et al. state of their ConvNet for CIFAR-10
        ("convnet", (3, 32, 32), 2_904_970),
        # the usual count of ResNet-18 with a 3x3 convolution in front and ten classes
        ("resnet18", (3, 32, 32), 11_173_962),
        ("resnet18-training", (3, 32, 32), 11_173_962),
        ("mlp", (1, 8, 8), 64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10),
    ],
)
def test_parameters_are_as_many_as_the_literature_counts(name, shape, size):
    """A victim that goes by a known name has that network's layers."""
    assert load_victim(name, shape=shape, classes=10, seed=0).size == size


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 9, 13)])
def test_small_networks_take_every_usual_size(name, shape):
    """One logit per class, finite, for square and for other images."""
    found = load_victim(name, shape=shape, classes=4, seed=1)
    outputs = found.outputs(found.parameters(), torch.rand(2, *shape, dtype=torch.float64))
    assert outputs.shape == (2, 4) and outputs.isfinite().all()


@pytest.mark.parametrize("name", ["convnet", "resnet18", "resnet18-training"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_large_networks_take_small_and_usual_sizes_one_sample_at_a_time(name, shape):
    """A batch of one is enough, in training mode, too: no batch norm is left with a single value."""
    found = load_victim(name, shape=shape, classes=4, seed=1, dtype=torch.float32)
    outputs = found.outputs(found.parameters(), torch.rand(1, *shape))
    assert outputs.shape == (1, 4) and outputs.isfinite().all() and outputs.std() > 0


@pytest.mark.parametrize("name", [*IMAGE, *TEXT])
def test_the_gradient_is_that_of_the_plain_module(name):
    """Going through one flat vector changes nothing: relative difference within 1e-12."""
    found = victim(name)
    inputs, labels = samples(found)
    flat = found.gradient(found.parameters(), inputs, labels)
    named = [(n, p) for n, p in found.module.named_parameters() if p.requires_grad]
    plain = torch.autograd.grad(
        cross_entropy(found.module(inputs), labels), [p for _, p in named], allow_unused=True
    )
    for (name_, parameter), expected in zip(named, plain, strict=True):
        expected = torch.zeros_like(parameter) if expected is None else expected
        place = found.manifest.slice_of(name_)
        assert (flat[place] - expected.flatten()).norm() <= 1e-12 * flat.norm(), name_


@pytest.mark.parametrize("name", [*IMAGE, *TEXT])
def test_the_gradient_can_be_differentiated_by_the_inputs(name):
    """Against central differences along one direction, with steps too small to cross a kink.

    Rounding leaves 2·10⁻¹⁶·φ/h of φ's slope, some 1e-7 of it here; 1e-4 is far above, and far below what
    a wrong second derivative would show.
    """
    found = victim(name)
    inputs, labels = samples(found)
    slope = torch.func.grad(lambda x: mismatch(found, x, labels))(inputs)
    direction, step = slope / slope.norm(), 1e-8 * float(inputs.norm())
    above, below = (mismatch(found, inputs + sign * step * direction, labels) for sign in (1, -1))
    assert float((above - below) / (2 * step)) == pytest.approx(float(slope.norm()), rel=1e-4)


@pytest.mark.parametrize("name", [*IMAGE, *TEXT])
def test_many_restarts_at_once_are_each_restart_by_itself(name):
    """torch.func.vmap over starting points gives what a loop gives."""
    found = victim(name)
    inputs, labels = samples(found)
    starts = torch.stack([inputs, 1 - inputs])

    def slope(start):
        return torch.func.grad(lambda x: mismatch(found, x, labels))(start)

    together = torch.func.vmap(slope)(starts)
    for start, found_slope in zip(starts, together, strict=True):
        alone = slope(start)
        assert (found_slope - alone).norm() <= 1e-9 * alone.norm()


@pytest.mark.parametrize("name", ["lenet-sigmoid", "convnet", "bert"])
def test_the_seed_decides_the_weights_and_nothing_else_does(name):
    """Same seed, same weights, in either dtype; another seed, others; torch's own state stays as it is."""
    shape, extra = ((6,), {"vocabulary": 50}) if name == "bert" else ((1, 8, 8), {})
    before = torch.get_rng_state()
    one, two, other = (
        load_victim(name, shape=shape, classes=3, seed=seed, dtype=dtype, **extra)
        for seed, dtype in ((4, torch.float64), (4, torch.float32), (5, torch.float64))
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.parameters().float(), two.parameters())
    assert not torch.equal(one.parameters(), other.parameters())
    for a, b in zip(one.module.buffers(), two.module.buffers(), strict=True):
        assert torch.equal(a.to(b.dtype), b)


def test_the_sigmoid_network_starts_from_uniform_weights():
    """U(−½, ½) for weights and biases: within bounds, and of variance 1/12 to 5 standard errors."""
    weights = victim("lenet-sigmoid").parameters()
    assert weights.abs().max() <= 0.5
    # Var of U² is 1/180, so the mean of n squares has standard error √(1/180n).
    assert abs(float(weights.square().mean()) - 1 / 12) < 5 * (1 / 180 / len(weights)) ** 0.5


def test_unknown_names_are_told_the_known_ones():
    message = refused("lenett")
    assert all(name in message for name in (*VICTIMS, "module:callable"))


@pytest.mark.parametrize("name", IMAGE[:2] + IMAGE[3:])
@pytest.mark.parametrize("shape", [(64,), (1, 3, 8), (1, 8), (0, 8, 8)])
def test_shapes_that_are_no_images_are_refused(name, shape):
    assert str(shape) in refused(name, shape=shape)


def test_other_numbers_out_of_range_are_refused():
    assert "2 classes or more" in refused("mlp", classes=1)
    assert "float16" in refused("mlp", dtype=torch.float16)
    assert "vocabulary" in refused("mlp", vocabulary=10)
    assert "can't take samples of shape ()" in refused("mlp", shape=())
