"""What holds for every rule from one Gram matrix: invariances, breakdown, and degenerate cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_cases import CASES, RuleCase, honest, statistics_for, weights_of

from defenses import load_rule
from defenses.gram_rule import judge
from secagg.errors import Code, ConfigError
from secagg.rule import Reason

seeds = st.integers(0, 2**32 - 1)
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.text)
FAR = 1e4
NEAR = 8.0
"""Honest updates lie within 1 of their centre: a robust result is as far as so many times that at most."""


def scene(case: RuleCase, f: int, seed: int, extra: int = 2):
    """Honest updates that are enough for the rule with f attackers besides, and g, and the root's update."""
    generator = np.random.default_rng(seed)
    rule = case.rule()
    n = rule.least(f) + extra
    updates = honest(n + 1, generator)
    return rule, generator, updates[:n], generator.normal(size=updates.shape[1]), updates[n]


@every
@settings(max_examples=15)
@given(f=st.integers(0, 3), seed=seeds)
def test_the_order_of_updates_does_not_matter(case, f, seed):
    """a(π(u)) = π(a(u)); sample counts and histories move along."""
    rule, generator, updates, base, root = scene(case, f, seed)
    counts, order = generator.integers(1, 200, len(updates)), generator.permutation(len(updates))
    found = weights_of(rule, statistics_for(rule, updates, base, root, counts.tolist()), f)
    moved = weights_of(rule, statistics_for(rule, updates[order], base, root, counts[order].tolist()), f)
    assert np.allclose(moved, found[order], atol=1e-6)


@every
@settings(max_examples=15)
@given(f=st.integers(0, 3), seed=seeds)
def test_coefficients_are_shares(case, f, seed):
    """None is negative or NaN, and they do not sum to more than 1 (FLTrust rescales to the root's norm)."""
    rule, _, updates, base, root = scene(case, f, seed)
    found = weights_of(rule, statistics_for(rule, updates, base, root), f)
    assert np.isfinite(found).all() and (found >= 0).all()
    assert found.sum() <= (2.0 if case.text == "fltrust" else 1.0 + 1e-9)


@every
@settings(max_examples=15)
@given(f=st.integers(0, 3), seed=seeds)
def test_turning_all_vectors_changes_nothing(case, f, seed):
    """What follows from inner products is the same for Q·u_i, Q orthogonal."""
    rule, generator, updates, base, root = scene(case, f, seed)
    turn = np.linalg.qr(generator.normal(size=(updates.shape[1],) * 2))[0]
    found = weights_of(rule, statistics_for(rule, updates, base, root), f)
    turned = weights_of(rule, statistics_for(rule, updates @ turn, base @ turn, root @ turn), f)
    assert np.allclose(turned, found, atol=1e-6)


@every
def test_a_shift_of_all_updates_does_what_the_rule_says(case):
    """Rules of distances do not see it; rules of norms or angles do, for some shift."""
    changed = []
    for seed in range(8):
        rule, generator, updates, base, root = scene(case, 1, seed)
        shift = 4 * generator.normal(size=updates.shape[1])
        found = weights_of(rule, statistics_for(rule, updates, base, root), 1)
        moved = weights_of(rule, statistics_for(rule, updates + shift, base, root + shift), 1)
        changed.append(float(np.abs(moved - found).max()))
    assert max(changed) < 1e-6 if case.shifts else max(changed) > 1e-3


def attacks(generator, f: int, d: int):
    """f far updates: side by side, in all directions, opposite to the honest ones, and of mixed distances."""
    aim = generator.normal(size=d)
    yield FAR * (aim + 1e-3 * generator.normal(size=(f, d)))
    yield FAR * generator.normal(size=(f, d))
    yield -FAR * (1 + generator.uniform(size=(f, 1))) * honest(f, generator, d)
    yield FAR ** generator.uniform(0.3, 1, (f, 1)) * generator.normal(size=(f, d))


@every
@pytest.mark.parametrize("f", [1, 2, 3])
def test_f_attackers_do_not_carry_the_result_away(case, f):
    """Without the norm gate, whatever their distance: the result stays near the honest updates.

    Rules that drop give attackers no weight at all: their result is a mean of honest updates.
    """
    if not case.robust:
        pytest.skip("promises nothing by itself")
    for seed in range(5):
        rule, generator, updates, base, root = scene(case, f, seed)
        size, centre = len(updates), updates[f:].mean(axis=0)
        for forged in attacks(generator, f, updates.shape[1]):
            sent = np.vstack([forged, updates[f:]])
            found = weights_of(rule, statistics_for(rule, sent, base, root), f)
            assert np.linalg.norm(found @ sent - centre) < NEAR
            if case.drops:
                assert not found[:f].any() and found.sum() > 0
            assert len(found) == size


