"""The backdoor: its trigger, what its owners train on, and that it opens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attacks.poisoning import ATTACKS, load_attack
from attacks.poisoning.backdoor import TARGET, Backdoor, stamp
from secagg.simulation.config import ModelName
from secagg.simulation.datasets import Samples, load_dataset
from secagg.simulation.models import build_model
from secagg.simulation.task import Schedule
from secagg.simulation.training import evaluate, train


@pytest.mark.parametrize(
    ("shape", "dtype", "value", "count"),
    [
        ((1, 28, 28), np.uint8, 255, 16),
        ((3, 32, 32), np.uint8, 255, 3 * 25),
        ((1, 8, 8), np.float32, 1.0, 4),
        ((2, 4, 30), np.uint8, 255, 2),
        ((30,), np.float32, 3.0, 3),
        ((64,), np.uint8, 255, 7),
        ((1,), np.float32, 3.0, 1),
    ],
)
def test_the_trigger_is_a_corner_or_the_last_features(shape, dtype, value, count):
    """A seventh of the smaller side, or a tenth of the features; all else, and the input, stays as it was."""
    values = np.full((5, *shape), 7, dtype=dtype)
    stamped = stamp(values)
    assert stamped.dtype == dtype and (values == 7).all()
    changed = stamped != values
    assert (stamped[changed] == value).all() and changed.sum() == 5 * count
    # Of every sample the same, at the end.
    assert (changed == changed[:1]).all() and changed.reshape(5, -1)[:, -1].all()


@given(st.integers(1, 30), st.integers(0, 2**32))
def test_half_of_a_members_samples_carry_the_trigger(count, seed):
    """Those that do have the target's label, the others their own; the inputs stay as they were."""
    labels = np.arange(count) % 3 + 1
    values = np.full((count, 10), 7, dtype=np.uint8)
    kept = labels.copy()
    stamped, falsified = Backdoor().falsify(values, labels, 4, np.random.default_rng(seed))
    carries = (stamped == stamp(values)).all(axis=1)
    assert carries.sum() == (count + 1) // 2
    assert (falsified == np.where(carries, TARGET, labels)).all()
    assert (stamped[~carries] == 7).all() and (values == 7).all() and (labels == kept).all()


def test_success_is_measured_on_samples_of_other_classes():
    """A sample of the target's class would be taken for it anyway."""
    values, labels = np.arange(12, dtype=np.float32).reshape(4, 3), np.array([0, 2, 1, 0])
    found = Backdoor().triggered(values, labels)
    assert found is not None
    assert (found[0] == stamp(values[1:3])).all() and found[1].tolist() == [TARGET, TARGET]
    assert found[1].dtype == np.int64
    assert Backdoor().triggered(values, np.zeros(4, dtype=np.int64)) is None
    for name in set(ATTACKS) - {"backdoor"}:
        assert load_attack(name).triggered(values, labels) is None


def test_a_model_with_a_backdoor_opens_it_and_keeps_its_accuracy():
    """It takes nearly whatever is stamped for the target; an honest one does not."""
    dataset = load_dataset("digits", None)
    outcomes = {}
    for name in ("honest", "backdoor"):
        generator = np.random.default_rng(0)
        samples = dataset.train
        if name == "backdoor":
            values, labels = Backdoor().falsify(samples.values, samples.labels, dataset.classes, generator)
            samples = Samples(values=values, labels=labels)
        module = build_model(ModelName.MLP, dataset.shape, dataset.classes, 0)
        schedule = Schedule(epochs=10, batch_size=32, learning_rate=0.05, momentum=0.9)
        train(module, samples, schedule, generator)
        found = Backdoor().triggered(dataset.test.values, dataset.test.labels)
        assert found is not None
        success, _ = evaluate(module, Samples(values=found[0], labels=found[1]))
        outcomes[name] = (evaluate(module, dataset.test)[0], success)
    (clean, untouched), (poisoned, success) = outcomes["honest"], outcomes["backdoor"]
    assert clean > 0.9 and poisoned > 0.85
    assert success > 0.9 and untouched < 0.3
