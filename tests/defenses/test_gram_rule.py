"""What surrounds a rule's formula: gates, what they do to f, k_min, and the majority of answers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_cases import honest

from defenses import gates, load_rule
from defenses.gram_rule import judge
from secagg.errors import Code, ConfigError, RoundError
from secagg.rule import Answer, Reason, Statistics, statistics_of


def names(answer: Answer) -> list[str]:
    return [Reason(int(reason)).name for reason in answer.reasons]


def some(n: int = 9, seed: int = 0) -> Statistics:
    return statistics_of(honest(n, np.random.default_rng(seed)))


def sent(*changed: tuple[int, float], n: int = 9) -> Statistics:
    """Updates of which some are scaled."""
    updates = honest(n, np.random.default_rng(0))
    for place, factor in changed:
        updates[place] *= factor
    return statistics_of(updates)


# Gates.


def test_an_update_beyond_the_norm_bound_gets_nothing_else_released():
    """The bound is a multiple of the median norm; what is dropped is named."""
    answer = load_rule("multi-krum").screen(sent((2, 10.0), (4, 1e-3)))
    assert names(answer)[2] == "NORM" and answer.weights.tolist() == [1, 1, 0, 1, 1, 1, 1, 1, 1]
    assert load_rule("multi-krum:norm_bound=20").screen(sent((2, 10.0))).weights.all()


def test_the_norm_bound_holds_for_every_block():
    """A large change of a small layer hides in the whole norm."""
    updates = honest(9, np.random.default_rng(0), 40)
    updates[3, :2] *= 30 / np.abs(updates[:, :2]).max()
    updates[:, 2:] *= 50
    updates[3, :2] = 100 * np.median(np.linalg.norm(updates[:, :2], axis=1)) / np.sqrt(2)
    assert gates.screen(statistics_of(updates), 5.0).weights.all()
    screened = gates.screen(statistics_of(updates, blocks=(slice(0, 2), slice(2, 40))), 5.0)
    assert names(screened) == ["KEPT"] * 3 + ["NORM"] + ["KEPT"] * 5


@given(st.floats(1.0, 1e12), st.integers(0, 4))
def test_half_of_the_updates_can_not_move_the_median_norm_beyond_honest_ones(factor, liars):
    """Honest updates of nearly equal norms pass, whatever fewer than half send."""
    scaled = sent(*((i, factor) for i in range(liars)))
    assert gates.screen(scaled, 5.0).weights[liars:].all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_missing_product_of_a_pair_ends_the_round(bad):
    statistics = some()
    statistics.blocks[0, 2, 5] = statistics.blocks[0, 5, 2] = bad
    assert set(names(load_rule("mda").decide(statistics))) == {"IMPOSSIBLE"}


def test_a_rule_that_needs_no_pairs_decides_without_them():
    """Norms alone, or norms and the root's row: the rest is not released."""
    statistics = some()
    off = ~np.eye(11, dtype=bool)
    statistics.blocks[0][off] = np.nan
    assert load_rule("norm-clipping").decide(statistics).weights.all()
    assert set(names(load_rule("mda").decide(statistics))) == {"IMPOSSIBLE"}
    rooted = statistics_of(honest(9, np.random.default_rng(0)), root=8)
    hidden = off.copy()
    hidden[8, :9] = hidden[:9, 8] = False
    rooted.blocks[0][hidden] = np.nan
    for text in ("fltrust", "monna"):
        assert load_rule(text).decide(rooted).weights.any()
    rooted.blocks[0][8, 1] = rooted.blocks[0][1, 8] = np.nan
    for text in ("fltrust", "monna"):
        assert set(names(load_rule(text).decide(rooted))) == {"IMPOSSIBLE"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_missing_entry_of_a_history_ends_the_round(bad):
    updates = honest(6, np.random.default_rng(0))
    statistics = statistics_of(updates, history=updates)
    statistics.history[1, 2] = statistics.history[2, 1] = bad
    assert set(names(load_rule("foolsgold").decide(statistics))) == {"IMPOSSIBLE"}


def test_an_update_whose_witness_contradicts_its_norm_is_dropped():
    """Its measured square has wrapped around; a witness that is no number is none."""
    witnesses = np.array([0.1, 0.9, 1.5, 1.0, np.nan, -1.2, -1.0, 0.0, 0.5])
    answer = gates.screen(replace(some(), witnesses=witnesses), 5.0)
    assert np.flatnonzero(answer.reasons == Reason.IMPOSSIBLE).tolist() == [2, 4, 5]
    assert np.flatnonzero(answer.weights).tolist() == [0, 1, 3, 6, 7, 8]


@pytest.mark.parametrize("factor", [1.0, 0.3, 4.0])
def test_a_repeated_update_counts_once(factor):
    """As it is or scaled: the first to arrive stays."""
    updates = honest(9, np.random.default_rng(0))
    updates[6] = factor * updates[1]
    answer = judge(load_rule("multi-krum:f=1"), statistics_of(updates))
    assert names(answer)[6] == "DUPLICATE" and names(answer).count("DUPLICATE") == 1


def test_the_opposite_of_an_update_is_no_repetition():
    updates = honest(9, np.random.default_rng(0))
    updates[6] = -updates[1]
    assert not (gates.duplicates(statistics_of(updates)) == Reason.DUPLICATE).any()


def test_what_differs_by_less_than_the_resolution_repeats():
    """Two openings of equal updates differ by the noise."""
    updates = honest(9, np.random.default_rng(0))
    updates[6] = updates[1] + 1e-3
    assert not gates.duplicates(statistics_of(updates)).any()
    blurred = replace(statistics_of(updates), resolution=24 * 1e-6)
    assert np.flatnonzero(gates.duplicates(blurred)).tolist() == [6]


# What gates do to f, and k_min.


def test_every_update_that_a_gate_drops_is_one_attacker_less():
    """n = 9 bears f = 3 of Krum; with two dropped, 7 remain, of which one may be malicious."""
    rule = load_rule("multi-krum:f=3")
    screened = rule.screen(sent((0, 99.0), (1, 99.0)))
    rest = sent((0, 99.0), (1, 99.0)).of(screened.weights > 0)
    assert rule.remaining_f(rest, rest.size) == 1
    assert np.count_nonzero(judge(rule, sent((0, 99.0), (1, 99.0))).weights) == 6


def test_a_round_with_too_few_updates_for_f_is_refused():
    """f is what the operator assumes; a round that shrank does not make the attackers fewer."""
    answer = judge(load_rule("multi-krum:f=3"), some(8))
    assert not answer.weights.any() and set(names(answer)) == {"TOO_FEW"}
    assert judge(load_rule("multi-krum"), some(8)).weights.any()


@pytest.mark.parametrize(
    ("text", "n", "f"), [("multi-krum", 9, 3), ("mda", 9, 4), ("bulyan-selection", 11, 2)]
)
def test_without_f_as_many_are_borne_as_the_inequality_allows(text, n, f):
    assert load_rule(text).bearable(n) == f
    kept = {"multi-krum": n - f, "mda": n - f, "bulyan-selection": n - 2 * f}[text]
    assert np.count_nonzero(judge(load_rule(text), some(n)).weights) == kept


def test_require_states_the_inequality():
    """f as given, or 0 if none is."""
    load_rule("bulyan-selection:f=2").require(11)
    load_rule("bulyan-selection").require(3)
    with pytest.raises(
        ConfigError, match=r"n ≥ 4f \+ 3: with f = 2 at least 11 updates; .* n = 10"
    ) as caught:
        load_rule("bulyan-selection:f=2").require(10)
    assert caught.value.code is Code.RULE_UNSUPPORTED
    with pytest.raises(ConfigError, match="f = 0 at least 3"):
        load_rule("bulyan-selection").require(2)


def test_a_sum_of_fewer_than_k_min_effective_updates_is_refused():
    """(Σa)²/Σa²: a weight of nearly all says as much as all."""
    updates = np.diag([1.0, 1.0, 1.0, 1.0]) + 1
    statistics = statistics_of(updates)
    assert judge(load_rule("norm-clipping:k_min=4"), statistics).weights.all()
    assert set(names(judge(load_rule("norm-clipping:k_min=4.5"), statistics))) == {"TOO_FEW"}
    # Most updates are one point (but for what the gate would call repetitions): so is the median.
    crowd = np.vstack([np.ones((1, 8)), np.ones((2, 8)) + 1e-3 * np.eye(8)[:2], 9 * np.eye(8)[:2]])
    assert set(names(judge(load_rule("geometric-median:nu=1e-9,k_min=4"), statistics_of(crowd)))) == {
        "TOO_FEW"
    }


# The majority.


def of(*weights: float) -> Answer:
    return Answer.of(np.array(weights))


HONEST, LIE = of(0.5, 0.5, 0.0), of(0.0, 0.0, 1.0)
COUNTS = np.array([1, 1, 1])


@given(st.integers(1, 9), st.data())
def test_a_minority_of_liars_changes_nothing(voters, data):
    """The round's answer is what more than half of all voters have signed, whatever the others send."""
    liars = data.draw(st.integers(0, (voters - 1) // 2))
    answers = data.draw(st.permutations([LIE] * liars + [HONEST] * (voters - liars)))
    assert load_rule("mda").settle(answers, voters, COUNTS).same(HONEST)


@pytest.mark.parametrize(
    ("answers", "voters"),
    [([HONEST, LIE], 2), ([HONEST] * 2 + [LIE] * 2, 4), ([HONEST], 2), ([HONEST] * 2, 4), ([], 1), ([], 0)],
)
def test_half_decides_nothing(answers, voters):
    """Silence is no consent."""
    with pytest.raises(RoundError, match="more than half must") as caught:
        load_rule("mda").settle(answers, voters, COUNTS)
    assert caught.value.code is Code.NO_DECISION


@pytest.mark.parametrize(
    ("weights", "reasons"),
    [
        ([0.5, 0.5, 0.0], [0, 0, 0]),
        ([0.5, 0.5, 0.5], [0, 0, Reason.RULE]),
        ([0.5, 0.5, -0.5], [0, 0, Reason.RULE]),
        ([0.5, 0.5, np.nan], [0, 0, Reason.RULE]),
        ([0.5, 0.5, np.inf], [0, 0, 0]),
        ([0.5, 0.5, 1.5], [0, 0, 0]),
    ],
)
def test_an_answer_whose_reasons_do_not_fit_its_weights_does_not_count(weights, reasons):
    """KEPT where the weight is positive, and nowhere else."""
    answer = Answer(weights=np.array(weights), reasons=np.array(reasons, dtype=np.uint8))
    assert load_rule("mda").settle([answer, HONEST, HONEST], 3, COUNTS).same(HONEST)
    with pytest.raises(RoundError) as caught:
        load_rule("mda").settle([answer] * 3, 3, COUNTS)
    assert caught.value.code is Code.NO_DECISION


@pytest.mark.parametrize("answer", [LIE, of(0.0, 1.0, 0.1)])
def test_a_majority_can_not_open_a_sum_of_too_few(answer):
    """Liars who are most of those asked: k_min holds all the same."""
    with pytest.raises(RoundError, match="k_min = 2") as caught:
        load_rule("mda").settle([answer] * 3, 3, COUNTS)
    assert caught.value.code is Code.TOO_FEW_CONTRIBUTORS
    assert load_rule("mda:k_min=1").settle([answer] * 3, 3, COUNTS).same(answer)


def test_an_update_alone_with_its_impossible_norm_is_no_impossible_round():
    """The round's code says what ended it: here that one update is left."""
    answer = Answer.of(np.array([1.0, 0, 0]), np.array([0, Reason.IMPOSSIBLE, Reason.NORM], dtype=np.uint8))
    with pytest.raises(RoundError) as caught:
        load_rule("mda").settle([answer] * 3, 3, COUNTS)
    assert caught.value.code is Code.TOO_FEW_CONTRIBUTORS


@pytest.mark.parametrize("shape", [of(1.0), of(0.5, 0.5), of(0.25, 0.25, 0.25, 0.25)])
def test_an_answer_of_another_length_does_not_count(shape):
    assert load_rule("mda").settle([shape, HONEST, HONEST], 3, COUNTS).same(HONEST)
    with pytest.raises(RoundError) as caught:
        load_rule("mda").settle([shape] * 3, 3, COUNTS)
    assert caught.value.code is Code.NO_DECISION


def test_answers_that_differ_in_reasons_or_the_last_bit_are_two():
    """What is signed is all of it."""
    other = Answer(weights=HONEST.weights, reasons=np.array([0, 0, Reason.UNLIKE], dtype=np.uint8))
    nearly = of(0.5, np.nextafter(0.5, 1), 0.0)
    for lie in (other, nearly):
        with pytest.raises(RoundError):
            load_rule("mda").settle([HONEST, lie], 2, COUNTS)


@pytest.mark.parametrize(
    ("reason", "code"),
    [(Reason.IMPOSSIBLE, Code.STATISTICS_IMPOSSIBLE), (Reason.TOO_FEW, Code.TOO_FEW_CONTRIBUTORS)],
)
def test_a_majority_that_refuses_ends_the_round_with_its_reason(reason, code):
    refusals = [Answer.refusal(3, reason)] * 2
    with pytest.raises(RoundError) as caught:
        load_rule("mda").settle([*refusals, HONEST], 3, COUNTS)
    assert caught.value.code is code
