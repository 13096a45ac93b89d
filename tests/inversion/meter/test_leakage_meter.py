"""What a client is told of its own plan before it sends anything."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from attacks.inversion.attackers.attacker import Reconstruction, Status
from attacks.inversion.meter import SHORT, Meter, Reading
from attacks.inversion.recorded import batch_of
from attacks.inversion.training import Training
from secagg.adapters.pytorch import tensors_from
from secagg.errors import Code, ConfigError
from secagg.selection import Layout, Mask
from secagg.simulation.config import ModelName
from secagg.simulation.datasets.digits import load_digits
from secagg.simulation.models import build_model
from secagg.update import Manifest

SHAPE, CLASSES = (1, 8, 8), 10
MODULE = build_model(ModelName.LINEAR, SHAPE, CLASSES, seed=0)
MODEL = tensors_from(MODULE)
MANIFEST = Manifest.of(MODEL)
BLIND_DB = 10 * np.log10(12)


class Answering:
    """An attacker with a ready answer."""

    name = "answering"

    def __init__(self, answer, *, status=Status.DONE, why=""):
        self.answer, self.status, self.why = answer, status, why
        self.seen = []

    def unsuited(self, exposure):
        return self.why

    def attack(self, exposure, *, seed, budget):
        self.seen.append(exposure)
        labels = torch.zeros(1, dtype=torch.int64)
        return Reconstruction(inputs=self.answer, labels=labels, status=self.status)


def samples(count: int = 3):
    return batch_of(load_digits().train.take(np.arange(count)))


def layout(hidden) -> Layout:
    mask = np.zeros(MANIFEST.size, dtype=np.bool_)
    mask[hidden] = True
    return Layout(MANIFEST, Mask(mask))


def read(hidden, *attackers, **training) -> Reading:
    meter = Meter(MODULE, shape=SHAPE, classes=CLASSES, training=Training(**training), attackers=attackers)
    return meter.read(model=MODEL, layout=layout(hidden), batch=samples())


def test_everything_in_the_clear_is_read_to_the_last_bit_and_everything_hidden_not_at_all():
    """One layer of weights: x = ∂L/∂W_i ÷ ∂L/∂b_i in the clear; no better than guessing when hidden whole."""
    clear, hidden = read([]), read(slice(None))
    assert clear.psnr_bound_db > 60 and clear.labels_read == clear.samples == 3
    assert hidden.psnr_bound_db == pytest.approx(BLIND_DB)
    assert (hidden.visible, hidden.labels_read, hidden.labels_from_mask) == (0, None, None)
    assert hidden.lines == ("visible 0% of 650 entries: nothing to read but what ciphertexts give away",)


def test_the_bound_falls_with_the_information():
    """With only the bias visible (10 of 650 entries) 64 pixels can't be known; half the columns tell half."""
    columns = [spec for at in range(640) if at % 64 < 32 for spec in [at]]
    none, half, bias = read([]), read(columns), read(slice(0, 640))
    assert none.psnr_bound_db > half.psnr_bound_db > bias.psnr_bound_db
    # Half of the pixels known exactly halves the error of guessing: 3 dB, and a little from the logits.
    assert BLIND_DB + 2.9 < half.psnr_bound_db < BLIND_DB + 5
    assert bias.psnr_bound_db < BLIND_DB + 1


def test_more_passes_over_a_sample_and_momentum_are_taken_into_account():
    """The update of five steps with momentum is what travels; it is as telling as one gradient."""
    several = read([], epochs=5, learning_rate=0.05, momentum=0.9)
    assert several.psnr_bound_db > 60 and several.labels_read == 3


def test_attackers_see_what_would_travel_and_the_best_of_them_counts():
    exact = Answering(torch.full((1, *SHAPE), 0.5, dtype=torch.float64))
    worse = Answering(torch.ones(1, *SHAPE, dtype=torch.float64))
    broken = Answering(None, status=Status.DIVERGED)
    unsuited = Answering(None, why="no")
    exact.name = "middle"
    reading = read([0, 1, 2], worse, broken, unsuited, exact)
    assert reading.attacker == "middle" and 0 < reading.psnr_attack_db < 20
    assert not unsuited.seen
    (exposure,) = exact.seen
    assert exposure.aware and exposure.batch_size == 1 and exposure.labels is None
    assert exposure.hidden.nonzero().flatten().tolist() == [0, 1, 2] and not exposure.visible[:3].any()
    # Float32 on the wire: what is visible is not the gradient to the last bit of float64.
    assert 0 < exposure.noise < 1e-4 * float(exposure.visible.abs().max())


