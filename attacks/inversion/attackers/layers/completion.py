"""Completing a matrix of low rank from some of its entries."""

from __future__ import annotations

from dataclasses import dataclass

import torch

RIDGE = 1e-2
"""First damping, in units of the mean diagonal of what is damped."""
LEAST_RIDGE = 1e-14
MOST_RIDGE = 1e8
PATIENCE = 20
LEAST_GAIN = 0.05
"""A start is given up if so many steps together gain less than that."""
LARGEST_CHUNK = 2**22
LARGEST_SYSTEM = 2_048
"""From so many unknowns on rows and columns are solved alternately instead of by variable projection."""
LEAST_SHARE = 1e-9
"""Of a factor's power in its weakest direction, what must be visible for a row or column to be determined."""

_Factors = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completion:
    """A matrix with what could be inferred of it.

    Args:
        values: float64 [m, n]; at unknown places the best guess.
        known: True where an entry was seen, or follows from those that were, bool [m, n].
        residual: relative misfit of the seen entries.
        iterations: of all starts together.
    """

    values: torch.Tensor
    known: torch.Tensor
    residual: float
    iterations: int


def complete(
    values: torch.Tensor,
    seen: torch.Tensor,
    *,
    rank: int,
    seed: int,
    starts: int = 4,
    iterations: int = 100,
    tolerance: float = 1e-11,
    agreement: float = 1e-6,
) -> Completion:
    """The matrix of this rank that has the entries seen.

    min_{U,V} ‖seen ⊙ (M − U·Vᵀ)‖², by variable projection (Ruhe and Wedin, SIAM Review 1980, "RW2";
    Okatani, Yoshida, Deguchi, ICCV 2011): V is eliminated by least squares and U follows damped Gauss-Newton
    steps, which end at the global minimum far more often than alternating least squares (Hong, Fitzgibbon,
    ICCV 2015). Where U is too large for that, alternating least squares.

    Whether an unseen entry is determined at all shows when starts from different points all fit what is seen:
    where they agree it is known, where they differ it is not.

    Args:
        values: [m, n]; what lies at unseen places does not count.
        seen: bool [m, n].
        rank: at least 1.
        seed: of the starting points.
        starts: how many, at least 2 for anything to become known.
        iterations: of each start at most.
        tolerance: relative residual that counts as a fit; what noise and rounding leave of it.
        agreement: largest difference relative to an entry's own scale (the geometric mean of its row's and
            column's root mean squares).
    """
    matrix = torch.where(seen, values, 0.0).to(torch.float64)
    result, certain = matrix.clone(), seen.clone()
    # Dead units and inputs: rows and columns of zeros. Nothing is solved for there.
    rows, columns = (matrix != 0).any(dim=1), (matrix != 0).any(dim=0)
    places = rows[:, None] & columns[None, :]
    if not places.any():
        return Completion(values=result, known=certain, residual=0.0, iterations=0)
    core, shown = matrix[rows][:, columns], seen[rows][:, columns]
    tall = core.shape[0] > core.shape[1]
    if tall:
        core, shown = core.T, shown.T
    generator = torch.Generator().manual_seed(seed)
    scale = float(core.norm() / shown.sum().sqrt())
    factors: list[tuple[torch.Tensor, torch.Tensor]] = []
    best, best_residual, total = (core, core), float("inf"), 0
    for start in range(starts):
        left = _start(core / scale, shown, rank, generator, perturbed=start > 0)
        pair, residual, used = _solve(core / scale, shown, left, iterations, tolerance)
        total += used
        if residual < best_residual:
            best, best_residual = pair, residual
        if residual <= tolerance:
            factors.append(pair)
        if len(factors) == 2:
            break
    left, right = best
    guess, known = torch.where(shown, core, scale * left @ right.T), shown.clone()
    if len(factors) == 2:
        one, other = (a @ b.T for a, b in factors)
        size = one.square().mean(dim=1, keepdim=True) * one.square().mean(dim=0, keepdim=True)
        alike = (one - other).abs() <= agreement * (size.sqrt().sqrt() + one.abs())
        solved_rows, solved_columns = _determined(shown, left, right)
        known |= alike & solved_rows[:, None] & solved_columns[None, :]
    if tall:
        left, right, guess, known = right, left, guess.T, known.T
    result[places], certain[places] = guess.reshape(-1), known.reshape(-1)
    if len(factors) == 2:
        dead_rows = ~rows & _spanned(seen[:, columns].to(torch.float64), right)
        dead_columns = ~columns & _spanned(seen[rows].T.to(torch.float64), left)
        certain |= dead_rows[:, None] | dead_columns[None, :]
    return Completion(values=result, known=certain, residual=best_residual, iterations=total)


