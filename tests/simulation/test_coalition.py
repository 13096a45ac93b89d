"""Attackers of a run are processes that never talk to each other, and yet forge their updates together."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from idx_files import blobs

from attacks.poisoning import View, load_attack
from defenses import load_rule
from secagg.adapters.pytorch import tensors_from
from secagg.simulation.config import RunConfig
from secagg.simulation.datasets.dataset import Dataset, Samples
from secagg.simulation.models import build_model
from secagg.simulation.participant import Participant, Setting
from secagg.simulation.preparation import PARTICIPANTS, Preparation, write_tasks
from secagg.simulation.task import Task, save_samples
from secagg.update import Manifest

LIMIT = 256.0
MALICIOUS = 2


class Run:
    """Everything of a run that lies on the disk before its processes start, but for keys and a server."""

    def __init__(self, folder: Path, poison: str | None, **settings: object) -> None:
        self.config = RunConfig(
            clients=5, rounds=4, local_epochs=1, model="linear", poison=poison, out=str(folder), **settings
        )
        images, labels = blobs(125)
        samples = Samples(values=images[:, np.newaxis], labels=labels.astype(np.int64))
        self.dataset = Dataset(name="blobs", classes=4, train=samples, test=samples.take(np.arange(40)))
        (folder / PARTICIPANTS).mkdir()
        ready = Preparation(out=folder, dataset=self.dataset, sample_counts=(25,) * 5, profile="robust")
        for index, name in enumerate(self.config.names):
            save_samples(ready.samples_path(name), samples.take(np.arange(index, 125, 5)))
        save_samples(folder / PARTICIPANTS / "test.npz", self.dataset.test)
        write_tasks(self.config, ready, "localhost:1")
        self.tasks = [Task.load(ready.task_path(name)) for name in self.config.names]
        tensors = tensors_from(build_model(self.config.model, self.dataset.shape, 4, 0))
        self.manifest = Manifest.of(tensors)
        self.initial = self.manifest.flatten(tensors)

    def setting(self, round_: int = 1, base: np.ndarray | None = None, limit: float = LIMIT) -> Setting:
        base = self.initial if base is None else base
        return Setting(base=base, round=round_, rule=self.config.rule, manifest=self.manifest, limit=limit)

    def honest(self, index: int, round_: int = 1) -> np.ndarray:
        """What this client's honest training gives, as a difference."""
        task = dataclasses.replace(self.tasks[index], coalition=None)
        return Participant(task).sends(self.setting(round_))[0] - self.initial

    def sent(self, round_: int = 1) -> list[np.ndarray]:
        """What each attacker sends, each a participant of its own, as differences."""
        return [
            Participant(self.tasks[i]).sends(self.setting(round_))[0] - self.initial
            for i in self.config.malicious
        ]


def test_tasks_come_back_as_they_were_written(tmp_path):
    """Attackers know all of the coalition, honest clients nothing; the one that evaluates knows what for."""
    run = Run(tmp_path, "backdoor:0.4:2@3", seed=4)
    attackers = [run.tasks[i] for i in run.config.malicious]
    honest = [task for task in run.tasks if task not in attackers]
    assert len(attackers) == MALICIOUS
    for place, task in enumerate(attackers):
        coalition = task.coalition
        assert coalition is not None and coalition.members[place].samples == task.samples
        assert coalition.members[place].stream == task.stream and coalition.place == place
        assert (coalition.attack, coalition.strength, coalition.start_round) == ("backdoor", 2.0, 3)
        assert dataclasses.replace(coalition, place=0) == attackers[0].coalition
        assert task.test is None and task.watches == ""
    assert all(task.coalition is None for task in honest)
    assert [task.watches for task in honest if task.test] == ["backdoor"]
    assert len({task.stream for task in run.tasks}) == 5


