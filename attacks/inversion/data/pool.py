"""Samples as they lie in memory: bytes stay bytes until they are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.inversion.batch import Batch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """Values and labels of n samples.

    Args:
        values: [n, *shape]; uint8 stands for value/255, float32 for itself, int64 for token ids.
        labels: int64 [n].
    """

    values: NDArray[Any]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Batch:
        """The samples with these indices, float64, or int64 if they are token ids."""
        values = self.values[indices]
        if values.dtype == np.uint8:
            values = values.astype(np.float64) / 255
        elif values.dtype != np.int64:
            values = values.astype(np.float64)
        return Batch(inputs=torch.from_numpy(values), labels=torch.from_numpy(self.labels[indices]))

    def mean(self) -> torch.Tensor:
        """Of the samples, float64 [*shape]."""
        mean = self.values.mean(axis=0, dtype=np.float64)
        return torch.from_numpy(mean / 255 if self.values.dtype == np.uint8 else mean)
