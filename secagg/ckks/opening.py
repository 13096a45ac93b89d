"""Opening a released scalar: integer arithmetic on the ternary secret, no SEAL."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.keys import SecretKey
from secagg.ckks.parameters import FixedPoint
from secagg.ckks.wire import ReleasedScalar

_HALF_WORD = np.uint64(30)


class LweSecret:
    """s and s·σ(s) as LWE secrets, ready to open released scalars.

    Args:
        secret_key: the federation's, of a profile with inner products.
    """

    def __init__(self, secret_key: SecretKey) -> None:
        self._profile = secret_key.profile
        secret = secret_key.coefficients.astype(np.int64)
        product = negacyclic_product(secret, conjugate_coefficients(secret))
        # ⟨a, s⟩, the constant coefficient of a·s, is the plain dot product of a with σ(s).
        self._duals = tuple(conjugate_coefficients(item) for item in (secret, product))

    def __repr__(self) -> str:
        return f"<LweSecret of profile {self._profile.name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")

    def open(self, scalar: ReleasedScalar) -> float:
        """(b + Σ_j ⟨a_j, s_j⟩ mod p, centred) / (scale²·weight total)."""
        prime, encoding = self._profile.modulus, self._profile.encoding
        assert isinstance(encoding, FixedPoint)
        value = scalar.constant
        # A linear scalar has one polynomial, for s alone.
        for polynomial, dual in zip(scalar.polynomials, self._duals, strict=False):
            value += exact_dot(polynomial, dual)
        value %= prime
        centred = value - prime if value > prime // 2 else value
        return float(centred / (2 ** (2 * encoding.fraction_bits) * scalar.weight_total))


def conjugate_coefficients(polynomial: NDArray[np.int64]) -> NDArray[np.int64]:
    """σ: X -> 1/X on coefficients: c_0, -c_{N-1}, …, -c_1, as X^-k = -X^(N-k)."""
    return np.concatenate((polynomial[:1], -polynomial[:0:-1]))


def negacyclic_product(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """left·right modulo X^N + 1 for small coefficients: int64 [N].

    By a double-precision FFT of length 2N; results up to N (ternary operands) are far below 2^53 / N, so
    rounding gives them exactly.
    """
    degree = left.size
    spectrum = np.fft.rfft(left, 2 * degree) * np.fft.rfft(right, 2 * degree)
    whole = np.rint(np.fft.irfft(spectrum, 2 * degree)).astype(np.int64)
    product: NDArray[np.int64] = whole[:degree] - whole[degree:]
    return product


def exact_dot(residues: NDArray[np.uint64], small: NDArray[np.int64]) -> int:
    """Σ residues·small as an exact integer.

    Residues below 2^60 are split at 30 bits; with |small| ≤ N ≤ 2^15 and N terms each half's sum stays below
    2^62.
    """
    low = (residues & ((np.uint64(1) << _HALF_WORD) - np.uint64(1))).astype(np.int64)
    high = (residues >> _HALF_WORD).astype(np.int64)
    return int(low @ small) + (int(high @ small) << int(_HALF_WORD))
