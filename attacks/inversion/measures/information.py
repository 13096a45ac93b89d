"""What whoever knows the mask can learn at most: the Bayesian Cramér-Rao bound at the truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attacks.inversion.measures.prior import Prior, coloured
from attacks.inversion.measures.quadrature import Bidiagonal, bidiagonalise
from attacks.inversion.measures.rounds import Rounds

AGREEMENT = 0.05
"""Of both rules' means, relative: 0.2 dB."""
NUMBERS_AT_ONCE = 1 << 26
"""512 MiB of float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Information:
    """What is left unknown of a batch, and how sure that figure is.

    Args:
        mse: of each sample, in squared pixels of [0, 1].
        mse_low, mse_high: what it lies between; the same where it is exact.
        leaked: dimensions of which more is known than not, tr[H(H + Σx⁻¹)⁻¹], 0 to n.
        leaked_error: its standard error.
    """

    mse: tuple[float, ...]
    mse_low: tuple[float, ...]
    mse_high: tuple[float, ...]
    leaked: float
    leaked_error: float = 0.0


def exact_information(matrix: torch.Tensor, rounds: Rounds, prior: Prior) -> Information:
    """MSE = (1/d_x)·tr[(Jᵀ V Σ⁻¹ V J + Σx⁻¹)⁻¹] of each sample's block, from singular values.

    With K = Σ^-½ V J L and L Lᵀ = Σx, the inverse is L (KᵀK + I)⁻¹ Lᵀ. K's singular values are taken, not
    the eigenvalues of KᵀK: where only rounding blurs what is seen they span far more than 16 digits.
    This is the Bayesian Cramér-Rao bound (Van Trees 1968) with the information at the true samples.

    Args:
        matrix: J of all rounds, float64 [Σ d, n].
        rounds: what is visible of them.
        prior: Σx of one sample.
    """
    count, size = len(rounds.each[0].derivative.batch), rounds.input_numbers
    root = prior.root(size // count)
    seen = rounds.weights > 0
    blurred = coloured(rounds.weights[seen, None] * matrix[seen], root)
    if len(blurred) > size:
        blurred = torch.linalg.qr(blurred, mode="r").R
    _, values, right = torch.linalg.svd(blurred, full_matrices=True)
    left_over = matrix.new_ones(size)
    left_over[: len(values)] = 1 / (1 + values.square())
    variance = (left_over[:, None] * coloured(right, root).square()).sum(dim=0)
    mse = tuple(variance.view(count, -1).mean(dim=1).tolist())
    return Information(mse=mse, mse_low=mse, mse_high=mse, leaked=float((1 - left_over).sum()))


def estimated_information(rounds: Rounds, prior: Prior, *, seed: int, probes: int, steps: int) -> Information:
    """As ``exact_information`` without J: stochastic Lanczos quadrature (Ubaru, Chen, Saad 2017).

    A sample's trace is the mean of zᵀ L (KᵀK + I)⁻¹ Lᵀ z over random signs z on its numbers (Hutchinson
    1990). Each of these is bounded by Gauss' and Radau's rules; steps are made until these agree to
    ``AGREEMENT``, far better than probes do among each other. Bounds are the rules' means with two
    standard errors of the probes to either side; the figure itself is the geometric mean of both rules.

    Args:
        rounds: what is visible.
        prior: Σx of one sample.
        seed: of the probes.
        probes: of each sample, at least 2.
        steps: of the bidiagonalisation, at most.
    """
    count, size = len(rounds.each[0].derivative.batch), rounds.input_numbers
    root = prior.root(size // count)
    signs = _signs(count, size // count, probes, seed).to(rounds.update)
    weights = rounds.weights

    steps = min(steps, size)
    # Bases and images of probes are what takes memory.
    group = max(1, min(NUMBERS_AT_ONCE // (size * steps), NUMBERS_AT_ONCE // rounds.entries))

    def quadratic(starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rules = list[tuple[torch.Tensor, torch.Tensor]]()
        for part in torch.split(starts, group):
            found = bidiagonalise(
                lambda rows: rounds.forward(coloured(rows, root)) * weights,
                lambda rows: coloured(rounds.backward(rows * weights), root),
                part,
                steps=steps,
                until=_agree,
            )
            rules.append((found.gauss(_left_over), found.radau(_left_over)))
        low, high = (torch.cat(rule).view(count, probes) for rule in zip(*rules, strict=True))
        return low, high

    low, high = quadratic(coloured(signs, root))
    plain = isinstance(root, float)
    of_identity = (low / prior.variance, high / prior.variance) if plain else quadratic(signs)
    middle = (of_identity[0] + of_identity[1]) / 2
    error = middle.std(dim=1) / probes**0.5
    pixels = size / count
    mean_low, mean_high = low.mean(dim=1) / pixels, high.mean(dim=1) / pixels
    slack = 1 + 2 * high.std(dim=1) / probes**0.5 / high.mean(dim=1)
    return Information(
        mse=tuple((mean_low * mean_high).sqrt().tolist()),
        mse_low=tuple((mean_low / slack).tolist()),
        mse_high=tuple((mean_high * slack).tolist()),
        leaked=float(size - middle.mean(dim=1).sum()),
        leaked_error=float(error.square().sum().sqrt()),
    )


def _agree(found: Bidiagonal) -> bool:
    low, high = found.gauss(_left_over), found.radau(_left_over)
    return bool((high - low).sum() < AGREEMENT * low.sum())


def _left_over(eigenvalues: torch.Tensor) -> torch.Tensor:
    """1/(1 + a): the share of a direction's variance that is still unknown."""
    return 1 / (1 + eigenvalues)


def _signs(count: int, pixels: int, probes: int, seed: int) -> torch.Tensor:
    """±1 on one sample's numbers and 0 on the others': [B·probes, B·d_x], a sample's probes in a row."""
    generator = torch.Generator().manual_seed(seed)
    drawn = 2.0 * torch.randint(0, 2, (count, probes, pixels), generator=generator) - 1
    whole = torch.zeros((count, probes, count, pixels), dtype=torch.float64)
    for sample in range(count):
        whole[sample, :, sample] = drawn[sample]
    return whole.view(count * probes, count * pixels)
