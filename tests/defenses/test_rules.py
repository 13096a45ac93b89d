"""Rules by name: how they are loaded, what they refuse, and what they ask for."""

import doctest
import importlib
import pkgutil
import re

import numpy as np
import pytest
from rule_cases import MANIFEST

import defenses
from defenses import RULES, Mean, load_rule
from defenses.gram_rule import GramRule
from secagg.errors import Code, ConfigError, RoundError
from secagg.rule import CoordinateRule, Rule

COORDINATE = ("median", "trimmed-mean", "meamed")


def loaded(name: str) -> Rule:
    """A rule with what it needs to be loaded."""
    return load_rule(f"{name}:k_min=1" if name == "krum" else name)


@pytest.mark.parametrize(
    "name", ["defenses", *(f"defenses.{m.name}" for m in pkgutil.iter_modules(defenses.__path__))]
)
def test_examples_in_docstrings_hold(name):
    """Each docstring computes what it says."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_a_source_and_a_working_example(name):
    """A rule without them in its docstring is not documented."""
    text = RULES[name].__doc__ or ""
    assert ">>>" in text and re.search(r"arXiv \d{4}\.\d{5}|doi 10\.", text)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_says_what_a_shift_does(name):
    """Whether the coefficients stay the same if all updates move alike is part of what a rule is."""
    text = " ".join((RULES[name].__doc__ or "").split())
    if name.startswith("ddfed") and name != "ddfed-hardened":
        return  # the paper's rule compares models with g
    told = "shift" in text or "commute" in " ".join((RULES[name].__mro__[1].__doc__ or "").split())
    assert told


@pytest.mark.parametrize("name", RULES)
def test_rules_carry_the_name_they_are_loaded_by(name):
    assert loaded(name).name == name


@pytest.mark.parametrize(
    "text", ["nnm+krum:f=3", "nnm+geometric-median", "arc+nnm+multi-krum:f=2", "nnm+nnm"]
)
def test_joined_rules_carry_the_name_they_are_loaded_by(text):
    """What a plan calls a rule, the other side loads."""
    name = load_rule(text).name
    assert name == text.partition(":")[0]
    assert load_rule(name).name == name


@pytest.mark.parametrize("text", ["medain", "", "ddfed ", "DDFED", "nnm+", "nnm+kurm", "+krum"])
def test_unknown_rule_is_named_with_those_that_exist(text):
    with pytest.raises(ConfigError, match="mean, ddfed") as caught:
        load_rule(text)
    assert caught.value.code is Code.RULE_UNKNOWN


@pytest.mark.parametrize("text", ["sign", "signsgd", "sign-majority", "nnm+signsgd", "signsgd:f=1"])
def test_rules_on_signs_are_refused_with_what_to_use_instead(text):
    """One line that says why."""
    with pytest.raises(ConfigError, match=r"steps of fixed size .* median or trimmed-mean") as caught:
        load_rule(text)
    assert caught.value.code is Code.RULE_UNSUPPORTED and "\n" not in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        *("mean:f=1", "ddfed:epsilon", "ddfed:epsilon=x", "ddfed:epsilon=0", "ddfed:epsilon=nan"),
        *("ddfed:epsilon=1,delta=1", "ddfed:sigma=3", "multi-krum:f=1.5", "multi-krum:f=-1", "mda:f=nan"),
        *("multi-krum:m=0", "multi-krum:m=2.5", "multi-krum:f=1,f=2", "monna:pivot=-1", "median:f=0.5"),
        *(
            "geometric-median:nu=0",
            "geometric-median:steps=0",
            "centered-clipping:tau=0",
            "norm-clipping:c=-1",
        ),
        *(
            "centered-clipping:iterations=0",
            "dnc:c=-1",
            "ddfed-hardened:length=0.5",
            "ddfed-hardened:layers=1",
        ),
        *("mda:norm_bound=0.5", "mda:k_min=0", "mda:layers=2", "mda:sample=0", "mda:sample=1.5", "mda:m=3"),
        *("nnm+krum:tau=1", "median:k_min=2", "nnm:then=1", "mda:norm_bound=nan", "dnc:c=inf", "mda:f=inf"),
    ],
)
def test_bad_parameters_are_refused(text):
    with pytest.raises(ConfigError) as caught:
        load_rule(text)
    assert caught.value.code is Code.CONFIG_INVALID
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        ("krum", r"a sum of one opens .* use multi-krum or nnm\+krum, or set k_min=1"),
        ("krum:f=3", "set k_min=1"),
        ("krum:k_min=1.5", "set k_min=1"),
        ("multi-krum:m=1", "raise m, or set k_min = 1"),
        ("multi-krum:m=3,k_min=4", "raise m, or set k_min = 3"),
    ],
)
def test_a_rule_that_k_min_can_never_allow_is_refused_when_it_is_loaded(text, way_out):
    """Not in the middle of a round; the message says what to do instead."""
    with pytest.raises(ConfigError, match=way_out) as caught:
        load_rule(text)
    assert caught.value.code is Code.CONFIG_INVALID


@pytest.mark.parametrize("text", ["krum:k_min=1", "multi-krum:m=1,k_min=1", "nnm+krum", "arc+multi-krum:m=3"])
def test_what_k_min_can_allow_is_loaded(text):
    """A mixing makes of Krum's one choice the mean of many updates."""
    assert isinstance(load_rule(text), GramRule)


