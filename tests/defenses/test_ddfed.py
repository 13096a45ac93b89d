"""DDFed in its reference form: the paper's formula, its vote, and its known weaknesses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from defenses import DDFed, load_rule
from secagg.errors import Code, ConfigError, RoundError
from secagg.rule import Answer, Reason, Statistics, statistics_of
from secagg.update import Manifest, TensorSpec

PROBE = np.array([1.0, 0.0])


def of_models(models, base, counts=None) -> Statistics:
    models = np.asarray(models, dtype=np.float64)
    return statistics_of(models - base, base=base, sample_counts=counts)


def of_cosines(cosines, counts=None) -> Statistics:
    """Unit models with these cosines with g = (1, 0), up to rounding."""
    models = np.array([[c, np.sqrt(1 - c * c)] for c in cosines])
    return of_models(models, PROBE, counts)


def selected(rule, statistics) -> list[bool]:
    return (rule.decide(statistics).weights > 0).tolist()


def manifest(*shapes: tuple[int, ...]) -> Manifest:
    return Manifest(tensors=tuple(TensorSpec(name=f"t{i}", shape=s) for i, s in enumerate(shapes)))


def test_ddfed_compares_the_last_layer_with_two_dimensions():
    """Models travel, as in the paper; nothing is screened, and no pair is opened."""
    request = DDFed().request(manifest((8, 4), (8,), (3, 8), (3,)))
    assert request is not None
    assert request.blocks == (("t2",),) and request.references == 1 and request.models
    assert not (request.pairs or request.screened or request.root or request.history)


def test_ddfed_refuses_a_model_without_layers():
    with pytest.raises(ConfigError) as caught:
        DDFed().request(manifest((8,), (3,)))
    assert caught.value.code is Code.RULE_UNSUPPORTED


def test_ddfed_works_with_any_number_of_clients():
    DDFed().require(1)


def test_ddfed_follows_the_papers_formula_written_out():
    """|cos|, min-max, mean threshold, computed from the vectors instead of the statistics."""
    generator = np.random.default_rng(5)
    for _ in range(50):
        base = generator.normal(size=30)
        models = [base + generator.normal(size=30) * scale for scale in generator.uniform(0.1, 4, 9)]
        counts = generator.integers(1, 100, 9)
        cosines = [abs(m @ base) / (np.linalg.norm(m) * np.linalg.norm(base)) for m in models]
        scaled = (np.array(cosines) - min(cosines)) / (max(cosines) - min(cosines))
        wanted = (scaled >= scaled.mean()) * counts
        found = DDFed().decide(of_models(models, base, counts)).weights
        assert np.allclose(found, wanted / wanted.sum(), rtol=1e-12)


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_ddfed_does_not_depend_on_the_order_of_updates(n, seed):
    """decide(π(statistics)) = π(decide(statistics))."""
    generator = np.random.default_rng(seed)
    base, models = generator.normal(size=8), generator.normal(size=(n, 8))
    counts, order = generator.integers(1, 100, n), generator.permutation(n)
    vote = DDFed().decide(of_models(models, base, counts))
    moved = DDFed().decide(of_models(models[order], base, counts[order]))
    assert np.allclose(moved.weights, vote.weights[order], rtol=1e-12)


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_ddfed_always_selects_somebody(n, seed):
    """The best score is never below the mean."""
    generator = np.random.default_rng(seed)
    vote = DDFed().decide(of_models(generator.normal(size=(n, 5)), generator.normal(size=5)))
    assert vote.weights.any() and vote.weights.sum() == pytest.approx(1.0)


def test_ddfed_selects_everybody_if_all_scores_are_equal():
    """Min-max scaling would divide by zero."""
    assert selected(DDFed(), of_models([[2.0, 0.0], [-2.0, 0.0], [1.0, 0.0]], PROBE)) == [True] * 3


def test_ddfed_selects_who_is_exactly_average():
    """vote_i = [ŝ_i ≥ mean ŝ]; of the scores 0, 0.6, 0.8 and 1 the mean is 0.6."""
    models = [[0.0, 4.0], [3.0, 4.0], [4.0, 3.0], [5.0, 0.0]]
    assert selected(DDFed(), of_models(models, PROBE)) == [False, True, True, True]


def test_ddfed_gives_a_vanished_layer_the_lowest_score():
    """Norm 0 points nowhere."""
    assert selected(DDFed(), of_models([[0.0, 0.0], [0.1, 1.0], [0.9, 0.1]], PROBE)) == [False, False, True]


def test_ddfed_sees_no_scale_and_no_sign():
    """The reference form's known blindness: w, 8w and −w get the same score."""
    base, other = np.array([1.0, 2.0, 3.0]), np.array([3.0, -1.0, 0.5])
    models = [base + 0.1, 8 * (base + 0.1), -(base + 0.1), other]
    assert selected(DDFed(), of_models(models, base)) == [True, True, True, False]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", [(1, 1), (1, 2), (2, 2)])
