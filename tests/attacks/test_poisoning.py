"""The poisoning attacks: formulas, who mounts them, and what configurations may ask for."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attacks import poisoning
from attacks.poisoning import ATTACKS, Poison, load_attack, parse_poison
from secagg.errors import Code, ConfigError

G = np.array([1.0, -2.0, 0.5], dtype=np.float32)
W = np.array([1.5, -2.0, 0.0], dtype=np.float32)
U = W - G


def sent_by(name: str, strength: float | None = None) -> np.ndarray:
    return load_attack(name, strength).model(G, W, np.random.default_rng(3))


@pytest.mark.parametrize(
    "name",
    ["attacks.poisoning", *(f"attacks.poisoning.{m.name}" for m in pkgutil.iter_modules(poisoning.__path__))],
)
def test_examples_in_docstrings_hold(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize(
    ("name", "strength", "factor"),
    [("sign-flip", None, -3), ("sign-flip", 0.5, -0.5), ("ipm", None, -3), ("ipm", 2, -2),
     ("scaling", None, 10), ("scaling", 4, 4), ("label-flip", None, 1)],
)  # fmt: skip
def test_update_is_multiplied_as_the_formula_says(name, strength, factor):
    """Exact: the values are small multiples of powers of two."""
    assert sent_by(name, strength).tolist() == (G + factor * U).tolist()


def test_gaussian_forgets_what_was_trained():
    noise = sent_by("gaussian", 2.0) - G
    expected = np.random.default_rng(3).normal(0, 2.0, 3)
    np.testing.assert_allclose(noise, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ATTACKS)
def test_attackers_send_float32_of_the_same_shape(name):
    """Whatever they lie about, it must fit the plan to be counted; inputs stay as they were."""
    before = G.copy(), W.copy()
    sent = sent_by(name)
    assert sent.dtype == np.float32 and sent.shape == G.shape
    assert (before[0] == G).all() and (before[1] == W).all()


def test_only_label_flip_touches_labels():
    labels = np.array([0, 1, 9])
    for name in ATTACKS:
        flipped = load_attack(name).labels(labels, 10).tolist()
        assert flipped == ([9, 8, 0] if name == "label-flip" else [0, 1, 9])


def test_ipm_alone_pools_the_coalitions_data():
    assert [name for name in ATTACKS if Poison(attack=name, fraction=0.5).pools_data] == ["ipm"]


@given(st.integers(2, 200), st.floats(0.01, 0.99), st.integers(0, 2**62))
def test_attackers_are_as_many_as_the_fraction_says(clients, fraction, seed):
    """round(fraction · clients) distinct clients, the same for the same seed; never nobody, never all."""
    poison = Poison(attack="ipm", fraction=fraction)
    expected = round(fraction * clients)
    if not 1 <= expected < clients:
        with pytest.raises(ConfigError):
            poison.malicious(clients, seed)
        return
    chosen = poison.malicious(clients, seed)
    assert len(set(chosen)) == len(chosen) == expected
    assert list(chosen) == sorted(chosen) and chosen[0] >= 0 and chosen[-1] < clients
    assert poison.malicious(clients, seed) == chosen


def test_seeds_choose_different_attackers():
    poison = Poison(attack="ipm", fraction=0.3)
    assert len({poison.malicious(10, seed) for seed in range(20)}) > 5


def test_parts_of_the_text_arrive():
    assert parse_poison("gaussian:0.25:0.5") == Poison(attack="gaussian", fraction=0.25, strength=0.5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "sign-flip, ipm"),
        ("flip:0.3", "'flip'"),
        ("sign-flip", "fraction ''"),
        ("sign-flip:x", "fraction 'x'"),
        ("sign-flip:0", "between 0 and 1"),
        ("sign-flip:1", "between 0 and 1"),
        ("sign-flip:-0.1", "between 0 and 1"),
        ("sign-flip:nan", "fraction 'nan'"),
        ("sign-flip:0.3:", "strength ''"),
        ("sign-flip:0.3:-1", "at least 0"),
        ("sign-flip:0.3:inf", "strength 'inf'"),
        ("sign-flip:0.3:3:4", "strength '3:4'"),
        ("label-flip:0.3:2", "has no strength"),
    ],
)
def test_impossible_poison_is_refused_in_one_line(text, says):
    with pytest.raises(ConfigError, match=says) as caught:
        parse_poison(text)
    assert caught.value.code is Code.CONFIG_INVALID and "\n" not in caught.value.message
