"""The attacker that knows the rule: what it sends is accepted, and hurts more than what ignores the rule."""

import numpy as np
import pytest
from toy_rules import Alike, Average, Closed, Gated, Middle, Near, Rooted, Sybils

from attacks.poisoning import View, load_attack
from attacks.poisoning.adaptive import DIRECTIONS, STEPS, stand_ins
from attacks.poisoning.rehearsal import REFUSED, Candidate, Rehearsal, block_indices
from defenses import RULES, load_rule
from defenses.gram_rule import judge
from secagg.rule import CoordinateRule, Reason, statistics_of
from secagg.update import Manifest, TensorSpec

HONEST, MEMBERS, SIZE = 7, 3, 300
MANIFEST = Manifest(
    tensors=(TensorSpec(name="a.weight", shape=(20, 10)), TensorSpec(name="b", shape=(50, 2)))
)
GATED = (Gated(), Near(f=3), Alike(), Rooted(), Sybils())


def view_under(rule: object, *, omniscient: bool = True, seed: int = 2) -> View:
    """Honest updates at some 50° to each other, and a model that they prolong."""
    generator = np.random.default_rng(seed)
    common = generator.normal(0, 1, SIZE)
    updates = (common + generator.normal(0, 0.9, (HONEST + MEMBERS, SIZE))).astype(np.float32)
    return View(
        base=(common + generator.normal(0, 1, SIZE)).astype(np.float32),
        own=updates[HONEST:],
        others=updates[:HONEST] if omniscient else None,
        clients=HONEST + MEMBERS,
        rule=rule,
        manifest=MANIFEST,
    )


def judged(view: View, sent: np.ndarray, honest: np.ndarray) -> tuple[object, float]:
    """The rule's answer to the whole round, and −⟨Σ a_i·u_i, μ⟩/‖μ‖²: −1 is an unharmed round."""
    updates = np.vstack([honest, sent]).astype(np.float64)
    request = view.rule.request(MANIFEST)
    mean = honest.astype(np.float64).mean(axis=0)
    if request.root:
        updates = np.vstack([updates, mean])
    statistics = statistics_of(
        updates,
        base=view.base.astype(np.float64),
        before=view.base.astype(np.float64),
        root=len(updates) - 1 if request.root else None,
        history=updates if request.history else None,
        blocks=block_indices(request, MANIFEST),
    )
    answer = judge(view.rule, statistics)
    return answer, -float(answer.weights @ updates @ mean) / float(mean @ mean)


def forged(view: View, name: str, strength: float | None = None) -> np.ndarray:
    return load_attack(name, strength).forge(view, np.random.default_rng(0))


@pytest.mark.parametrize("rule", GATED, ids=lambda rule: rule.name)
def test_what_it_sends_is_accepted_and_hurts_more_than_what_ignores_the_rule(rule):
    """With all honest updates known, some of its updates count, and no gate takes them for copies.

    Other attacks at the rule's mercy do less damage, whether they are accepted or not.
    """
    view = view_under(rule)
    honest = view.others
    answer, damage = judged(view, forged(view, "adaptive"), honest)
    mine = answer.weights[HONEST : HONEST + MEMBERS]
    assert (mine > 0).any() and Reason.DUPLICATE not in answer.reasons
    for name in ("ipm", "sign-flip", "alie", "min-max", "min-sum", "gaussian", "model-negation", "mimic"):
        _, other = judged(view, forged(view, name), honest)
        assert damage > other, name
    assert damage > -0.95


@pytest.mark.parametrize("rule", [Gated(), Near(f=3)], ids=lambda rule: rule.name)
def test_it_is_just_inside(rule):
    """At its largest step it still counts; a tenth farther out it would do less harm."""
    view = view_under(rule)
    inside, damage = judged(view, forged(view, "adaptive", 1.0), view.others)
    assert (inside.weights[HONEST:] > 0).all()
    _, beyond = judged(view, forged(view, "adaptive", 1.1), view.others)
    assert beyond < damage
    _, nearer = judged(view, forged(view, "adaptive", 0.9), view.others)
    assert nearer < damage


