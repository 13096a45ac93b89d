"""What a run recorded, as exposures: the relation between what was sent and the samples must hold."""

import json
from dataclasses import replace
from shutil import copytree

import numpy as np
import pytest
import torch

from attacks.inversion.recorded import Recorded, RecordedRun, training_of
from secagg.errors import Code, ConfigError
from secagg.plan import ProtectionMode
from secagg.simulation.recording import ABOUT_FILE, RECORDING, Recording
from secagg.simulation.task import Schedule


def exposures_of(run, *, clients=None, rounds=None, together=1) -> list[Recorded]:
    recording = RecordedRun(run, together=together)
    return [recording.update(place) for place in recording.chosen(clients=clients, rounds=rounds)]


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
    (first, second) = exposures_of(selective_run, clients=[honest], together=5)
    assert (first.round, second.round) == (1, 2)
    (before,) = second.exposure.earlier
    assert first.exposure.earlier == () and torch.equal(before.visible, first.exposure.visible)
    assert [one.exposure.earlier for one in exposures_of(selective_run, clients=[honest])] == [(), ()]
    # Another round, another random mask, another model.
    assert not torch.equal(first.exposure.hidden, second.exposure.hidden)
    assert not torch.equal(first.exposure.parameters, second.exposure.parameters)


def test_a_folder_without_recording_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no recorded visible parts") as caught:
        exposures_of(tmp_path)
    assert caught.value.code is Code.DATA_MISSING
    with pytest.raises(ConfigError, match="no such folder"):
        exposures_of(tmp_path / "nowhere")


def changed(run, copy, change) -> None:
    """A copy of a run's recording, another account of it."""
    (copy / RECORDING).mkdir()
    for name in ("server", "client", "truth"):
        (copy / RECORDING / name).symlink_to(run / RECORDING / name)
    fields = json.loads((run / RECORDING / ABOUT_FILE).read_text())
    (copy / RECORDING / ABOUT_FILE).write_text(json.dumps({**fields, **change}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 1}, "of version 1; this build reads 2"),
        ({"model": "cnn"}, "another network"),
        ({"model": "resnet"}, "model is 'resnet'"),
        ({"schedule": {}}, "schedule"),
        ({"schedule": {"epochs": 10**9, "batch_size": 8, "learning_rate": 0.1, "momentum": 0}}, "epochs is"),
        (
            {"schedule": {"epochs": 1, "batch_size": 8, "learning_rate": -1, "momentum": 0}},
            "learning_rate is",
        ),
        ({"schedule": {"epochs": "1", "batch_size": 8, "learning_rate": 1, "momentum": 0}}, "epochs is '1'"),
        ({"shape": None}, "shape is None"),
        ({"shape": [1, 10**5, 10**5]}, "holds no samples"),
        ({"shape": [1, -8, 8]}, "shape.1 is -8"),
        ({"classes": 10**9}, "classes is"),
        ({"classes": 1}, "classes is 1"),
        ({"classes": True}, "classes is True"),
        ({"attacks_from": {"client-1": "2"}}, "attacks_from"),
        ({"streams": {"client-1": [-1]}}, "streams"),
        ({"streams": 3}, "streams is 3"),
    ],
)
def test_a_changed_account_of_the_run_is_refused(full_run, tmp_path, change, said):
    """Another version, another network than was recorded, values no run could have had."""
    changed(full_run, tmp_path, change)
    with pytest.raises(ConfigError, match=said) as caught:
        exposures_of(tmp_path)
    assert caught.value.code is Code.DATA_MALFORMED


@pytest.mark.parametrize("samples", [1, 5, 8])
def test_one_batch_per_epoch_is_one_step_per_epoch(samples):
    schedule = Schedule(epochs=3, batch_size=8, learning_rate=0.5, momentum=0.25)
    training = training_of(schedule, samples)
    assert (training.steps, training.epochs, training.momentum) == (1, 3, 0.25)


