"""The rules as pure functions: their formulas, invariances and degenerate cases."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import defenses
from defenses import RULES, DDFed, Mean, load_rule
from secagg.errors import Code, ConfigError, RoundError
from secagg.rule import Statistics
from secagg.update import Manifest, TensorSpec


def opened(norms, dots, ids=None) -> Statistics:
    """Statistics as they are after opening: squared norms on the diagonal, dots in the last row."""
    n = len(norms)
    gram = np.full((n + 1, n + 1), np.nan)
    gram[np.arange(n), np.arange(n)] = norms
    gram[:-1, -1] = gram[-1, :-1] = dots
    return Statistics(round=7, update_ids=tuple(ids or (f"u{i}" for i in range(n))), gram=gram)


def of_models(models, base) -> Statistics:
    return opened([m @ m for m in models], [m @ base for m in models])


def manifest(*shapes: tuple[int, ...]) -> Manifest:
    return Manifest(tensors=tuple(TensorSpec(name=f"t{i}", shape=s) for i, s in enumerate(shapes)))


@pytest.mark.parametrize(
    "name", ["defenses", *(f"defenses.{m.name}" for m in pkgutil.iter_modules(defenses.__path__))]
)
def test_examples_in_docstrings_hold(name):
    """Each rule's docstring computes what it says."""
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_a_working_example(name):
    """A rule without an example in its docstring is not documented."""
    rule = RULES[name]
    assert ">>>" in (rule.__doc__ or "") and "arXiv" in (rule.__doc__ or "")


@pytest.mark.parametrize("text", ["median", "", "ddfed ", "DDFED"])
def test_unknown_rule_is_named_with_those_that_exist(text):
    with pytest.raises(ConfigError, match="mean, ddfed") as caught:
        load_rule(text)
    assert caught.value.code is Code.RULE_UNKNOWN


@pytest.mark.parametrize(
    "text",
    ["mean:f=1", "ddfed:epsilon", "ddfed:epsilon=x", "ddfed:epsilon=0", "ddfed:epsilon=nan",
     "ddfed:epsilon=1,delta=1", "ddfed:sigma=3"],
)  # fmt: skip
def test_bad_parameters_are_refused(text):
    with pytest.raises(ConfigError) as caught:
        load_rule(text)
    assert caught.value.code is Code.CONFIG_INVALID
    assert "\n" not in caught.value.message


def test_rules_carry_the_name_they_are_loaded_by():
    assert [load_rule(name).name for name in RULES] == list(RULES)


def test_mean_needs_no_statistics_and_weighs_by_sample_counts():
    """w_i = capped n_i; nobody is asked for a ballot."""
    rule = Mean()
    assert rule.request(manifest((3,))) is None
    assert rule.settle([], np.array([5, 1, 4])).tolist() == [5.0, 1.0, 4.0]


@pytest.mark.parametrize("counts", [[], [0, 0]])
def test_mean_decides_nothing_without_samples(counts):
    with pytest.raises(RoundError) as caught:
        Mean().settle([], np.array(counts, dtype=np.int64))
    assert caught.value.code is Code.NO_DECISION


def test_ddfed_compares_the_last_layer_with_two_dimensions():
    request = DDFed().request(manifest((8, 4), (8,), (3, 8), (3,)))
    assert request is not None
    assert request.tensors == ("t2",) and request.squared_norms and request.reference_dots


def test_ddfed_refuses_a_model_without_layers():
    with pytest.raises(ConfigError) as caught:
        DDFed().request(manifest((8,), (3,)))
    assert caught.value.code is Code.RULE_UNSUPPORTED


def test_ddfed_follows_the_papers_formula_written_out():
    """|cos|, min-max, mean threshold, computed from the vectors themselves instead of the Gram matrix."""
    generator = np.random.default_rng(5)
    for _ in range(50):
        base = generator.normal(size=30)
        models = [base + generator.normal(size=30) * scale for scale in generator.uniform(0.1, 4, 9)]
        cosines = [abs(m @ base) / (np.linalg.norm(m) * np.linalg.norm(base)) for m in models]
        scaled = (np.array(cosines) - min(cosines)) / (max(cosines) - min(cosines))
        assert DDFed().ballot(of_models(models, base)).tolist() == (scaled >= scaled.mean()).tolist()


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_ddfed_does_not_depend_on_the_order_of_updates(n, seed):
    """ballot(π(statistics)) = π(ballot(statistics)), and the same for the settled weights."""
    generator = np.random.default_rng(seed)
    base = generator.normal(size=8)
    models = generator.normal(size=(n, 8))
    order = generator.permutation(n)
    rule = DDFed()
    vote = rule.ballot(of_models(models, base))
    assert rule.ballot(of_models(models[order], base)).tolist() == vote[order].tolist()
    counts = generator.integers(1, 100, n)
    weights = rule.settle([vote], counts)
    assert rule.settle([vote[order]], counts[order]).tolist() == weights[order].tolist()


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_ddfed_always_selects_somebody(n, seed):
    """The best score is never below the mean."""
    generator = np.random.default_rng(seed)
    statistics = opened(generator.uniform(0, 10, n), generator.normal(size=n))
    vote = DDFed().ballot(statistics)
    assert vote.any() and set(vote) <= {0.0, 1.0}


