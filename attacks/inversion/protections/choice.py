"""Which entries are hidden, once scores are known or none are needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from secagg.selection import Mask
from secagg.selection.mask import entries_to_hide
from secagg.update import Manifest


def whole_tensors(manifest: Manifest, order: Sequence[int], ratio: float) -> Mask:
    """Tensors in this order, each whole, until at least ceil(ratio·d) entries are hidden.

    Args:
        manifest: names and shapes of the tensors.
        order: their indices, those to be hidden first in front.
        ratio: share of entries, in [0, 1].
    """
    least, count = entries_to_hide(manifest.size, ratio), 0
    hidden = np.zeros(manifest.size, dtype=np.bool_)
    for index in order:
        if count >= least:
            break
        spec = manifest.tensors[index]
        hidden[manifest.slice_of(spec.name)] = True
        count += spec.size
    return Mask(hidden)


def by_mean_score(manifest: Manifest, scores: NDArray[np.floating]) -> list[int]:
    """Indices of the tensors by falling mean score, those of equal means by index."""
    means = [float(scores[manifest.slice_of(spec.name)].mean()) for spec in manifest.tensors]
    return sorted(range(len(means)), key=lambda index: (-means[index], index))


def shuffled(manifest: Manifest, generator: torch.Generator) -> list[int]:
    """Indices of the tensors in an order that is drawn uniformly."""
    return [int(index) for index in torch.randperm(len(manifest.tensors), generator=generator)]


def from_the_front(size: int, ratio: float) -> Mask:
    """The first ceil(ratio·d) entries: whole tensors as far as they fit, and a part of the next one."""
    hidden = np.zeros(size, dtype=np.bool_)
    hidden[: entries_to_hide(size, ratio)] = True
    return Mask(hidden)


def from_the_back(size: int, ratio: float) -> Mask:
    """The last ceil(ratio·d) entries."""
    hidden = np.zeros(size, dtype=np.bool_)
    hidden[size - entries_to_hide(size, ratio) :] = True
    return Mask(hidden)
