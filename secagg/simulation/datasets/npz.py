"""One ``.npz`` file with arrays ``x`` and ``y`` as a data set."""

from __future__ import annotations

import zipfile
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from secagg.errors import Code, ConfigError
from secagg.model_file import UNREADABLE
from secagg.simulation.datasets.dataset import Dataset, dataset_of, malformed

MAX_BYTES = 2 * 2**30
MAX_HEADER_BYTES = 64 * 1024


def load_npz(path: Path) -> Dataset:
    """A data set from arrays x (samples) and y (labels); a fifth of each class is held out.

    Nothing is unpickled.

    Raises:
        ConfigError: DATA_MISSING if the file can't be read; DATA_MALFORMED for anything but two plain
            arrays within 2 GiB that make a data set.
    """
    x, y = read_npz(path, ("x", "y"))
    return dataset_of(path.stem, x, y)


def read_npz(path: Path, names: tuple[str, ...]) -> tuple[NDArray[np.generic], ...]:
    """The arrays with these names, in this order; nothing is unpickled.

    Raises:
        ConfigError: DATA_MISSING if the file can't be read; DATA_MALFORMED for anything but plain arrays
            within 2 GiB each.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            there = archive.namelist()
            lacking = [name for name in names if f"{name}.npy" not in there]
            if lacking:
                raise malformed(str(path), f"it lacks the arrays {', '.join(lacking)}; it holds {there[:10]}")
            return tuple(_array(path, archive, name) for name in names)
    except OSError as error:
        raise ConfigError(Code.DATA_MISSING, f"{path} can't be read: {error.strerror}") from None
    except UNREADABLE as error:
        raise malformed(str(path), f"it is no readable .npz: {error}") from None


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[np.generic]:
    with archive.open(f"{name}.npy") as member:
        version = npy.read_magic(member)
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        if version not in readers:
            raise malformed(str(path), f"array {name} has .npy version {version}; 1.0 and 2.0 are read")
        shape, fortran, dtype = readers[version](member, max_header_size=MAX_HEADER_BYTES)
        if dtype.kind not in "biuf":
            raise malformed(str(path), f"array {name} is {dtype}; real numbers are needed")
        expected = prod(shape) * dtype.itemsize
        if not 0 < expected <= MAX_BYTES:
            raise malformed(str(path), f"array {name} of shape {shape} is empty or exceeds {MAX_BYTES} bytes")
        content = bytearray()
        # In pieces: a header that promises more than the archive holds costs no memory.
        while len(content) <= expected and (piece := member.read(min(1 << 20, expected + 1 - len(content)))):
            content += piece
    if len(content) != expected:
        raise malformed(str(path), f"array {name} of shape {shape} does not have {expected} bytes")
    flat = np.frombuffer(content, dtype=dtype)
    return flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="))
