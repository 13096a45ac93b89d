"""What is known of samples before anything is seen: the covariance of their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from secagg.errors import Code, ConfigError

UNIFORM_VARIANCE = 1 / 12
"""Of a number drawn uniformly from [0, 1]: the pixel of which nothing is known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prior:
    """Σx, the covariance of one sample's numbers; samples are independent of each other.

    Args:
        variance: Σx = variance·I, unless there is a covariance; positive, in squared pixels of [0, 1].
        covariance: Σx itself, float64 [d_x, d_x], symmetric and positive semidefinite.

    Raises:
        ConfigError: CONFIG_INVALID for a variance that is not positive, a covariance that is not square.
    """

    variance: float = UNIFORM_VARIANCE
    covariance: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 < self.variance < float("inf"):
            raise ConfigError(
                Code.CONFIG_INVALID, f"a prior's variance must be positive, not {self.variance}"
            )
        if self.covariance is not None and (
            self.covariance.ndim != 2 or self.covariance.shape[0] != self.covariance.shape[1]
        ):
            raise ConfigError(
                Code.CONFIG_INVALID, f"a covariance is square, not of shape {tuple(self.covariance.shape)}"
            )

    @classmethod
    def empirical(cls, images: torch.Tensor) -> Prior:
        """The covariance of known images, shrunk towards a multiple of I so that no direction is certain.

        (1 − s)·C + s·(tr C/d_x)·I with the s that Ledoit and Wolf derive (J. Multivariate Analysis 88, 2004):
        s = min(1, Σ_i ‖x_i x_iᵀ − C‖²_F / (N²·‖C − (tr C/d_x)·I‖²_F)), but no less than 1/(N − 1). Many
        images come to more than that by themselves; of two, both x_i x_iᵀ are C once their mean is taken off,
        and s would be 0.

        Args:
            images: of the kind that clients have, not theirs, [N, …]; N ≥ 2.

        Raises:
            ConfigError: CONFIG_INVALID for fewer than two images, or images that are all the same.
        """
        rows = images.detach().reshape(len(images), -1).to(torch.float64)
        if len(rows) < 2:
            raise ConfigError(Code.CONFIG_INVALID, "a covariance takes two images or more")
        centred = rows - rows.mean(dim=0)
        covariance = centred.T @ centred / len(rows)
        mean = float(covariance.diagonal().mean())
        if not mean > 0:
            raise ConfigError(Code.CONFIG_INVALID, "a covariance takes images that differ")
        isotropic = mean * torch.eye(len(covariance), dtype=torch.float64, device=rows.device)
        spread = float((covariance - isotropic).square().sum())
        fourth = float(centred.square().sum(dim=1).square().sum())
        error = (fourth - len(rows) * float(covariance.square().sum())) / len(rows) ** 2
        share = min(1.0, max(error / spread, 1 / (len(rows) - 1))) if spread > 0 else 1.0
        return cls(variance=mean, covariance=(1 - share) * covariance + share * isotropic)

    def root(self, sample_size: int) -> torch.Tensor | float:
        """L with L·Lᵀ = Σx: a number for L·I, or symmetric, [d_x, d_x].

        Raises:
            ConfigError: CONFIG_INVALID if the covariance is of samples of another size.
        """
        if self.covariance is None:
            return float(self.variance**0.5)
        if len(self.covariance) != sample_size:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"the prior is of samples of {len(self.covariance)} numbers; these have {sample_size}",
            )
        return self._root

    @cached_property
    def _root(self) -> torch.Tensor:
        """Once only: at 3 x 32 x 32 it takes seconds, and every measure asks for it."""
        assert self.covariance is not None
        values, vectors = torch.linalg.eigh(self.covariance.to(torch.float64))
        root: torch.Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        return root

    def mse(self, sample_size: int) -> float:
        """tr Σx/d_x: what is missed by whoever sees nothing and guesses the mean."""
        if self.covariance is None:
            return self.variance
        root = self.root(sample_size)
        assert isinstance(root, torch.Tensor)
        return float(root.square().sum()) / sample_size


def coloured(rows: torch.Tensor, root: torch.Tensor | float) -> torch.Tensor:
    """Every sample's numbers times L: [k, B·d_x] → [k, B·d_x]; L is symmetric."""
    if isinstance(root, float):
        return rows * root
    return (rows.view(len(rows), rows.shape[1] // len(root), len(root)) @ root.to(rows)).reshape(rows.shape)
