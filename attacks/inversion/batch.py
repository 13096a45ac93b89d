"""Samples with their labels, as a network sees them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secagg.errors import Code, ConfigError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """B samples.

    Args:
        inputs: [B, channels, height, width] in [0, 1] for images, [B, features], or int64 [B, tokens].
        labels: int64 [B].

    Raises:
        ConfigError: CONFIG_INVALID if there is not one label per sample.
    """

    inputs: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        if self.labels.dtype != torch.int64 or self.labels.shape != self.inputs.shape[:1]:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"labels are {self.labels.dtype} of shape {tuple(self.labels.shape)}; {len(self.inputs)} "
                "samples need as many int64",
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: torch.Tensor) -> Batch:
        """The samples with these indices, int64 [n]."""
        return Batch(inputs=self.inputs[indices], labels=self.labels[indices])
