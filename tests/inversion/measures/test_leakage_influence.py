"""What must hold of I2F and of the counting bound."""

from itertools import pairwise

import pytest
import torch
from leakage_cases import (
    CLASSES,
    PIXELS,
    TRAINING,
    exposed,
    lenet,
    nothing,
    random_mask,
    regression,
    residuals,
    samples,
)

from attacks.inversion.measures import jacobian, measure


def test_influence_on_a_linear_update_is_the_one_on_paper() -> None:
    """At W = 0, JJᵀ = ‖δ‖²·I, and hiding M takes Σ_c M_ck δ_c² of pixel k's ‖δ‖²: that share of x_k is lost.

    All eigenvalues being the same, the lower bound is attained.
    """
    victim = regression(zero=True)
    batch = samples(victim, 1)
    hidden = random_mask(victim, 0.3)
    masked = hidden[: CLASSES * PIXELS].view(CLASSES, PIXELS).double()
    squares = residuals(batch)[0].square()
    share = (masked * squares[:, None]).sum(dim=0) / squares.sum()
    lost = float(torch.linalg.vector_norm(share * batch.inputs.reshape(-1)))
    found = measure(exposed(victim, batch, hidden), batch, damping=1e-9)
    assert found.i2f == pytest.approx(lost, rel=1e-8)
    assert found.i2f_bound == pytest.approx(lost, rel=1e-8)


def test_influence_is_how_far_hiding_a_little_moves_the_naive_solution() -> None:
    """Gauss-Newton's first step from the truth, for one who takes hidden entries for zeros, by lstsq."""
    victim = lenet()
    batch = samples(victim, 1)
    hidden = random_mask(victim, 0.05)
    exposure = exposed(victim, batch, hidden)
    matrix = jacobian(victim, victim.parameters(), TRAINING, batch)
    missing = TRAINING.update(victim, victim.parameters(), batch) - exposure.visible
    step = torch.linalg.lstsq(matrix, missing[:, None], driver="gelsd").solution
    found = measure(exposure, batch, damping=1e-14)
    assert found.i2f == pytest.approx(float(torch.linalg.vector_norm(step)), rel=1e-4)


def test_bound_stays_below_influence() -> None:
    """‖Jδ‖/(λ_max + ε) ≤ ‖(JJᵀ + εI)⁻¹Jδ‖, whatever is hidden; equal to 0 where nothing is."""
    victim = lenet(sigmoid=False)
    batch = samples(victim, 2)
    matrix = jacobian(victim, victim.parameters(), TRAINING, batch)
    for ratio in (0.01, 0.3, 0.9, 1.0):
        found = measure(exposed(victim, batch, random_mask(victim, ratio)), batch, matrix=matrix)
        assert 0 < found.i2f_bound <= found.i2f
    found = measure(exposed(victim, batch, nothing(victim)), batch, matrix=matrix)
    assert found.i2f == found.i2f_bound == 0
    assert found.psnr_naive_pred_db > 290


def test_naive_prediction_falls_as_more_is_hidden_and_levels_off() -> None:
    """At W = 0 the whole of x is lost with all hidden; nobody is farther off than 1/12 + 1/4 = 1/3."""
    victim = regression(zero=True)
    batch = samples(victim, 1)
    masks = [random_mask(victim, ratio) for ratio in (0.0, 0.2, 0.5, 0.8, 1.0)]
    psnrs = [measure(exposed(victim, batch, mask), batch).psnr_naive_pred_db for mask in masks]
    assert all(less > more for less, more in pairwise(psnrs)), psnrs
    mse = float(batch.inputs.square().mean())
    assert 10 ** (-psnrs[-1] / 10) == pytest.approx(mse / (1 + 3 * mse), rel=1e-5)


def test_counting_bound_counts_numbers_that_can_differ() -> None:
    """ratio* = 1 − B·d_x/d; entries behind dead units are visible, but zero whatever the sample."""
    victim = regression()
    batch = samples(victim, 2)
    found = measure(exposed(victim, batch, random_mask(victim, 0.3)), batch)
    assert found.input_numbers == 2 * PIXELS
    assert found.counting_ratio == pytest.approx(1 - 2 * PIXELS / victim.size)
    batch = samples(victim, 5)
    found = measure(exposed(victim, batch, nothing(victim)), batch)
    assert found.counting_ratio == 0
    dead = lenet(sigmoid=False)
    batch = samples(dead, 1)
    matrix = jacobian(dead, dead.parameters(), TRAINING, batch)
    found = measure(exposed(dead, batch, nothing(dead)), batch, matrix=matrix)
    assert found.visible == dead.size
    assert found.nonzero_visible == int((matrix != 0).any(dim=1).sum()) < dead.size
