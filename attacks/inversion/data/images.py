"""Images and feature rows, as the simulation knows them."""

from __future__ import annotations

from pathlib import Path

from attacks.inversion.data.pool import Pool
from attacks.inversion.data.source import Source
from secagg.simulation.datasets import load_dataset

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
    """A data set that ``load_dataset`` knows, by name or path, float64 in [0, 1] if it holds bytes.

    Args:
        dataset: ``digits``, ``fashion-mnist``, ``cifar10``, ``pneumonia``, a folder of IDX files or an
            ``.npz`` file.
        data: folder with the named data sets; default $SECAGG_DATA.

    Raises:
        ConfigError: DATA_MISSING names what is missing and where it comes from; DATA_MALFORMED;
            DEPENDENCY_MISSING.
    """
    found = load_dataset(dataset, data)
    return Source(
        name=found.name,
        shape=found.shape,
        classes=found.classes,
        class_names=CLASS_NAMES.get(dataset, ()),
        train=Pool(values=found.train.values, labels=found.train.labels),
        test=Pool(values=found.test.values, labels=found.test.labels),
    )