def test_ddfed_selects_everybody_if_all_scores_are_equal():
    """Min-max scaling would divide by zero."""
    assert DDFed().ballot(opened([4.0, 4.0, 1.0], [2.0, -2.0, 1.0])).tolist() == [1.0, 1.0, 1.0]


def test_ddfed_selects_who_is_exactly_average():
    """vote_i = [ŝ_i ≥ mean ŝ]; the scores 0, ½, 1 and their mean are exact."""
    assert DDFed().ballot(opened([1.0, 1.0, 1.0], [0.0, 0.5, 1.0])).tolist() == [0.0, 1.0, 1.0]


def test_ddfed_gives_a_vanished_layer_the_lowest_score():
    """Norm 0, or a little below 0 from ciphertext noise, points nowhere."""
    assert DDFed().ballot(opened([0.0, -1e-9, 1.0], [0.0, 1e-9, 0.9])).tolist() == [0.0, 0.0, 1.0]


def test_ddfed_sees_no_scale_and_no_sign():
    """The reference form's known blindness: w, 8w and −w get the same score."""
    base, other = np.array([1.0, 2.0, 3.0]), np.array([3.0, -1.0, 0.5])
    models = [base + 0.1, 8 * (base + 0.1), -(base + 0.1), other]
    assert DDFed().ballot(of_models(models, base)).tolist() == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["norms", "dots"])
def test_ddfed_does_not_vote_on_what_is_not_finite(bad, where):
    values = {"norms": [1.0, 1.0], "dots": [1.0, 0.5]}
    values[where][1] = bad
    with pytest.raises(RoundError, match="u1") as caught:
        DDFed().ballot(opened(**values))
    assert caught.value.code is Code.NO_DECISION


def test_ddfed_does_not_vote_on_nothing():
    with pytest.raises(RoundError) as caught:
        DDFed().ballot(opened([], []))
    assert caught.value.code is Code.NO_DECISION


def test_ddfed_takes_the_vote_most_decryptors_sent():
    """Plurality of identical votes, whatever the order in which they came."""
    honest, coalition = np.array([1.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])
    counts = np.array([10, 20, 30])
    for ballots in ([honest, coalition, honest], [coalition, honest, honest]):
        assert DDFed().settle(ballots, counts).tolist() == [10.0, 20.0, 0.0]


def test_ddfed_decides_nothing_when_votes_tie():
    with pytest.raises(RoundError, match="1 ballots each") as caught:
        DDFed().settle([np.array([1.0, 0.0]), np.array([0.0, 1.0])], np.array([1, 1]))
    assert caught.value.code is Code.NO_DECISION


@pytest.mark.parametrize(
    "nonsense",
    [[0.0, 0.0], [0.5, 1.0], [np.nan, 1.0], [1.0], [1.0, 1.0, 1.0], [2.0, 1.0], [-1.0, 1.0]],
)
def test_a_ballot_that_is_no_vote_does_not_count(nonsense):
    """One client can't stop a round, or win it, with a malformed answer."""
    counts = np.array([3, 4])
    vote = np.array([0.0, 1.0])
    settled = DDFed().settle([np.array(nonsense)] * 2 + [vote], counts)
    assert settled.tolist() == [0.0, 4.0]
    with pytest.raises(RoundError) as caught:
        DDFed().settle([np.array(nonsense)], counts)
    assert caught.value.code is Code.NO_DECISION


def test_ddfed_decides_nothing_if_the_selected_have_no_sample():
    with pytest.raises(RoundError) as caught:
        DDFed().settle([np.array([1.0, 0.0])], np.array([0, 5]))
    assert caught.value.code is Code.NO_DECISION


def test_noise_is_the_same_for_all_decryptors_and_differs_between_rounds():
    """A vote needs agreement: draws follow from public values, so noise perturbs but does not hide."""
    rule = load_rule("ddfed:epsilon=0.01")
    norms, dots = np.ones(16), np.linspace(0.9, 1.0, 16)
    first = rule.ballot(opened(norms, dots))
    assert rule.ballot(opened(norms, dots)).tolist() == first.tolist()
    assert first.tolist() != DDFed().ballot(opened(norms, dots)).tolist()
    others = [
        rule.ballot(opened(norms, dots, ids=[f"{k}-{i}" for i in range(16)])).tolist() for k in range(5)
    ]
    assert any(other != first.tolist() for other in others)


def test_little_noise_changes_nothing():
    """σ = √(2 ln(1.25/δ))/ε is 4.8e-6 here; the scores differ by 0.011, none is the mean."""
    norms, dots = np.ones(10), np.linspace(0.9, 1.0, 10)
    quiet = load_rule("ddfed:epsilon=1e6,delta=1e-5")
    assert quiet.ballot(opened(norms, dots)).tolist() == DDFed().ballot(opened(norms, dots)).tolist()
