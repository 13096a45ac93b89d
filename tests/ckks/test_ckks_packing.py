"""Residues keep their value through packing, at every width, and nothing else passes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.ckks.packing import pack, packed_bytes, unpack
from secagg.errors import CiphertextError, Code


@given(bits=st.integers(8, 63), groups=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_packed_bits_are_the_residues_in_little_endian_order(bits: int, groups: int, seed: int) -> None:
    """The bytes equal the plain integer Σ r_i·2^(i·bits); unpacking gives the residues back."""
    ceiling = (1 << bits) - 1
    residues = np.random.default_rng(seed).integers(0, ceiling, 8 * groups, dtype=np.uint64)
    residues[0], residues[-1] = ceiling - 1, 0
    data = pack(residues, bits)
    whole = sum(int(residue) << (bits * index) for index, residue in enumerate(residues))
    assert data == whole.to_bytes(packed_bytes(residues.size, bits), "little")
    assert np.array_equal(unpack(data, residues.size, ceiling), residues)


@pytest.mark.parametrize("prime", [1152921504606830593, 68719230977, 257])
def test_residue_at_or_above_the_prime_is_refused(prime: int) -> None:
    """The first value that fits the width but not the field is refused, in any position."""
    for position in (0, 3, 7):
        residues = np.zeros(8, dtype=np.uint64)
        residues[position] = prime
        with pytest.raises(CiphertextError, match=f"residue {position} ") as caught:
            unpack(pack(residues, prime.bit_length()), 8, prime)
        assert caught.value.code is Code.CIPHERTEXT_MALFORMED


@pytest.mark.parametrize("change", [-1, 1])
def test_packed_residues_of_another_length_are_refused(change: int) -> None:
    """One byte less or more is refused."""
    with pytest.raises(CiphertextError):
        unpack(bytes(packed_bytes(8, 60) + change), 8, 1152921504606830593)
