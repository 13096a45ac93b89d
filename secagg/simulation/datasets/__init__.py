"""Data sets by name or path."""

from __future__ import annotations

import os
from pathlib import Path

from secagg.errors import Code, ConfigError
from secagg.simulation.datasets.cifar import load_cifar10
from secagg.simulation.datasets.dataset import Dataset, Samples
from secagg.simulation.datasets.digits import load_digits
from secagg.simulation.datasets.idx_folder import load_fashion_mnist, load_idx_folder
from secagg.simulation.datasets.npz import load_npz

__all__ = ["DATASETS", "Dataset", "Samples", "load_dataset"]

DATASETS = ("digits", "fashion-mnist", "cifar10")
DATA_VARIABLE = "SECAGG_DATA"
"""Environment variable that names the folder with the named data sets' own folders."""


def load_dataset(dataset: str, data: Path | None = None) -> Dataset:
    """The data set with this name, in this folder of IDX files, or in this ``.npz`` file.

    Args:
        dataset: one of ``DATASETS``, or a path.
        data: folder that holds ``fashion-mnist/`` and ``cifar10/``; default $SECAGG_DATA.

    Raises:
        ConfigError: DATA_MISSING names what is missing and where it comes from; DATA_MALFORMED;
            DEPENDENCY_MISSING names the extra to install.
    """
    if dataset == "digits":
        return load_digits()
    if dataset in DATASETS:
        root = data or Path(os.environ.get(DATA_VARIABLE) or "data")
        return {"fashion-mnist": load_fashion_mnist, "cifar10": load_cifar10}[dataset](root / dataset)
    path = Path(dataset).expanduser()
    if path.is_dir():
        return load_idx_folder(path.resolve())
    if path.is_file() and path.suffix == ".npz":
        return load_npz(path)
    raise ConfigError(
        Code.DATA_MISSING,
        f"no data set {dataset!r}: give {', '.join(DATASETS)}, a folder of IDX files, "
        "or an .npz file with arrays x and y",
    )
