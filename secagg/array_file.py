"""Arrays from a ``.npz`` file, read without trusting a byte of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.model_file import UNREADABLE
from secagg.regular_file import open_regular

_ZIP = b"PK"


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a ``.npz`` file, by name; nothing is unpickled.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: for anything but a file of plain arrays, damaged as it may be.
    """
    try:
        # numpy leaves a file open that it can't make sense of; this closes it.
        with open_regular(path) as file:
            if file.peek(len(_ZIP))[: len(_ZIP)] != _ZIP:
                raise ValueError("it is no .npz file")
            with np.load(file, allow_pickle=False) as archive:
                arrays = dict(archive)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except UNREADABLE as error:
        raise ValueError(plain_complaint(error)) from None
    for name, array in arrays.items():
        # What numpy finds no header in it hands over as bytes.
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{name!r} in it is no array")
    return arrays


def plain_complaint(error: BaseException) -> str:
    """What numpy complains of, without its advice to unpickle what is not trusted."""
    return "it holds something else than plain arrays" if "pickle" in str(error) else str(error)
