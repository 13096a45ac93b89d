"""How exactly visible entries are known: the protection's noise, and the rounding that nobody escapes."""

from __future__ import annotations

import torch

from secagg.update import Manifest


def deviation(
    manifest: Manifest, update: torch.Tensor, *, noise: float, carried: torch.dtype, computed: torch.dtype
) -> torch.Tensor:
    """σ_i, the standard deviation of what blurs each entry, float64 [d], positive.

    σ_i² = noise² + (ε_c²·g_i² + ε²·(g_i² + s_t²))/12, ε_c and ε being the spacings of 1 and the next number
    in the dtypes in which entries are carried and computed, s_t² the mean square of the tensor's entries.

    A number rounded to the nearest has an error uniform in ±½ulp, so of variance ulp²/12, and ulp ≤ ε·|g_i|.
    That happens when it is carried, and when it is computed: but there it is a sum of products, each of
    which was rounded when it had the size of the tensor's other entries, before it cancelled with the rest.
    One such rounding is counted; long sums make more. The floor does not depend on what is visible, so that
    seeing more never tells less.

    Args:
        manifest: which entries make a tensor.
        update: the true update g, [d].
        noise: standard deviation of what the protection adds, ≥ 0.
        carried: dtype of visible entries as sent.
        computed: dtype of the client's arithmetic.
    """
    square = update.to(torch.float64).square()
    typical = torch.empty_like(square)
    whole = float(square.mean()) or 1.0
    for spec in manifest.tensors:
        place = manifest.slice_of(spec.name)
        # A tensor of zeros (behind dead units) has no size of its own; nor do its entries say anything.
        typical[place] = float(square[place].mean()) or whole
    rounding = rounding_variance(carried) * square + rounding_variance(computed) * (square + typical)
    return (noise**2 + rounding).sqrt()


def precision_of(visible: torch.Tensor) -> torch.dtype:
    """The dtype that values were rounded to, whatever dtype holds them now: float32 if they all fit it."""
    if visible.dtype == torch.float64 and bool((visible != visible.float().double()).any()):
        return torch.float64
    return torch.float32 if visible.dtype == torch.float64 else visible.dtype


def rounding_variance(dtype: torch.dtype) -> float:
    """ε²/12: the variance of rounding numbers near 1 to the nearest of that dtype."""
    return float(torch.finfo(dtype).eps ** 2 / 12)
