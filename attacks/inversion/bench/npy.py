"""Arrays as the bytes of a ``.npy`` file."""

from __future__ import annotations

import io
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.array_file import plain_complaint


def bytes_of(array: NDArray[Any]) -> bytes:
    """The content of a ``.npy`` file."""
    with io.BytesIO() as file:
        np.save(file, array, allow_pickle=False)
        return file.getvalue()


def array_of(data: bytes) -> NDArray[Any]:
    """Inverse of ``bytes_of``; nothing is unpickled.

    Raises:
        ValueError: for anything else, damaged as it may be.
    """
    try:
        found: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise ValueError(plain_complaint(error)) from None
    except (TypeError, SyntaxError, TokenError, MemoryError, OverflowError) as error:
        # Of a header that says nothing, or more than there is memory for.
        raise ValueError(f"no .npy header: {error}") from None
    return found
