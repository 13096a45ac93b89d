"""What is done to visible entries before they are sent."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from secagg.errors import Code, ConfigError
from secagg.selection import mask_of_scores


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """The visible part of an update.

    Args:
        values: in the order of the flat vector, floating, [n].
        tensors: index of the tensor each is of, int64 [n].
        noise: standard deviation of what was added to them so far, what is known of it; ≥ 0.
    """

    values: torch.Tensor
    tensors: torch.Tensor
    noise: float = 0.0


class Perturbation(Protocol):
    """One step; a protection takes several, in their order."""

    def apply(self, part: Part, generator: torch.Generator) -> Part:
        """What is left of the visible part.

        Args:
            part: not changed.
            generator: on the CPU; a step that draws nothing leaves it alone.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """v + σ·N(0, 1) on each entry, as in DP-SGD (Abadi et al., CCS 2016, arXiv 1607.00133).

    Args:
        std: σ, or σ over the root mean square of the visible part; finite, ≥ 0.
        relative: whether it is the latter.

    Raises:
        ConfigError: CONFIG_INVALID for another std.
    """

    std: float
    relative: bool = True

    def __post_init__(self) -> None:
        _require(0 <= self.std < math.inf, f"noise of {self.std}; a standard deviation is finite and ≥ 0")

    def apply(self, part: Part, generator: torch.Generator) -> Part:
        """Noises add up in squares."""
        values = part.values
        if not len(values):
            return part
        std = self.std * float(values.square().mean().sqrt()) if self.relative else self.std
        drawn = torch.randn(len(values), generator=generator, dtype=torch.float64)
        noisy = values + std * drawn.to(dtype=values.dtype, device=values.device)
        return replace(part, values=noisy, noise=math.hypot(part.noise, std))


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipping:
    """v·min(1, norm/‖v‖₂) over the visible part as one vector (Abadi et al., arXiv 1607.00133).

    Args:
        norm: the largest that is let through; positive and finite.

    Raises:
        ConfigError: CONFIG_INVALID for another norm.
    """

    norm: float

    def __post_init__(self) -> None:
        _require(0 < self.norm < math.inf, f"clip at {self.norm}; a norm is finite and positive")

    def apply(self, part: Part, generator: torch.Generator) -> Part:  # noqa: ARG002
        """Noise that was added before shrinks with the values."""
        norm = float(torch.linalg.vector_norm(part.values))
        if norm <= self.norm:
            return part
        factor = self.norm / norm
        return replace(part, values=factor * part.values, noise=factor * part.noise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """The smallest |v| become 0, as in gradient compression (Lin et al., ICLR 2018, arXiv 1712.01887).

    Of n visible entries ceil((1 − share)·n) keep their values, ties to the smaller index. Zeros still travel.

    Args:
        share: in [0, 1].

    Raises:
        ConfigError: CONFIG_INVALID for another share.
    """

    share: float

    def __post_init__(self) -> None:
        _require(0 <= self.share <= 1, f"prune {self.share}; a share lies in [0, 1]")

    def apply(self, part: Part, generator: torch.Generator) -> Part:  # noqa: ARG002
        """Noise remains on what is kept."""
        if not len(part.values):
            return part
        kept = mask_of_scores(part.values.abs().cpu().numpy(), 1 - self.share).hidden
        values = torch.where(
            torch.from_numpy(kept.copy()).to(part.values.device), part.values, torch.zeros_like(part.values)
        )
        return replace(part, values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """Δ·round(v/Δ), Δ = max|v|/(2^(bits−1) − 1) over each tensor's visible entries (symmetric and uniform, so
    that 0 stays 0; Krishnamoorthi, arXiv 1806.08342, §2.2).

    Args:
        bits: of each value, its sign included; 2 to 32.

    Raises:
        ConfigError: CONFIG_INVALID for other bits.
    """

    bits: int

    def __post_init__(self) -> None:
        _require(
            isinstance(self.bits, int) and 2 <= self.bits <= 32,
            f"quantise to {self.bits} bits; it takes a whole number from 2 to 32",
        )

    def apply(self, part: Part, generator: torch.Generator) -> Part:  # noqa: ARG002
        """What is rounded away counts as noise of variance Δ²/12, as if it were uniform in ±Δ/2."""
        values, tensors = part.values, part.tensors
        if not len(values):
            return part
        largest = torch.zeros(int(tensors.max()) + 1, dtype=values.dtype, device=values.device)
        largest.scatter_reduce_(0, tensors, values.abs(), "amax")
        steps = (largest / (2 ** (self.bits - 1) - 1))[tensors]
        # A tensor of nothing but zeros has no step, and needs none.
        rounded = torch.where(steps > 0, steps * torch.round(values / steps), values)
        variance = float(steps.square().mean()) / 12
        return replace(part, values=rounded, noise=math.hypot(part.noise, math.sqrt(variance)))


def tensor_indices(sizes: list[int]) -> torch.Tensor:
    """Which tensor each entry of a flat vector is of, int64 [d]."""
    return torch.from_numpy(np.repeat(np.arange(len(sizes), dtype=np.int64), sizes))


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise ConfigError(Code.CONFIG_INVALID, complaint)
