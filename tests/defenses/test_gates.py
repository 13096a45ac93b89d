"""What no vector, or no vector among the others, can have said of it: whom it costs, and when the round."""

from dataclasses import replace

import numpy as np
import pytest
from rule_cases import honest

from defenses import gates, load_rule
from defenses.gram_rule import judge
from defenses.mixing import mixed
from secagg.errors import Code, ConfigError
from secagg.rule import Answer, Reason, Statistics, statistics_of


def names(answer: Answer) -> list[str]:
    return [Reason(int(reason)).name for reason in answer.reasons]


def some(n: int = 9, **known) -> Statistics:
    return statistics_of(honest(n, np.random.default_rng(0)), **known)


def pair(statistics: Statistics, i: int, j: int, value: float) -> None:
    statistics.blocks[0, i, j] = statistics.blocks[0, j, i] = value


def impossible(answer: Answer) -> list[int]:
    return np.flatnonzero(answer.reasons == Reason.IMPOSSIBLE).tolist()


# Squared norms.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e-3, -1e9])
def test_a_squared_norm_that_no_vector_has_costs_its_own_update_only(bad):
    """One client whose square wraps around must not end everybody's round."""
    statistics = some()
    pair(statistics, 3, 3, bad)
    for text in ("multi-krum", "arc", "ddfed-hardened"):
        answer = judge(load_rule(text), statistics)
        assert impossible(answer) == [3] and answer.weights.any()
        assert impossible(load_rule(text).decide(statistics)) == [3]
    assert impossible(load_rule("multi-krum").screen(statistics)) == [3]


@pytest.mark.parametrize("bad", [np.nan, -1.0])
def test_half_of_them_end_the_round(bad):
    """Then nobody can say which of the numbers are wrong."""
    statistics = some(8)
    for i in range(3):
        pair(statistics, i, i, bad)
    rule = load_rule("multi-krum")
    assert impossible(rule.screen(statistics)) == [0, 1, 2] == impossible(rule.decide(statistics))
    pair(statistics, 3, 3, bad)
    for answer in (rule.screen(statistics), rule.decide(statistics), load_rule("arc").decide(statistics)):
        assert not answer.weights.any() and set(names(answer)) == {"IMPOSSIBLE"}


def test_blocks_count_and_so_does_their_sum():
    statistics = some(blocks=(slice(0, 12), slice(12, 24)))
    statistics.blocks[1, 2, 2] = -1e-3
    statistics.blocks[:, 5, 5] = -0.8e-9
    assert impossible(gates.screen(statistics, 5.0)) == [2, 5]


def test_medians_are_those_of_possible_norms():
    """Impossible ones do not count as zeros, which would pull the median down."""
    updates = np.diag([1.0, 1.0, 1.0, 20.0, 20.0, 20.0, 20.0])
    statistics = statistics_of(updates)
    assert names(gates.screen(statistics, 25.0)).count("KEPT") == 7
    for i in range(3):
        pair(statistics, i, i, -1.0)
    assert names(gates.screen(statistics, 1.5)) == ["IMPOSSIBLE"] * 3 + ["KEPT"] * 4


def test_a_root_update_that_is_impossible_ends_the_round():
    statistics = some(root=8)
    pair(statistics, 8, 8, -1.0)
    assert set(names(load_rule("fltrust").decide(statistics))) == {"IMPOSSIBLE"}


def test_a_history_of_negative_square_costs_its_own_update_only():
    updates = np.random.default_rng(0).normal(size=(6, 30))
    statistics = statistics_of(updates, history=updates)
    statistics.history[2, 2] = -1e-3
    assert impossible(load_rule("foolsgold").decide(statistics)) == [2]
    blurred = replace(statistics, resolution=1e-2)
    assert not impossible(load_rule("foolsgold").decide(blurred))


# Products.


@pytest.mark.parametrize("value", [1e6, -1e6, 1e30])
def test_who_violates_cauchy_schwarz_with_many_is_the_liar(value):
    """The honest ones it was multiplied with stay."""
    for others in ([0, 1], [0, 1, 2, 3, 5, 6, 7, 8]):
        statistics = some()
        for i in others:
            pair(statistics, 4, i, value)
        answer = judge(load_rule("multi-krum"), statistics)
        assert impossible(answer) == [4] and "DUPLICATE" not in names(answer)


def test_liars_that_violate_it_with_all_honest_ones_all_go():
    """A minority, whether they agree among themselves or not."""
    for agree in (True, False):
        statistics = some()
        for liar in range(4):
            for i in range(4 if agree else liar + 1, 9):
                pair(statistics, liar, i, 1e5)
        assert impossible(judge(load_rule("multi-krum"), statistics)) == [0, 1, 2, 3]


def test_two_that_violate_it_with_each_other_only_both_go():
    statistics = some()
    pair(statistics, 2, 6, -100.0)
    assert impossible(judge(load_rule("multi-krum"), statistics)) == [2, 6]


def test_it_holds_in_every_block():
    """In sum, two blocks' lies may cancel."""
    statistics = some(blocks=(slice(0, 12), slice(12, 24)))
    for other in (1, 2):
        for block, lie in ((0, 50.0), (1, -50.0)):
            statistics.blocks[block, 0, other] += lie
            statistics.blocks[block, other, 0] += lie
    assert impossible(load_rule("multi-krum").decide(statistics)) == [0]


