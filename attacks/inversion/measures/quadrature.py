"""zᵀ f(KᵀK) z without KᵀK: Golub-Kahan bidiagonalisation, and Gauss' and Radau's rules from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Map = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bidiagonal:
    """K·V = U·B after k steps from each of p starts; B has α on its diagonal and β above it.

    V's first column is z/‖z‖. T = BᵀB is the Lanczos matrix of KᵀK, but its eigenvalues come as squares of
    singular values of B: so directions that K barely sees, to 1e-16 of what it sees best, are still told
    from those it does not see. From T itself only 1e-8 could be.

    Args:
        diagonal: α, [p, k].
        above: β, [p, k]; the last one leads out of B.
        lengths: ‖z‖, [p].
    """

    diagonal: torch.Tensor
    above: torch.Tensor
    lengths: torch.Tensor

    def gauss(self, function: Map) -> torch.Tensor:
        """‖z‖²·Σ_j ω_j f(θ_j), [p]: Gauss' rule, θ = σ(B)², ω the first entries of right vectors, squared.

        A lower bound of zᵀ f(KᵀK) z for f(a) = 1/(c + a)^m, whose even derivatives are positive
        (Golub and Meurant, "Matrices, moments and quadrature", 1994).
        """
        return self._rule(torch.diag_embed(self.diagonal) + torch.diag_embed(self.above[:, :-1], 1), function)

    def radau(self, function: Map) -> torch.Tensor:
        """As ``gauss``, with a node at 0, the least that eigenvalues of KᵀK can be: an upper bound, [p].

        It is for functions whose odd derivatives are negative. [B, β_k·e_k] has one column more than rows,
        so the square has the wanted eigenvalue 0, exactly.
        """
        wide = torch.diag_embed(self.above, 1)[:, :-1]
        wide[:, :, :-1] += torch.diag_embed(self.diagonal)
        return self._rule(wide, function)

    def largest(self) -> float:
        """λ_max(KᵀK) as far as the starts show it, from below."""
        square = torch.diag_embed(self.diagonal) + torch.diag_embed(self.above[:, :-1], 1)
        return float(torch.linalg.matrix_norm(square, ord=2).max()) ** 2

    def _rule(self, matrix: torch.Tensor, function: Map) -> torch.Tensor:
        _, values, right = torch.linalg.svd(matrix, full_matrices=True)
        nodes = matrix.new_zeros(right.shape[:2])
        nodes[:, : values.shape[1]] = values.square()
        means: torch.Tensor = (right[:, :, 0].square() * function(nodes)).sum(dim=1)
        return self.lengths.square() * means


def bidiagonalise(
    forward: Map,
    backward: Map,
    starts: torch.Tensor,
    *,
    steps: int,
    until: Callable[[Bidiagonal], bool],
) -> Bidiagonal:
    """Golub-Kahan-Lanczos from several starts at once (Golub and Kahan 1965).

    Right vectors are orthogonalised against all earlier ones, twice; left ones stay orthogonal by
    themselves then (Simon and Zha 2000), and are not kept. A start whose Krylov space is exhausted goes on
    with zeros, which changes neither rule.

    Args:
        forward: v ↦ K v for every row, [p, n] → [p, m].
        backward: u ↦ Kᵀ u for every row, [p, m] → [p, n].
        starts: z, float64 [p, n].
        steps: k at most, at least 1; the basis takes p·k·n numbers.
        until: asked now and then; True ends it.
    """
    lengths = torch.linalg.vector_norm(starts, dim=1)
    right = _over(starts, lengths)
    basis = starts.new_zeros((len(starts), steps, starts.shape[1]))
    diagonal, above = list[torch.Tensor](), list[torch.Tensor]()
    left = forward(right)
    scale = torch.zeros_like(lengths)
    for step in range(1, steps + 1):
        basis[:, step - 1] = right
        alpha = torch.linalg.vector_norm(left, dim=1)
        left = _over(left, alpha)
        diagonal.append(alpha)
        scale = torch.maximum(scale, alpha)
        right = backward(left) - alpha[:, None] * right
        known = basis[:, :step]
        for _ in range(2):
            right = right - torch.einsum("pk,pkn->pn", torch.einsum("pkn,pn->pk", known, right), known)
        beta = torch.linalg.vector_norm(right, dim=1)
        # What rounding leaves of a vector in the space's span is no new direction.
        beta = torch.where(beta > torch.finfo(beta.dtype).eps * scale, beta, 0.0)
        right = _over(right, beta)
        above.append(beta)
        exhausted = not bool(beta.any())
        if step % 8 == 0 or step == steps or exhausted:
            found = Bidiagonal(
                diagonal=torch.stack(diagonal, dim=1), above=torch.stack(above, dim=1), lengths=lengths
            )
            if exhausted or step == steps or until(found):
                break
        left = forward(right) - beta[:, None] * left
    return found


def _over(rows: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Rows at length 1; those of length 0 become zeros."""
    return torch.where(
        lengths[:, None] > 0, rows / lengths.clamp(min=torch.finfo(rows.dtype).tiny)[:, None], 0.0
    )
