"""CIFAR-10 (Krizhevsky, 2009), in either of two forms that need no unpickling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secagg.errors import Code, ConfigError
from secagg.simulation.datasets.dataset import Dataset, dataset_of, malformed

BINARY = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
BINARY_TEST = "test_batch.bin"
BINARY_SOURCE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHEETS = tuple(f"cifar10_batch_{i}.png" for i in range(4))
SHEET_LABELS = "cifar10_batches_0-3_labels.npy"
SHEET_SOURCE = "https://github.com/karpathy/convnetjs (folder demo/cifar10)"
SHEET_SAMPLES = 1000
_RECORD = 1 + 3 * 32 * 32
_MAX_RECORDS = 10_000


def load_cifar10(folder: Path) -> Dataset:
    """CIFAR-10 from the authors' binary batches, or from four lossless PNG sheets and their labels.

    A sheet is 1024 x 1000 RGB: row r is image r, its 1024 pixels the 32 x 32 image in row-major order.
    The sheets are the first 4,000 train images; the last sheet is held out for testing.

    Raises:
        ConfigError: DATA_MISSING names the files and their source; DATA_MALFORMED; DEPENDENCY_MISSING
            if sheets are there and Pillow is not.
    """
    binary = [name for name in (*BINARY, BINARY_TEST) if not (folder / name).is_file()]
    if not binary:
        batches = [_binary(folder / name) for name in BINARY]
        return dataset_of(
            "cifar10",
            np.concatenate([values for values, _ in batches]),
            np.concatenate([labels for _, labels in batches]),
            _binary(folder / BINARY_TEST),
        )
    sheets = [name for name in (*SHEETS, SHEET_LABELS) if not (folder / name).is_file()]
    if not sheets:
        return _sheets(folder)
    raise ConfigError(
        Code.DATA_MISSING,
        f"cifar10: {folder} lacks {', '.join(binary)} (from {BINARY_SOURCE}); or, for the PNG sheets, "
        f"{', '.join(sheets)} (from {SHEET_SOURCE}); name the folder above it with --data or SECAGG_DATA",
    )


def _binary(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    size = path.stat().st_size
    if not size or size % _RECORD or size > _MAX_RECORDS * _RECORD:
        raise malformed(
            "cifar10", f"{path} has {size} bytes; 1 to {_MAX_RECORDS} records of {_RECORD} are read"
        )
    records = np.fromfile(path, dtype=np.uint8).reshape(-1, _RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), _ten_classes(path, records[:, 0])


def _sheets(folder: Path) -> Dataset:
    try:
        from PIL import Image
    except ImportError:
        raise ConfigError(
            Code.DEPENDENCY_MISSING, "the PNG sheets of cifar10 need Pillow: pip install 'secagg[run]'"
        ) from None
    images = []
    for name in SHEETS:
        try:
            with Image.open(folder / name, formats=("PNG",)) as image:
                if image.size != (1024, SHEET_SAMPLES):
                    raise malformed("cifar10", f"{folder / name} is {image.size} pixels, not 1024 x 1000")
                sheet = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise malformed("cifar10", f"{folder / name} is no readable PNG: {error}") from None
        images.append(sheet.reshape(SHEET_SAMPLES, 32, 32, 3).transpose(0, 3, 1, 2))
    labels = _sheet_labels(folder / SHEET_LABELS)
    x = np.concatenate(images)
    split = (len(SHEETS) - 1) * SHEET_SAMPLES
    return dataset_of("cifar10", x[:split], labels[:split], (x[split:], labels[split:]))


def _sheet_labels(path: Path) -> NDArray[np.uint8]:
    expected = len(SHEETS) * SHEET_SAMPLES
    if path.stat().st_size > 1 << 20:
        raise malformed("cifar10", f"{path} has {path.stat().st_size} bytes; labels need a few thousand")
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise malformed("cifar10", f"{path} is no readable .npy: {error}") from None
    if labels.shape != (expected,) or labels.dtype != np.uint8:
        raise malformed("cifar10", f"{path} is {labels.dtype} {labels.shape}, not uint8 ({expected},)")
    return _ten_classes(path, labels)


def _ten_classes(path: Path, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if labels.max() > 9:
        raise malformed("cifar10", f"{path} has the label {labels.max()}; labels are 0 … 9")
    return labels