def test_labels_are_read_from_a_mask_that_was_chosen_by_the_client_itself():
    """The bias row of the label is hidden where |∂L/∂b| is largest: the places alone tell it."""
    batch = samples(1)
    label = int(batch.labels)
    meter = Meter(MODULE, shape=SHAPE, classes=CLASSES, training=Training())
    reading = meter.read(model=MODEL, layout=layout([label * 64 + 20, 640 + label]), batch=batch)
    assert reading.labels_from_mask == 1
    other = (label + 1) % CLASSES
    reading = meter.read(model=MODEL, layout=layout([other * 64 + 20, 640 + other]), batch=batch)
    assert reading.labels_from_mask == 0


def test_lines_say_how_much_is_visible_and_what_that_is_worth():
    reading = Reading(
        visible=202_531, size=225_034, samples=4, shape=(1, 28, 28), psnr_bound_db=31.2, psnr_blind_db=10.8,
        attacker="gauss-newton", psnr_attack_db=27.4, labels_read=4, labels_from_mask=1,
    )  # fmt: skip
    assert reading.lines == (
        "visible 90% of 225,034 entries: of one image trained on alone at most about 31 dB can be read "
        "(information bound; 11 dB is guessed), gauss-newton reached 27 dB",
        "labels read from it: 4 of 4; from the mask alone: 1 of 4",
    )
    assert json.loads(json.dumps(reading.flat()))["psnr_attack_db"] == 27.4


def test_samples_of_another_kind_are_refused():
    meter = Meter(MODULE, shape=(1, 9, 9), classes=CLASSES, training=Training())
    with pytest.raises(ConfigError) as caught:
        meter.read(model=MODEL, layout=layout([]), batch=samples())
    assert caught.value.code is Code.CONFIG_INVALID


def test_a_reading_does_not_depend_on_how_fast_a_machine_is():
    """Attacks are bounded by iterations; a clock would make their figures those of the machine."""
    assert SHORT.seconds == float("inf") and SHORT.effort < 1


def test_a_run_prints_what_a_client_measured_before_its_first_row(tmp_path):
    """``secagg run --meter``: two lines above the table, figures in result.json, no recording left."""
    command = [
        sys.executable, "-m", "secagg.cli", "run", "--meter", "--clients", "2", "--rounds", "1",
        "--samples", "2", "--local-epochs", "1", "--model", "linear", "--protect", "selective",
        "--significance", "random", "--ratio", "0.3", "--out", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    said = next(at for at, line in enumerate(lines) if "visible 70% of 650 entries" in line)
    assert lines[said].startswith("client-1: round 1: ") and "labels read from it" in lines[said + 1]
    assert said < next(at for at, line in enumerate(lines) if line.split()[:1] == ["round"])
    meter = json.loads((tmp_path / "result.json").read_text())["meter"]
    assert (meter["client"], meter["round"], meter["size"], meter["samples"]) == ("client-1", 1, 650, 1)
    assert meter["psnr_attack_db"] > BLIND_DB


def test_under_a_mask_by_magnitude_the_first_round_that_shows_something_is_measured(tmp_path):
    """Round 1 is hidden whole, as there is no aggregate to choose by: a client says that it waits.

    What it measures before its next upload, a third of the entries hidden, is what the run's result says.
    """
    command = [
        sys.executable, "-m", "secagg.cli", "run", "--meter", "--clients", "2", "--rounds", "3",
        "--samples", "2", "--local-epochs", "1", "--model", "linear", "--protect", "selective",
        "--significance", "magnitude", "--ratio", "0.3", "--out", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("client-1: ")]
    assert lines[0].startswith("client-1: round 1: nothing is visible yet") and "measures again" in lines[0]
    assert lines[1].startswith("client-1: round 2: visible 70% of 650 entries")
    assert len(lines) == 3 and "labels read from it" in lines[2]
    meter = json.loads((tmp_path / "result.json").read_text())["meter"]
    assert (meter["round"], meter["visible"], meter["size"]) == (2, 455, 650)
    assert meter["psnr_bound_db"] > BLIND_DB + 10
