"""What a data set is here: images or feature rows with class labels, split into train and test."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from secagg.errors import Code, ConfigError

Values = NDArray[np.uint8] | NDArray[np.float32]

HOLD_OUT = 0.2
"""Share of a data set without its own test part that is held out, per class."""
MAX_CLASSES = 10_000
SPLIT_SEED = 0
"""The split does not depend on a run's seed: runs with different seeds are tested on the same samples."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """Values and labels of n samples.

    Args:
        values: [n, channels, height, width] for images, [n, features] otherwise; uint8 stands for
            value/255, float32 for itself.
        labels: int64 [n], each in 0 … classes − 1.
    """

    values: Values
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Samples:
        """The samples with these indices, copied."""
        return Samples(values=self.values[indices], labels=self.labels[indices])

    def scaled(self) -> NDArray[np.float32]:
        """The values as a model sees them, float32."""
        if self.values.dtype == np.uint8:
            return self.values.astype(np.float32) / np.float32(255)
        return self.values.astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A named data set with ``classes`` classes; ``test`` is what no client trains on."""

    name: str
    classes: int
    train: Samples
    test: Samples

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: (channels, height, width) or (features,)."""
        return tuple(self.train.values.shape[1:])


def dataset_of(
    name: str,
    values: NDArray[np.generic],
    labels: NDArray[np.generic],
    held_out: tuple[object, object] | None = None,
) -> Dataset:
    """A checked data set from raw arrays; without ``held_out`` a fifth of each class is held out.

    Args:
        values: uint8, bool, or any real numbers, [n, features], [n, height, width],
            [n, channels, height, width] or [n, height, width, channels] with 1 or 3 channels.
        labels: whole numbers 0 … C − 1, [n].
        held_out: values and labels of the test part, in the same form.

    Raises:
        ConfigError: DATA_MALFORMED, naming the data set and what is wrong with it.
    """
    train = _samples(name, values, labels)
    if held_out is None:
        train, test = _hold_out(name, train)
    else:
        test = _samples(name, np.asarray(held_out[0]), np.asarray(held_out[1]))
    if test.values.shape[1:] != train.values.shape[1:] or test.values.dtype != train.values.dtype:
        raise malformed(
            name,
            f"train samples are {train.values.dtype} {train.values.shape[1:]}, "
            f"test samples {test.values.dtype} {test.values.shape[1:]}",
        )
    classes = 1 + int(max(train.labels.max(), test.labels.max()))
    if not 2 <= classes <= MAX_CLASSES:
        raise malformed(name, f"it has {classes} classes; 2 to {MAX_CLASSES} are possible")
    return Dataset(name=name, classes=classes, train=train, test=test)


def malformed(name: str, complaint: str) -> ConfigError:
    """The error for data that is there but not what it should be."""
    return ConfigError(Code.DATA_MALFORMED, f"data set {name}: {complaint}")


def _samples(name: str, values: NDArray[np.generic], labels: NDArray[np.generic]) -> Samples:
    if labels.ndim != 1 or len(labels) != len(values) or not len(labels):
        raise malformed(
            name, f"x has shape {values.shape} and y has shape {labels.shape}; one label per sample is needed"
        )
    return Samples(values=_values(name, values), labels=_labels(name, labels))


def _labels(name: str, labels: NDArray[np.generic]) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iu":
        raise malformed(name, f"labels are {labels.dtype}; whole numbers 0 … C − 1 are needed")
    if int(labels.min()) < 0 or int(labels.max()) >= MAX_CLASSES:
        raise malformed(
            name, f"labels run from {labels.min()} to {labels.max()}; they must lie in 0 … {MAX_CLASSES - 1}"
        )
    return labels.astype(np.int64)


def _values(name: str, values: NDArray[np.generic]) -> Values:
    if values.dtype.kind not in "biuf":
        raise malformed(name, f"values are {values.dtype}; real numbers are needed")
    if values.ndim not in (2, 3, 4) or 0 in values.shape:
        raise malformed(
            name, f"values have shape {values.shape}; [n, features], [n, h, w] or [n, c, h, w] is needed"
        )
    if values.ndim == 3:
        values = values[:, np.newaxis]
    elif values.ndim == 4 and values.shape[1] not in (1, 3) and values.shape[3] in (1, 3):
        values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    if values.dtype == np.uint8:
        return values.astype(np.uint8)
    with np.errstate(over="ignore"):
        real = values.astype(np.float32)
    if not np.isfinite(real).all():
        raise malformed(name, "values hold NaN, infinity or numbers beyond float32")
    return real


def _hold_out(name: str, samples: Samples) -> tuple[Samples, Samples]:
    generator = np.random.default_rng(SPLIT_SEED)
    held: list[NDArray[np.int64]] = []
    for label in np.unique(samples.labels):
        members = generator.permutation(np.flatnonzero(samples.labels == label))
        held.append(members[: round(HOLD_OUT * len(members))])
    test = np.sort(np.concatenate(held))
    if not len(test):
        least = next(n for n in count(1) if round(HOLD_OUT * n))
        raise malformed(
            name,
            f"{len(samples)} samples are too few to hold some out for testing; "
            f"one class at least needs {least}",
        )
    rest = np.setdiff1d(np.arange(len(samples)), test)
    return samples.take(rest), samples.take(test)
