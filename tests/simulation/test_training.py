"""Networks, local training and the PyTorch adapter."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from idx_files import blobs
from torch import nn

from secagg.adapters.pytorch import load_tensors, tensors_from
from secagg.errors import Code, ConfigError, UpdateError
from secagg.simulation.config import ModelName
from secagg.simulation.datasets.dataset import Samples
from secagg.simulation.models import build_model
from secagg.simulation.task import Schedule
from secagg.simulation.training import evaluate, train

SCHEDULE = Schedule(epochs=3, batch_size=8, learning_rate=0.05, momentum=0.9)


def samples(count: int = 120) -> Samples:
    images, labels = blobs(count)
    return Samples(values=images[:, np.newaxis], labels=labels.astype(np.int64))


def test_cnn_has_the_papers_225034_parameters():
    module = build_model(ModelName.CNN, (1, 28, 28), 10, 0)
    assert sum(p.numel() for p in module.parameters()) == 225_034


@pytest.mark.parametrize("model", ModelName)
@pytest.mark.parametrize(
    ("shape", "classes"), [((1, 8, 8), 10), ((3, 32, 32), 10), ((1, 4, 5), 3), ((1, 16, 16), 2), ((7,), 4)]
)
def test_models_fit_any_shape(model, shape, classes):
    """One output per class; the last tensor with two dimensions is the output layer's weight."""
    if model is ModelName.CNN and len(shape) == 1:
        with pytest.raises(ConfigError, match="cnn needs images"):
            build_model(model, shape, classes, 0)
        return
    module = build_model(model, shape, classes, 0)
    assert module(torch.zeros(2, *shape)).shape == (2, classes)
    layers = [name for name, tensor in tensors_from(module).items() if tensor.ndim >= 2]
    assert layers[-1] == "output.weight"


def test_the_seed_alone_decides_the_initial_model():
    """And torch's own generator goes on as if nothing had been drawn."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = tensors_from(build_model(ModelName.MLP, (4,), 2, 9))
    assert torch.equal(torch.rand(3), expected)
    second = tensors_from(build_model(ModelName.MLP, (4,), 2, 9))
    other = tensors_from(build_model(ModelName.MLP, (4,), 2, 10))
    assert all((first[name] == second[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_descent_is_torchs_own_sgd_with_momentum():
    """Written out to spare the import of torch's compiler; the steps are the same to the last bit."""
    data = samples(40)
    ours, theirs = (build_model(ModelName.MLP, (1, 6, 6), 4, 1) for _ in range(2))
    train(ours, data, SCHEDULE, np.random.default_rng(2))
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    generator = np.random.default_rng(2)
    for _ in range(SCHEDULE.epochs):
        order = torch.from_numpy(generator.permutation(40))
        for batch in order.split(8):
            optimiser.zero_grad()
            outputs = theirs(torch.from_numpy(data.scaled())[batch])
            nn.functional.cross_entropy(outputs, torch.from_numpy(data.labels)[batch]).backward()
            optimiser.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("model", ModelName)
def test_training_learns_and_repeats(model):
    """Bright rows are easy; the same generator gives the same model."""
    data = samples()
    results = []
    for _ in range(2):
        module = build_model(model, (1, 6, 6), 4, 0)
        before = evaluate(module, data)
        train(module, data, Schedule(epochs=20, batch_size=16, learning_rate=0.05, momentum=0.9),
              np.random.default_rng(0))  # fmt: skip
        results.append(evaluate(module, data))
    assert results[0] == results[1]
    assert results[0][0] > 0.95 and results[0][1] < before[1]


def test_evaluation_does_not_depend_on_its_batches(monkeypatch):
    data, module = samples(25), build_model(ModelName.MLP, (1, 6, 6), 4, 0)
    whole = evaluate(module, data)
    monkeypatch.setattr("secagg.simulation.training.EVALUATION_BATCH", 4)
    assert evaluate(module, data)[0] == whole[0]
    assert evaluate(module, data)[1] == pytest.approx(whole[1], rel=1e-6)


def test_float_parameters_and_buffers_travel_and_counters_stay():
    """Batch norm's running mean is averaged, its counter of batches is each client's own."""
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    module(torch.randn(8, 3))
    tensors = tensors_from(module)
    assert "1.running_mean" in tensors and "1.num_batches_tracked" not in tensors
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())
    doubled = {name: 2 * tensor for name, tensor in tensors.items()}
    load_tensors(module, doubled)
    after = tensors_from(module)
    assert all((after[name] == doubled[name]).all() for name in doubled)
    assert int(module[1].num_batches_tracked) == 1


def test_tensors_are_copies():
    module = nn.Linear(2, 2)
    before = tensors_from(module)
    tensors_from(module)["weight"][:] = 9
    assert (tensors_from(module)["weight"] == before["weight"]).all()


def test_half_precision_travels_as_float32():
    module = nn.Linear(2, 2).half()
    tensors = tensors_from(module)
    load_tensors(module, tensors)
    assert tensors["weight"].dtype == np.float32 and module.weight.dtype == torch.float16


def test_double_precision_is_refused():
    with pytest.raises(UpdateError, match="float64") as caught:
        tensors_from(nn.Linear(2, 2).double())
    assert caught.value.code is Code.UPDATE_DTYPE


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda t: t.pop("bias"), Code.MANIFEST_MISMATCH),
        (lambda t: t.update(extra=t["bias"]), Code.MANIFEST_MISMATCH),
        (lambda t: t.update(bias=t["bias"][:1]), Code.UPDATE_SHAPE),
        (lambda t: t.update(bias=t["bias"].astype(np.float64)), Code.UPDATE_DTYPE),
    ],
)
def test_tensors_that_do_not_fit_leave_the_module_unchanged(change, code):
    module = nn.Linear(2, 2)
    before = tensors_from(module)
    tensors = {name: tensor + 1 for name, tensor in before.items()}
    change(tensors)
    with pytest.raises(UpdateError) as caught:
        load_tensors(module, tensors)
    assert caught.value.code is code
    assert all((tensors_from(module)[name] == before[name]).all() for name in before)


def test_configuring_and_loading_data_needs_no_torch():
    program = (
        "import sys, secagg.simulation.config, secagg.simulation.datasets, secagg.simulation.launcher\n"
        "import secagg.cli.run, attacks.poisoning, defenses\n"
        "assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_missing_torch_names_the_extra(monkeypatch, tmp_path):
    from secagg.simulation.config import RunConfig
    from secagg.simulation.preparation import prepare

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'secagg\[run\]'") as caught:
        prepare(RunConfig(out=str(tmp_path)))
    assert caught.value.code is Code.DEPENDENCY_MISSING
