"""Values <-> integer coefficients of a batch of ciphertexts; pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.bounds import field_base, noise_unit
from secagg.ckks.parameters import FixedPoint, Profile, Quantised
from secagg.ckks.quantisation import Carry, Steps, StochasticRounding

Values = NDArray[np.float32] | NDArray[np.float64]


class FixedPointCode:
    """v <-> round(v·scale), one value per coefficient; the values of a ciphertext in their order.

    Args:
        profile: with a ``FixedPoint`` encoding.
    """

    def __init__(self, profile: Profile) -> None:
        assert isinstance(profile.encoding, FixedPoint)
        self._degree, self._scale = profile.poly_degree, profile.encoding.scale

    def encode(self, values: Values, start: int, ciphertexts: int) -> NDArray[np.int64]:
        """Coefficients int64 [ciphertexts, N] of the values from ``start`` on, zeros behind the last."""
        part = values[start : start + ciphertexts * self._degree]
        coefficients = np.empty(ciphertexts * self._degree, dtype=np.int64)
        # Times a power of two, a float32 stays exact, and an integer where it is beyond 2^24.
        scaled = part * part.dtype.type(self._scale)
        np.rint(scaled, out=scaled)
        coefficients[: part.size] = scaled
        coefficients[part.size :] = 0
        return coefficients.reshape(ciphertexts, self._degree)

    def decode(
        self,
        coefficients: NDArray[np.int64],
        start: int,  # noqa: ARG002
        weight_total: int,
    ) -> NDArray[np.float64]:
        """The values, divided by the weight total, of coefficients int64 [ciphertexts, N]."""
        return coefficients.reshape(-1) / (self._scale * weight_total)


class QuantisedCode:
    """Several values' integers per coefficient: Δ·Σ_f q_f·B^f; field f of coefficient j is value f·N + j.

    Args:
        profile: with a ``Quantised`` encoding.
        steps: of the vector.
        carry: error feedback; None for none. Only for encoding.
    """

    def __init__(self, profile: Profile, steps: Steps, carry: Carry | None = None) -> None:
        assert isinstance(profile.encoding, Quantised)
        self._degree, self._fields = profile.poly_degree, profile.encoding.fields
        self._unit, self._base = noise_unit(profile), field_base(profile)
        self._steps, self._carry = steps, carry
        self._rounding = StochasticRounding(profile.encoding.largest)

    def encode(self, values: Values, start: int, ciphertexts: int) -> NDArray[np.int64]:
        """As ``FixedPointCode.encode``; what rounding leaves over goes to the carry."""
        integers = np.zeros(ciphertexts * self._fields * self._degree, dtype=np.float32)
        part = values[start : start + integers.size]
        if part.size:
            integers[: part.size] = self._integers(part, start)
        fields = integers.reshape(ciphertexts, self._fields, self._degree)
        # Below 2^24 in size, the float32 integers are exact, and so is this product's int64.
        packed = fields[:, -1].astype(np.int64)
        for field in range(self._fields - 2, -1, -1):
            packed *= self._base
            np.add(packed, fields[:, field], out=packed, casting="unsafe", dtype=np.int64)
        packed *= self._unit
        return packed

    def _integers(self, part: Values, start: int) -> NDArray[np.float32]:
        steps = self._steps.over(start, start + part.size)
        if self._carry is None:
            return self._rounding.integers(part, steps)
        wanted = part + self._carry.read(start, start + part.size)
        integers = self._rounding.integers(wanted, steps)
        self._carry.write(start, (wanted - integers * steps).astype(np.float32))
        return integers

    def decode(self, coefficients: NDArray[np.int64], start: int, weight_total: int) -> NDArray[np.float64]:
        """As ``FixedPointCode.decode``, of the values from ``start`` on; noise is rounded away exactly."""
        rest = (coefficients + self._unit // 2) // self._unit
        sums = np.empty((len(coefficients), self._fields, self._degree), dtype=np.float64)
        half = self._base // 2
        for field in range(self._fields - 1):
            # The rest without this field, of size at most B/2, is a multiple of B.
            higher = (rest + half) // self._base
            sums[:, field] = rest - higher * self._base
            rest = higher
        sums[:, -1] = rest
        flat = sums.reshape(-1)[: self._steps.values - start]
        return flat * (self._steps.over(start, start + flat.size) / weight_total)


Code = FixedPointCode | QuantisedCode


def code_of(profile: Profile, steps: Steps | None, values: int, carry: Carry | None = None) -> Code:
    """What encodes and decodes a vector of this many values.

    Raises:
        ValueError: a quantising profile without steps of this length, or steps for another profile.
    """
    if isinstance(profile.encoding, Quantised):
        if steps is None or steps.values != values:
            found = "none" if steps is None else str(steps.values)
            raise ValueError(f"profile {profile.name} needs steps for {values} values; there are {found}")
        return QuantisedCode(profile, steps, carry)
    if steps is not None or carry is not None:
        raise ValueError(f"profile {profile.name} seals values as they are, not in steps")
    return FixedPointCode(profile)