def test_ddfed_does_not_vote_on_what_is_not_finite(bad, where):
    """A norm, a product with g, or ‖g‖² itself."""
    statistics = of_cosines([0.9, 0.1])
    statistics.blocks[0][where] = statistics.blocks[0][where[::-1]] = bad
    answer = DDFed().decide(statistics)
    assert not answer.weights.any() and set(answer.reasons) == {Reason.IMPOSSIBLE}
    with pytest.raises(RoundError) as caught:
        DDFed().settle([answer], 1, np.array([1, 1]))
    assert caught.value.code is Code.STATISTICS_IMPOSSIBLE


def votes(*chosen, counts=(10, 20, 30)) -> list[Answer]:
    """The answers of clients that select these."""
    found = []
    for vote in chosen:
        weights = np.array(vote) * np.array(counts, dtype=np.float64)
        found.append(Answer.of(weights / weights.sum()))
    return found


def test_ddfed_takes_the_vote_most_decryptors_sent():
    """Plurality of identical votes, whatever the order in which they came, and however few they are."""
    honest, coalition, counts = (1, 1, 0), (0, 0, 1), np.array([10, 20, 30])
    for ballots in ((honest, coalition, honest), (coalition, honest, honest)):
        settled = DDFed().settle(votes(*ballots), 9, counts)
        assert settled.weights.tolist() == [10 / 30, 20 / 30, 0.0]


def test_ddfed_decides_nothing_when_votes_tie():
    with pytest.raises(RoundError, match="1 ballots each") as caught:
        DDFed().settle(votes((1, 0, 0), (0, 1, 0)), 2, np.array([10, 20, 30]))
    assert caught.value.code is Code.NO_DECISION


@pytest.mark.parametrize(
    "nonsense",
    [[0.0, 0.0], [0.5, 1.0], [np.nan, 1.0], [1.0], [0.0, 0.5, 0.5], [2.0, 1.0], [-1.0, 1.0], [0.9, 0.1]],
)
def test_a_ballot_that_is_no_vote_does_not_count(nonsense):
    """One client can't stop a round, or win it, with weights that are not the selected clients' counts."""
    counts, vote = np.array([3, 4]), votes((0, 1), counts=(3, 4))
    with np.errstate(invalid="ignore"):
        forged = [Answer.of(np.array(nonsense))] * 2
    assert DDFed().settle(forged + vote, 3, counts).weights.tolist() == [0.0, 1.0]
    with pytest.raises(RoundError) as caught:
        DDFed().settle(forged, 2, counts)
    assert caught.value.code is Code.NO_DECISION


def test_ddfed_decides_nothing_if_the_selected_have_no_sample():
    answer = DDFed().decide(of_cosines([0.9, 0.1], counts=[0, 5]))
    with pytest.raises(RoundError) as caught:
        DDFed().settle([answer], 1, np.array([0, 5]))
    assert caught.value.code is Code.TOO_FEW_CONTRIBUTORS


def test_noise_is_the_same_for_all_decryptors_and_differs_between_rounds():
    """A vote needs agreement: draws follow from public values, so noise perturbs but does not hide."""
    rule, statistics = load_rule("ddfed:epsilon=0.01"), of_cosines(np.linspace(0.9, 1.0, 16))
    first = rule.decide(statistics)
    assert rule.decide(statistics).same(first)
    assert not DDFed().decide(statistics).same(first)
    rows = np.zeros((16, 2))
    others = [statistics_of(rows, base=PROBE, round=k) for k in range(2, 7)]
    for other in others:
        other.blocks[:] = statistics.blocks
    assert any(not rule.decide(other).same(first) for other in others)


def test_little_noise_changes_nothing():
    """σ = √(2 ln(1.25/δ))/ε is 4.8e-6 here; the scores differ by 0.011, none is the mean."""
    quiet, statistics = load_rule("ddfed:epsilon=1e6,delta=1e-5"), of_cosines(np.linspace(0.9, 1.0, 10))
    assert quiet.decide(statistics).same(DDFed().decide(statistics))
