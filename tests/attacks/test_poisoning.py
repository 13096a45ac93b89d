"""The poisoning attacks: formulas, who mounts them, and what configurations may ask for."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from attacks import poisoning
from attacks.poisoning import ATTACKS, Poison, View, load_attack, parse_poison
from attacks.poisoning.alie import supported_deviation
from attacks.poisoning.directions import against_mean, against_sign, against_std
from attacks.poisoning.min_max import MinMax
from attacks.poisoning.min_sum import MinSum
from attacks.poisoning.probe import coordinates
from secagg.errors import Code, ConfigError
from secagg.update import Manifest, TensorSpec

G = np.array([1.0, -2.0, 0.5], dtype=np.float32)
OWN = np.array([[0.5, 0.0, -0.5], [1.5, 2.0, 0.5]], dtype=np.float32)
MEAN = OWN.mean(axis=0)


def view_of(own: np.ndarray = OWN, others: np.ndarray | None = None, **known: object) -> View:
    base = np.resize(G, own.shape[1])
    return View(base=base, own=own, others=others, clients=10, **known)


def sent_by(name: str, strength: float | None = None, view: View | None = None) -> np.ndarray:
    return load_attack(name, strength).forge(view or view_of(), np.random.default_rng(3))


def honest_updates(count: int = 7, size: int = 40, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 1.0, (count, size))


@pytest.mark.parametrize(
    "name",
    ["attacks.poisoning", *(f"attacks.poisoning.{m.name}" for m in pkgutil.iter_modules(poisoning.__path__))],
)
def test_examples_in_docstrings_hold(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0
    without = ("directions", "attack", "rehearsal")
    assert found.attempted or name.endswith(without)


@pytest.mark.parametrize(
    ("name", "strength", "factor"),
    [("sign-flip", None, -3), ("sign-flip", 0.5, -0.5), ("ddfed-ipm", None, -5), ("scaling", None, 10),
     ("scaling", 4, 4), ("label-flip", None, 1), ("inflated-count", None, 1), ("liar", None, 1),
     ("backdoor", None, 5), ("backdoor", 2, 2)],
)  # fmt: skip
def test_own_updates_are_multiplied_as_the_formula_says(name, strength, factor):
    """Exact: the values are small multiples of powers of two. Two of ten replace the mean at a boost of 5."""
    assert sent_by(name, strength).tolist() == (factor * OWN).tolist()


@pytest.mark.parametrize(("strength", "factor"), [(None, -3), (2, -2)])
def test_ipm_turns_the_honest_mean_around(strength, factor):
    """The known honest updates' mean, the coalition's own where nobody else's are known."""
    others = np.float32([[1, 1, 1], [3, 1, -1], [2, 1, 0]])
    assert sent_by("ipm", strength).tolist() == [(factor * MEAN).tolist()] * 2
    assert sent_by("ipm", strength, view_of(others=others)).tolist() == [[2 * factor, factor, 0]] * 2


def test_models_are_multiplied_and_not_updates():
    """As the server adds g again: 8·w_i, −w_i, and w_i times the number of tensors."""
    models = G + OWN
    manifest = Manifest(tensors=(TensorSpec(name="w", shape=(2,)), TensorSpec(name="b", shape=(1,))))
    assert (G + sent_by("model-scaling")).tolist() == (8 * models).tolist()
    assert (G + sent_by("model-negation")).tolist() == (-models).tolist()
    assert (G + sent_by("ddfed-scaling", view=view_of(manifest=manifest))).tolist() == (2 * models).tolist()
    assert (G + sent_by("ddfed-scaling", 3)).tolist() == (3 * models).tolist()


def test_noise_attacks_draw_for_each_member():
    """Around nothing, and around the own update; what one generator gives, all members can repeat."""
    expected = np.random.default_rng(3).normal(0, 2.0, OWN.shape)
    np.testing.assert_allclose(sent_by("gaussian", 2.0), expected, rtol=1e-6)
    np.testing.assert_allclose(sent_by("ddfed-alie", 2.0), OWN + expected, rtol=1e-6)


def test_mpaf_pulls_to_the_model_the_federation_started_from():
    initial = np.float32([0, 1, 0.25])
    assert sent_by("mpaf", 4, view_of(initial=initial)).tolist() == [(4 * (initial - G)).tolist()] * 2
    assert not sent_by("mpaf", 4).any()