@every
def test_a_majority_carries_the_result_away_or_is_refused(case):
    """Nothing from one Gram matrix tells who the majority is; only a root update does."""
    rule, generator, updates, base, root = scene(case, 1, 3, extra=4)
    if rule.root or rule.name in ("norm-clipping", "foolsgold"):
        pytest.skip("the root decides; a clipped mean goes as far as its bound; one sybil counts little")
    most = len(updates) - len(updates) // 4
    sent = updates.copy()
    sent[:most] = FAR * (
        generator.normal(size=updates.shape[1]) + 1e-3 * generator.normal(size=sent[:most].shape)
    )
    found = weights_of(rule, statistics_for(rule, sent, base, root), 1)
    assert np.linalg.norm(found @ sent) > 100


@every
@pytest.mark.parametrize("f", [0, 1, 2, 3])
def test_one_attacker_more_than_the_inequality_allows_is_refused(case, f):
    """n = least(f) is enough for f and not for f + 1: when it is configured, and in a round that shrank.

    A root update comes on top, and is one of those that a round goes on with.
    """
    separator = "," if ":" in case.text else ":"
    n = case.rule().least(f)
    all_in = n + case.rule().root
    load_rule(f"{case.text}{separator}f={f}").require(all_in)
    more = load_rule(f"{case.text}{separator}f={f + 1}")
    if more.least(f + 1) == n:
        pytest.skip("k_min asks for more than f does")
    with pytest.raises(
        ConfigError, match=rf"needs .* at least {more.least(f + 1) + more.root} updates.*; .* n = {all_in}$"
    ) as caught:
        more.require(all_in)
    assert caught.value.code is Code.RULE_UNSUPPORTED
    generator = np.random.default_rng(f)
    updates = honest(n + 1, generator)
    statistics = statistics_for(more, updates[:n], updates[0] * 0, updates[n])
    assert set(judge(more, statistics).reasons) - {Reason.ROOT} == {Reason.TOO_FEW}


@every
@pytest.mark.parametrize("f", [0, 1, 2])
def test_equal_updates_give_themselves(case, f):
    """Every distance is 0 then, and every cosine 1."""
    rule, _, updates, base, _ = scene(case, f, 1)
    same = np.repeat(updates[:1], len(updates), axis=0)
    found = weights_of(rule, statistics_for(rule, same, base, same[0]), f)
    if rule.name == "foolsgold":
        assert not found.any()  # all are one sybil
    else:
        assert np.allclose(found @ same, same[0], atol=1e-6)


@every
def test_updates_that_are_all_zero_are_no_error(case):
    """A federation that has nothing to learn any more."""
    rule, _, updates, base, root = scene(case, 1, 1)
    found = weights_of(rule, statistics_for(rule, 0 * updates, base, 0 * root), 1)
    assert np.isfinite(found).all() and (found >= 0).all()


@every
@pytest.mark.parametrize("f", [0, 1, 2, 3])
def test_the_fewest_updates_are_enough(case, f):
    """n = least(f): an answer, with at least k_min effective updates."""
    rule, _, updates, base, root = scene(case, f, 5, extra=0)
    found = weights_of(rule, statistics_for(rule, updates, base, root), f)
    assert found.any() and np.isfinite(found).all()


@every
@pytest.mark.parametrize("seed", range(3))
def test_a_round_without_attack_is_decided(case, seed):
    """Gates and k_min leave a normal round alone; the weights are multiples of 2⁻²⁰."""
    if case.text == "foolsgold":
        pytest.skip("honest updates this alike are sybils to it")
    rule, _, updates, base, root = scene(case, 2, seed)
    statistics = statistics_for(rule, updates, base, root)
    answer = judge(rule, statistics)
    told = np.arange(statistics.size) != statistics.root
    assert answer.weights.any() and not answer.weights[~told].any()
    assert set(answer.reasons[told]) <= {Reason.KEPT, Reason.RULE, Reason.UNLIKE}
    assert (answer.weights * 2**20 == np.round(answer.weights * 2**20)).all()
