"""PneumoniaMNIST (Yang et al., Scientific Data 2023, arXiv 2110.14795): grey chest X-rays, 28 x 28 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from secagg.errors import Code, ConfigError
from secagg.simulation.datasets.dataset import SPLIT_SEED, Dataset, dataset_of, malformed
from secagg.simulation.datasets.npz import read_npz

OFFICIAL = "pneumoniamnist.npz"
OFFICIAL_SOURCE = "https://zenodo.org/records/10519652"
MOST_PNEUMONIA = "pneumoniamnist_varun.npz"
MOST_NORMAL = "pneumoniamnist_aksufatih.npz"
COPIES_SOURCE = (
    "https://github.com/varun19424/pneumonia_mnist (data/pneumoniamnist.npz) and "
    "https://github.com/aksufatih/snn-medmnist (pneumoniamnist.npz)"
)
NORMAL, PNEUMONIA = 0, 1
_TRAIN = ("train_images", "train_labels")
_TEST = ("test_images", "test_labels")


def load_pneumonia(folder: Path) -> Dataset:
    """4,708 train and 624 test images; label 1 is pneumonia. The validation part is left out.

    From the authors' file, or from two public copies that each lack part of the train images: one has all
    with pneumonia, the other all without. Train images of the copies are in an order of their own.

    Raises:
        ConfigError: DATA_MISSING names the files and their source; DATA_MALFORMED.
    """
    official = folder / OFFICIAL
    if official.is_file():
        images, labels, *held_out = read_npz(official, (*_TRAIN, *_TEST))
        return dataset_of("pneumonia", images, labels.reshape(-1), (held_out[0], held_out[1].reshape(-1)))
    lacking = [name for name in (MOST_PNEUMONIA, MOST_NORMAL) if not (folder / name).is_file()]
    if lacking:
        raise ConfigError(
            Code.DATA_MISSING,
            f"pneumonia: {folder} lacks {OFFICIAL} (from {OFFICIAL_SOURCE}); or, for two copies of it, "
            f"{', '.join(lacking)} (from {COPIES_SOURCE}); name the folder above it "
            "with --data or SECAGG_DATA",
        )
    ill, ill_labels, *held_out = read_npz(folder / MOST_PNEUMONIA, (*_TRAIN, *_TEST))
    well, well_labels = read_npz(folder / MOST_NORMAL, _TRAIN)
    if len(ill) != ill_labels.size or len(well) != well_labels.size or ill.shape[1:] != well.shape[1:]:
        raise malformed("pneumonia", f"the images and labels in {folder} don't fit together")
    ill, well = ill[ill_labels.reshape(-1) == PNEUMONIA], well[well_labels.reshape(-1) == NORMAL]
    images = np.concatenate([well, ill])
    labels = np.repeat([NORMAL, PNEUMONIA], [len(well), len(ill)])
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    return dataset_of("pneumonia", images[order], labels[order], (held_out[0], held_out[1].reshape(-1)))
