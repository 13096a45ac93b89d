"""What rounding leaves over is kept by flat position, and only once its update is in an aggregate."""

import numpy as np
import pytest

from secagg.client.feedback import ErrorFeedback
from secagg.selection import Layout, Mask
from secagg.update import Manifest, TensorSpec

MANIFEST = Manifest(tensors=(TensorSpec(name="w", shape=(40, 50)), TensorSpec(name="last", shape=(9,))))
RNG = np.random.default_rng(3)
MASKS = {
    "whole": Mask(np.ones(MANIFEST.size, dtype=np.bool_)),
    "scattered": Mask(RNG.random(MANIFEST.size) < 0.3),
}


def leave(feedback, layout, flat):
    """An update leaves over what ``flat`` says of its hidden values; nothing is settled yet."""
    carry = feedback.begin(layout)
    for block in range(len(layout.blocks)):
        hidden = layout.hidden_of(flat, block)
        for start in range(0, hidden.size, 700):
            carry(block).write(start, hidden[start : start + 700])


def left_over(feedback, layout):
    """What the next update reads, block by block."""
    carry = feedback.begin(layout)
    return [
        carry(block).read(0, count) if count else np.empty(0, np.float32)
        for block, count in enumerate(layout.hidden_counts)
    ]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("statistics", [(), (("last",),)])
def test_what_is_left_over_comes_back_once_it_is_settled(tmp_path, mask, statistics):
    """Every block's values at their places, under one run as under scattered indices."""
    layout, flat = Layout(MANIFEST, MASKS[mask], statistics), RNG.random(MANIFEST.size).astype(np.float32)
    feedback = ErrorFeedback(tmp_path)
    assert all(not part.any() for part in left_over(feedback, layout))
    leave(feedback, layout, flat)
    feedback.settle(layout)
    for block, part in enumerate(left_over(ErrorFeedback(tmp_path), layout)):
        assert np.array_equal(part, layout.hidden_of(flat, block))


def test_what_a_failed_round_left_over_is_forgotten(tmp_path):
    """A second update of the round starts from what was settled before."""
    layout, feedback = Layout(MANIFEST, MASKS["whole"]), ErrorFeedback(tmp_path)
    first, second = (RNG.random(MANIFEST.size).astype(np.float32) for _ in range(2))
    leave(feedback, layout, first)
    feedback.settle(layout)
    leave(feedback, layout, second)
    assert np.array_equal(left_over(feedback, layout)[0], first)


def test_values_keep_what_they_left_over_while_other_masks_hide_others(tmp_path):
    """Visible for a round, hidden again: it is still there."""
    feedback, flat = ErrorFeedback(tmp_path), RNG.random(MANIFEST.size).astype(np.float32)
    half = np.arange(MANIFEST.size) % 2 == 0
    even, odd = (Layout(MANIFEST, Mask(hidden)) for hidden in (half, ~half))
    for layout in (even, odd):
        leave(feedback, layout, flat)
        feedback.settle(layout)
    assert np.array_equal(left_over(feedback, even)[0], flat[half])
    assert np.array_equal(left_over(feedback, odd)[0], flat[~half])


def test_another_models_file_and_a_torn_one_count_as_nothing(tmp_path):
    """Precision is lost, nothing else."""
    feedback, layout = ErrorFeedback(tmp_path), Layout(MANIFEST, MASKS["whole"])
    leave(feedback, layout, np.ones(MANIFEST.size, np.float32))
    feedback.settle(layout)
    other = Manifest(tensors=(TensorSpec(name="w", shape=(MANIFEST.size,)),))
    whole = Mask(np.ones(other.size, dtype=np.bool_))
    assert not left_over(feedback, Layout(other, whole))[0].any()
    path = tmp_path / "carry"
    path.write_bytes(path.read_bytes()[:-1])
    assert not left_over(feedback, layout)[0].any()


def test_damaged_values_never_reach_an_update(tmp_path):
    """NaN and infinity would come back for ever, and overflow the sum."""
    feedback, layout = ErrorFeedback(tmp_path), Layout(MANIFEST, MASKS["whole"])
    leave(feedback, layout, np.ones(MANIFEST.size, np.float32))
    feedback.settle(layout)
    path = tmp_path / "carry"
    torn = np.full(3, np.nan, "<f4")
    torn[1:] = np.inf, -1e30
    path.write_bytes(path.read_bytes()[:-12] + torn.tobytes())
    found = left_over(feedback, layout)[0]
    assert np.isfinite(found).all() and np.abs(found).max() <= 2.0**20 and found[-3] == 0
    assert (found[:-3] == 1).all()


def test_what_an_unopened_aggregate_took_is_not_owed_again(tmp_path):
    """Neither the settled nor the pending part comes back."""
    layout, feedback = Layout(MANIFEST, MASKS["whole"]), ErrorFeedback(tmp_path)
    leave(feedback, layout, np.ones(MANIFEST.size, np.float32))
    feedback.settle(layout)
    leave(feedback, layout, np.ones(MANIFEST.size, np.float32))
    feedback.forget()
    assert not left_over(feedback, layout)[0].any()


def test_settling_nothing_or_a_torn_file_changes_nothing(tmp_path):
    """As after a crash in the middle."""
    feedback, layout = ErrorFeedback(tmp_path), Layout(MANIFEST, MASKS["whole"])
    feedback.settle(layout)
    assert not (tmp_path / "carry").exists()
    leave(feedback, layout, np.ones(MANIFEST.size, np.float32))
    pending = tmp_path / "carry.pending"
    pending.write_bytes(pending.read_bytes()[:-4])
    feedback.settle(layout)
    assert not (tmp_path / "carry").exists() and not pending.exists()