@pytest.mark.parametrize(
    "name", ["ipm", "alie", "min-max", "mimic", "gaussian", "copy", "sign-flip", "adaptive"]
)
def test_each_attacker_sends_its_row_of_what_is_forged_together(tmp_path, name):
    """As if one party had seen all members' honest updates, to the last bit; the sum with g is rounded."""
    run = Run(tmp_path, f"{name}:0.4", seed=1)
    coalition = run.tasks[run.config.malicious[0]].coalition
    view = View(
        base=run.initial,
        own=np.stack([run.honest(i) for i in run.config.malicious]),
        clients=5,
        initial=run.initial,
        rule=load_rule("mean"),
        manifest=run.manifest,
    )
    forged = load_attack(name).forge(view, np.random.default_rng([*coalition.stream, 1]))
    for row, sent in zip(forged, run.sent(), strict=True):
        np.testing.assert_array_equal(sent, (run.initial + row) - run.initial)


def test_before_its_round_an_attacker_is_as_honest_as_any(tmp_path):
    """Round 2 is honest, round 3 is not; labels are true until then, and so is the number of samples."""
    run = Run(tmp_path, "inflated-count:0.4@3")
    attacker = Participant(run.tasks[run.config.malicious[0]])
    assert [attacker.sends(run.setting(number))[1] for number in (1, 2, 3, 4)] == [25, 25, 250, 250]
    (tmp_path / "flip").mkdir()
    run = Run(tmp_path / "flip", "label-flip:0.4@3")
    index = run.config.malicious[0]
    sent = {number: run.sent(number)[0] for number in (2, 3)}
    np.testing.assert_array_equal(sent[2], run.honest(index, 2))
    assert np.abs(sent[3] - run.honest(index, 3)).max() > 0.01


def test_where_the_federation_started_is_remembered(tmp_path):
    """MPAF goes back there from a later round's model, though the attack starts late."""
    run = Run(tmp_path, "mpaf:0.4:0.5@2")
    attacker = Participant(run.tasks[run.config.malicious[0]])
    attacker.sends(run.setting(1))
    later = run.initial + np.float32(2)
    sent, _ = attacker.sends(run.setting(2, base=later))
    np.testing.assert_allclose(sent, run.initial + 1, atol=1e-6)


@pytest.mark.parametrize("strength", ["1e30", "1e300"])
def test_what_is_too_large_is_sent_at_the_edge_of_what_can_be_sealed(tmp_path, strength):
    """As a model and as a difference, whichever travels, with room for rounding; infinity included."""
    run = Run(tmp_path, f"gaussian:0.4:{strength}")
    for sent in run.sent():
        assert np.isfinite(sent).all() and np.abs(sent).max() <= 0.6 * LIMIT
        assert np.abs(sent + run.initial).max() <= LIMIT and np.abs(sent).max() > LIMIT / 4


def test_a_liar_votes_by_a_rule_of_its_own(tmp_path):
    run = Run(tmp_path, "liar:0.4", rule="ddfed")
    honest, liar = (Participant(run.tasks[i]) for i in (_honest_index(run), run.config.malicious[0]))
    assert type(honest.rule("ddfed")) is type(load_rule("ddfed"))
    assert type(liar.rule("ddfed")) is not type(load_rule("ddfed")) and liar.rule("ddfed").name == "ddfed"


def test_training_that_diverges_sends_nothing_new(tmp_path, capsys):
    """An honest client's model is the one it was given if the new one can't be sealed."""
    run = Run(tmp_path, None)
    sent, count = Participant(run.tasks[0]).sends(run.setting(limit=1e-6))
    assert (sent == run.initial).all() and count == 25
    assert "beyond the range" in capsys.readouterr().out


def test_training_that_ends_in_nan_sends_nothing_new(tmp_path, capsys):
    """Tensors that are no numbers are named, and the round gets its answer."""
    run = Run(tmp_path, None)
    overflowing = np.full_like(run.initial, 3e38)
    sent, count = Participant(run.tasks[0]).sends(run.setting(base=overflowing))
    assert (sent == overflowing).all() and count == 25
    assert "weight" in capsys.readouterr().out


def _honest_index(run: Run) -> int:
    return next(i for i in range(5) if i not in run.config.malicious)
