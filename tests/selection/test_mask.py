"""A mask is derived the same way everywhere, hides exactly what was asked for, and travels in one form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from secagg.errors import Code, UpdateError
from secagg.plan import Protection, Significance
from secagg.selection import Mask, derive_mask, propose_mask
from secagg.selection.mask import entries_to_hide
from secagg.update import Manifest, TensorSpec

MANIFEST = Manifest(
    tensors=(
        TensorSpec(name="a.weight", shape=(30, 40)),
        TensorSpec(name="a.bias", shape=(30,)),
        TensorSpec(name="b.weight", shape=(10, 30)),
        TensorSpec(name="b.bias", shape=(10,)),
    )
)
FEDERATION = bytes(range(16))


def random_protection(ratio: float) -> Protection:
    """Selective protection of drawn entries."""
    return Protection.selective(significance=Significance.RANDOM, ratio=ratio)


@given(hidden=arrays.arrays(np.bool_, st.integers(1, 200)))
def test_mask_survives_a_round_trip_byte_for_byte(hidden: np.ndarray) -> None:
    """Any pattern, any length, with and without the length being known."""
    mask = Mask(hidden)
    data = mask.to_bytes()
    assert len(data) == Mask.wire_bytes(mask.size)
    assert Mask.from_bytes(data) == mask == Mask.from_bytes(data, size=hidden.size)
    assert Mask.from_bytes(data).to_bytes() == data
    assert np.array_equal(Mask.from_bytes(data).hidden, hidden)


def test_wire_form_of_a_mask_is_pinned() -> None:
    """Known answer: version, u64 length, entries from the highest bit down."""
    mask = Mask(np.array([True, False, False, True, False, False, False, False, True, True]))
    assert mask.to_bytes().hex() == "01" + "0a00000000000000" + "90c0"
    assert mask.digest.hex() == "6524a63eb8d9947e5e51fb40008c7e85e8dd3c050d7dc05d6d224b0fabf7c131"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("", id="empty"),
        pytest.param("01", id="cut"),
        pytest.param("020a0000000000000090c0", id="version"),
        pytest.param("010a0000000000000090", id="truncated"),
        pytest.param("010a0000000000000090c000", id="trailing"),
        pytest.param("010a0000000000000090c1", id="tail bits"),
        pytest.param("010000000000000000", id="no entry"),
        pytest.param("01ffffffffffffffff90c0", id="huge"),
    ],
)
def test_malformed_mask_is_refused(data: str) -> None:
    """Each fault is MASK_MALFORMED."""
    with pytest.raises(UpdateError) as caught:
        Mask.from_bytes(bytes.fromhex(data))
    assert caught.value.code is Code.MASK_MALFORMED


def test_mask_over_another_number_of_entries_is_a_mismatch() -> None:
    """Well formed, but not for this manifest."""
    with pytest.raises(UpdateError) as caught:
        Mask.from_bytes(Mask(np.ones(9, dtype=np.bool_)).to_bytes(), size=10)
    assert caught.value.code is Code.MASK_MISMATCH


@pytest.mark.parametrize("hidden", [np.zeros(0, np.bool_), np.zeros((2, 2), np.bool_), np.zeros(3, np.uint8)])
def test_mask_of_impossible_shape_is_refused(hidden: np.ndarray) -> None:
    """Bool vectors with at least one entry only."""
    with pytest.raises(UpdateError):
        Mask(hidden)


def test_mask_can_not_be_changed_afterwards() -> None:
    """Neither through the mask nor through the array it was made from."""
    hidden = np.zeros(4, dtype=np.bool_)
    mask = Mask(hidden)
    hidden[0] = True
    assert mask.hidden_count == 0
    with pytest.raises(ValueError, match="read-only"):
        mask.hidden[0] = True


def test_plain_hides_nothing_and_full_everything() -> None:
    """Whatever round and federation."""
    assert derive_mask(Protection.plain(), MANIFEST, FEDERATION, 1).hidden_count == 0
    assert derive_mask(Protection.full(), MANIFEST, FEDERATION, 1).hidden_count == MANIFEST.size


def test_layers_hide_exactly_the_named_tensors() -> None:
    """In flat order."""
    protection = Protection.selective(significance=Significance.LAYERS, layers=("b.bias", "a.bias"))
    hidden = derive_mask(protection, MANIFEST, FEDERATION, 1).hidden
    assert np.array_equal(np.flatnonzero(hidden), np.r_[1200:1230, 1530:1540])


@given(ratio=st.floats(0.001, 1.0), round=st.integers(1, 2**40))
def test_random_mask_hides_exactly_the_ratio_rounded_up(ratio: float, round: int) -> None:
    """ceil(ratio·d), the same for everybody who knows federation and round."""
    mask = derive_mask(random_protection(ratio), MANIFEST, FEDERATION, round)
    assert mask.hidden_count == entries_to_hide(MANIFEST.size, ratio)
    assert mask == derive_mask(random_protection(ratio), MANIFEST, FEDERATION, round)


@pytest.mark.parametrize(
    ("size", "ratio", "count"), [(10, 0.1, 1), (1000, 0.001, 1), (1540, 0.3, 462), (7, 1.0, 7), (3, 0.5, 2)]
)
def test_floating_point_does_not_lift_the_number_of_hidden_entries(
    size: int, ratio: float, count: int
) -> None:
    """0.3 · 1540 is 462 and not 463."""
    assert entries_to_hide(size, ratio) == count


def test_random_masks_differ_by_round_and_federation_and_are_spread_evenly() -> None:
    """Two rounds share about ratio² of all entries: within six deviations of the hypergeometric mean."""
    first, second, third = (
        derive_mask(random_protection(0.5), MANIFEST, federation, round).hidden
        for federation, round in ((FEDERATION, 1), (FEDERATION, 2), (bytes(16), 1))
    )
    size = MANIFEST.size
    for other in (second, third):
        shared = np.count_nonzero(first & other)
        assert abs(shared - size / 4) <= 6 * (size / 16) ** 0.5


def test_random_mask_is_pinned() -> None:
    """Known answer: a new build must draw what old builds drew."""
    mask = derive_mask(random_protection(0.01), MANIFEST, FEDERATION, 3)
    assert np.flatnonzero(mask.hidden).tolist() == [
        70,
        306,
        328,
        601,
        622,
        679,
        685,
        691,
        806,
        906,
        918,
        996,
        1159,
        1325,
        1356,
        1385,
    ]


def test_magnitude_hides_everything_until_a_mask_is_agreed() -> None:
    """Then exactly that mask."""
    protection = Protection.selective(significance=Significance.MAGNITUDE, ratio=0.1)
    assert derive_mask(protection, MANIFEST, FEDERATION, 1).hidden_count == MANIFEST.size
    agreed = Mask(np.arange(MANIFEST.size) % 10 == 0)
    assert derive_mask(protection, MANIFEST, FEDERATION, 2, agreed) is agreed


def test_agreed_mask_is_refused_where_none_belongs() -> None:
    """Another significance, or another number of entries."""
    agreed = Mask(np.ones(MANIFEST.size, dtype=np.bool_))
    short = Mask(np.ones(3, dtype=np.bool_))
    magnitude = Protection.selective(significance=Significance.MAGNITUDE, ratio=0.1)
    for protection, mask in (
        (Protection.plain(), agreed),
        (random_protection(0.1), agreed),
        (magnitude, short),
    ):
        with pytest.raises(UpdateError) as caught:
            derive_mask(protection, MANIFEST, FEDERATION, 2, mask)
        assert caught.value.code is Code.MASK_MISMATCH


@given(
    change=arrays.arrays(
        np.float32, st.integers(1, 300), elements=st.sampled_from([0.0, 1.0, -1.0, 2.0, -3.5])
    ),
    ratio=st.floats(0.01, 1.0),
)
def test_proposed_mask_hides_the_largest_changes_ties_by_index(change: np.ndarray, ratio: float) -> None:
    """As a stable sort by falling |difference| would choose."""
    mask = propose_mask(np.zeros_like(change), change, ratio)
    count = entries_to_hide(change.size, ratio)
    chosen = np.argsort(-np.abs(change), kind="stable")[:count]
    assert np.array_equal(np.flatnonzero(mask.hidden), np.sort(chosen))


def test_aggregates_that_can_not_be_compared_are_refused() -> None:
    """Another length, another dtype."""
    with pytest.raises(UpdateError) as caught:
        propose_mask(np.zeros(3, np.float32), np.zeros(4, np.float32), 0.5)
    assert caught.value.code is Code.UPDATE_SHAPE
    with pytest.raises(UpdateError) as caught:
        propose_mask(np.zeros(3, np.float32), np.zeros(3), 0.5)  # type: ignore[arg-type]
    assert caught.value.code is Code.UPDATE_DTYPE
