"""What must hold of the information measure."""

import math
from itertools import pairwise

import pytest
import torch
from leakage_cases import (
    CLASSES,
    PIXELS,
    exposed,
    nothing,
    perceptron,
    random_mask,
    regression,
    residuals,
    samples,
)
from sklearn.covariance import ledoit_wolf

from attacks.inversion.batch import Batch
from attacks.inversion.exposure import Exposure
from attacks.inversion.measures import Prior, measure
from secagg.errors import ConfigError

BLIND_DB = -10 * math.log10(1 / 12)


def db(mse: float) -> float:
    return -10 * math.log10(mse)


def test_information_of_a_linear_update_is_the_one_on_paper() -> None:
    """At W = 0 pixel k is seen through its visible entries δ_c·x_k/B alone, each under noise σ.

    So MSE = mean_k 1/(Σ_c V_ck δ_c²/(B²σ²) + 1/v), of each sample for itself if δ are orthogonal; here the
    samples' δ overlap, so there is one sample.
    """
    victim, noise = regression(zero=True), 0.05
    batch = samples(victim, 1)
    hidden = random_mask(victim, 0.4)
    seen = (~hidden[: CLASSES * PIXELS]).view(CLASSES, PIXELS).double()
    told = (seen * residuals(batch)[0].square()[:, None]).sum(dim=0) / noise**2
    left = 1 / (told + 12)
    found = measure(exposed(victim, batch, hidden, noise=noise), batch)
    assert found.method == "exact"
    assert found.psnr_pred_db == pytest.approx(db(float(left.mean())), abs=1e-9)
    assert found.leaked_dimensions == pytest.approx(float((1 - 12 * left).sum()), abs=1e-9)


def test_rounding_to_float32_limits_what_is_seen() -> None:
    """Values that travel as float32 have errors of variance ulp²/12, between ε²g²/48 and ε²g²/12.

    At W = 0 with only one class's row visible, x_k = g_ck/δ_c: predicted is the upper end, ε²x_k²/12, and
    what rounding really does lies within the two, up to the spread of a mean of 225 squares.
    """
    victim = regression(zero=True)
    batches = [samples(victim, 1, seed=seed) for seed in range(25)]
    row = nothing(victim)
    row[PIXELS:] = True
    attained, predicted = 0.0, 0.0
    for batch in batches:
        exact = exposed(victim, batch, row)
        sent = Exposure(
            victim=victim,
            parameters=exact.parameters,
            training=exact.training,
            batch_size=1,
            visible=exact.visible.float().double(),
            hidden=row,
        )
        recovered = sent.visible[:PIXELS] / residuals(batch)[0, 0]
        attained += float((recovered - batch.inputs.reshape(-1)).square().mean())
        predicted += 10 ** (-measure(sent, batch).psnr_pred_db / 10)
        assert measure(exact, batch).psnr_pred_db > 290
    epsilon = torch.finfo(torch.float32).eps
    mean_square = float(torch.stack([batch.inputs.square().mean() for batch in batches]).mean())
    assert predicted / 25 == pytest.approx(epsilon**2 / 12 * mean_square, rel=1e-6)
    assert 0.25 * 0.8 < attained / predicted < 1.2


def test_seeing_more_never_tells_less() -> None:
    """Of nested masks the one that hides less leaks no less, in PSNR and in dimensions."""
    victim = perceptron()
    batch = samples(victim, 1)
    for noise in (0.0, 1e-3):
        found = [
            measure(exposed(victim, batch, random_mask(victim, ratio), noise=noise), batch)
            for ratio in (0.0, 0.5, 0.9, 0.97, 0.99, 0.995, 1.0)
        ]
        psnrs = [each.psnr_pred_db for each in found]
        leaked = [each.leaked_dimensions for each in found]
        assert all(more >= less - 1e-9 for more, less in pairwise(psnrs)), psnrs
        assert all(more >= less - 1e-6 for more, less in pairwise(leaked)), leaked
        assert psnrs[0] > psnrs[-2] + 10 * (noise == 0)


