"""A recorded update as if nothing of it had been hidden: what a client would have sent then."""

from shutil import copytree

import numpy as np
import pytest
import torch

from attacks.inversion.bench.from_run import RunTrial, Trial
from attacks.inversion.recorded import RecordedRun
from secagg.simulation.recording import RECORDING


@pytest.mark.parametrize(
    ("masked", "clear"), [("half_hidden_run", "plain_run"), ("batched_run", "clear_batched_run")]
)
def test_a_reference_is_what_the_same_run_sends_in_the_clear(masked, clear, request):
    """To the last bit, hidden entries too; differences travel in the first pair, models in the second.

    The second is of several batches with momentum. ``noise`` is that of all entries.
    """
    some, every = (RecordedRun(request.getfixturevalue(name)) for name in (masked, clear))
    places = every.honest
    assert len(places) >= 2 and {number for number, _ in places} == {1}
    for place in places:
        sent = every.update(place).exposure
        found = some.in_the_clear(place)
        assert some.update(place).exposure.hidden.any() and not found.hidden.any()
        assert torch.equal(found.visible, sent.visible) and found.noise == sent.noise > 0


def test_the_reference_of_what_was_hidden_whole_is_as_exact_as_float32(full_run):
    """Its θ_T is a float32 model; what that leaves over against the true samples is what ``noise`` says."""
    run = RecordedRun(full_run)
    for place in run.honest:
        found, batch = run.in_the_clear(place), run.update(place).batch
        training = found.training
        ended = found.parameters - found.visible * training.learning_rate * training.weight
        torch.testing.assert_close(ended, ended.float().double(), rtol=1e-12, atol=1e-16)
        error = found.visible - training.update(found.victim, found.parameters, batch)
        assert 0.1 * found.noise < float(error.square().mean().sqrt()) < 1.5 * found.noise


def test_a_reference_keeps_what_was_sent_where_something_was_seen(half_hidden_run, tmp_path, rewritten):
    """Even if training comes to something else now: another machine sums in another order."""
    run = RecordedRun(half_hidden_run)
    (place, *_) = run.honest
    sent = run.update(place).exposure
    number, client = place
    copytree(half_hidden_run / RECORDING, tmp_path / RECORDING)
    path = tmp_path / RECORDING / "server" / f"round-{number}" / "updates" / f"{client}.npz"
    with np.load(path) as archive:
        visible = archive["visible"]
    rewritten(path, visible=visible * np.float32(1.5))
    found = RecordedRun(tmp_path).in_the_clear(place)
    seen = ~sent.hidden
    torch.testing.assert_close(found.visible[seen], 1.5 * sent.visible[seen], rtol=1e-6, atol=0)
    assert torch.equal(found.visible[~seen], run.in_the_clear(place).visible[~seen])


def test_references_of_rounds_seen_together_are_references_of_each(selective_run):
    """Earlier rounds are shown in the clear as well, each of its own mask and model."""
    alone, together = RecordedRun(selective_run), RecordedRun(selective_run, together=2)
    (client, *_) = [name for number, name in alone.honest if number == 2]
    found = together.in_the_clear((2, client))
    (before,) = found.earlier
    assert torch.equal(before.visible, alone.in_the_clear((1, client)).visible)
    assert not before.hidden.any() and not found.hidden.any()


def test_a_reference_is_bounded_by_float32(half_hidden_run, full_run):
    """What the wire can hold, about 137 dB of one gradient, not the 300 dB of exact numbers."""
    for run in (half_hidden_run, full_run):
        planned = RunTrial.planned(run, Trial(attackers=("analytic",)))
        bounds = [
            row["psnr_pred_db"]
            for cell in planned.cells
            if cell.attacker == "measure" and cell.significance == "none"
            for row in planned.stage.play(cell).rows
        ]
        assert bounds and all(60 < bound < 160 for bound in bounds)
