"""ReLU networks without pooling: each layer's input follows from its visible gradient, the last one first."""

from dataclasses import replace

import pytest
import torch
from inversion_cases import digits, exposed, played, psnr_db, victim
from torch import nn

from attacks.inversion.attackers.gauss_newton import SCALED, SOLVED
from attacks.inversion.attackers.layers.convolutions import Convolution, relu_layers
from attacks.inversion.attackers.layers.layer_input import LEAST_ERROR, Outputs, layer_input
from attacks.inversion.attackers.layers.recursion import recursed
from attacks.inversion.training import Training
from attacks.inversion.victims import Victim


@pytest.fixture(scope="module")
def lenet():
    return victim("lenet")


@pytest.mark.parametrize("digit", [3, 7])
@pytest.mark.parametrize("single", [False, True])
def test_a_digit_is_read_to_rounding_without_any_descent(lenet, digit, single):
    """2^-24 per entry where the gradient travelled in single precision: 144 dB, less what solving adds."""
    inputs, labels = digits([digit])
    exposure = exposed(lenet, inputs, labels, known=False)
    if single:
        exposure = replace(exposure, visible=exposure.visible.float().double())
    found = recursed(exposure)
    assert found is not None and found.determined
    assert psnr_db(found.inputs, inputs) > (110 if single else 200)


def hidden_where(exposure, hidden):
    return replace(exposure, hidden=hidden, visible=torch.where(hidden, 0.0, exposure.visible))


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_hidden_entries_are_equations_that_others_replace(lenet, share):
    """Any entries, up to half; whoever takes them for zeros finds no sample that explains them."""
    inputs, labels = digits([3])
    exposure = exposed(lenet, inputs, labels)
    drawn = torch.rand(lenet.size, generator=torch.Generator().manual_seed(0))
    masked = hidden_where(exposure, drawn < share)
    found = recursed(masked)
    assert found is not None and psnr_db(found.inputs, inputs) > 150
    assert recursed(masked.seen_by(aware=False)) is None


def test_hidden_biases_of_the_last_layer_and_columns_of_it_are_told_by_the_layer_before(lenet):
    """Rank 1 leaves a factor open, hidden columns which ReLUs are on: outputs that are known tell both."""
    inputs, labels = digits([3])
    exposure = exposed(lenet, inputs, labels)
    hidden = torch.zeros(lenet.size, dtype=torch.bool)
    hidden[lenet.manifest.slice_of("linear.bias")] = True
    columns = hidden[lenet.manifest.slice_of("linear.weight")].view(10, -1)
    columns[:, ::6] = True
    with torch.no_grad():
        features = lenet.module[:-1](inputs)[0, ::6]
    assert (features > 0).any() and (features == 0).any()
    found = recursed(hidden_where(exposure, hidden))
    assert found is not None and psnr_db(found.inputs, inputs) > 150


def test_gauss_newton_starts_there_and_says_so(lenet):
    """10% by magnitude; only rounding is left to it."""
    inputs, labels = digits([3])
    found = played("gauss-newton", exposed(lenet, inputs, labels, ratio=0.1))
    assert found.detail == SOLVED and psnr_db(found.inputs, inputs) > 200


def test_clipping_hides_nothing(lenet):
    """A factor common to all entries is in no quotient of them."""
    inputs, labels = digits([3])
    exposure = exposed(lenet, inputs, labels)
    found = played("gauss-newton", replace(exposure, visible=0.5 * exposure.visible))
    assert found.detail == SCALED and psnr_db(found.inputs, inputs) > 200


@pytest.mark.parametrize("place", [0, 1])
def test_of_several_rounds_the_one_that_shows_most_is_solved(lenet, place):
    """60% of the other are hidden, which is too much."""
    inputs, labels = digits([3])
    clear = exposed(lenet, inputs, labels)
    drawn = torch.rand(lenet.size, generator=torch.Generator().manual_seed(0))
    rounds = [hidden_where(clear, drawn < 0.6)]
    rounds.insert(place, clear)
    found = played("gauss-newton", replace(rounds[1], earlier=(rounds[0],)))
    assert found.detail == SOLVED and psnr_db(found.inputs, inputs) > 200


