"""Images and feature rows, as the simulation knows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from attacks.inversion.data.pool import Pool
from attacks.inversion.data.source import Source
from secagg.errors import Code, ConfigError
from secagg.simulation.datasets import Dataset, Samples, load_dataset
from secagg.simulation.datasets.dataset import malformed

CLASS_NAMES = {
    "digits": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    "cifar10": (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    "pneumonia": ("normal", "pneumonia"),
}


def load_images(dataset: str, data: Path | None = None) -> Source:
    """A data set that ``load_dataset`` knows, by name or path, float64; images lie in [0, 1].

    Args:
        dataset: ``digits``, ``fashion-mnist``, ``cifar10``, ``pneumonia``, a folder of IDX files or an
            ``.npz`` file; ``@SIDE`` after it makes images smaller, SIDE x SIDE pixels, each the mean of a
            block.
        data: folder with the named data sets; default $SECAGG_DATA.

    Raises:
        ConfigError: DATA_MISSING names what is missing and where it comes from; DATA_MALFORMED, also for
            images beyond [0, 1]; DEPENDENCY_MISSING; CONFIG_INVALID for a SIDE that doesn't divide the
            images'.
    """
    name, at, side = dataset.rpartition("@")
    if not side.isdecimal() or Path(dataset).expanduser().exists():
        name, side = dataset, ""
    found = load_dataset(name, data)
    if len(found.shape) == 3:
        _check_range(found)
    train, test = (
        Pool(values=part.values, labels=part.labels) if not side else _smaller(part, int(side), dataset)
        for part in (found.train, found.test)
    )
    return Source(
        name=f"{found.name}{at}{side}" if side else found.name,
        shape=train.values.shape[1:],
        classes=found.classes,
        class_names=CLASS_NAMES.get(name, ()),
        train=train,
        test=test,
    )


def _check_range(images: Dataset) -> None:
    """See that pixels lie in [0, 1]: attackers look no further, and decibels count from there."""
    parts = (images.train.values, images.test.values)
    if parts[0].dtype == np.uint8:
        return
    low, high = float(min(part.min() for part in parts)), float(max(part.max() for part in parts))
    if low < 0 or high > 1:
        bytelike = low >= 0 and high <= 255
        way_out = "give uint8, or divide by 255" if bytelike else "images need values from 0 to 1"
        raise malformed(images.name, f"values run from {low:g} to {high:g}; {way_out}")


def _smaller(part: Samples, side: int, dataset: str) -> Pool:
    """Images of side x side pixels, each the mean of a block, rounded as the pixels were."""
    values = part.values
    height, width = values.shape[-2:]
    if values.ndim != 4 or side < 1 or height % side or width % side:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{dataset}: samples of shape {values.shape[1:]} can't be cut into {side} x {side} equal blocks",
        )
    blocks = values.reshape(*values.shape[:2], side, height // side, side, width // side)
    means = blocks.mean(axis=(3, 5), dtype=np.float64)
    means = means.round() if values.dtype == np.uint8 else means
    return Pool(values=means.astype(values.dtype), labels=part.labels)