@pytest.mark.parametrize(
    ("clients", "malicious", "expected"),
    [(50, 24, 24 / 26), (10, 3, 4 / 7), (11, 3, 5 / 8), (100, 30, 49 / 70), (10, 6, 3 / 4), (2, 1, 1 / 2)],
)
def test_alie_deviates_as_far_as_enough_honest_clients_do(clients, malicious, expected):
    """Φ(z) = (n − f − s)/(n − f), s = ⌊n/2 + 1⌋ − f, at least one supporter, and never an infinite z."""
    from statistics import NormalDist

    assert NormalDist().cdf(supported_deviation(clients, malicious)) == pytest.approx(expected)


@given(st.integers(1, 60), st.integers(0, 60))
def test_alie_has_a_finite_deviation_for_every_coalition(malicious, honest):
    assert np.isfinite(supported_deviation(malicious + honest, malicious))


def test_alie_moves_each_coordinate_by_its_own_spread():
    others = honest_updates()
    view = view_of(np.zeros((3, 40), np.float32), others)
    expected = others.mean(axis=0) - supported_deviation(10, 3) * others.std(axis=0)
    np.testing.assert_allclose(sent_by("alie", view=view), np.tile(expected, (3, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sent_by("alie", 1.5, view)[0], others.mean(axis=0) - 1.5 * others.std(axis=0),
                               rtol=1e-5, atol=1e-6)  # fmt: skip


def spread(sent: np.ndarray, known: np.ndarray) -> tuple[float, float]:
    """Largest squared distance and sum of squared distances, in units of what honest updates have."""
    mine = np.square(sent - known).sum(axis=1)
    between = np.square(known[:, None] - known[None]).sum(axis=2)
    return mine.max() / between.max(), mine.sum() / between.sum(axis=1).max()


@pytest.mark.parametrize("direction", [against_mean, against_std, against_sign])
@pytest.mark.parametrize(("attack", "measure"), [(MinMax, 0), (MinSum, 1)])
def test_min_max_and_min_sum_go_to_the_edge_of_their_bound(attack, measure, direction):
    """The bound holds with equality, up to float32's rounding of what is sent; half way it holds."""
    known = honest_updates()
    view = view_of(np.zeros((3, 40), np.float32), known)
    sent = attack(direction=direction).forge(view, np.random.default_rng(0))
    assert (sent == sent[0]).all()
    assert spread(sent[0], known)[measure] == pytest.approx(1, abs=1e-5)
    nearer = attack(0.5, direction=direction).forge(view, np.random.default_rng(0))
    assert spread(nearer[0], known)[measure] < 1
    np.testing.assert_allclose(nearer - view.mean, (sent - view.mean) / 2, atol=1e-5)
    # Not the other way along p, where the same bound holds, too.
    assert (sent[0] - view.mean) @ direction(view) > 0


@settings(max_examples=50)
@given(arrays.arrays(np.float64, (4, 3), elements=st.floats(-100, 100, width=16)))
def test_the_bounds_hold_for_any_honest_updates(known):
    """Whatever the honest updates, equal ones included; the tolerance is float32's rounding."""
    view = view_of(np.zeros((2, 3), np.float32), known)
    for attack, measure in ((MinMax(), 0), (MinSum(), 1)):
        sent = attack.forge(view, np.random.default_rng(0))[0].astype(np.float64)
        mine = np.square(sent - known).sum(axis=1)
        between = np.square(known[:, None] - known[None]).sum(axis=2)
        bound = between.max() if measure == 0 else between.sum(axis=1).max()
        assert (mine.max() if measure == 0 else mine.sum()) <= bound * (1 + 1e-4) + 1e-2


@pytest.mark.parametrize("direction", [against_mean, against_std, against_sign])
@pytest.mark.parametrize("attack", [MinMax, MinSum])
def test_where_all_are_equal_there_is_nowhere_to_go(attack, direction):
    """No distance to hide in; rounding of the mean makes none of its own, in either direction."""
    known = np.tile(honest_updates(1), (7, 1))
    sent = attack(direction=direction).forge(view_of(OWN, known), np.random.default_rng(0))
    np.testing.assert_allclose(sent, known[:2], rtol=1e-5)


def test_mimic_copies_whom_the_widest_direction_shows():
    """Updates vary most along the second axis; the fourth client lies farthest out on it."""
    others = np.float32([[5, 1, 0], [5, -1, 0], [5, 2, 0.1], [5, -4, 0.1], [5, 2, 0]])
    assert sent_by("mimic", view=view_of(others=others)).tolist() == [others[3].tolist()] * 2
    noisy = sent_by("mimic", 0.01, view_of(others=others))
    assert (noisy[0] != noisy[1]).all()
    np.testing.assert_allclose(noisy, [others[3]] * 2, atol=0.5)


def test_a_probe_reads_a_coordinate_off_its_row_of_inner_products():
    """Each member another one, with an update as long as its honest one."""
    own, others = honest_updates(3).astype(np.float32), honest_updates(6, seed=8)
    probes = sent_by("probe", view=view_of(own))
    places = probes.argmax(axis=1)
    assert len(set(places)) == 3 and np.count_nonzero(probes) == 3
    np.testing.assert_allclose(np.linalg.norm(probes, axis=1), np.linalg.norm(own, axis=1), rtol=1e-6)
    for probe, place in zip(probes, places, strict=True):
        read = coordinates(others @ probe, float(probe[place]))
        np.testing.assert_allclose(read, others[:, place], rtol=1e-6)


def test_probes_read_different_coordinates_as_far_as_there_are_as_many():
    for members, size in ((30, 40), (3, 2)):
        places = sent_by("probe", view=view_of(np.ones((members, size), np.float32))).argmax(axis=1)
        assert len(set(places)) == members or members > size


def test_copies_are_multiples_of_the_first_update():
    assert sent_by("copy").tolist() == [OWN[0].tolist()] * 2
    assert sent_by("copy", 3).tolist() == [OWN[0].tolist(), (3 * OWN[0]).tolist()]


def test_only_inflated_count_lies_about_samples():
    for name in ATTACKS:
        assert load_attack(name).sample_count(7) == (70 if name == "inflated-count" else 7)
    assert load_attack("inflated-count", 0).sample_count(7) == 1


VALUES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=5).flatmap(
    lambda shape: arrays.arrays(np.float32, shape, elements=st.floats(-4, 4, width=16))
)


@pytest.mark.parametrize("name", ATTACKS)
@settings(max_examples=25, deadline=None)
@given(own=VALUES, omniscient=st.booleans())
def test_every_attack_sends_finite_float32_of_the_right_shape(name, own, omniscient):
    """Whatever they lie about, it must fit the plan: equal updates, zeros, one member, one value."""
    others = np.random.default_rng(1).normal(size=(8, own.shape[1])) if omniscient else None
    before = own.copy()
    sent = sent_by(name, view=view_of(own, others))
    assert sent.dtype == np.float32 and sent.shape == own.shape and np.isfinite(sent).all()
    assert (before == own).all() and not np.shares_memory(sent, own)


@pytest.mark.parametrize("name", ATTACKS)
def test_all_members_forge_the_same_with_equal_generators(name):
    """That is how they need no words: each computes all rows and sends its own."""
    assert (sent_by(name) == sent_by(name)).all()


def test_only_label_flip_touches_labels_and_only_backdoor_samples():
    values, labels = np.zeros((3, 4), np.float32), np.array([0, 1, 9])
    for name in ATTACKS:
        stamped, flipped = load_attack(name).falsify(values, labels, 10, np.random.default_rng(0))
        assert flipped.tolist() == labels.tolist() or name in ("label-flip", "backdoor")
        assert (stamped == values).all() or name == "backdoor"
    assert load_attack("label-flip").falsify(values, labels, 10, np.random.default_rng(0))[1].tolist() == [
        9,
        8,
        0,
    ]


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
    assert parse_poison("ipm:0.3@5") == Poison(attack="ipm", fraction=0.3, start_round=5)
    assert parse_poison("ipm:0.3:2@15") == Poison(attack="ipm", fraction=0.3, strength=2, start_round=15)


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
        ("liar:0.3:2", "has no strength"),
        ("ipm:0.3@", "round ''"),
        ("ipm:0.3@0", "round '0' must be 1, 2, 3"),
        ("ipm:0.3@-1", "round '-1'"),
        ("ipm:0.3@1.5", "round '1.5'"),
        ("ipm:0.3@2@3", "round '2@3'"),
        ("ipm@5:0.3", "fraction ''"),
    ],
)
def test_impossible_poison_is_refused_in_one_line(text, says):
    with pytest.raises(ConfigError, match=says) as caught:
        parse_poison(text)
    assert caught.value.code is Code.CONFIG_INVALID and "\n" not in caught.value.message