def test_equal_updates_and_noise_within_the_resolution_violate_nothing():
    updates = np.repeat(honest(1, np.random.default_rng(0)), 5, axis=0) * np.array(
        [[1], [1], [3], [0], [1e-4]]
    )
    statistics = statistics_of(updates)
    assert not gates.consistent(statistics).any()
    pair(statistics, 0, 1, statistics.gram[0, 1] + 1e-3)
    assert gates.consistent(statistics).any()
    assert not gates.consistent(replace(statistics, resolution=1e-3)).any()


def test_what_contradicts_the_root_update_goes_and_the_root_stays():
    """Even if all but it do: the root is trusted."""
    statistics = some(root=8)
    for i in (1, 2, 3):
        pair(statistics, 8, i, 1e4)
    answer = load_rule("fltrust").decide(statistics)
    assert impossible(answer) == [1, 2, 3] and answer.weights.any()


def test_products_scaled_up_from_a_sample_may_be_as_much_larger():
    """Norms are those of everything: with the root's product, a quarter may look four times as long."""
    statistics = some(root=8)
    pair(statistics, 8, 1, 3 * float(np.sqrt(statistics.gram[1, 1] * statistics.gram[8, 8])))
    assert impossible(load_rule("fltrust").decide(statistics)) == [1]
    assert not impossible(load_rule("fltrust:sample=0.25").decide(statistics))


@pytest.mark.parametrize("place", [0, 1])
def test_products_with_earlier_models_are_no_larger_than_norms_allow(place):
    generator = np.random.default_rng(1)
    statistics = some(base=generator.normal(size=24), before=generator.normal(size=24))
    assert gates.screen(statistics, 5.0).weights.all()
    statistics.blocks[0, 3, 9 + place] = -40.0
    statistics.blocks[0, 5, 9 + place] = np.nan
    assert impossible(gates.screen(statistics, 5.0)) == [3, 5]


def test_noise_of_a_product_with_a_model_is_allowed_for():
    """An update of zeros has products of √r·‖g‖ with a long model."""
    base = np.full(24, 100.0)
    updates = honest(9, np.random.default_rng(0))
    updates[2] = 0
    statistics = replace(statistics_of(updates, base=base), resolution=1e-6)
    statistics.blocks[0, 2, 9] = 1e-3 * np.linalg.norm(base)
    assert not impossible(gates.screen(statistics, 5.0))
    statistics.blocks[0, 2, 9] = 1e-2 * np.linalg.norm(base)
    assert impossible(gates.screen(statistics, 5.0)) == [2]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_product_beyond_the_norms_makes_no_repetition(sign):
    """What is left beside the direction is far below 0 then: honest updates are not struck by it."""
    statistics = some()
    for i in range(1, 9):
        pair(statistics, 0, i, sign * 1e3)
    assert not gates.duplicates(statistics).any()


def test_a_scaled_copy_is_found_under_noise_on_either_side():
    """The noise of what was copied is scaled up with it."""
    updates = honest(9, np.random.default_rng(0))
    updates[6] = 4 * updates[1]
    for noise in (1e-4, -1e-4):
        statistics = replace(statistics_of(updates), resolution=2e-4)
        pair(statistics, 1, 1, statistics.gram[1, 1] + noise)
        assert np.flatnonzero(gates.duplicates(statistics)).tolist() == [6]


# Blocks.


def test_a_block_that_most_leave_alone_does_not_strike_those_that_train_it():
    """Frozen layers, rows of rare words: only the whole norm bounds them, noise or none."""
    updates = honest(9, np.random.default_rng(0))
    updates[:, :4] = 0
    updates[2, :4] = 1.0
    for resolution in (0.0, 1e-6):
        known = statistics_of(updates, blocks=(slice(0, 4), slice(4, 24)))
        statistics = replace(known, resolution=resolution)
        assert gates.screen(statistics, 5.0).weights.all()
        statistics.blocks[0, 2, 2] = 1e3
        assert names(gates.screen(statistics, 5.0))[2] == "NORM"


def test_a_block_of_small_median_is_bound_by_a_share_of_the_whole():
    """A hundredth of the median norm, times the bound: more than that is no small layer's change."""
    updates = np.hstack([np.full((9, 1), 1e-4), np.eye(9)])
    for change, expected in ((0.04, "KEPT"), (0.06, "NORM")):
        updates[3, 0] = change
        found = gates.screen(statistics_of(updates, blocks=(slice(0, 1), slice(1, 10))), 5.0)
        assert names(found)[3] == expected and names(found).count("KEPT") >= 8


# The root among those that a round goes on with.


@pytest.mark.parametrize(("text", "least"), [("fltrust:f=1", 4), ("monna:f=1", 4), ("monna:f=1,pivot=0", 3)])
def test_what_require_allows_can_be_decided(text, least):
    """A root update is one of them, and is not summed."""
    rule = load_rule(text)
    rule.require(least)
    statistics = some(least, root=least - 1 if rule.root else None)
    assert judge(rule, statistics).weights.any()
    with pytest.raises(ConfigError, match="the root's among them" if rule.root else "updates;") as caught:
        rule.require(least - 1)
    assert caught.value.code is Code.RULE_UNSUPPORTED


def test_mixed_updates_have_norms_of_their_own():
    """Not those that were measured of the updates that they are made of."""
    measured = statistics_of(np.eye(2))
    measured = replace(measured, norms=np.diagonal(measured.gram))
    assert np.allclose(mixed(measured, np.full((2, 2), 0.5)).squared_norms, 0.5)
