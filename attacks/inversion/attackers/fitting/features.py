"""An image from a layer's activations, coarse scales first."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn.functional import interpolate

from attacks.inversion.attackers.fitting.descent import descend
from attacks.inversion.attackers.fitting.penalties import total_variation
from attacks.inversion.attackers.fitting.restarts import Clock, slopes_of
from attacks.inversion.attackers.layers.peeling import Peeled

SCALES = (8, 4, 2, 1, 1)
"""A pixel of each stage is that many wide."""
FAINT = 0.02
"""Of the total variation in the last stage, which would blur what is nearly found."""

BETAS = (0.9, 0.99)


def fitted(
    target: Peeled,
    starts: torch.Tensor,
    shape: tuple[int, ...],
    *,
    iterations: int,
    rate: float,
    tv: float,
    parameters: int,
    clock: Clock,
) -> tuple[torch.Tensor, int]:
    """min ‖φ(x) − f‖²/‖f‖² + tv·TV(x), x in [0, 1]: images with these features.

    As Mahendran, Vedaldi: Understanding Deep Image Representations by Inverting Them, CVPR 2015,
    arXiv 1412.0035; by Adam on images of an eighth of the width, then a quarter, a half and all of it, each
    stage from the one before, at last with hardly any total variation: from noise at once it ends in a local
    minimum.

    Args:
        target: φ and f.
        starts: rows of pixels, [R, C·H·W].
        shape: (C, H, W).
        iterations: of each stage; twice as many at full width.
        rate: Adam's first, in pixels of [0, 1].
        tv: weight of the total variation.
        parameters: of the victim, for how many restarts fit in one pass.
        clock: ends it early.

    Returns:
        Rows of pixels and how many iterations were made.
    """
    channels, high, wide = shape
    size = target.features.square().sum()
    points, current, done = starts, (high, wide), 0
    for stage, scale in enumerate(SCALES):
        now = (math.ceil(high / scale), math.ceil(wide / scale))
        weight = tv if stage < len(SCALES) - 1 else FAINT * tv
        mode = "area" if scale == SCALES[0] else "bilinear"
        points = _resized(points.view(-1, channels, *current), now, mode).flatten(1)
        outcome = descend(
            slopes_of(_distance(target, (channels, *now), (high, wide), size, weight), parameters),
            points,
            iterations=iterations * (2 if scale == 1 else 1),
            rate=rate,
            boxed=lambda rows: rows.clamp(0.0, 1.0),
            clock=clock,
            signed=False,
            betas=BETAS,
        )
        points, current, done = outcome.points, now, done + outcome.iterations
    return points, done


def _distance(
    target: Peeled, now: tuple[int, ...], whole: tuple[int, int], size: torch.Tensor, tv: float
) -> Callable[[torch.Tensor], torch.Tensor]:
    def distance(point: torch.Tensor) -> torch.Tensor:
        inputs = _resized(point.view(1, *now), whole, "bilinear")
        return (target.head(inputs) - target.features).square().sum() / size + tv * total_variation(inputs)

    return distance


def _resized(images: torch.Tensor, size: tuple[int, int], mode: str) -> torch.Tensor:
    if tuple(images.shape[-2:]) == size:
        return images
    return interpolate(images, size=size, mode=mode, align_corners=None if mode == "area" else False)
