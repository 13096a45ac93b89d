"""Figures of images: by hand where a hand suffices, and against their definitions elsewhere."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.inversion.metrics import CAP_DB, mse, psnr_db, ssim
from secagg.errors import ConfigError


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_psnr_is_of_every_sample_and_not_of_the_batch() -> None:
    """Off by 0.1 everywhere is 20 dB, by 0.01 40 dB, whoever else is in the batch."""
    original = torch.full((2, 1, 4, 4), 0.5, dtype=torch.float64)
    found = original + torch.tensor([0.1, 0.01], dtype=torch.float64).view(2, 1, 1, 1)
    torch.testing.assert_close(psnr_db(found, original), torch.tensor([20.0, 40.0], dtype=torch.float64))
    torch.testing.assert_close(mse(found, original), torch.tensor([1e-2, 1e-4], dtype=torch.float64))


def test_one_wrong_pixel_counts_as_its_share() -> None:
    """One of 16 pixels off by 1: MSE 1/16, 10·log₁₀ 16 dB; float32 pictures alike."""
    original = torch.zeros(1, 1, 4, 4)
    found = original.clone()
    found[0, 0, 1, 2] = 1
    assert psnr_db(found, original).item() == pytest.approx(10 * math.log10(16))


def test_exact_copy_scores_the_finite_cap_and_ssim_one() -> None:
    """Nothing infinite gets into means and tables."""
    original = images(3, 2, 16, 12)
    assert psnr_db(original, original).tolist() == [CAP_DB] * 3
    torch.testing.assert_close(ssim(original, original), torch.ones(3, dtype=torch.float64))


def test_ssim_of_constant_images_is_the_luminance_term() -> None:
    """Without variance the second factor is C₂/C₂: (2ab + C₁)/(a² + b² + C₁) remains."""
    first, second = torch.full((1, 3, 20, 20), 0.25), torch.full((1, 3, 20, 20), 0.75)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert ssim(first, second).item() == pytest.approx(expected, rel=1e-9)


def test_ssim_of_an_inverted_picture_is_the_negative_structure_term() -> None:
    """Around the same mean ½, y = 1 − x gives −2σ² + C₂ over 2σ² + C₂; one 11 x 11 window fits."""
    x = np.random.default_rng(4).random((11, 11))
    offsets = np.arange(-5, 6)
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights = np.outer(line, line) / np.outer(line, line).sum()
    x += 0.5 - (weights * x).sum()
    variance = (weights * x**2).sum() - 0.25
    pictures = torch.from_numpy(x)[None, None], 1 - torch.from_numpy(x)[None, None]
    expected = (-2 * variance + 9e-4) / (2 * variance + 9e-4)
    assert ssim(*pictures).item() == pytest.approx(expected, rel=1e-9)


def test_ssim_is_the_mean_over_every_window_inside_every_channel() -> None:
    """Against the definition, written out as loops over windows in numpy."""
    first, second = images(1, 2, 13, 12, seed=1), images(1, 2, 13, 12, seed=2)
    line = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    w = np.outer(line, line) / np.outer(line, line).sum()
    places = []
    for channel in range(2):
        for top in range(3):
            for left in range(2):
                window = (0, channel, slice(top, top + 11), slice(left, left + 11))
                a, b = first[window].numpy(), second[window].numpy()
                ma, mb = (w * a).sum(), (w * b).sum()
                va, vb = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum()
                cov = (w * (a - ma) * (b - mb)).sum()
                places.append(
                    (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
                )
    assert ssim(first, second).item() == pytest.approx(np.mean(places), rel=1e-9)


@pytest.mark.parametrize("size", [1, 2, 8, 11])
def test_small_images_get_a_smaller_window(size: int) -> None:
    """Digits of 8 x 8 have an SSIM too, within its bounds, and copies score 1."""
    first, second = images(2, 1, size, 16, seed=size), images(2, 1, size, 16, seed=size + 1)
    assert (ssim(first, second).abs() <= 1).all()
    torch.testing.assert_close(ssim(first, first), torch.ones(2, dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(3, 14), width=st.integers(3, 14))
def test_metrics_are_symmetric_and_bounded(seed: int, height: int, width: int) -> None:
    """|SSIM| ≤ 1, PSNR ≥ 0 for pictures in [0, 1], and neither knows which of the two is the original."""
    first, second = images(2, 1, height, width, seed=seed), images(2, 1, height, width, seed=seed + 1)
    assert (psnr_db(first, second) >= 0).all() and (ssim(first, second).abs() <= 1 + 1e-12).all()
    torch.testing.assert_close(psnr_db(first, second), psnr_db(second, first))
    torch.testing.assert_close(ssim(first, second), ssim(second, first))


def test_what_cannot_be_compared_is_refused() -> None:
    """Another shape, NaN, and SSIM of vectors are errors, not figures."""
    original = images(2, 1, 8, 8)
    with pytest.raises(ConfigError, match=r"shape \(1, 1, 8, 8\)"):
        psnr_db(original[:1], original)
    with pytest.raises(ConfigError, match="finite"):
        mse(torch.full_like(original, torch.nan), original)
    with pytest.raises(ConfigError, match="SSIM"):
        ssim(images(2, 7), images(2, 7))
