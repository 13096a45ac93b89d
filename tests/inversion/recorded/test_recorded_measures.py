"""Measures of recorded updates: what is known beside them, and what their masks share."""

import math
from dataclasses import replace
from shutil import copytree, rmtree

import pytest
import torch

from attacks.inversion.bench.cell import FULL, MEASURE
from attacks.inversion.bench.from_run import RunTrial, Trial
from attacks.inversion.bench.run_measures import RunMeasures, prior_of
from attacks.inversion.measures import Prior, measure, shared_jacobian
from attacks.inversion.recorded import ROUNDS_KEPT, RecordedRun
from secagg.simulation.recording import RECORDING


def test_what_is_known_of_feature_rows_is_how_others_vary(rows_run):
    """Features vary by 1 around 5: who sees nothing guesses the mean, 0 dB; not pixels of [0, 1], 10.8 dB."""
    planned = RunTrial.planned(rows_run, Trial(attackers=("analytic",)))
    batches = planned.stage.recording.batches
    hidden = [cell for cell in planned.cells if cell.attacker == MEASURE and cell.significance == FULL]
    assert len(hidden) == 2
    for cell in hidden:
        rows = planned.stage.play(cell).rows
        (other,) = (own for name, own in batches.items() if name != rows[0]["client"])
        expected = -10 * math.log10(float(other.inputs.var(dim=0, correction=0).mean()))
        assert len(rows) == 20
        assert all(row["psnr_pred_db"] == pytest.approx(expected, abs=1e-4) for row in rows)
        guessed = sum(10 ** (-row["mean_psnr_db"] / 10) for row in rows) / len(rows)
        assert -10 * math.log10(guessed) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_a_prior_of_a_few_samples_is_certain_of_nothing(count):
    """Where the others don't vary the attacked one may: every direction has its share of the variance."""
    samples = torch.randn(count, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prior = prior_of(samples)
    assert prior.covariance is not None
    least = float(torch.linalg.eigvalsh(prior.covariance)[0])
    mean = float(samples.var(dim=0, correction=0).mean())
    assert least >= mean / (count - 1) * (1 - 1e-9) and prior.mse(40) == pytest.approx(mean)


@pytest.mark.parametrize("samples", [torch.rand(1, 1, 4, 4), torch.rand(1, 6).expand(3, 6)])
def test_samples_that_do_not_differ_say_only_that_pixels_lie_in_their_range(samples):
    assert prior_of(samples).mse(6) == Prior().mse(6) == pytest.approx(1 / 12)


def test_measures_that_share_a_derivative_are_what_each_comes_to_alone(selective_run):
    """One J serves an update as it was sent, of two rounds, and in the clear."""
    run = RecordedRun(selective_run, together=2)
    place = run.honest[-1]
    recorded, measures = run.update(place), RunMeasures(run)
    others = [own.inputs for name, own in run.batches.items() if name != recorded.client]
    prior = Prior.empirical(torch.cat(others))
    assert len(recorded.exposure.rounds) == 2
    for exposure in (recorded.exposure, run.in_the_clear(place)):
        found = measure(exposure, recorded.batch, prior=prior)
        rows = measures.rows(recorded, exposure, seed=0)
        assert [row["psnr_pred_db"] for row in rows] == pytest.approx(found.sample_psnr_pred_db, rel=1e-4)
        assert {row["leaked_dimensions"] for row in rows} == {float(f"{found.leaked_dimensions / 2:.6g}")}


@pytest.mark.parametrize("count", [23, 24])
def test_a_derivative_that_measures_would_not_decompose_is_not_kept(plain_run, count):
    """1,500 numbers are the limit: 23 samples of 64 pixels are below it, 24 beyond."""
    run = RecordedRun(plain_run)
    recorded = run.update(run.honest[0])
    batch = recorded.batch.take(torch.zeros(count, dtype=torch.int64))
    kept = shared_jacobian(replace(recorded.exposure, batch_size=count), batch)
    assert (None if kept is None else tuple(kept.shape)) == {23: (4810, 23 * 64), 24: None}[count]


def test_rounds_that_are_seen_together_are_read_once(many_rounds_run, tmp_path):
    """Everybody's six updates are there after the first one's were read, though the files are gone."""
    copytree(many_rounds_run / RECORDING, tmp_path / RECORDING)
    run = RecordedRun(tmp_path, together=6)
    assert len(run.update((6, "client-1")).exposure.rounds) == 6 > ROUNDS_KEPT
    for part in ("server", "client"):
        rmtree(tmp_path / RECORDING / part)
    assert len(run.update((6, "client-2")).exposure.rounds) == 6


def test_a_trial_reads_its_recording_once(plain_run, tmp_path):
    """Cells are played, and samples numbered, from what was read when they were listed."""
    copytree(plain_run / RECORDING, tmp_path / RECORDING)
    planned = RunTrial.planned(tmp_path, Trial(attackers=("analytic",)))
    rmtree(tmp_path / RECORDING)
    assert planned.stage.firsts == (0, 1, 2, 3)
    assert planned.stage.play(planned.cells[0]).rows[0]["client"] == "client-1"
