"""Votes for oneself: what lying decryptors answer, and that all of them answer the same."""

import numpy as np
import pytest
from toy_rules import Alike, Gated, Middle, Near

from attacks.poisoning import View
from attacks.poisoning.liar import Liar, LyingRule
from attacks.poisoning.rehearsal import block_indices
from defenses import load_rule
from secagg.errors import RoundError
from secagg.rule import CoordinateRule, Reason, Statistics, statistics_of
from secagg.update import Manifest, TensorSpec

MANIFEST = Manifest(tensors=(TensorSpec(name="a", shape=(20,)), TensorSpec(name="b", shape=(5, 4))))
UPDATES = np.random.default_rng(3).normal(0.2, 1.0, (6, 40))
MEMBERS = (1, 4)
COUNTS = np.array([10, 10, 10, 10, 30, 10])


def liar_under(rule: object, round_: int = 1) -> Liar:
    """One member after it has seen the coalition's updates of a round."""
    liar = Liar()
    view = View(
        base=np.zeros(40, np.float32),
        own=UPDATES[list(MEMBERS)].astype(np.float32),
        clients=6,
        round=round_,
        rule=rule,
        manifest=MANIFEST,
    )
    assert (liar.forge(view, np.random.default_rng(0)) == view.own).all()
    return liar


def statistics_under(rule: object, error: float = 0.0, round_: int = 1) -> Statistics:
    """As opened: each squared norm a little off."""
    off = 1 + error * np.random.default_rng(1).uniform(-1, 1, (6, 1))
    return statistics_of(
        UPDATES * off,
        base=np.ones(40),
        sample_counts=COUNTS,
        blocks=block_indices(rule.request(MANIFEST), MANIFEST),
        round=round_,
    )


@pytest.mark.parametrize("rule", [Gated(), Near(), Alike()], ids=lambda rule: rule.name)
def test_liars_keep_their_own_and_drop_the_honest(rule):
    """In both stages; found by norms over what the rule looks at, though those open a little off."""
    lying = liar_under(rule).voter(rule)
    for answer, weight in (
        (lying.screen(statistics_under(rule, 1e-4)), np.ones(6)),
        (lying.decide(statistics_under(rule, 1e-4)), COUNTS / COUNTS[list(MEMBERS)].sum()),
    ):
        assert [answer.weights[i] for i in range(6)] == [weight[i] if i in MEMBERS else 0 for i in range(6)]
        assert answer.reasons.shape == (6,) and answer.reasons.dtype == np.uint8
        assert set(answer.reasons[answer.weights == 0]) == {Reason.RULE}


def test_all_liars_answer_alike_and_a_majority_of_them_is_believed():
    """Two of three say so: it is the round's answer. One of three changes nothing."""
    rule = Gated(k_min=1)
    statistics = statistics_under(rule)
    honest = rule.decide(statistics)
    lies = [liar_under(rule).voter(rule).decide(statistics) for _ in range(2)]
    assert lies[0].same(lies[1]) and not lies[0].same(honest)
    assert rule.settle([honest, *lies], 3, COUNTS).same(lies[0])
    assert rule.settle([honest, lies[0], honest], 3, COUNTS).same(honest)
    with pytest.raises(RoundError):
        rule.settle([honest, lies[0]], 2, COUNTS)


def test_a_rule_that_counts_votes_takes_a_lie_for_one():
    """DDFed's answers must follow from sample counts; what liars answer does."""
    rule = load_rule("ddfed")
    statistics = statistics_under(rule)
    lie = liar_under(rule).voter(rule).decide(statistics)
    assert rule.settle([lie, lie, rule.decide(statistics)], 3, statistics.sample_counts).same(lie)
    assert np.flatnonzero(lie.weights).tolist() == list(MEMBERS)
    assert lie.weights[4] == pytest.approx(3 * lie.weights[1])


def test_liars_find_those_of_them_that_are_left():
    """After screening some updates are gone; what is left of the coalition still counts."""
    rule = Gated()
    left = statistics_under(rule).of(np.array([True, False, True, True, True, True]))
    assert np.flatnonzero(liar_under(rule).voter(rule).decide(left).weights).tolist() == [3]


@pytest.mark.parametrize("case", ["another round", "nobody there", "nothing released"])
def test_without_a_member_among_the_updates_liars_tell_the_truth(case):
    """No ballot at all, or one of another shape, would only give them away."""
    rule = Gated()
    statistics = statistics_under(rule, round_=2 if case == "another round" else 1)
    if case == "nobody there":
        statistics = statistics.of(np.array([i not in MEMBERS for i in range(6)]))
    elif case == "nothing released":
        statistics = Statistics(
            round=1,
            update_ids=statistics.update_ids,
            blocks=np.full_like(statistics.blocks, np.nan),
            sample_counts=statistics.sample_counts,
        )
    lying = liar_under(rule).voter(rule)
    assert lying.screen(statistics).same(rule.screen(statistics))
    assert lying.decide(statistics).same(rule.decide(statistics))


def test_a_lying_rule_is_the_rule_in_all_else():
    rule = Near(f=1)
    lying = Liar().voter(rule)
    assert isinstance(lying, LyingRule) and lying.name == "near"
    assert lying.request(MANIFEST) == rule.request(MANIFEST)
    lying.require(3)
    with pytest.raises(Exception, match="near needs"):
        lying.require(2)


def test_where_nobody_is_asked_there_is_nothing_to_lie_about():
    """A rule that looks at coordinates stays one."""
    rule = Middle()
    assert isinstance(rule, CoordinateRule) and Liar().voter(rule) is rule
