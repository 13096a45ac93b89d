"""Protections have one text form; what it can't say, or contradicts itself, is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attacks.inversion.protections import (
    Clipping,
    Granularity,
    Noise,
    Protection,
    Pruning,
    Quantisation,
    Scores,
    Significance,
    parse_perturbations,
)
from secagg.errors import Code, ConfigError

POSITIVE = st.floats(1e-30, 1e30)
STEPS = st.one_of(
    st.builds(Noise, std=st.floats(0, 1e30), relative=st.booleans()),
    st.builds(Clipping, norm=POSITIVE),
    st.builds(Pruning, share=st.floats(0, 1)),
    st.builds(Quantisation, bits=st.integers(2, 32)),
)
TENSORS = st.lists(
    st.text(st.characters(exclude_characters="+,", codec="utf-8"), min_size=1), unique=True, max_size=3
).map(tuple)


@st.composite
def protections(draw: st.DrawFn) -> Protection:
    """Any that there is."""
    name = draw(st.sampled_from(Significance))
    more: dict[str, object] = {}
    if name is Significance.LAYERS:
        more["layers"] = draw(TENSORS.filter(bool))
    if not name.fixed:
        more["ratio"] = draw(st.floats(0, 1))
        more["granularity"] = draw(st.sampled_from(Granularity))
    if name.scored:
        more["scores"] = draw(st.sampled_from(Scores))
    steps = tuple(draw(st.lists(STEPS, max_size=3)))
    return Protection(significance=name, perturbations=steps, statistics=draw(TENSORS), **more)  # type: ignore[arg-type]


@given(protection=protections())
def test_text_form_survives_a_round_trip(protection: Protection) -> None:
    """Both ways; without the ratio, it is a label to which any ratio can be given."""
    assert Protection.parse(str(protection)) == protection
    assert str(Protection.parse(str(protection))) == str(protection)
    assert Protection.parse(protection.label, ratio=protection.ratio) == protection


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", Protection(significance=Significance.NONE)),
        ("full", Protection(significance=Significance.FULL)),
        ("magnitude", Protection(significance=Significance.MAGNITUDE)),
        (
            "magnitude/layer@common:0.1",
            Protection(
                significance=Significance.MAGNITUDE,
                ratio=0.1,
                granularity=Granularity.LAYER,
                scores=Scores.COMMON,
            ),
        ),
        (
            "layers=conv1.weight,conv1.bias",
            Protection(significance=Significance.LAYERS, layers=("conv1.weight", "conv1.bias")),
        ),
        (
            "none+noise:0.01+noise-absolute:2+clip:1+prune:0.9+quantise:8+statistics=fc.weight",
            Protection(
                significance=Significance.NONE,
                perturbations=(
                    Noise(std=0.01),
                    Noise(std=2, relative=False),
                    Clipping(norm=1),
                    Pruning(share=0.9),
                    Quantisation(bits=8),
                ),
                statistics=("fc.weight",),
            ),
        ),
    ],
)
def test_text_form_is_pinned(text: str, expected: Protection) -> None:
    """Sweep files hold it: it must keep its meaning."""
    assert Protection.parse(text) == expected
    assert str(expected) == (f"{text}:1" if text == "magnitude" else text)


def test_perturbations_have_a_text_form_of_their_own() -> None:
    """As a flag gives them; none for nothing."""
    assert parse_perturbations("") == ()
    assert parse_perturbations("clip:1+noise:0.5") == (Clipping(norm=1), Noise(std=0.5))


def test_a_ratio_is_given_to_what_takes_one() -> None:
    """A sweep gives its ratios to all; one in the text goes first."""
    assert Protection.parse("random", ratio=0.2).ratio == 0.2
    assert Protection.parse("random:0.3", ratio=0.2).ratio == 0.3
    assert Protection.parse("full", ratio=0.2).ratio == 1
    assert Protection.parse("random:0.3").at(0.4) == Protection.parse("random:0.4")
    assert Protection.parse("none").at(0.4) == Protection.parse("none")


@pytest.mark.parametrize(
    ("text", "clue"),
    [
        ("", "magnitude"),
        ("size", "sensitivity"),
        ("magnitude/row", "layer"),
        ("magnitude@mine", "common"),
        ("magnitude:much", "much"),
        ("magnitude:", "number"),
        ("magnitude:nan", "nan"),
        ("magnitude:1.5", "[0, 1]"),
        ("magnitude:-0.1", "[0, 1]"),
        ("magnitude+", "quantise"),
        ("magnitude+blur:2", "noise"),
        ("magnitude+noise", "noise:VALUE"),
        ("magnitude+noise:-1", "≥ 0"),
        ("magnitude+noise:inf", "finite"),
        ("magnitude+clip:0", "positive"),
        ("magnitude+prune:2", "[0, 1]"),
        ("magnitude+quantise:1", "2 to 32"),
        ("magnitude+quantise:8.5", "whole"),
        ("magnitude=fc.weight", "layers=NAME"),
        ("layers", "at least one"),
        ("layers=", "at least one"),
        ("layers=a,a", "twice"),
        ("none+statistics=a,a", "twice"),
        ("full:0.5", "says nothing"),
        ("none:0.5", "says nothing"),
        ("full/layer", "granularity"),
        ("random@common", "does not depend on samples"),
    ],
)
def test_a_bad_text_is_refused_with_what_there_is(text: str, clue: str) -> None:
    """One line that names the way out."""
    with pytest.raises(ConfigError) as caught:
        Protection.parse(text)
    assert caught.value.code is Code.CONFIG_INVALID
    assert clue in caught.value.message
    assert "\n" not in caught.value.message


def test_names_that_the_text_can_not_hold_are_refused() -> None:
    """A name with a separator would come back as two."""
    for name in ("a+b", "a,b", ""):
        with pytest.raises(ConfigError):
            Protection(significance=Significance.LAYERS, layers=(name,))
