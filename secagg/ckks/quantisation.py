"""The steps that a quantising profile seals values in, and what rounding to them leaves over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

MIN_STEP = 2.0**-96
"""The smallest step: a value of any profile's range divided by it is still a float32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steps:
    """One step per run of neighbouring values, the runs in the vector's order.

    Args:
        ends: int64 [runs], where each run ends; increasing, the last is the vector's length.
        sizes: float64 [runs], the steps; finite and at least ``MIN_STEP``.
    """

    ends: NDArray[np.int64]
    sizes: NDArray[np.float64]

    @classmethod
    def of(cls, counts: Sequence[int], sizes: Sequence[float] | NDArray[np.float64]) -> Steps:
        """Steps from the runs' lengths (empty runs are left out) and sizes.

        Raises:
            ValueError: lengths and sizes differ in number, or a size is not finite or below ``MIN_STEP``.
        """
        lengths, steps = np.asarray(counts, dtype=np.int64), np.asarray(sizes, dtype=np.float64)
        if lengths.shape != steps.shape or not (np.isfinite(steps).all() and (steps >= MIN_STEP).all()):
            raise ValueError(f"{lengths.size} runs with steps {steps}")
        used = lengths > 0
        return cls(ends=np.cumsum(lengths[used]), sizes=steps[used])

    @classmethod
    def uniform(cls, values: int, size: float) -> Steps:
        """One step for all of a vector."""
        return cls.of([values], [size])

    @property
    def values(self) -> int:
        """Length of the vector."""
        return int(self.ends[-1]) if self.ends.size else 0

    @property
    def largest(self) -> float:
        """The largest step; 0 for an empty vector."""
        return float(self.sizes.max(initial=0.0))

    def over(self, start: int, stop: int) -> NDArray[np.float64]:
        """The step of each value in [start, stop), float64 [stop - start], or [1] if it is the same for
        all.
        """
        first, last = np.searchsorted(self.ends, (start, stop - 1), side="right")
        if first == last:
            return self.sizes[first : first + 1]
        ends = np.minimum(self.ends[first : last + 1], stop)
        return np.repeat(self.sizes[first : last + 1], np.diff(ends, prepend=start))


class Carry(Protocol):
    """Error feedback: what rounding left over of earlier vectors, added to the next one.

    Seide et al., *1-bit stochastic gradient descent* (Interspeech 2014); Karimireddy et al., *Error feedback
    fixes SignSGD* (ICML 2019).
    """

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """What earlier vectors left over of the values in [start, stop)."""
        ...

    def write(self, start: int, left_over: NDArray[np.float32]) -> None:
        """What this vector leaves over of the values from ``start`` on."""
        ...


class StochasticRounding:
    """Rounds up with the probability that makes the mean right, and saturates at ± largest.

    ⌊x/step + U⌋ with U uniform on [0, 1) has mean x/step, up to float32's rounding of it (2^-10 of a step at
    most). The generator is seeded by the operating system; no secrecy hangs on it.

    Args:
        largest: L, the largest integer.
    """

    def __init__(self, largest: int) -> None:
        self._largest = np.float32(largest)
        self._generator = np.random.Generator(np.random.SFC64())

    def integers(
        self, values: NDArray[np.float32] | NDArray[np.float64], steps: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Whole numbers float32 [n] in ± largest for values [n] and their steps [n] or [1]."""
        scaled = self._generator.random(values.size, dtype=np.float32)
        scaled += np.multiply(values, (1.0 / steps).astype(np.float32), dtype=np.float32, casting="same_kind")
        np.floor(scaled, out=scaled)
        np.minimum(scaled, self._largest, out=scaled)
        return np.maximum(scaled, -self._largest, out=scaled)
