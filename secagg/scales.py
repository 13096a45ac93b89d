"""The scale of each tensor under a quantising profile: agreed without a message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.parameters import Profile, Quantised
from secagg.ckks.quantisation import Steps
from secagg.envelope import MAX_SCALES
from secagg.errors import Code, UpdateError
from secagg.update import Manifest

MAX_TENSORS = MAX_SCALES
"""A model of more tensors has no scales; its federation takes a profile that does not quantise."""

MIN_EXPONENT, MAX_EXPONENT = -64, 24
HEADROOM_BITS, SMALL_HEADROOM_BITS = 2, 4
"""A tensor may grow at least to 4 times its largest value before it saturates, a small one to 16 times."""

SMALL_TENSOR = 1024
"""Of fewer values than that the largest says little about the largest of the next round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """One power of two per tensor of the manifest: values of tensor t are sealed within ± 2^exponents[t].

    Beyond it they saturate; error feedback hands in the rest with the next update, and the next round's
    scales have grown by then.

    Args:
        exponents: each in ``MIN_EXPONENT`` to ``MAX_EXPONENT``, one per tensor.

    Raises:
        UpdateError: ENVELOPE_MALFORMED for an exponent out of range, or too many.
    """

    exponents: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.exponents) > MAX_TENSORS:
            raise _malformed(f"{len(self.exponents)} scales; at most {MAX_TENSORS} are possible")
        if not all(MIN_EXPONENT <= exponent <= MAX_EXPONENT for exponent in self.exponents):
            raise _malformed(f"a scale beyond 2^{MIN_EXPONENT} to 2^{MAX_EXPONENT}")

    @classmethod
    def around(cls, flat: NDArray[np.float32], manifest: Manifest) -> Scales:
        """The scales of a round that starts from this model; a pure function, so all its clients agree.

        The exponent is that of the smallest power of two ≥ max|w| over the tensor, plus the headroom; it is
        read off the bits of a double, so it is the same on every machine. A tensor that is all zero (a fresh
        bias) has no scale of its own and takes the model's largest; a model that is all zero takes 2^0.

        Args:
            flat: float32 [d], finite.
            manifest: of the same tensors.
        """
        own = [_exponent_for(flat[manifest.slice_of(spec.name)]) for spec in manifest.tensors]
        largest = max((exponent for exponent in own if exponent is not None), default=0)
        chosen = (largest if exponent is None else exponent for exponent in own)
        return cls(exponents=tuple(min(max(e, MIN_EXPONENT), MAX_EXPONENT) for e in chosen))

    def to_bytes(self) -> bytes:
        """One int8 per tensor."""
        return np.array(self.exponents, dtype=np.int8).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Scales:
        """Inverse of ``to_bytes``.

        Raises:
            UpdateError: ENVELOPE_MALFORMED.
        """
        return cls(exponents=tuple(np.frombuffer(data, dtype=np.int8).tolist()))

    def steps(self, profile: Profile, runs: Sequence[tuple[int, int]], *, weight: float = 1.0) -> Steps:
        """What a vector is sealed in: 2^exponent / 2^(bits-1) per value, larger where its client weighs less.

        A value v of a client of weight w is sealed as about v·w/step, and opened as a sum of such.

        Args:
            profile: quantising.
            runs: tensor's index and how many of its values follow one another, in the vector's order.
            weight: the client's, in (0, 1].
        """
        sizes = [_step(self.exponents[tensor], profile) / weight for tensor, _ in runs]
        return Steps.of([count for _, count in runs], sizes)

    def largest_step(self, profile: Profile) -> float:
        """The largest of all tensors' steps at weight 1."""
        return max(_step(exponent, profile) for exponent in self.exponents)


def _step(exponent: int, profile: Profile) -> float:
    assert isinstance(profile.encoding, Quantised)
    return float(2.0 ** (exponent - profile.encoding.bits + 1))


def _exponent_for(values: NDArray[np.float32]) -> int | None:
    """e of the smallest power of two 2^e ≥ max|v|, plus the headroom; None if all are zero."""
    largest = float(np.abs(values).max(initial=0.0))
    if not largest:
        return None
    mantissa, exponent = np.frexp(largest)
    headroom = SMALL_HEADROOM_BITS if values.size < SMALL_TENSOR else HEADROOM_BITS
    return int(exponent) - int(mantissa == 0.5) + headroom


def _malformed(message: str) -> UpdateError:
    return UpdateError(Code.ENVELOPE_MALFORMED, message)
