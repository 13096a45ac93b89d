"""Writes IDX files, so that tests need no data set."""

import gzip
import struct
from pathlib import Path

import numpy as np

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    head = struct.pack(f">HBB{array.ndim}I", 0, CODES[array.dtype.name], array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(path: Path, array: np.ndarray) -> Path:
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def blobs(count: int, *, classes: int = 4, side: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Grey images that a linear model can tell apart: class k has bright row k, plus noise."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count).astype(np.uint8)
    images = generator.integers(0, 80, (count, side, side)).astype(np.uint8)
    images[np.arange(count), labels] += 150
    return images, labels
