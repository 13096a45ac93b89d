"""How samples are dealt out: nobody is empty, nothing is lost, nothing is shared."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import secagg.simulation.partition as module
from secagg.errors import Code, ConfigError
from secagg.simulation.partition import partition

how_to = st.one_of(
    st.just("iid"), st.floats(1e-3, 1e3).map(lambda beta: f"dirichlet:{beta!r}"), st.just("dirichlet:0.001")
)


@given(st.data(), st.integers(1, 200), st.integers(1, 12), how_to, st.integers(0, 2**62))
def test_every_sample_goes_to_exactly_one_client(data, samples, classes, how, seed):
    clients = data.draw(st.integers(1, samples))
    labels = np.random.default_rng(seed).integers(0, classes, samples)
    parts = partition(labels, clients, how, seed)
    assert len(parts) == clients and all(len(part) for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(samples))
    again = partition(labels, clients, how, seed)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))


def test_iid_parts_differ_by_at_most_one_sample():
    sizes = [len(part) for part in partition(np.zeros(103, np.int64), 10, "iid", 0)]
    assert sorted(sizes) == [10] * 7 + [11] * 3


def test_seeds_deal_differently():
    labels = np.arange(100) % 10
    for how in ("iid", "dirichlet:0.5"):
        first, second = (partition(labels, 5, how, seed) for seed in (0, 1))
        assert any(a.tolist() != b.tolist() for a, b in zip(first, second, strict=True))


def mean_classes(beta: float) -> float:
    """Mean effective number of classes per client, (Σp)²/Σp²."""
    labels = np.arange(5000) % 10
    found = []
    for part in partition(labels, 10, f"dirichlet:{beta}", 4):
        shares = np.bincount(labels[part], minlength=10) / len(part)
        found.append(1 / (shares**2).sum())
    return float(np.mean(found))


def test_small_beta_means_few_classes_per_client():
    """The effective number of classes rises with β: a few at 0.1, nearly all ten at 1,000."""
    assert mean_classes(0.1) < 4 < mean_classes(1.0) < 9.5 < mean_classes(1000.0)


@pytest.mark.parametrize("how", ["", "IID", "dirichlet", "dirichlet:", "dirichlet:0", "dirichlet:-1",
                                 "dirichlet:nan", "dirichlet:inf", "dirichlet:x", "shards:2"])  # fmt: skip
def test_unknown_partition_is_refused(how):
    with pytest.raises(ConfigError, match="iid or dirichlet:β") as caught:
        partition(np.zeros(9, np.int64), 3, how, 0)
    assert caught.value.code is Code.CONFIG_INVALID


@pytest.mark.parametrize("clients", [0, 10])
def test_more_clients_than_samples_are_refused(clients):
    with pytest.raises(ConfigError, match="1 to 9"):
        partition(np.zeros(9, np.int64), clients, "iid", 0)


def test_examples_in_docstrings_hold():
    assert doctest.testmod(module).failed == 0
