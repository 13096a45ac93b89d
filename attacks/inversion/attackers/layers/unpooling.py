"""Where in its windows a max pooling found what it passed on, read off a convolution's gradient."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog
from torch.nn.functional import unfold

RANK = 3e-6
"""Singular values below this share of the largest are rounding: gradients travel in single precision."""
WEAK = 0.02
"""Channels whose δ is below this share of the largest say too little about which others share their place."""
SLACK, SHARP = 1e-5, 0.02
FAILURES = 24
"""Channels of a window that are set aside, one after the other, before it is given up."""
FITS = 1e-4


def correlated(delta: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """A convolution's input a from δ = ∂L/∂y and ∂L/∂W = Σ_p δ_p ⊗ patch_p(a), by least squares.

    Args:
        delta: [outputs, height, width].
        gradient: [outputs, inputs, k, k]; stride 1, zero padding k // 2.

    Returns:
        [inputs, height, width].
    """
    outputs, inputs, kernel = gradient.shape[:3]
    rows = unfold(delta[None], kernel, padding=kernel // 2).view(outputs, kernel**2, -1).flip(1)
    wanted = gradient.permute(0, 2, 3, 1).reshape(outputs * kernel**2, inputs)
    found = torch.linalg.lstsq(rows.reshape(outputs * kernel**2, -1), wanted).solution
    read: torch.Tensor = found.T.reshape(inputs, *delta.shape[1:])
    return read


def unpooled(
    gradient: torch.Tensor, slopes: torch.Tensor, pool: int, size: tuple[int, int]
) -> torch.Tensor | None:
    """δ of a convolution before a max pooling, from its ∂L/∂W and the δ of each pooled value.

    ∂L/∂W = D·P: D [outputs, places] has, of each channel and window, one entry at the place of the largest,
    P the places' patches. If outputs outnumber places, columns of D span those of ∂L/∂W, and each, divided
    by its window's δ, is a vector of zeros and ones there. Such a vector through a given channel is found as
    the least sum of non-negative entries, a linear programme (sparse vectors in a subspace: Spielman, Wang,
    Wright, COLT 2012, arXiv 1206.5882); where it mixes places instead, it is asked again when others are
    known, whose channels it can't have. Patches of neighbouring places overlap: that orders them.

    Args:
        gradient: ∂L/∂W, float64 [outputs, inputs, k, k], k ≥ pool; stride 1, zero padding k // 2.
        slopes: δ that pooled values have before the pooling, [outputs, rows, columns]; 0 where ReLU is off.
        pool: size and stride of its windows.
        size: height and width of δ.

    Returns:
        [outputs, height, width]; None if there are fewer outputs than places, or a window has none that are
        clear.
    """
    outputs, rows, columns = slopes.shape
    matrix = gradient.reshape(outputs, -1)
    basis, sizes, _ = torch.linalg.svd(matrix, full_matrices=False)
    if not bool(sizes.isfinite().all()):
        return None
    basis = basis[:, : int((sizes > RANK * sizes[0]).sum())]
    if basis.shape[1] >= outputs or basis.shape[1] > rows * columns * pool**2:
        return None
    found: list[torch.Tensor] = []
    windows: list[int] = []
    for window in range(rows * columns):
        places = _places(basis, slopes.reshape(outputs, -1)[:, window], pool**2)
        if places is None:
            return None
        found += places
        windows += [window] * len(places)
    held = torch.stack(found, dim=1)
    patches = torch.linalg.lstsq(held, matrix).solution
    if not float((held @ patches - matrix).norm()) <= FITS * float(matrix.norm()):
        return None
    patches = patches.view(len(found), *gradient.shape[1:])
    delta = slopes.new_zeros((outputs, *size))
    for window in range(rows * columns):
        mine = [index for index, each in enumerate(windows) if each == window]
        offsets = _offsets(patches[mine], pool)
        if offsets is None:
            return None
        down, right = pool * (window // columns), pool * (window % columns)
        for index, (y, x) in zip(mine, offsets, strict=True):
            delta[:, down + y, right + x] = found[index]
    return delta


def _places(basis: torch.Tensor, slopes: torch.Tensor, most: int) -> list[torch.Tensor] | None:
    """Columns of D that belong to one window, in no order."""
    alive = slopes != 0
    if not bool(alive.any()):
        return None
    inside = basis
    if not bool(alive.all()):
        _, sizes, right = torch.linalg.svd(basis[~alive], full_matrices=True)
        inside = basis @ right[int((sizes > 1e-4).sum()) :].T
    strong = slopes.abs() > WEAK * slopes.abs().max()
    if not 0 < inside.shape[1] <= int(strong.sum()):
        return None
    orthogonal, mixing = torch.linalg.qr(inside[strong] / slopes[strong, None])
    columns = torch.linalg.solve_triangular(mixing, inside, upper=True, left=False)
    vectors, heights = orthogonal.cpu().numpy(), slopes[strong].abs().cpu().numpy()
    covered = np.zeros(len(vectors), dtype=bool)
    found: list[torch.Tensor] = []
    failures = 0
    waiting = list(np.argsort(-heights, kind="stable"))
    while waiting:
        channel = waiting.pop(0)
        if covered[channel]:
            continue
        # Places share no channel: what one has is zero in all others, and those are told apart more easily.
        most_of_each = np.where(covered, SLACK, 1 + SLACK)
        result = linprog(
            vectors.sum(axis=0),
            A_ub=np.concatenate([-vectors, vectors]),
            b_ub=np.concatenate([np.full(len(vectors), SLACK), most_of_each]),
            A_eq=vectors[channel : channel + 1],
            b_eq=[1.0],
            bounds=(None, None),
            method="highs",
        )
        shares = vectors @ result.x if result.status == 0 else np.full(len(vectors), 0.5)
        if np.minimum(abs(shares), abs(1 - shares)).max() > SHARP:
            failures += 1
            if failures > FAILURES:
                return None
            waiting.append(channel)
            continue
        failures = 0
        covered |= shares > 0.5
        found.append(columns @ torch.from_numpy(result.x).to(columns))
        if len(found) > most:
            return None
    return found


def _offsets(patches: torch.Tensor, pool: int) -> list[tuple[int, int]] | None:
    """Each patch's place in its window; None if they don't reach from edge to edge or two coincide."""
    reach = range(1 - pool, pool)
    steps = [(y, x) for y in reach for x in reach if (y, x) != (0, 0)]
    found = [(0, 0)]
    for patch in patches[1:]:
        found.append(min(steps, key=lambda step: _mismatch(patches[0], patch, *step)))
    top, left = min(y for y, _ in found), min(x for _, x in found)
    placed = [(y - top, x - left) for y, x in found]
    reached = max(y for y, _ in placed) == max(x for _, x in placed) == pool - 1
    return placed if reached and len(set(placed)) == len(placed) else None


def _mismatch(first: torch.Tensor, second: torch.Tensor, y: int, x: int) -> float:
    """How far two patches differ where they overlap if the second lies y below and x right of the first."""
    size = first.shape[-1]
    one = first[:, max(y, 0) : size + min(y, 0), max(x, 0) : size + min(x, 0)]
    other = second[:, max(-y, 0) : size + min(-y, 0), max(-x, 0) : size + min(-x, 0)]
    return float((one - other).norm() / (one.norm() + other.norm() + 1e-300))
