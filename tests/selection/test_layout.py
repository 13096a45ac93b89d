"""A layout cuts an update into blocks and parts, loses nothing, and says exactly how many bytes it takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.ckks import PROFILES
from secagg.errors import Code, UpdateError
from secagg.selection import REST_BLOCK, STATISTICS_BLOCK, Layout, Mask
from secagg.update import Manifest, TensorSpec

MANIFEST = Manifest(
    tensors=(
        TensorSpec(name="a", shape=(5, 4)),
        TensorSpec(name="b", shape=(3,)),
        TensorSpec(name="c", shape=(2, 6)),
    )
)


def layout_of(hidden: list[int], *statistics: str) -> Layout:
    """A layout that hides these entries, with statistics over each of these groups of tensors."""
    mask = np.zeros(MANIFEST.size, dtype=np.bool_)
    mask[hidden] = True
    return Layout(MANIFEST, Mask(mask), tuple(tuple(group) for group in statistics))


@given(
    hidden=st.lists(st.integers(0, MANIFEST.size - 1), unique=True),
    statistics=st.sampled_from([(), ("a",), ("b", "c"), ("cb",), ("abc",), ("b", "ca"), ("c", "a", "b")]),
)
def test_joining_is_the_inverse_of_splitting(hidden: list[int], statistics: tuple[str, ...]) -> None:
    """Every entry is in exactly one part, and comes back to its place."""
    layout = layout_of(hidden, *statistics)
    flat = np.arange(MANIFEST.size, dtype=np.float32)
    parts, visible = layout.split(flat)
    assert np.array_equal(layout.join(parts, visible), flat)
    assert tuple(part.size for part in parts) == layout.hidden_counts
    assert tuple(part.size for part in visible) == layout.visible_counts
    assert sum(layout.hidden_counts) + sum(layout.visible_counts) == layout.size
    for profile in PROFILES.values():
        sealed = [profile.sealed_bytes(count) for count in layout.hidden_counts]
        assert layout.payload_bytes(profile) == sum(sealed) + 4 * sum(layout.visible_counts)
        assert layout.sealed_offsets(profile) == tuple(np.cumsum([0, *sealed])[:-1])
        assert layout.visible_offsets(profile)[0] == sum(sealed)


def test_blocks_come_in_their_order_and_empty_ones_are_left_out() -> None:
    """The rest first, then one for each group; all tensors named: no rest; none named: no group."""
    assert layout_of([]).blocks == (REST_BLOCK,)
    assert layout_of([], "b").blocks == (REST_BLOCK, STATISTICS_BLOCK)
    assert layout_of([], "cab").blocks == (STATISTICS_BLOCK,)
    groups = (f"{STATISTICS_BLOCK}-1", f"{STATISTICS_BLOCK}-2")
    assert layout_of([], "c", "b").blocks == (REST_BLOCK, *groups)
    assert layout_of([], "c", "ab").blocks == groups


def test_products_run_over_the_groups_or_over_all_there_is() -> None:
    """Never over the rest, if there are groups."""
    assert layout_of([]).product_blocks == range(1)
    assert layout_of([], "b").product_blocks == range(1, 2)
    assert layout_of([], "abc").product_blocks == range(1)
    assert layout_of([], "c", "b").product_blocks == range(1, 3)
    assert layout_of([], "c", "ab").product_blocks == range(2)


def test_named_tensors_form_a_block_in_flat_order() -> None:
    """Whatever order they are named in; the blocks keep the order of their groups."""
    _, visible = layout_of([], "cb").split(np.arange(35, dtype=np.float32))
    assert visible[1].tolist() == list(range(20, 35))
    _, visible = layout_of([], "c", "b").split(np.arange(35, dtype=np.float32))
    assert [part.tolist() for part in visible[1:]] == [list(range(23, 35)), list(range(20, 23))]


def test_statistics_blocks_are_hidden_whole_as_soon_as_anything_is() -> None:
    """So that their entries keep their slots when the mask changes; in plain mode they stay visible."""
    assert layout_of([0], "b", "c").hidden_counts == (1, 3, 12)
    assert layout_of([0, 7], "b").hidden_counts == (2, 3)
    assert layout_of([], "b").hidden_counts == (0, 0)
    assert layout_of([0], "b").same_slots(layout_of([5, 9], "b"), 1)
    assert not layout_of([0], "b").same_slots(layout_of([5, 9], "b"), 0)


def test_groups_that_are_all_there_is_keep_the_mask() -> None:
    """Nothing else is left that could change its slots, and hiding them whole would be protect = full."""
    assert layout_of([0, 21], "ab", "c").hidden_counts == (2, 0)
    assert layout_of([0, 21], "ab", "c").visible_counts == (21, 12)


def test_mask_or_vector_of_another_length_is_refused() -> None:
    """MASK_MISMATCH, MANIFEST_MISMATCH, UPDATE_SHAPE."""
    with pytest.raises(UpdateError) as caught:
        Layout(MANIFEST, Mask(np.ones(3, dtype=np.bool_)))
    assert caught.value.code is Code.MASK_MISMATCH
    with pytest.raises(UpdateError) as caught:
        layout_of([], "nobody")
    assert caught.value.code is Code.MANIFEST_MISMATCH
    layout = layout_of([1, 2])
    with pytest.raises(UpdateError) as caught:
        layout.split(np.zeros(34, dtype=np.float32))
    assert caught.value.code is Code.UPDATE_SHAPE
    with pytest.raises(UpdateError) as caught:
        layout.join([np.zeros(2)], [np.zeros(32)])
    assert caught.value.code is Code.UPDATE_SHAPE