@pytest.mark.parametrize("method", ["exact", "lanczos"])
def test_nothing_visible_leaves_the_prior(method: str) -> None:
    """MSE is tr Σx/d_x and no dimension leaks, by either method."""
    victim = perceptron()
    batch = samples(victim, 2)
    exposure = exposed(victim, batch, ~nothing(victim))
    found = measure(exposure, batch, method)  # type: ignore[arg-type]
    assert found.psnr_pred_db == pytest.approx(BLIND_DB, abs=1e-9)
    assert found.leaked_dimensions == pytest.approx(0, abs=1e-9)
    assert (found.visible, found.nonzero_visible) == (0, 0)
    images = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prior = Prior.empirical(images)
    assert prior.covariance is not None
    blind = float(prior.covariance.trace()) / 16
    found = measure(exposure, batch, method, prior=prior, probes=400)  # type: ignore[arg-type]
    # Hutchinson's error falls with the square root of the probes; exact has none.
    allowed = 1e-9 if method == "exact" else found.psnr_pred_high_db - found.psnr_pred_low_db
    assert found.psnr_pred_db == pytest.approx(db(blind), abs=allowed)


def test_more_noise_tells_less() -> None:
    """PSNR falls strictly with the noise, down to the prior's."""
    victim = perceptron()
    batch = samples(victim, 1)
    psnrs = [
        measure(exposed(victim, batch, random_mask(victim, 0.5), noise=noise), batch).psnr_pred_db
        for noise in (0.0, 1e-9, 1e-6, 1e-4, 1e-2, 1.0, 1e4)
    ]
    assert all(less > more for less, more in pairwise(psnrs)), psnrs
    assert psnrs[-1] == pytest.approx(BLIND_DB, abs=1e-4)


def test_samples_are_measured_each_for_itself_whatever_their_order() -> None:
    """Turning the batch round turns the figures round, and leaves those of the whole."""
    victim = perceptron()
    batch = samples(victim, 3)
    turned = batch.take(torch.tensor([2, 1, 0]))
    hidden = random_mask(victim, 0.9)
    found, other = (measure(exposed(victim, each, hidden, noise=1e-4), each) for each in (batch, turned))
    assert found.sample_psnr_pred_db == pytest.approx(other.sample_psnr_pred_db[::-1], abs=1e-6)
    assert found.psnr_pred_db == pytest.approx(other.psnr_pred_db, abs=1e-6)
    assert len(set(found.sample_psnr_pred_db)) == 3
    mean = sum(10 ** (-each / 10) for each in found.sample_psnr_pred_db) / 3
    assert found.psnr_pred_db == pytest.approx(db(mean), abs=1e-9)


def test_a_round_that_is_seen_twice_counts_as_one_of_half_the_variance() -> None:
    """H = Σ_t J_t V_t Σ_t⁻¹ J_tᵀ: σ twice is σ/√2 once, by either method."""
    victim = perceptron()
    batch = samples(victim, 1)
    hidden = random_mask(victim, 0.95)
    once = exposed(victim, batch, hidden, noise=1e-3)
    twice = exposed(victim, batch, hidden, noise=1e-3, earlier=(once,))
    sharper = measure(exposed(victim, batch, hidden, noise=1e-3 / 2**0.5), batch)
    found = measure(twice, batch)
    assert found.psnr_pred_db == pytest.approx(sharper.psnr_pred_db, abs=1e-9)
    assert found.psnr_pred_db > measure(once, batch).psnr_pred_db
    assert found.visible == 2 * sharper.visible
    estimated = measure(twice, batch, "lanczos", probes=64)
    assert estimated.psnr_pred_low_db <= found.psnr_pred_db <= estimated.psnr_pred_high_db
    assert estimated.psnr_pred_high_db - estimated.psnr_pred_low_db < 2


