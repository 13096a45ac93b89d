"""Handwritten digits that come with scikit-learn: 1,797 grey images of 8 x 8 pixels, no folder needed."""

from __future__ import annotations

import numpy as np

from secagg.errors import Code, ConfigError
from secagg.simulation.datasets.dataset import Dataset, dataset_of


def load_digits() -> Dataset:
    """The test part of the UCI digits (Alpaydin, Kaynak, 1998), values 0 … 16 scaled to [0, 1].

    Raises:
        ConfigError: DEPENDENCY_MISSING if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError:
        raise ConfigError(
            Code.DEPENDENCY_MISSING, "the digits come with scikit-learn: pip install 'secagg[run]'"
        ) from None
    digits = load()
    return dataset_of("digits", (digits.images / 16.0).astype(np.float32), digits.target)
