"""I2F: how far an attacker who takes hidden entries for zeros ends from the truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attacks.inversion.measures.quadrature import Bidiagonal, bidiagonalise
from attacks.inversion.measures.rounds import Rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence:
    """The displacement of a naive attacker's solution, in pixels of [0, 1], over the whole batch.

    Args:
        value: I2F = ‖(JJᵀ + εI)⁻¹ J δ‖.
        bound: ‖J δ‖/(λ_max + ε), never more than ``value``.
    """

    value: float
    bound: float


def exact_influence(matrix: torch.Tensor, missing: torch.Tensor, *, damping: float) -> Influence:
    """I2F of Zhang, Hong, Wang, Zhou (NeurIPS 2023, arXiv 2309.13016) from J itself.

    In their layout J is d_x x d; here it is [d, n], so this is ‖(JᵀJ + εI)⁻¹ Jᵀδ‖.

    Args:
        matrix: J of all rounds, float64 [Σ d, n].
        missing: δ, float64 [Σ d].
        damping: ε/λ_max(JᵀJ), positive.
    """
    values, vectors = torch.linalg.eigh(matrix.T @ matrix)
    pulled = matrix.T @ missing
    largest = float(values[-1])
    if not largest > 0:
        return Influence(value=0.0, bound=0.0)
    solved = (vectors.T @ pulled) / (values.clamp(min=0) + damping * largest)
    bound = float(torch.linalg.vector_norm(pulled)) / (largest * (1 + damping))
    return Influence(value=float(torch.linalg.vector_norm(solved)), bound=bound)


def estimated_influence(rounds: Rounds, *, damping: float, steps: int) -> Influence:
    """As ``exact_influence`` without J: I2F² = bᵀ(JᵀJ + εI)⁻²b with b = Jᵀδ, by Gauss' and Radau's rules.

    Args:
        rounds: J as a map, and δ.
        damping: ε/λ_max(JᵀJ), positive.
        steps: of the bidiagonalisation, at most.
    """
    pulled = rounds.backward(rounds.missing[None])
    if not bool(pulled.any()):
        return Influence(value=0.0, bound=0.0)

    def rules(found: Bidiagonal) -> tuple[float, float]:
        epsilon = damping * found.largest()

        def square(eigenvalues: torch.Tensor) -> torch.Tensor:
            return 1 / (eigenvalues + epsilon).square()

        return float(found.gauss(square)) ** 0.5, float(found.radau(square)) ** 0.5

    def agree(found: Bidiagonal) -> bool:
        low, high = rules(found)
        return high - low < 0.01 * low

    found = bidiagonalise(
        rounds.forward, rounds.backward, pulled, steps=min(steps, rounds.input_numbers), until=agree
    )
    low, high = rules(found)
    bound = float(torch.linalg.vector_norm(pulled)) / (found.largest() * (1 + damping))
    return Influence(value=(low * high) ** 0.5, bound=bound)