@pytest.mark.parametrize(
    "text",
    ["nnm+median", "nnm+mean", "nnm+ddfed", "nnm+fltrust", "nnm+foolsgold", "nnm+ddfed-hardened", "nnm+monna",
     "krum+nnm", "mean+krum", "median+mda"],
)  # fmt: skip
def test_rules_that_cannot_be_joined_are_refused(text):
    """Mixed updates have inner products, and no coordinates, histories or counts."""
    with pytest.raises(ConfigError) as caught:
        load_rule(f"{text}:k_min=1" if "krum" in text else text)
    assert caught.value.code is Code.RULE_UNSUPPORTED


def test_parameters_go_to_the_rule_that_has_them():
    """f to both; gates and k_min to the first, whose sum it is."""
    rule = load_rule("nnm+multi-krum:f=2,m=4,k_min=3,norm_bound=7")
    assert (rule.f, rule.k_min, rule.norm_bound) == (2, 3, 7)
    assert (rule.then.m, rule.then.k_min, rule.then.f) == (4, 1, 2)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("krum:k_min=1", {"pairs", "screened"}),
        ("fltrust", {"root", "screened"}),
        ("monna", {"root", "screened"}),
        ("flame", {"pairs", "screened", "references"}),
        ("nnm+flame", {"pairs", "screened", "references"}),
        ("foolsgold", {"history", "screened"}),
        ("norm-clipping", set()),
        ("arc", set()),
        ("arc+krum", {"pairs", "screened"}),
        ("ddfed", {"references", "models"}),
        ("ddfed-hardened", {"pairs", "screened", "references"}),
    ],
)
def test_no_more_is_asked_for_than_the_rule_looks_at(text, asked):
    """What is opened is what leaks."""
    request = load_rule(text).request(MANIFEST)
    names = ("pairs", "references", "root", "history", "screened", "models")
    assert {name for name in names if getattr(request, name)} == asked


def test_the_last_layer_is_a_block_of_its_own_in_the_hardened_rule():
    request = load_rule("ddfed-hardened").request(MANIFEST)
    assert request.blocks == (("hidden.weight", "hidden.bias"), ("output.weight",))
    assert request.references == 2


def test_layers_are_blocks_if_asked_for():
    request = load_rule("multi-krum:layers=1,sample=0.5").request(MANIFEST)
    assert request.blocks == (("hidden.weight", "hidden.bias"), ("output.weight",)) and request.sample == 0.5


def test_mean_needs_no_statistics_and_weighs_by_sample_counts():
    """w_i = capped n_i; nobody is asked."""
    rule = Mean()
    rule.require(1)
    assert rule.request(MANIFEST) is None
    assert rule.settle([], 3, np.array([5, 1, 4])).weights.tolist() == [5.0, 1.0, 4.0]


@pytest.mark.parametrize("counts", [[], [0, 0]])
def test_mean_decides_nothing_without_samples(counts):
    with pytest.raises(RoundError) as caught:
        Mean().settle([], len(counts), np.array(counts, dtype=np.int64))
    assert caught.value.code is Code.NO_DECISION


@pytest.mark.parametrize("name", RULES)
def test_only_rules_that_sort_coordinates_are_coordinate_rules(name):
    """The server tells by this which rules can't work on ciphertexts."""
    rule = loaded(name)
    assert isinstance(rule, CoordinateRule) == (name in COORDINATE)
    if name in COORDINATE:
        assert rule.request(MANIFEST) is None
        assert rule.settle([], 3, np.array([5, 0, 1])).weights.tolist() == [1.0, 1.0, 1.0]