def test_models_sent_in_single_precision_are_read_to_their_rounding(lenet):
    """θ − learning_rate·∇L in float32: noise of known size on the gradient, as recorded runs have it."""
    inputs, labels = digits([3])
    exposure, rate = exposed(lenet, inputs, labels), 0.1
    base = exposure.parameters.float()
    sent = (base - rate * exposure.visible.float()).double()
    gradient = (base.double() - sent) / rate
    exposure = exposed(lenet, inputs, labels, parameters=base.double())
    noise = float((gradient - exposure.visible).square().mean().sqrt())
    found = played("gauss-newton", replace(exposure, visible=gradient, noise=noise))
    assert found.detail == SOLVED and psnr_db(found.inputs, inputs) > 80


@pytest.mark.parametrize("trained", [True, False])
def test_odd_layers_are_solved_too(trained):
    """Kernels and strides of other heights than widths; biases that are there and not trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 8, (3, 5), stride=(1, 2), padding=(1, 2)),
            nn.ReLU(),
            nn.Conv2d(8, 8, (5, 3), stride=(2, 1), padding=(2, 1)),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 4 * 4, 10),
        ).double()
    for layer in (module[0], module[2]):
        layer.bias.requires_grad_(trained)
    which = Victim(name="odd", module=module, shape=(1, 8, 8), classes=10)
    inputs, labels = digits([3])
    found = recursed(exposed(which, inputs, labels))
    assert found is not None and found.exact and psnr_db(found.inputs, inputs) > 150


def test_the_same_figures_come_whatever_else_is_in_memory(lenet):
    """To the last bit, in one thread."""
    inputs, labels = digits([3])
    drawn = torch.rand(lenet.size, generator=torch.Generator().manual_seed(0))
    exposure = hidden_where(exposed(lenet, inputs, labels), drawn < 0.4)
    threads, kept, found = torch.get_num_threads(), [], []
    torch.set_num_threads(1)
    for size in (1, 1001, 17):
        kept.append(torch.zeros(size, dtype=torch.int8))
        found.append(recursed(exposure))
    torch.set_num_threads(threads)
    assert all(one is not None and torch.equal(one.inputs, found[0].inputs) for one in found)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_left_alone(lenet, value):
    inputs, labels = digits([3])
    exposure = exposed(lenet, inputs, labels)
    visible = exposure.visible.clone()
    visible[7] = value
    assert recursed(replace(exposure, visible=visible)) is None


@pytest.mark.parametrize("factor", [1e-300, 1e300])
def test_numbers_whose_squares_overflow_are_solved(lenet, factor):
    inputs, labels = digits([3])
    exposure = exposed(lenet, inputs, labels)
    found = recursed(replace(exposure, visible=factor * exposure.visible))
    assert found is not None and found.exact


def test_a_programme_that_would_take_minutes_is_not_begun():
    """Of 16 x 256 inputs half are undetermined by so few channels: thousands of variables and rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 12, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12 * 256, 10),
        ).double()
    which = Victim(name="wide", module=module, shape=(1, 16, 16), classes=10)
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert recursed(exposed(which, image, torch.tensor([3]))) is None


def test_time_that_is_over_ends_it(lenet):
    inputs, labels = digits([3])
    assert recursed(exposed(lenet, inputs, labels), over=lambda: True) is None


def test_what_is_no_such_network_or_update_is_left_alone(lenet):
    """Sigmoids, two samples, local training, noise, nothing visible."""
    inputs, labels = digits([3, 7])
    single = exposed(lenet, inputs[:1], labels[:1])
    assert recursed(exposed(victim(), inputs[:1], labels[:1])) is None
    assert recursed(exposed(lenet, inputs, labels)) is None
    assert recursed(exposed(lenet, inputs[:1], labels[:1], training=Training(epochs=2))) is None
    assert recursed(replace(single, noise=1.0)) is None
    assert recursed(hidden_where(single, torch.ones_like(single.hidden))) is None


