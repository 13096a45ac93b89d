"""What a convolution read, from its gradient and from what it gave: linear equations, and signs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linprog

from attacks.inversion.attackers.layers.convolutions import Convolution

RANK = 1e-5
"""Singular values below this share of the largest say nothing: gradients travel in single precision."""
ROUNDOFF = 3e-8
LEAST_ERROR = 1e-7
"""Of values, relative to the largest."""
SILENT, SURE = 5.0, 50.0
"""A value of fewer errors counts as 0, one of more as positive; between them it is in doubt."""
DETERMINED = 0.75
"""Equations per unknown from which on signs may tell the rest."""
LARGEST_PROGRAMME = 2_000_000
"""Entries of a linear programme: it then takes about ten seconds."""
SLACK = 1e-5
REGULAR = 1e-9
SUPPORTS = (1e-3, 1e-4, 1e-5, 1e-5)
"""Shares of the largest below which an entry is taken for 0, one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outputs:
    """What is known of a layer's outputs a = ReLU(y), float64 [channels, height, width] each.

    Args:
        values: a; NaN where unknown.
        errors: standard deviations.
        slopes: ∂L/∂a.
        scaled: False if a and 1/(∂L/∂a) are known but for one factor common to both.
        off: True where an unknown value is taken for 0; others for positive.
    """

    values: torch.Tensor
    errors: torch.Tensor
    slopes: torch.Tensor
    scaled: bool
    off: torch.Tensor

    @property
    def unknown(self) -> torch.Tensor:
        """Where nothing is known of a."""
        return self.values.isnan()

    @property
    def sure(self) -> torch.Tensor:
        """Where a is known and positive: there y = a."""
        return self.values > SURE * self.errors

    @property
    def doubtful(self) -> torch.Tensor:
        """Channels, [channels], with values that may be 0 or not."""
        between = (self.values > SILENT * self.errors) & ~self.sure
        return between.flatten(1).any(dim=1)

    @property
    def passed(self) -> torch.Tensor:
        """∂L/∂y, which is ∂L/∂a where the ReLU is on."""
        on = torch.where(self.unknown, ~self.off, self.values > SILENT * self.errors)
        return self.slopes * on


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """What a layer read.

    Args:
        values: float64 [channels, height, width].
        errors: standard deviations.
        slopes: ∂L/∂y of the layer, [channels, height, width] of its outputs.
        misfit: relative, of the equations; rounding if all assumptions hold.
        determined: False if others fit as well, of which this is the smoothest.
        off: where y is not positive, by these inputs.
    """

    values: torch.Tensor
    errors: torch.Tensor
    slopes: torch.Tensor
    misfit: float
    determined: bool
    off: torch.Tensor


@dataclass(slots=True, kw_only=True, eq=False)
class _Family:
    """All inputs that explain a gradient: particular + free·z."""

    particular: torch.Tensor
    variance: torch.Tensor
    free: torch.Tensor
    size: float
    rows: int
    misfit: float


def layer_input(
    layer: Convolution,
    gradient: torch.Tensor,
    seen: torch.Tensor,
    outputs: Outputs,
    *,
    positive: bool,
    noise: float = 0.0,
) -> Inputs | None:
    """Solve for what a layer read.

    ∂L/∂W = Σ_p ∂L/∂y_p ⊗ patch_p(a) is linear in a, channel by channel, and so is y = W*a + b wherever y is
    known, as in R-GAP (Zhu, Blaschko, ICLR 2021, arXiv 2010.07733); hidden entries are equations that are
    missing. Channels whose ReLU's state is in doubt give none. Where too few are left, a ≥ 0 often tells the
    rest, as about half of a is 0: the least sum of non-negative entries (Donoho, Tanner, PNAS 2005), a linear
    programme, then least squares with its zeros. Of images the smoothest is taken.

    Args:
        layer: the convolution.
        gradient: ∂L/∂W, float64, as W.
        seen: where that is visible.
        outputs: what is known behind the ReLU.
        positive: True if a comes from a ReLU, too.
        noise: standard deviation of what was added to ∂L/∂W, beside rounding.

    Returns:
        None if the outputs' factor can't be told, as where no layer has a bias, or signs would have to tell
        too much.
    """
    slopes = outputs.passed
    family = _explaining(layer, gradient, seen & ~outputs.doubtful[:, None, None, None], slopes, noise)
    known = outputs.sure
    given, bias = outputs.values[known], layer.bias[:, None, None].expand(known.shape)[known]

    def linear(columns: torch.Tensor) -> torch.Tensor:
        return layer.linear(columns.T.reshape(-1, *layer.shape))[:, known].T

    forward, start = linear(family.free), linear(family.particular[:, None])[:, 0]
    missing, factor = given - bias - start, 1.0
    if not outputs.scaled:
        # a is c·particular + free·z, y is c·given, slopes are divided by c: one more direction is free.
        family.free = torch.cat([family.free, family.particular[:, None]], dim=1)
        forward, missing = torch.cat([forward, (start - given)[:, None]], dim=1), -bias
        family.particular = torch.zeros_like(family.particular)
    values, errors, determined = family.particular, family.variance.sqrt(), True
    if family.free.shape[1]:
        chosen = _chosen(layer, family, outputs, forward, missing, positive=positive)
        if chosen is None:
            return None
        moved, errors, determined = chosen
        values = values + family.free @ moved
        missing = missing - forward @ moved
        factor = factor if outputs.scaled else float(moved[-1])
    if not factor > 0:
        return None
    misfit = float(missing.norm() / (factor * given - bias).norm()) if len(given) else 0.0
    values = values.view(layer.shape)
    return Inputs(
        values=values,
        errors=errors.view(layer.shape).clamp_min(LEAST_ERROR * float(values.abs().max())),
        slopes=slopes / factor,
        misfit=max(misfit, family.misfit),
        determined=determined,
        off=layer.linear(values[None])[0] + layer.bias[:, None, None] <= 0,
    )


