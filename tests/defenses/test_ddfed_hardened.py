"""The hardened DDFed on real updates: whom it keeps, whom it finds, and what its parts do."""

import numpy as np
import pytest
from rule_cases import honest
from trained import CLIENTS, TrainedRound, trained

from defenses import load_rule
from defenses.gram_rule import judge
from secagg.errors import Code, ConfigError
from secagg.rule import Answer, Reason, statistics_of
from secagg.update import Manifest, TensorSpec

KINDS = ("iid", "sizes", "dirichlet:0.25")
RULE = load_rule("ddfed-hardened")


def judged(round_: TrainedRound, updates) -> Answer:
    return judge(RULE, round_.statistics(updates, RULE.request(round_.manifest).blocks))


@pytest.mark.parametrize("kind", KINDS)
def test_without_attack_nine_of_ten_honest_clients_are_kept(kind):
    """Also under label skew, and where sample counts differ tenfold."""
    kept = [judged(round_, round_.updates).weights > 0 for round_ in trained(kind)]
    assert np.mean(kept) >= 0.9
    assert all(np.mean(once) >= 0.7 for once in kept)


def forged(attack: str, base, own):
    """The update that arrives if the attacker with this honest update sends what the attack says."""
    return {
        "model times 8": 8 * (base + own) - base,
        "model negated": -(base + own) - base,
        "update times 10": 10 * own,
        "update flipped": -own,
        "update flipped and boosted": -3 * own,
        "noise": np.random.default_rng(abs(int(own[0] * 1e9))).normal(size=own.shape),
    }[attack]


@pytest.mark.parametrize("malicious", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "attack",
    [
        "model times 8",
        "model negated",
        "update times 10",
        "update flipped",
        "update flipped and boosted",
        "noise",
    ],
)
def test_crude_attackers_are_all_found(attack, kind, malicious):
    """Recall 1.0 in every round, whoever the attackers are; and few honest clients are lost."""
    lost = []
    for number, round_ in enumerate(trained(kind)):
        members = np.random.default_rng([number, malicious]).choice(CLIENTS, malicious, replace=False)
        updates = round_.updates.copy()
        for member in members:
            updates[member] = forged(attack, round_.base, round_.updates[member])
        weights = judged(round_, updates).weights
        assert not weights[members].any(), f"round {number}"
        lost.append(np.mean(np.delete(weights, members) == 0))
    assert np.mean(lost) <= 0.2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_a_coalition_that_says_the_same_has_one_voice(kind, strength):
    """IPM: three send −τ times the honest mean, each with a little noise to be no repetition of another."""
    for number, round_ in enumerate(trained(kind)):
        generator = np.random.default_rng(number)
        updates, aim = round_.updates.copy(), -strength * round_.updates[3:].mean(axis=0)
        noise = generator.normal(size=(3, len(aim)))
        updates[:3] = aim + 0.02 * np.linalg.norm(aim) * noise / np.sqrt(len(aim))
        answer = judged(round_, updates)
        assert not answer.weights[:3].any() and np.mean(answer.weights[3:] > 0) >= 0.7
        assert Reason.DUPLICATE not in answer.reasons


def test_three_that_shout_alike_do_not_drown_seven_that_agree_a_little():
    """Honest updates share a third of their direction, and there are no hints; −c is in three the same."""
    generator = np.random.default_rng(0)
    common = np.eye(60)[0]
    noise = generator.normal(size=(10, 60))
    noise[:, 0] = 0
    updates = 0.35 * common + 0.94 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    updates[:3] = -common + 0.02 * noise[:3]
    answer = judge(RULE, statistics_of(updates))
    assert answer.reasons.tolist() == [Reason.UNLIKE] * 3 + [Reason.KEPT] * 7


def test_the_last_layer_turned_around_is_found_where_labels_are_alike():
    """The rest of the update is honest and longer."""
    for round_ in trained("iid"):
        updates = round_.updates.copy()
        updates[4, round_.manifest.slice_of("output.weight")] *= -1
        updates[4, round_.manifest.slice_of("output.bias")] *= -1
        assert judged(round_, updates).reasons[4] == Reason.UNLIKE