def test_clipping_before_noise_counts_as_more_noise() -> None:
    """c·g + noise σ holds what g + noise σ/c does; c is read off the visible entries to 4·σ/‖g‖."""
    victim, factor = regression(zero=True), 0.25
    batch = samples(victim, 1)
    plain = exposed(victim, batch, nothing(victim))
    visible = (
        factor * plain.visible + exposed(victim, batch, nothing(victim), noise=1e-4).visible - plain.visible
    )
    clipped = Exposure(
        victim=victim,
        parameters=plain.parameters,
        training=plain.training,
        batch_size=1,
        visible=visible,
        hidden=plain.hidden,
        noise=1e-4,
    )
    expected = measure(exposed(victim, batch, nothing(victim), noise=1e-4 / factor), batch)
    assert measure(clipped, batch).psnr_pred_db == pytest.approx(expected.psnr_pred_db, abs=0.02)


def test_pruned_entries_tell_next_to_nothing() -> None:
    """An entry that was set to zero is known to its own size: pixels seen only through such keep most."""
    victim = regression(zero=True)
    batch = samples(victim, 1)
    whole = exposed(victim, batch, nothing(victim))
    pruned = Exposure(
        victim=victim,
        parameters=whole.parameters,
        training=whole.training,
        batch_size=1,
        visible=torch.zeros_like(whole.visible),
        hidden=whole.hidden,
    )
    found = measure(pruned, batch)
    # Of CLASSES entries with σ = |δ_c x|, information CLASSES/x² ≤ that of x itself.
    x = batch.inputs.reshape(-1)
    assert found.psnr_pred_db == pytest.approx(db(float((1 / (CLASSES / x.square() + 12)).mean())), abs=1e-6)
    assert found.nonzero_visible == 0 and found.visible == victim.size


def test_empirical_prior_is_shrunk_as_ledoit_and_wolf_say() -> None:
    """Against scikit-learn's, whose estimator is the same."""
    images = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images[:, :, 1] = images[:, :, 0]
    expected, share = ledoit_wolf(images.view(30, 16).numpy())
    assert 0 < share < 1
    found = Prior.empirical(images).covariance
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-10, atol=1e-12)


def test_a_prior_s_root_is_worked_out_once() -> None:
    """L·Lᵀ = Σx; measures ask for it again and again, and get the same L without another decomposition."""
    images = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prior = Prior.empirical(images)
    root = prior.root(16)
    assert isinstance(root, torch.Tensor) and prior.covariance is not None
    torch.testing.assert_close(root @ root.T, prior.covariance, rtol=1e-12, atol=1e-14)
    assert prior.root(16) is root
    with pytest.raises(ConfigError, match="these have 9"):
        prior.root(9)


def test_a_prior_that_knows_neighbours_predicts_more() -> None:
    """Pixels that always agree tell of each other: half of them seen is nearly all seen."""
    victim = regression(zero=True)
    batch = samples(victim, 1)
    hidden = nothing(victim)
    hidden[: CLASSES * PIXELS].view(CLASSES, PIXELS)[:, ::2] = True
    exposure = exposed(victim, batch, hidden, noise=1e-3)
    column = torch.rand(500, 1, 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alike = Prior.empirical(column.expand(500, 1, 3, 3))
    found, isotropic = measure(exposure, batch, prior=alike), measure(exposure, batch)
    assert found.psnr_pred_db > isotropic.psnr_pred_db + 10


def test_batch_must_be_the_exposure_s() -> None:
    """Another number of samples is refused, not broadcast."""
    victim = regression()
    batch = samples(victim, 2)
    exposure = exposed(victim, batch, nothing(victim))
    with pytest.raises(ConfigError, match="2 samples can't be measured at 1"):
        measure(exposure, Batch(inputs=batch.inputs[:1], labels=batch.labels[:1]))
    with pytest.raises(ConfigError, match="no method 'qr'"):
        measure(exposure, batch, "qr")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="damping"):
        measure(exposure, batch, damping=0)
    with pytest.raises(ConfigError, match="16 numbers; these have 9"):
        measure(exposure, batch, prior=Prior(covariance=torch.eye(16)))
    for bad in (0.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="variance"):
            Prior(variance=bad)