def _explaining(
    layer: Convolution, gradient: torch.Tensor, seen: torch.Tensor, slopes: torch.Tensor, noise: float
) -> _Family:
    rows = layer.gradient_rows(slopes)
    channels, places = layer.shape[0], rows.shape[1]
    wanted, shown = (part.transpose(0, 1).reshape(channels, -1) for part in (gradient, seen))
    family = _Family(
        particular=torch.zeros(channels * places, dtype=torch.float64),
        variance=torch.zeros(channels * places, dtype=torch.float64),
        free=torch.zeros(channels * places, 0, dtype=torch.float64),
        size=0.0,
        rows=0,
        misfit=0.0,
    )
    free, rest = [], 0.0
    for channel in range(channels):
        own, values = rows[shown[channel]], wanted[channel][shown[channel]]
        left, sizes, right = torch.linalg.svd(own, full_matrices=True)
        rank = int((sizes > RANK * sizes[:1].sum()).sum())
        inverse = right[:rank].T / sizes[:rank]
        solution = inverse @ (left[:, :rank].T @ values)
        mine = slice(channel * places, (channel + 1) * places)
        family.particular[mine] = solution
        spoiled = ROUNDOFF**2 * values.square().sum() / max(1, len(values)) + noise**2
        family.variance[mine] = spoiled * inverse.square().sum(dim=1)
        family.rows += rank
        rest += float((own @ solution - values).square().sum())
        free.append(right[rank:].T)
    blocks: torch.Tensor = torch.block_diag(*free)  # type: ignore[no-untyped-call]
    family.free = blocks
    family.size = float(family.particular.abs().max())
    power = float(wanted[shown].square().sum())
    family.misfit = (rest / power) ** 0.5 if power > 0 else 0.0
    return family


def _chosen(
    layer: Convolution,
    family: _Family,
    outputs: Outputs,
    forward: torch.Tensor,
    missing: torch.Tensor,
    *,
    positive: bool,
) -> tuple[torch.Tensor, torch.Tensor, bool] | None:
    """z, the errors of what follows from it, and whether it is determined; None if signs can't tell it."""
    moved, inverse = _least(forward, missing)
    if inverse.shape[1] == family.free.shape[1]:
        spoiled = outputs.errors.square() + layer.variance(family.variance.view(layer.shape))
        spread = (family.free @ inverse).square().sum(dim=1)
        return moved, (family.variance + spoiled[outputs.sure].mean() * spread).sqrt(), True
    errors = family.variance.sqrt()
    if not positive:
        return _smoothest(layer, family, forward, missing), errors, False
    if family.rows + int(outputs.sure.sum()) < DETERMINED * len(family.particular):
        return None
    found = _by_signs(family, forward, missing)
    return None if found is None else (found, errors, True)


def _least(matrix: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The shortest least-squares solution, and V/σ of the matrix U·diag(σ)·Vᵀ, with a column per σ > 0.

    By singular values, not by pivots: these come out otherwise when memory is aligned otherwise.
    """
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    rank = int((sizes > 1e-9 * sizes[:1].sum()).sum())
    inverse = right[:rank].T / sizes[:rank]
    return inverse @ (left[:, :rank].T @ wanted), inverse


def _smoothest(
    layer: Convolution, family: _Family, forward: torch.Tensor, missing: torch.Tensor
) -> torch.Tensor:
    """z of an image whose neighbours differ least, by the equations of a minimum under constraints."""

    def steps(columns: torch.Tensor) -> torch.Tensor:
        images = columns.T.reshape(-1, *layer.shape)
        return torch.cat([images.diff(dim=-1).flatten(1), images.diff(dim=-2).flatten(1)], dim=1)

    free, start = steps(family.free), steps(family.particular[:, None])[0]
    normal, rows = free @ free.T, forward / forward.norm().clamp_min(1e-300) * len(forward) ** 0.5
    wanted = missing / forward.norm().clamp_min(1e-300) * len(forward) ** 0.5
    corner = -REGULAR * torch.eye(len(rows), dtype=torch.float64)
    normal = normal + REGULAR * torch.eye(len(normal), dtype=torch.float64)
    system = torch.cat([torch.cat([normal, rows.T], dim=1), torch.cat([rows, corner], dim=1)])
    moved: torch.Tensor = torch.linalg.solve(system, torch.cat([-free @ start, wanted]))[: len(normal)]
    return moved


def _by_signs(family: _Family, forward: torch.Tensor, missing: torch.Tensor) -> torch.Tensor | None:
    """z of the least sum of non-negative entries; None if there is none, or too much to solve."""
    particular, free = family.particular, family.free
    if free.shape[1] * (len(free) + len(missing)) > LARGEST_PROGRAMME:
        return None
    some = len(missing) > 0
    result = linprog(
        free.sum(dim=0).numpy(),
        A_ub=-free.numpy(),
        b_ub=(particular + SLACK * family.size).numpy(),
        A_eq=forward.numpy() if some else None,
        b_eq=missing.numpy() if some else None,
        bounds=(None, None),
        method="highs",
    )
    if result.status != 0:
        return None
    moved = torch.from_numpy(np.asarray(result.x))
    for share in SUPPORTS:
        values = particular + free @ moved
        zero = values < share * values.max()
        moved = _least(torch.cat([forward, free[zero]]), torch.cat([missing, -particular[zero]]))[0]
    return moved