def test_who_points_along_the_public_models_gains_no_more_than_the_median():
    """Against everybody, but along g: hints count up to what they are worth for most, and outweigh little."""
    for round_ in trained("iid"):
        updates = round_.updates.copy()
        middle = np.median(np.linalg.norm(updates, axis=1))
        away = -updates[1:].mean(axis=0)
        away /= np.linalg.norm(away)
        across = round_.base - (round_.base @ away) * away
        along = away + 1.5 * across / np.linalg.norm(across)
        updates[0] = middle * along / np.linalg.norm(along)
        assert judged(round_, updates).reasons[0] == Reason.UNLIKE


def test_hints_do_not_make_up_for_pointing_against_the_others():
    """As far along g and the last step as most, which would outweigh the turned rest of the update."""
    generator = np.random.default_rng(0)
    base, noise = np.eye(60)[1], generator.normal(size=(10, 60))
    noise[:, :2] = 0
    updates = 0.3 * np.eye(60)[0] + 0.4 * base + 0.87 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    rest = updates[1:].mean(axis=0)
    rest[1] = 0
    updates[0] = 0.45 * base - 0.89 * rest / np.linalg.norm(rest)
    statistics = statistics_of(updates, base=base, before=0.9 * base)
    assert -0.45 < updates[0] @ updates[1:].sum(axis=0) / np.linalg.norm(updates[1:].sum(axis=0)) < -0.25
    assert judge(RULE, statistics).reasons.tolist() == [Reason.UNLIKE] + [Reason.KEPT] * 9


def test_weights_are_capped_counts_of_clipped_updates():
    """p_i ∝ min(n_i, 2·median), times min(1, median ‖u‖/‖u_i‖)."""
    updates = honest(5, np.random.default_rng(0))
    updates[4] *= 2
    counts = np.array([10, 10, 10, 10, 1_000_000])
    norms = np.linalg.norm(updates, axis=1)
    found = RULE.judged(statistics_of(updates, sample_counts=counts.tolist()), 1)
    shares = np.array([10, 10, 10, 10, 20]) / 60
    assert np.allclose(found.weights, shares * np.minimum(1, np.median(norms) / norms))


def test_a_large_client_may_be_longer_and_a_small_one_may_not():
    """‖u_i‖ is compared with √n_i: the same length is right for one and ten times too much for another."""
    updates = honest(9, np.random.default_rng(0))
    updates[0] *= 3.5
    counts = [100] * 9
    for large, reason in ((1000, Reason.KEPT), (100, Reason.NORM), (10, Reason.NORM)):
        counts[0] = large
        found = judge(RULE, statistics_of(updates, sample_counts=counts))
        assert found.reasons[0] == reason
    # Claimed samples explain three times the median only.
    updates[0] *= 4.9 / 3.5
    counts[0] = 10**9
    assert judge(RULE, statistics_of(updates, sample_counts=counts)).reasons[0] == Reason.NORM


def test_counts_of_zero_are_no_error():
    updates = honest(5, np.random.default_rng(0))
    answer = judge(RULE, statistics_of(updates, sample_counts=[0] * 5))
    assert (answer.weights > 0).all() and answer.weights.sum() <= 1 + 1e-5


def test_in_the_first_round_there_is_no_last_step():
    """g' is g then: nothing to compare with, and no division by zero."""
    updates, base = honest(6, np.random.default_rng(0)), np.random.default_rng(1).normal(size=24)
    answer = judge(RULE, statistics_of(updates, base=base, before=base))
    assert (answer.weights > 0).all()


@pytest.mark.parametrize(
    ("shapes", "blocks"),
    [
        ({"w": (3, 4)}, ()),
        ({"a.weight": (3, 4), "a.bias": (3,)}, ()),
        ({"a.weight": (3, 4), "b.bias": (3,)}, (("b.bias",), ("a.weight",))),
        ({"v": (3,), "w": (4,)}, (("v",), ("w",))),
    ],
)
def test_the_last_layer_is_that_of_the_last_matrix(shapes, blocks):
    """With its bias; a model of one layer is one block, one without matrices ends with its last tensor."""
    manifest = Manifest(tensors=tuple(TensorSpec(name=name, shape=s) for name, s in shapes.items()))
    assert RULE.request(manifest).blocks == blocks


def test_more_attackers_than_the_inequality_allows_are_refused():
    load_rule("ddfed-hardened:f=4").require(9)
    with pytest.raises(ConfigError, match=r"n ≥ 2f \+ 1") as caught:
        load_rule("ddfed-hardened:f=4").require(8)
    assert caught.value.code is Code.RULE_UNSUPPORTED