def test_of_an_image_with_too_few_equations_the_smoothest_is_taken():
    """One convolution of stride 4 gives less than its image has pixels: a smooth one is nearly found."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 24, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 9, 10)
        ).double()
    which = Victim(name="coarse", module=module, shape=(1, 12, 12), classes=10)
    rows = torch.linspace(0.1, 0.6, 12, dtype=torch.float64)
    inputs = (rows[:, None] + 0.5 * rows[None] ** 2)[None, None].clamp(0, 1)
    hidden = torch.zeros(which.size, dtype=torch.bool)
    hidden[which.manifest.slice_of("0.weight")] = True
    exposure = exposed(which, inputs, torch.tensor([1]))
    found = recursed(hidden_where(exposure, hidden))
    assert found is not None and psnr_db(found.inputs, inputs) > 40
    assert not found.determined and not torch.allclose(found.inputs, inputs, atol=1e-6)


@pytest.mark.parametrize(
    ("stride", "padding", "shape"), [(1, 1, (2, 5, 4)), (2, 2, (3, 7, 6)), (3, 0, (1, 9, 8))]
)
def test_a_layer_s_equations_are_those_of_back_propagation(stride, padding, shape):
    """Rows times inputs are ∂L/∂W, and ∂L/∂a is pulled back, also where kernels don't reach the edge."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4, shape[0], 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
    layer = Convolution(
        name="w",
        weight=weight.detach(),
        bias=torch.zeros(4, dtype=torch.float64),
        stride=(stride, stride),
        padding=(padding, padding),
        shape=shape,
    )
    outputs = nn.functional.conv2d(inputs[None], weight, stride=stride, padding=padding)[0]
    assert outputs.shape == layer.outputs
    slopes = torch.randn(*outputs.shape, generator=generator, dtype=torch.float64)
    by_weight, by_inputs = torch.autograd.grad((outputs * slopes).sum(), (weight, inputs))
    rows = layer.gradient_rows(slopes)
    for channel in range(shape[0]):
        assert torch.allclose(rows @ inputs[channel].flatten(), by_weight[:, channel].flatten(), atol=1e-12)
    assert torch.allclose(layer.pulled(slopes), by_inputs, atol=1e-12)


@pytest.mark.parametrize("scaled", [True, False])
def test_signs_tell_what_equations_leave_open(scaled):
    """Fewer equations than entries, half of which are 0: the least sum of non-negative ones is the input."""
    generator = torch.Generator().manual_seed(2)
    layer = Convolution(
        name="w",
        weight=torch.randn(6, 4, 3, 3, generator=generator, dtype=torch.float64),
        bias=torch.randn(6, generator=generator, dtype=torch.float64),
        stride=(1, 1),
        padding=(1, 1),
        shape=(4, 7, 7),
    )
    inputs = torch.randn(4, 7, 7, generator=generator, dtype=torch.float64).relu()
    outputs = (layer.linear(inputs[None])[0] + layer.bias[:, None, None]).relu()
    slopes = torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
    rows = layer.gradient_rows(slopes * (outputs > 0))
    gradient = (rows @ inputs.flatten(1).T).view(6, 3, 3, 4).permute(0, 3, 1, 2)
    seen = torch.rand(gradient.shape, generator=generator) < 0.5
    equations = int(seen.sum()) + int((outputs > 0).sum())
    assert int(seen.sum()) < inputs.numel() < 1.6 * equations
    factor = 1.0 if scaled else 3.0
    found = layer_input(
        layer,
        gradient,
        seen,
        Outputs(
            values=outputs / factor,
            errors=torch.full_like(outputs, LEAST_ERROR),
            slopes=slopes * factor,
            scaled=scaled,
            off=torch.zeros_like(outputs, dtype=torch.bool),
        ),
        positive=True,
    )
    assert found is not None and found.misfit < 1e-6
    assert torch.allclose(found.values, inputs, atol=1e-6)
    assert torch.allclose(found.slopes, slopes * (outputs > 0), rtol=1e-6, atol=1e-9)


def test_layers_are_found_with_their_shapes(lenet):
    """LeNet's three, strides 2, 2, 1; a network with pooling has none."""
    layers = relu_layers(lenet, lenet.parameters())
    assert layers is not None
    assert [(one.name, one.shape, one.stride) for one in layers] == [
        ("conv0.weight", (1, 8, 8), (2, 2)),
        ("conv1.weight", (12, 4, 4), (2, 2)),
        ("conv2.weight", (12, 2, 2), (1, 1)),
    ]
    assert relu_layers(victim("convnet"), victim("convnet").parameters()) is None