def test_under_a_bound_on_norms_it_goes_to_the_bound():
    """Five times the median norm, in the direction of −μ."""
    view = view_under(Gated())
    sent = forged(view, "adaptive", 1.0)
    norms = np.linalg.norm(np.vstack([view.others, sent]), axis=1)
    assert norms.max() / np.median(norms) == pytest.approx(5, abs=0.01)
    mean = view.mean
    assert (sent @ mean / np.linalg.norm(sent, axis=1) / np.linalg.norm(mean) < -0.9).all()


@pytest.mark.parametrize("rule", GATED, ids=lambda rule: rule.name)
def test_a_rehearsal_is_the_round_itself(rule):
    """Inner products of combinations are those of the updates: same weights, same damage as played out."""
    view = view_under(rule)
    noise = np.random.default_rng(0).normal(0, SIZE**-0.5, (MEMBERS, SIZE))
    rehearsal = Rehearsal(view, view.known, [direction(view) for direction in DIRECTIONS], noise)
    length = np.linalg.norm(view.mean)
    for direction in range(3):
        for step in (0.1, 1.0, 2.0, 50.0):
            candidate = Candidate(direction=direction, step=step * length, noise=0.05 * length)
            answer, damage = judged(view, rehearsal.updates(candidate), view.known)
            expected = damage * length**2 if answer.weights.any() else REFUSED
            assert rehearsal.damage(candidate) == pytest.approx(expected, rel=1e-6)


def test_knowing_the_coalition_alone_it_is_accepted_all_the_same():
    """Its stand-ins for honest updates lie about as far apart as those do; it counts, and turns the mean."""
    view = view_under(Gated(), omniscient=False)
    honest = view_under(Gated()).others
    rows = stand_ins(view, np.random.default_rng(0))
    assert rows.shape == (HONEST, SIZE)
    ratio = np.linalg.norm(rows - rows.mean(axis=0)) / np.linalg.norm(honest - honest.mean(axis=0))
    assert 0.7 < ratio < 1.4
    answer, damage = judged(view, forged(view, "adaptive"), honest)
    assert (answer.weights[HONEST:] > 0).all() and damage > 0


def test_a_single_attacker_takes_its_own_size_for_the_spread():
    view = View(base=np.zeros(50, np.float32), own=np.ones((1, 50), np.float32), clients=8, rule=Gated())
    rows = stand_ins(view, np.random.default_rng(0))
    assert rows.shape == (7, 50) and 0.7 < (rows - 1).std() < 1.3
    assert np.isfinite(forged(view, "adaptive")).all()


def test_against_a_rule_without_bound_it_goes_as_far_as_it_tries():
    view = view_under(Average())
    sent = forged(view, "adaptive", 1.0)
    length = np.linalg.norm(view.mean)
    assert np.linalg.norm(sent[0] - view.mean) == pytest.approx(STEPS[-1] * length, rel=0.01)


def test_against_the_median_it_pulls_harder_than_an_attack_made_against_distances():
    """Coordinates count, not distances: the rule is rehearsed on the values themselves."""
    view = view_under(Middle())
    honest, mean = view.known, view.mean

    def left(sent: np.ndarray) -> float:
        return float(np.median(np.vstack([honest, sent]), axis=0) @ mean)

    assert left(forged(view, "adaptive")) < left(forged(view, "min-sum"))
    assert left(forged(view, "adaptive")) < float(np.median(honest, axis=0) @ mean)


def test_without_a_rule_it_does_what_min_max_does():
    view = view_under(None)
    assert (forged(view, "adaptive") == forged(view, "min-max")).all()


def test_where_nothing_is_accepted_it_does_not_give_itself_away():
    view = view_under(Closed())
    assert (forged(view, "adaptive") == view.own).all()


@pytest.mark.parametrize("name", RULES)
def test_it_finds_an_answer_to_every_rule_there_is(name):
    """Whatever the rule: finite updates, and where weights follow from them a round that is worse off."""
    rule = load_rule(f"{name}:k_min=1" if name == "krum" else name)
    rule.require(HONEST + MEMBERS)
    view = view_under(rule)
    sent = forged(view, "adaptive")
    assert sent.shape == (MEMBERS, SIZE) and sent.dtype == np.float32 and np.isfinite(sent).all()
    if isinstance(rule, CoordinateRule) or rule.request(MANIFEST) is None:
        return
    _, attacked = judged(view, sent, view.others)
    _, unattacked = judged(view, view.own, view.others)
    assert attacked > unattacked
