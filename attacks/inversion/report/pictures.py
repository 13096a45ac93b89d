"""Samples as PNG in a page's own text."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def data_uri(sample: NDArray[np.floating] | NDArray[np.integer]) -> str:
    """A PNG of one image as a ``data:`` address.

    Args:
        sample: [channels, height, width] with 1 or 3 channels, cut to [0, 1]; what is no number is
            drawn black.
    """
    values = np.rint(255 * np.clip(np.nan_to_num(sample), 0, 1)).astype(np.uint8)
    picture = Image.fromarray(
        values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))
    )
    written = io.BytesIO()
    picture.save(written, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()
