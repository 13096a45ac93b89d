"""What must hold of the estimates that never make J."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from leakage_cases import exposed, lenet, perceptron, random_mask, samples

from attacks.inversion.measures import Prior, measure
from attacks.inversion.measures.quadrature import bidiagonalise
from attacks.inversion.victims.victim import Victim


def quadratic_form(matrix: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    _, values, right = torch.linalg.svd(matrix, full_matrices=True)
    nodes = torch.zeros(matrix.shape[1], dtype=torch.float64)
    nodes[: len(values)] = values.square()
    return ((starts @ right.T).square() / (1 + nodes)).sum(dim=1)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), decades=st.floats(0, 8), rows=st.sampled_from([5, 12, 40]))
def test_rules_bracket_the_quadratic_form_at_every_step(seed: int, decades: float, rows: int) -> None:
    """Gauss below, Radau above zᵀ(KᵀK + I)⁻¹z, and both equal to it once the space is exhausted.

    K's singular values span up to 16 decades in the square; rounding moves each by 1e-16 of the largest,
    so the form by about 1e-16·σ_max relative to its length, where they are near 1.
    """
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, 12, generator=generator, dtype=torch.float64)
    matrix = matrix * torch.logspace(-decades / 2, decades / 2, 12, dtype=torch.float64)
    starts = torch.randn(3, 12, generator=generator, dtype=torch.float64)
    exact = quadratic_form(matrix, starts)
    slack = 1e-12 * (1 + 10**decades * 1e-3) * starts.square().sum(dim=1)
    for steps in (1, 3, 7, 12, 20):
        found = bidiagonalise(
            lambda rows: rows @ matrix.T,
            lambda rows: rows @ matrix,
            starts,
            steps=steps,
            until=lambda _: False,
        )
        low, high = (rule(lambda a: 1 / (1 + a)) for rule in (found.gauss, found.radau))
        assert (low <= exact + slack).all() and (exact <= high + slack).all()
    assert (high - low <= 2 * slack).all()
    assert found.largest() == pytest.approx(float(torch.linalg.matrix_norm(matrix, ord=2)) ** 2, rel=1e-9)


@pytest.mark.parametrize(("ratio", "noise"), [(0.0, 1e-3), (0.7, 1e-3), (0.8, 0.0), (0.95, 1e-4)])
def test_estimates_agree_with_what_is_exact(ratio: float, noise: float) -> None:
    """Within four standard errors, of which the stated range has two each way; I2F to a percent."""
    check_agreement(perceptron(), ratio, noise)


def test_estimates_agree_on_a_convolutional_network() -> None:
    """As above."""
    check_agreement(lenet(), 0.9, 1e-2)


def check_agreement(victim: Victim, ratio: float, noise: float) -> None:
    batch = samples(victim, 2)
    exposure = exposed(victim, batch, random_mask(victim, ratio), noise=noise)
    exact = measure(exposure, batch, "exact")
    found = measure(exposure, batch, "lanczos", seed=1)
    assert (exact.method, found.method) == ("exact", "lanczos")
    assert found.psnr_pred_low_db <= found.psnr_pred_db <= found.psnr_pred_high_db
    low, high = (
        found.psnr_pred_db + 2 * (end - found.psnr_pred_db)
        for end in (found.psnr_pred_low_db, found.psnr_pred_high_db)
    )
    assert low <= exact.psnr_pred_db <= high
    assert found.psnr_pred_high_db - found.psnr_pred_low_db < 8
    assert abs(found.leaked_dimensions - exact.leaked_dimensions) <= 4 * found.leaked_error + 1e-6
    assert found.i2f == pytest.approx(exact.i2f, rel=0.01)
    assert found.i2f_bound == pytest.approx(exact.i2f_bound, rel=1e-6)
    same = ("visible", "nonzero_visible", "input_numbers", "counting_ratio")
    assert all(getattr(found, name) == getattr(exact, name) for name in same)


def test_estimates_are_right_on_average() -> None:
    """Means over seeds come within four of their own standard errors of the exact figures."""
    victim = perceptron()
    batch = samples(victim, 1)
    prior = Prior.empirical(samples(victim, 200, seed=9).inputs)
    exposure = exposed(victim, batch, random_mask(victim, 0.7), noise=1e-2)
    exact = measure(exposure, batch, "exact", prior=prior)
    found = [
        measure(exposure, batch, "lanczos", seed=seed, prior=prior, probes=8, steps=64) for seed in range(5)
    ]
    mses = torch.tensor([10 ** (-each.psnr_pred_db / 10) for each in found], dtype=torch.float64)
    leaked = torch.tensor([each.leaked_dimensions for each in found], dtype=torch.float64)
    for values, expected in ((mses, 10 ** (-exact.psnr_pred_db / 10)), (leaked, exact.leaked_dimensions)):
        assert abs(float(values.mean()) - expected) < 4 * float(values.std()) / len(found) ** 0.5 + 1e-12


def test_the_same_seed_gives_the_same_figures() -> None:
    """Nothing is drawn from anywhere else."""
    victim = perceptron()
    batch = samples(victim, 1)
    exposure = exposed(victim, batch, random_mask(victim, 0.7), noise=1e-2)
    first, again, other = (measure(exposure, batch, "lanczos", seed=seed, probes=4) for seed in (3, 3, 4))
    assert first == again
    assert first != other