def _spanned(weights: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """If a row's visible entries, weights [k, n], determine its coefficients of a factor, [n, r]."""
    scaled = factor / factor.square().mean(dim=0, keepdim=True).sqrt().clamp_min(1e-300)
    scaled = torch.linalg.qr(scaled).Q
    rank = factor.shape[1]
    pairs = (scaled[:, :, None] * scaled[:, None, :]).reshape(len(scaled), -1)
    lowest: torch.Tensor = torch.linalg.eigvalsh((weights @ pairs).view(-1, rank, rank))[:, 0]
    return lowest > LEAST_SHARE


def _determined(seen: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> _Factors:
    """Rows and columns whose factors follow from entries that they share with each other."""
    weights = seen.to(torch.float64)
    rows = torch.ones(len(left), dtype=torch.bool, device=left.device)
    columns = torch.ones(len(right), dtype=torch.bool, device=left.device)
    while True:
        fewer_columns = columns & _spanned(weights.T * rows, left)
        fewer_rows = rows & _spanned(weights * fewer_columns, right)
        if torch.equal(fewer_rows, rows) and torch.equal(fewer_columns, columns):
            return rows, columns
        rows, columns = fewer_rows, fewer_columns


def _start(
    matrix: torch.Tensor, seen: torch.Tensor, rank: int, generator: torch.Generator, *, perturbed: bool
) -> torch.Tensor:
    """Orthonormal columns [m, rank]: of the zero-filled matrix' singular vectors, or at random."""
    if perturbed or rank > min(matrix.shape):
        drawn = torch.randn(len(matrix), rank, generator=generator, dtype=torch.float64).to(matrix.device)
    else:
        drawn = torch.linalg.svd(torch.where(seen, matrix, 0.0), full_matrices=False).U[:, :rank]
    orthonormal: torch.Tensor = torch.linalg.qr(drawn).Q
    return orthonormal


def _solve(
    matrix: torch.Tensor, seen: torch.Tensor, left: torch.Tensor, iterations: int, tolerance: float
) -> tuple[_Factors, float, int]:
    """U and V, the relative residual and the number of steps."""
    if left.numel() > LARGEST_SYSTEM:
        return _alternate(matrix, seen, left, 20 * iterations, tolerance)
    weights, length = seen.to(torch.float64), float(matrix.norm())
    right, misfit, bases = _project(matrix, weights, left)
    cost, ridge, used = float(misfit.norm()) / length, RIDGE, 0
    before = [cost]
    for used in range(1, iterations + 1):  # noqa: B007
        if cost <= tolerance or ridge > MOST_RIDGE:
            break
        normal, slope = _normal_equations(weights, left, right, misfit, bases)
        size = normal.diagonal().mean()
        accepted = False
        while ridge <= MOST_RIDGE:
            damped = normal + (ridge * size) * torch.eye(len(normal)).to(normal)
            factor, failed = torch.linalg.cholesky_ex(damped)
            if not int(failed):
                step = torch.cholesky_solve(slope[:, None], factor)[:, 0].view_as(left.T).T
                moved = torch.linalg.qr(left + step).Q
                projected = _project(matrix, weights, moved)
                lower = float(projected[1].norm()) / length
                if lower < cost:
                    accepted = True
                    break
            ridge *= 10
        if not accepted:
            break
        left, (right, misfit, bases), cost = moved, projected, lower
        ridge = max(LEAST_RIDGE, ridge / 10)
        before.append(cost)
        if len(before) > PATIENCE and cost > (1 - LEAST_GAIN) * before[-PATIENCE - 1]:
            break
    return (left, right), cost, used


def _project(
    matrix: torch.Tensor, weights: torch.Tensor, left: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For every column the best v_j [n, rank], the misfit [m, n], and a basis of its visible rows of U."""
    shown = weights.T[:, :, None] * left[None]
    # Columns with fewer entries than the rank have no unique v_j: singular values near 0 are cut off.
    basis, values, turned = torch.linalg.svd(shown, full_matrices=False)
    keep = values > 1e-10 * values[:, :1].clamp_min(1e-300)
    inverse = torch.where(keep, 1 / values.clamp_min(1e-300), 0.0)
    basis = basis * keep[:, None, :]
    loads = torch.einsum("nmr,mn->nr", basis, matrix)
    right = torch.einsum("nra,nr->na", turned, inverse * loads)
    return right, weights * (matrix - left @ right.T), basis


def _normal_equations(
    weights: torch.Tensor, left: torch.Tensor, right: torch.Tensor, misfit: torch.Tensor, bases: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ_j v_j·v_jᵀ ⊗ (W_j − Q_j·Q_jᵀ) and Σ_j v_j ⊗ misfit_j, for vec(U) column by column."""
    count, rank = left.shape
    pairs = torch.einsum("na,nb->abn", right, right).reshape(rank * rank, -1)
    size = len(left)
    blocks = torch.zeros(rank * rank, size * size, dtype=left.dtype, device=left.device)
    # All columns' projectors at once would be a tensor [n, m, m].
    chunk = max(1, LARGEST_CHUNK // size**2)
    for start in range(0, len(bases), chunk):
        part = bases[start : start + chunk]
        blocks -= pairs[:, start : start + chunk] @ torch.einsum("nir,njr->nij", part, part).flatten(1)
    blocks = blocks.view(rank, rank, size, size)
    index = torch.arange(size, device=left.device)
    blocks[:, :, index, index] += (pairs @ weights.T).view(rank, rank, size)
    normal = blocks.permute(0, 2, 1, 3).reshape(rank * count, rank * count)
    # Steps within U's own span change nothing that can be seen: keep them from making the system singular.
    gauge = torch.einsum("ir,jr->ij", left, left)
    normal = normal + torch.kron(torch.eye(rank).to(gauge), gauge) * normal.diagonal().mean()
    return normal, (misfit @ right).T.reshape(-1)


def _alternate(
    matrix: torch.Tensor, seen: torch.Tensor, left: torch.Tensor, iterations: int, tolerance: float
) -> tuple[_Factors, float, int]:
    """Weighted alternating least squares with a vanishing ridge."""
    weights, length, rank = seen.to(torch.float64), float(matrix.norm()), left.shape[1]
    eye, cost, used = torch.eye(rank, dtype=torch.float64, device=left.device), float("inf"), 0
    right = torch.zeros(matrix.shape[1], rank, dtype=torch.float64, device=left.device)
    for used in range(1, iterations + 1):
        ridge = max(1e-13, 10.0 ** -(used + 1))
        right = _ridge(matrix.T, weights.T, left, ridge * eye)
        left = torch.linalg.qr(_ridge(matrix, weights, right, ridge * eye)).Q
        if used % 10 == 0:
            right = _ridge(matrix.T, weights.T, left, 1e-15 * eye)
            last, cost = cost, float((weights * (matrix - left @ right.T)).norm()) / length
            if cost <= tolerance or cost > last * (1 - 1e-4):
                break
    right = _ridge(matrix.T, weights.T, left, 1e-15 * eye)
    return (left, right), float((weights * (matrix - left @ right.T)).norm()) / length, used


def _ridge(
    matrix: torch.Tensor, weights: torch.Tensor, factor: torch.Tensor, ridge: torch.Tensor
) -> torch.Tensor:
    """For every row of ``matrix`` the coefficients that fit its visible entries with rows of ``factor``."""
    rank = factor.shape[1]
    pairs = (factor[:, :, None] * factor[:, None, :]).reshape(len(factor), -1)
    systems = (weights @ pairs).view(-1, rank, rank)
    systems = systems + ridge * systems.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-300)[:, None, None]
    solved: torch.Tensor = torch.linalg.solve(systems, ((weights * matrix) @ factor)[:, :, None])[:, :, 0]
    return solved
