"""Masks hide exactly what was asked for, and the wire's own ones are the wire's."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from protection_cases import CHOSEN, SCORED, evidence, samples, tiny

from attacks.inversion.protections import Protection, Significance
from secagg import plan
from secagg.errors import Code, ConfigError, UpdateError
from secagg.selection import derive_mask, mask_of_scores, propose_mask
from secagg.selection.mask import entries_to_hide

SIZES = [30, 5, 15, 3]
BOUNDS = np.cumsum([0, *SIZES])


def hidden_of(text: str, **more: int) -> np.ndarray:
    """The mask of a protection over one client's samples."""
    return Protection.parse(text).masked(evidence(tiny(), samples(1)), seed=more.get("seed", 0)).hidden


def whole(hidden: np.ndarray) -> list[bool]:
    """Which tensors are hidden; each must be so whole or not at all."""
    parts = [hidden[start:end] for start, end in pairwise(BOUNDS)]
    assert all(part.all() or not part.any() for part in parts)
    return [bool(part.all()) for part in parts]


@settings(max_examples=8)
@given(ratio=st.floats(0, 1))
@pytest.mark.parametrize("name", CHOSEN)
def test_exactly_as_many_entries_are_hidden_as_the_ratio_says(name: str, ratio: float) -> None:
    """ceil(ratio·d), whatever decides which."""
    mask = Protection.parse(name, ratio=ratio).masked(evidence(tiny(), samples(1)), seed=5)
    assert mask.hidden_count == entries_to_hide(tiny().size, ratio)


@settings(max_examples=8)
@given(ratio=st.floats(0, 1))
@pytest.mark.parametrize("name", CHOSEN)
def test_whole_tensors_are_hidden_until_the_ratio_is_reached(name: str, ratio: float) -> None:
    """Without any one of them that came last, there would be too few."""
    mask = Protection.parse(f"{name}/layer", ratio=ratio).masked(evidence(tiny(), samples(1)), seed=5)
    chosen, least = whole(mask.hidden), entries_to_hide(tiny().size, ratio)
    assert mask.hidden_count >= least
    sizes = [size for size, taken in zip(SIZES, chosen, strict=True) if taken]
    assert not sizes or min(mask.hidden_count - size for size in sizes) < least


def test_nothing_and_everything() -> None:
    """``none`` and ``full`` are plain and full rounds."""
    assert not hidden_of("none").any()
    assert hidden_of("full").all()


@settings(max_examples=40)
@given(
    change=st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.0, -3.5, 1e-30]), min_size=1, max_size=100),
    ratio=st.floats(0.01, 1),
)
def test_mask_of_scores_is_what_clients_propose(change: list[float], ratio: float) -> None:
    """Same count, same ties; also in float64, where scores are compared no differently."""
    current = np.array(change, dtype=np.float32)
    proposed = propose_mask(np.zeros_like(current), current, ratio)
    assert mask_of_scores(np.abs(current), ratio) == proposed
    assert mask_of_scores(np.abs(current).astype(np.float64), ratio) == proposed


def test_mask_of_scores_takes_no_score_that_has_no_place() -> None:
    """NaN is refused; infinities are just large and small."""
    with pytest.raises(UpdateError) as caught:
        mask_of_scores(np.array([1.0, np.nan, 2.0]), 0.5)
    assert caught.value.code is Code.UPDATE_NOT_FINITE
    assert mask_of_scores(np.array([-np.inf, np.inf, 2.0]), 0.3).hidden.tolist() == [False, True, False]


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.5, 1.0])
def test_magnitude_hides_what_clients_would_propose(ratio: float) -> None:
    """The mask of a float32 update is ``propose_mask`` of an aggregate that moved by it."""
    given = evidence(tiny(), samples(1))
    update = given.update.to(torch.float32).numpy()
    mask = Protection.parse("magnitude", ratio=ratio).masked(given, seed=0)
    assert mask == propose_mask(np.zeros_like(update), update, ratio)


def test_named_layers_are_the_wire_s() -> None:
    """As ``derive_mask`` hides them."""
    names = ("0.bias", "2.weight")
    wire = plan.Protection.selective(significance=plan.Significance.LAYERS, layers=names)
    assert np.array_equal(
        hidden_of(f"layers={','.join(names)}"), derive_mask(wire, tiny().manifest, bytes(16), 1).hidden
    )


def test_random_masks_are_drawn_as_the_wire_draws_them_and_follow_the_seed_and_round() -> None:
    """As many entries, others under another seed or in another round, the same under the same."""
    protection, given = Protection.parse("random:0.5"), evidence(tiny(), samples(1))
    first, again, seed, later = (
        protection.masked(given, seed=seed, round=round) for seed, round in ((1, 1), (1, 1), (2, 1), (1, 2))
    )
    assert first == again != seed
    assert later not in (first, seed)


def test_random_whole_tensors_follow_the_seed() -> None:
    """Every tensor comes first under some seed."""
    protection, given = Protection.parse("random/layer:0.01"), evidence(tiny(), samples(1))
    masks = {protection.masked(given, seed=seed).digest for seed in range(40)}
    assert len(masks) == len(SIZES)


def test_first_and_last_count_from_the_front_and_from_the_back() -> None:
    """Whole tensors as far as they fit; at layer granularity the last of them is not cut either."""
    assert np.flatnonzero(~hidden_of("first:0.6")).tolist() == list(range(32, 53))
    assert np.flatnonzero(hidden_of("last:0.1")).tolist() == list(range(47, 53))
    assert whole(hidden_of("first/layer:0.6")) == [True, True, False, False]
    assert whole(hidden_of("last/layer:0.1")) == [False, False, True, True]


def test_tensors_are_taken_by_mean_score() -> None:
    """The mean magnitude decides, not the sum."""
    given = evidence(tiny(), samples(1))
    means = [float(part.abs().mean()) for part in given.update.split(SIZES)]
    mask = Protection.parse("magnitude/layer:0.01").masked(given, seed=0)
    assert whole(mask.hidden).index(True) == int(np.argmax(means))


@pytest.mark.parametrize("name", SCORED)
def test_the_largest_scores_are_hidden(name: str) -> None:
    """No visible entry scores higher than a hidden one."""
    protection, given = Protection.parse(name, ratio=0.3), evidence(tiny(), samples(1))
    scores = protection.score(given).numpy()
    hidden = protection.masked(given, seed=0).hidden
    assert scores.shape == (tiny().size,)
    assert scores[hidden].min() >= scores[~hidden].max()


def test_what_does_not_score_says_so() -> None:
    """There are no scores of random masks."""
    with pytest.raises(ConfigError) as caught:
        Protection.parse("random").score(evidence(tiny(), samples(1)))
    assert caught.value.code is Code.CONFIG_INVALID


def test_ratio_defaults_to_what_the_significance_says() -> None:
    """Everything, but with ``none``."""
    assert {
        name: Protection(significance=name).ratio for name in Significance if not name.fixed
    } == dict.fromkeys((name for name in Significance if not name.fixed), 1.0)
    assert Protection(significance=Significance.NONE).ratio == 0
    assert not math.isnan(Protection(significance=Significance.FULL).ratio)
