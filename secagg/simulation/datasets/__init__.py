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
from secagg.simulation.datasets.pneumonia import load_pneumonia

__all__ = ["DATASETS", "Dataset", "Samples", "data_folder", "load_dataset"]

_FOLDERS = {
    "fashion-mnist": ("fashion-mnist", load_fashion_mnist),
    "cifar10": ("cifar10", load_cifar10),
    "pneumonia": ("medmnist", load_pneumonia),
}
DATASETS = ("digits", *_FOLDERS)
DATA_VARIABLE = "SECAGG_DATA"
"""Environment variable that names the folder with the named data sets' own folders."""


def data_folder(data: Path | None = None) -> Path:
    """The folder with the named data sets: the given one, else $SECAGG_DATA, else ``data``."""
    return data or Path(os.environ.get(DATA_VARIABLE) or "data")


def load_dataset(dataset: str, data: Path | None = None) -> Dataset:
    """The data set with this name, in this folder of IDX files, or in this ``.npz`` file.

    Args:
        dataset: one of ``DATASETS``, or a path.
        data: folder that holds ``fashion-mnist/``, ``cifar10/`` and ``medmnist/``; default $SECAGG_DATA.

    Raises:
        ConfigError: DATA_MISSING names what is missing and where it comes from; DATA_MALFORMED;
            DEPENDENCY_MISSING names the extra to install.
    """
    if dataset == "digits":
        return load_digits()
    if dataset in _FOLDERS:
        folder, load = _FOLDERS[dataset]
        return load(data_folder(data) / folder)
    path = Path(dataset).expanduser()
    if path.is_dir():
        return load_idx_folder(path.resolve())
    if path.is_file() and path.suffix == ".npz":
        return load_npz(path)
    raise ConfigError(
        Code.DATA_MISSING,
        f"no data set {dataset!r}: give {', '.join(DATASETS)}, a folder of IDX files, "
        "or an .npz file with arrays x and y; sst2, text, is for secagg leak only",
    )
