"""What a run recorded, as exposures: the relation between what was sent and the samples must hold."""

import json
from shutil import copytree

import numpy as np
import pytest
import torch

from attacks.inversion.recorded import exposures_of, training_of
from secagg.errors import Code, ConfigError
from secagg.plan import ProtectionMode
from secagg.simulation.recording import ABOUT_FILE, RECORDING, Recording
from secagg.simulation.task import Schedule


def left_over(recorded) -> torch.Tensor:
    """Visible values less what the true samples give, where something is visible."""
    exposure = recorded.exposure
    true = exposure.training.update(exposure.victim, exposure.parameters, recorded.batch)
    return (exposure.visible - true)[~exposure.hidden]


def test_visible_values_are_the_mean_gradient_of_the_true_samples_up_to_rounding(selective_run):
    """Two passes with momentum 0.9, models on the wire: what float32 leaves over is what ``noise`` says.

    Its root mean square is at most that of entries that all move (many don't, and are exact), and more than a
    tenth of it; without momentum in the relation it would be a million times larger.
    """
    found = exposures_of(selective_run)
    assert len(found) == 5
    for recorded in found:
        assert recorded.exposure.training.momentum == 0.9 and recorded.exposure.batch_size == 2
        error = float(left_over(recorded).square().mean().sqrt())
        assert 0.1 * recorded.exposure.noise < error < 1.5 * recorded.exposure.noise
        assert error < 1e-5 * float(recorded.exposure.visible.abs().max())


def test_differences_on_the_wire_are_read_as_such(plain_run):
    """Under a rule that looks at updates clients send differences, not models."""
    assert Recording.open(plain_run).round(1)[0].divisor > 0
    for recorded in exposures_of(plain_run):
        assert recorded.exposure.training.is_gradient and not recorded.exposure.hidden.any()
        assert float(left_over(recorded).square().mean().sqrt()) < 1.5 * recorded.exposure.noise


def test_hidden_entries_say_nothing(selective_run):
    for recorded in exposures_of(selective_run, rounds=[1]):
        hidden = recorded.exposure.hidden
        assert int(hidden.sum()) == 481 == -(-hidden.numel() // 10)
        assert not recorded.exposure.visible[hidden].any()
        assert (recorded.significance, round(recorded.ratio, 2)) == ("random", 0.1)


def test_a_full_run_shows_nothing(full_run):
    for recorded in exposures_of(full_run):
        assert recorded.protection.mode is ProtectionMode.FULL and recorded.significance == "full"
        assert recorded.exposure.hidden.all() and not recorded.exposure.visible.any()
        assert recorded.exposure.noise == 0.0


def test_forged_updates_are_left_out_from_the_round_they_begin(selective_run):
    """An attacker's update is no function of its samples; before it attacks, it is."""
    (liar,) = Recording.open(selective_run).about.attacks_from
    rounds = {(recorded.client, recorded.round) for recorded in exposures_of(selective_run)}
    assert (liar, 1) in rounds and (liar, 2) not in rounds
    with pytest.raises(ConfigError, match=f"no honest update of client {liar} in round 2"):
        exposures_of(selective_run, clients=[liar], rounds=[2])


def test_clients_and_rounds_can_be_chosen_and_stacked(selective_run):
    (liar,) = Recording.open(selective_run).about.attacks_from
    honest = next(name for name in ("client-1", "client-2") if name != liar)
    (first, second) = exposures_of(selective_run, clients=[honest], stacked=True)
    assert (first.round, second.round) == (1, 2)
    assert first.exposure.earlier == () and second.exposure.earlier == (first.exposure,)
    # Another round, another random mask, another model.
    assert not torch.equal(first.exposure.hidden, second.exposure.hidden)
    assert not torch.equal(first.exposure.parameters, second.exposure.parameters)


def test_a_folder_without_recording_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no recorded visible parts") as caught:
        exposures_of(tmp_path)
    assert caught.value.code is Code.DATA_MISSING
    with pytest.raises(ConfigError, match="no such folder"):
        exposures_of(tmp_path / "nowhere")


@pytest.mark.parametrize("change", [{"version": 2}, {"model": "cnn"}, {"schedule": {}}, {"shape": None}])
def test_a_changed_account_of_the_run_is_refused(full_run, tmp_path, change):
    """Another version, another network than was recorded, fields that are missing."""
    copy = tmp_path / RECORDING
    copy.mkdir()
    for name in ("server", "client", "truth"):
        (copy / name).symlink_to(full_run / RECORDING / name)
    fields = json.loads((full_run / RECORDING / ABOUT_FILE).read_text())
    (copy / ABOUT_FILE).write_text(json.dumps({**fields, **change}))
    with pytest.raises(ConfigError) as caught:
        exposures_of(tmp_path)
    assert caught.value.code is Code.DATA_MALFORMED


@pytest.mark.parametrize("samples", [1, 5, 8])
def test_one_batch_per_epoch_is_one_step_per_epoch(samples):
    schedule = Schedule(epochs=3, batch_size=8, learning_rate=0.5, momentum=0.25)
    training = training_of(schedule, samples)
    assert (training.steps, training.epochs, training.momentum) == (1, 3, 0.25)


@pytest.mark.parametrize("samples", [9, 12, 16, 17])
def test_several_batches_per_epoch_are_refused_with_a_way_out(samples):
    """Whether they are equal or not: which samples are together in one is drawn anew in every epoch."""
    schedule = Schedule(epochs=1, batch_size=8, learning_rate=0.5, momentum=0.0)
    with pytest.raises(ConfigError, match=f"--batch-size {samples} or more") as caught:
        training_of(schedule, samples)
    assert caught.value.code is Code.CONFIG_INVALID and "shuffled" in caught.value.message


def test_a_run_in_several_batches_is_refused_whole(plain_run, tmp_path):
    """Its references would be of another update than the one that was sent."""
    copy = tmp_path / RECORDING
    copytree(plain_run / RECORDING, copy)
    fields = json.loads((copy / ABOUT_FILE).read_text())
    fields["schedule"]["batch_size"] = 1
    (copy / ABOUT_FILE).write_text(json.dumps(fields))
    assert exposures_of(tmp_path)
    for path in (copy / "server").rglob("client-3.npz"):
        with np.load(path) as archive:
            arrays = dict(archive)
        about = {**json.loads(arrays["about"].tobytes()), "sample_count": 2}
        np.savez(path, **{**arrays, "about": np.frombuffer(json.dumps(about).encode(), np.uint8)})
    with pytest.raises(ConfigError, match="client-3 trains on 2 samples in batches of 1"):
        exposures_of(tmp_path)
