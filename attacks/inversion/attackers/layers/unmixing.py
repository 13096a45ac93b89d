"""The samples of a batch from the gradient of a linear layer that a ReLU follows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

CHUNK = 2_048
PATIENCE = 4
"""Draws end when so many chunks of them brought nothing sparser."""
ZERO = 1e-7
"""Rounding in float64 leaves less than this of an entry that would be 0."""
ALIKE = 1e-5
"""Directions closer to each other than that (1 − |cos|) are the same."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unmixed:
    """A gradient taken apart.

    Args:
        samples: [k, inputs], k ≤ B.
        errors: ∂L/∂y of each sample, [k, outputs].
    """

    samples: torch.Tensor
    errors: torch.Tensor


def unmix(
    matrix: torch.Tensor,
    *,
    batch_size: int,
    seed: int,
    draws: int = 60_000,
    zero: float = ZERO,
    layer: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Unmixed:
    """Samples x_s and errors δ_s with [∂L/∂W | ∂L/∂b] = Σ_s δ_s·[x_s | 1]ᵀ.

    SPEAR (Dimitrov, Baader, Müller, Vechev, arXiv 2403.03945, §4): with M = L·R of rank B every δ_s is L·q
    for some q, and ReLU made about half of its entries 0. Any B − 1 of these zeros, rows of L, determine q;
    so null vectors of random sets of rows are tried, and those that make far more entries 0 than they were
    made for are the δ_s. The bias column then fixes their scales, and least squares gives the
    samples. The number of draws that are needed grows as 2^B/B.

    Args:
        matrix: M, [outputs, inputs + 1], complete.
        batch_size: B; if M has a smaller rank, that many samples can be told apart.
        seed: of the draws.
        draws: how many sets of rows at most.
        zero: share of a direction's largest entry up to which entries count as 0.
        layer: W [outputs, inputs] and b [outputs], if known: they repair a direction that draws missed.
    """
    matrix = matrix.to(torch.float64)
    empty = Unmixed(samples=matrix[:0, :-1], errors=matrix.T[:0])
    left, values, _ = torch.linalg.svd(matrix, full_matrices=False)
    rank = min(batch_size, int((values > zero * values[:1]).sum()))
    if rank == 0:
        return empty
    basis = left[:, :rank]
    if rank == 1:
        directions = torch.ones(1, 1, dtype=torch.float64, device=matrix.device)
    else:
        directions = _sparse_directions(basis, seed, draws, zero)
    if not len(directions):
        return empty
    errors = basis @ directions.T
    errors = torch.where(errors.abs() <= zero * errors.abs().amax(dim=0, keepdim=True), 0.0, errors)
    # Only all B together have to add up to the bias; of fewer each takes the scale that rows of its own show.
    if len(directions) == rank:
        errors, samples = _scaled(matrix, errors)
        if layer is not None:
            errors, samples = repaired(matrix, basis, errors, samples, layer, zero)
    else:
        found = [_own_rows(matrix, errors, index) for index in range(len(directions))]
        kept = [index for index, pair in enumerate(found) if pair is not None]
        if not kept:
            return empty
        samples = torch.stack([pair[0] for pair in found if pair is not None])
        errors = errors[:, kept] * torch.stack([pair[1] for pair in found if pair is not None])
    finite = samples.isfinite().all(dim=1) & (errors.abs().amax(dim=0) > 0)
    return Unmixed(samples=samples[finite], errors=errors.T[finite])


def _scaled(matrix: torch.Tensor, errors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions [outputs, B] with the scales that add up to the bias column, and the samples they give."""
    scales = torch.linalg.lstsq(errors, matrix[:, -1:]).solution[:, 0]
    errors = errors * scales
    return errors, torch.linalg.pinv(errors) @ matrix[:, :-1]


def repaired(
    matrix: torch.Tensor,
    basis: torch.Tensor,
    errors: torch.Tensor,
    samples: torch.Tensor,
    layer: tuple[torch.Tensor, torch.Tensor],
    zero: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same with directions that belong to nobody replaced, where the network's weights allow it.

    A sample that is active almost everywhere has too few zeros for draws to hit upon. If its direction alone
    is wrong, δ_u + Σ c_s·δ_s for δ_u, M gives its x_u right and the others' samples wrong. But x_u and the
    weights say where its unit is inactive, and L·q = 0 there is its δ_u.
    """
    weights, bias = layer

    def agreement(errors: torch.Tensor, samples: torch.Tensor) -> float:
        """Share of units that are active where they have errors."""
        live = errors.T.abs() > zero * errors.T.abs().amax(dim=1, keepdim=True)
        return float((live == (samples @ weights.T + bias > 0)).to(torch.float64).mean())

    best = agreement(errors, samples)
    for _ in range(len(samples)):
        tried = [
            _scaled(matrix, _redirected(basis, errors, index, ~(samples[index] @ weights.T + bias > 0)))
            for index in range(len(samples))
        ]
        scores = [agreement(*pair) if pair[1].isfinite().all() else 0.0 for pair in tried]
        if max(scores) <= best:
            break
        best, (errors, samples) = max(scores), tried[scores.index(max(scores))]
    return errors, samples


def _redirected(
    basis: torch.Tensor, errors: torch.Tensor, index: int, inactive: torch.Tensor
) -> torch.Tensor:
    """Errors [outputs, B] with one column that is least where its sample is inactive."""
    changed = errors.clone()
    if int(inactive.sum()) >= basis.shape[1] - 1:
        turned = torch.linalg.svd(basis[inactive]).Vh
        changed[:, index] = torch.where(inactive, 0.0, basis @ turned[-1])
    return changed


def _own_rows(
    matrix: torch.Tensor, errors: torch.Tensor, index: int
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The sample that a row shows which no other sample activates: several rows with the same quotient."""
    strong = errors[:, index].abs() > 1e-3 * errors[:, index].abs().max()
    bias = matrix[strong, -1:]
    quotients = matrix[strong, :-1] / torch.where(bias == 0, torch.inf, bias)
    if len(quotients) < 2:
        return None
    gaps = torch.cdist(quotients, quotients) + torch.diag(torch.full((len(quotients),), torch.inf).to(matrix))
    gap, place = gaps.min(dim=1)
    row = int(gap.argmin())
    if float(gap[row]) > 1e-6 * float(quotients[row].norm() + 1e-300):
        return None
    pair = quotients[[row, int(place[row])]].mean(dim=0)
    return pair, matrix[strong, -1][row] / errors[strong, index][row]


def _sparse_directions(basis: torch.Tensor, seed: int, draws: int, zero: float) -> torch.Tensor:
    """Up to B independent q, [k, B], for which L·q has far more zeros than B − 1, sparsest first."""
    rank = basis.shape[1]
    rows = basis.norm(dim=1)
    alive = basis[rows > 1e-9 * rows.max()]
    if len(alive) < rank:
        return basis.new_zeros(0, rank)
    generator = torch.Generator().manual_seed(seed)
    pick = alive.new_zeros(rank)
    pick[-1] = 1.0
    directions, zeros = alive.new_zeros(0, rank), alive.new_zeros(0)
    # B − 1 of all rows are made 0 in any case; a chance match of a few more is conceivable.
    least = rank - 1 + max(2, rank // 2)
    most, idle = 0.0, 0
    for _ in range(0, draws, CHUNK):
        scores = torch.rand(CHUNK, len(alive), generator=generator).to(alive.device)
        chosen = alive[scores.topk(rank - 1, dim=1).indices]
        anything = torch.randn(CHUNK, 1, rank, generator=generator, dtype=torch.float64).to(alive.device)
        # q ⟂ the chosen rows and ⟨anything, q⟩ = 1; parallel rows leave q open and are passed over.
        solved, failed = torch.linalg.solve_ex(torch.cat([chosen, anything], dim=1), pick.expand(CHUNK, rank))
        usable = (failed == 0) & solved.isfinite().all(dim=1)
        found = solved[usable] / solved[usable].norm(dim=1, keepdim=True)
        products = (found @ alive.T).abs()
        count = (products <= zero * products.amax(dim=1, keepdim=True)).sum(dim=1).to(torch.float64)
        keep = count >= least
        directions, zeros = torch.cat([directions, found[keep]]), torch.cat([zeros, count[keep]])
        directions, zeros = _distinct(directions, zeros, rank)
        # δ_s − c·δ_t has zeros, too, but fewer than both of them: go on until no sparser set comes up.
        idle = 0 if float(zeros.sum()) > most else idle + 1
        most = max(most, float(zeros.sum()))
        if len(directions) == rank and idle == PATIENCE:
            break
    return directions


def _distinct(directions: torch.Tensor, zeros: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The sparsest independent ones, at most ``rank``."""
    order = zeros.argsort(descending=True, stable=True)
    kept: list[int] = []
    space = directions.new_zeros(0, directions.shape[1])
    for index in order.tolist():
        rest = directions[index] - space.T @ (space @ directions[index])
        if float(rest.norm()) > ALIKE:
            kept.append(index)
            space = torch.cat([space, (rest / rest.norm())[None]])
            space = torch.linalg.qr(space.T).Q.T
            if len(kept) == rank:
                break
    return directions[kept], zeros[kept]
