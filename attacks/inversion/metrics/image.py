"""How near an image is to another: MSE, PSNR, SSIM; one figure per sample, never one of a whole batch."""

from __future__ import annotations

import torch
from torch.nn.functional import conv2d

from secagg.errors import Code, ConfigError

# What stands for "no difference": float64's own rounding, 2⁻⁵³ of a value, is 319 dB below the range.
CAP_DB = 300.0
WINDOW = 11
SIGMA = 1.5
# K₁² and K₂² of Wang et al. 2004, times the squared data range, 1.
C1, C2 = 0.01**2, 0.03**2


def _paired(reconstruction: torch.Tensor, original: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in float64, so that what is tiny is no rounding.

    Raises:
        ConfigError: CONFIG_INVALID if they don't have the same shape, or aren't finite.
    """
    if reconstruction.shape != original.shape or original.ndim < 2 or not len(original):
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"a reconstruction of shape {tuple(reconstruction.shape)} can't be compared with samples of "
            f"shape {tuple(original.shape)}; both need to be [B, …], B ≥ 1",
        )
    pair = reconstruction.detach().to(torch.float64), original.detach().to(torch.float64)
    if not all(bool(torch.isfinite(values).all()) for values in pair):
        raise ConfigError(
            Code.CONFIG_INVALID,
            "a reconstruction that isn't finite has no distance; give the last finite one",
        )
    return pair


def mse(reconstruction: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """mean_j (x̂_j − x_j)², float64 [B].

    Args:
        reconstruction, original: [B, …], paired in their order.

    Raises:
        ConfigError: CONFIG_INVALID if they don't have the same shape, or aren't finite.
    """
    first, second = _paired(reconstruction, original)
    return (first - second).square().flatten(1).mean(dim=1)


def psnr_db(reconstruction: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """10·log₁₀(1/MSE) of every sample, data range 1, at most ``CAP_DB``; dB, float64 [B].

    Args:
        reconstruction, original: [B, …], values in [0, 1], paired in their order.

    Raises:
        ConfigError: as ``mse``.
    """
    return -10 * torch.log10(mse(reconstruction, original).clamp(min=10 ** (-CAP_DB / 10)))


def _window(size: int) -> torch.Tensor:
    """Weights of a Gaussian window, σ = 1.5, that sum to 1; [size, size]."""
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    line = torch.exp(-offsets.square() / (2 * SIGMA**2))
    weights = torch.outer(line, line)
    return weights / weights.sum()


def ssim(reconstruction: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """Mean structural similarity of every sample (Wang et al., IEEE TIP 13(4), 2004, eq. 13), float64 [B].

    SSIM = (2·μ_x·μ_y + C₁)(2·σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂)) within a Gaussian window,
    11 x 11 with σ = 1.5, wherever it lies wholly inside the image; C₁ = 0.01², C₂ = 0.03², data range 1;
    the mean over places and channels. Images of fewer than 11 pixels in height or width get the
    largest odd window that fits. Within [−1, 1].

    Args:
        reconstruction, original: [B, channels, height, width], values in [0, 1], paired in their order.

    Raises:
        ConfigError: CONFIG_INVALID if they are no images, don't have the same shape, or aren't finite.
    """
    if original.ndim != 4:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"SSIM compares [B, channels, height, width], not samples of shape {tuple(original.shape)}",
        )
    first, second = (values.flatten(0, 1).unsqueeze(1) for values in _paired(reconstruction, original))
    fitting = min(WINDOW, *original.shape[2:])
    weights = _window(fitting - (fitting + 1) % 2).to(first.device)[None, None]

    def local(values: torch.Tensor) -> torch.Tensor:
        return conv2d(values, weights)

    mean_x, mean_y = local(first), local(second)
    # Weighted, biased moments, as in the paper; centring on ½ keeps their rounding small.
    x, y = first - 0.5, second - 0.5
    variance_x = (local(x * x) - local(x).square()).clamp(min=0)
    variance_y = (local(y * y) - local(y).square()).clamp(min=0)
    covariance = local(x * y) - local(x) * local(y)
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    structure = (2 * covariance + C2) / (variance_x + variance_y + C2)
    return (luminance * structure).flatten(1).mean(dim=1).view(original.shape[:2]).mean(dim=1)
