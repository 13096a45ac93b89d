"""The span of a matrix's columns when some of its entries are hidden."""

from __future__ import annotations

from dataclasses import dataclass

import torch

SINGLE, DOUBLE = 2.0**-24, 2.0**-53


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Span:
    """An estimate of the space that a matrix's columns span.

    Args:
        basis: orthonormal, [rows, rank].
        tolerance: the sine of the angle by which rounding and noise may have turned it.
    """

    basis: torch.Tensor
    tolerance: float

    @property
    def rank(self) -> int:
        """Its dimension."""
        return self.basis.shape[1]

    def distance(self, vectors: torch.Tensor) -> torch.Tensor:
        """‖v − UUᵀv‖/‖v‖, 0 … 1, of vectors [..., rows]."""
        rest = vectors - (vectors @ self.basis) @ self.basis.T
        lengths: torch.Tensor = vectors.norm(dim=-1).clamp(min=torch.finfo(vectors.dtype).tiny)
        distance: torch.Tensor = rest.norm(dim=-1) / lengths
        return distance


def rounding_of(values: torch.Tensor) -> float:
    """Unit roundoff of what these were sent as: float32's if all of them are float32 numbers."""
    if values.dtype == torch.float32 or bool((values == values.to(torch.float32)).all()):
        return SINGLE
    return DOUBLE


def span_of(values: torch.Tensor, seen: torch.Tensor, *, at_most: int, noise: float = 0.0) -> Span:
    """The span of a matrix's columns, of rank ``at_most`` or less.

    Columns that are seen whole are taken if they are many enough (``at_most``); otherwise missing entries are
    completed first. A singular value counts if it is above what errors alone make: max(shape)·u·‖G‖_F for
    unit roundoff u, with columns scaled to unit length, as rounding scales with them; under noise of standard
    deviation s, unscaled, also s·(√rows + √columns + 3), which Gaussian noise exceeds with probability
    below e^(−9/2).

    Args:
        values: [rows, columns].
        seen: where they count, of the same shape.
        at_most: the largest rank that is possible.
        noise: standard deviation of what was added to each value.
    """
    unit = rounding_of(values[seen]) if bool(seen.any()) else DOUBLE
    whole = seen.all(dim=0)
    if bool(seen.all()) or int((whole & (values != 0).any(dim=0)).sum()) >= at_most:
        matrix = values[:, whole]
    else:
        matrix = completed(values, seen, at_most)
    lengths = matrix.norm(dim=0)
    matrix = matrix[:, lengths > 0]
    if not matrix.numel():
        return Span(basis=values.new_zeros(values.shape[0], 0), tolerance=1.0)
    if not noise:
        matrix = matrix / lengths[lengths > 0]
    vectors, sizes, _ = torch.linalg.svd(matrix, full_matrices=False)
    floor = max(matrix.shape) * unit * float(matrix.norm())
    floor += noise * (matrix.shape[0] ** 0.5 + matrix.shape[1] ** 0.5 + 3)
    rank = min(int((sizes > floor).sum()), at_most)
    if not rank:
        return Span(basis=values.new_zeros(values.shape[0], 0), tolerance=1.0)
    return Span(basis=vectors[:, :rank], tolerance=min(1.0, floor / float(sizes[rank - 1])))


def completed(
    values: torch.Tensor, seen: torch.Tensor, rank: int, *, sweeps: int = 200, ridge: float = 1e-12
) -> torch.Tensor:
    """The matrix of this rank nearest to what is seen, by alternating least squares; columns of which no more
    than ``rank`` entries are seen, which fit anything, are left out.

    min ‖S∘(UVᵀ − G)‖² over U, then V, and so on (Jain, Netrapalli, Sanghavi, STOC 2013, arXiv 1212.0467).
    """
    columns = seen.sum(dim=0) > rank
    values, seen = torch.where(seen, values, 0.0)[:, columns], seen[:, columns]
    if not bool(columns.any()):
        return values
    weights = seen.to(values.dtype)
    scale = (values.square().sum(dim=0) / weights.sum(dim=0)).sqrt().clamp(min=torch.finfo(values.dtype).tiny)
    target = values / scale
    left = torch.linalg.svd(target / weights.mean(dim=0), full_matrices=False)[0][:, :rank]
    eye = ridge * torch.eye(left.shape[1], dtype=values.dtype, device=values.device)

    def solved(basis: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        normal = torch.einsum("ir,ic,is->crs", basis, mask, basis) + eye
        factor: torch.Tensor = torch.linalg.solve(normal, (basis.T @ (mask * wanted)).T.unsqueeze(-1))
        return factor.squeeze(-1)

    right = solved(left, target, weights)
    for _ in range(sweeps):
        left = torch.linalg.qr(solved(right, target.T, weights.T))[0]
        right = solved(left, target, weights)
        error = float((weights * (left @ right.T - target)).norm())
        if error <= 1e-12 * float(target.norm()):
            break
    return torch.where(seen, target, left @ right.T) * scale