def test_several_batches_per_epoch_are_those_that_the_participant_drew(batched_run):
    """Five samples in batches of 2, 2 and 1, drawn anew in each of two passes and in every round.

    The relation between samples and what was sent holds to rounding with these, and fails by orders of
    magnitude with any other order.
    """
    found = exposures_of(batched_run)
    assert len(found) == 4
    for recorded in found:
        training = recorded.exposure.training
        assert (training.epochs, training.steps) == (2, 3)
        assert [len(part) for part in training.parts] == [2, 2, 1] * 2
        for epoch in (training.parts[:3], training.parts[3:]):
            assert sorted(at for part in epoch for at in part) == [0, 1, 2, 3, 4]
        error = float(left_over(recorded).square().mean().sqrt())
        assert error < 1.5 * recorded.exposure.noise
        other = replace(training, parts=training.parts[::-1])
        wrong = replace(recorded, exposure=replace(recorded.exposure, training=other))
        assert float(left_over(wrong).square().mean().sqrt()) > 100 * error
    assert len({recorded.exposure.training.parts for recorded in found}) == 4


def test_a_participant_whose_seeds_are_gone_is_refused(batched_run, tmp_path):
    changed(batched_run, tmp_path, {"streams": {}})
    with pytest.raises(ConfigError, match="no stream of participant client-1"):
        exposures_of(tmp_path)


def test_what_was_not_recorded_is_named_even_beside_what_was(plain_run):
    with pytest.raises(ConfigError, match="no client nobody, client-9; recorded are client-1, client-2"):
        exposures_of(plain_run, clients=["client-1", "nobody", "client-9"])
    with pytest.raises(ConfigError, match="no round 7; recorded are 1"):
        exposures_of(plain_run, rounds=[1, 7])


def test_samples_of_one_participant_alone_compare_nothing(plain_run, tmp_path):
    copytree(plain_run / RECORDING, tmp_path / RECORDING)
    for name in ("client-2", "client-3"):
        (tmp_path / RECORDING / "truth" / f"{name}.npz").unlink()
    with pytest.raises(ConfigError, match="samples of 1 participants"):
        exposures_of(tmp_path)


@pytest.mark.parametrize("count", [2, 2**40, 10**30])
def test_an_update_of_another_number_of_samples_is_refused(plain_run, tmp_path, rewritten, count):
    copytree(plain_run / RECORDING, tmp_path / RECORDING)
    rewritten(
        tmp_path / RECORDING / "server" / "round-1" / "updates" / "client-3.npz",
        about={"sample_count": count},
    )
    with pytest.raises(ConfigError, match=f"client-3 says that it has {count} samples; 1 were"):
        exposures_of(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": np.array([10])}, "labels go from 10 to 10, not from 0 to 9"),
        ({"labels": np.array([-1])}, "labels go from -1"),
        ({"labels": np.array([1.0])}, "labels are float64"),
        ({"labels": np.array([[1]])}, "labels are int64"),
        ({"values": np.zeros((1, 1, 8, 9), np.float32)}, "values are float32"),
        ({"values": np.zeros((1, 1, 8, 8), np.complex64)}, "values are complex64"),
        ({"values": np.zeros((0, 1, 8, 8), np.float32), "labels": np.zeros(0, np.int64)}, "values are"),
        ({"values": np.full((1, 1, 8, 8), np.nan, np.float32)}, "NaN"),
    ],
)
def test_samples_that_are_not_the_runs_are_refused(plain_run, tmp_path, rewritten, change, said):
    copytree(plain_run / RECORDING, tmp_path / RECORDING)
    rewritten(tmp_path / RECORDING / "truth" / "client-2.npz", **change)
    with pytest.raises(ConfigError, match=said) as caught:
        exposures_of(tmp_path)
    assert caught.value.code is Code.DATA_MALFORMED and "client-2.npz" in caught.value.message
