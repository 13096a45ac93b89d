"""Residues keep their value through packing, at every width, and nothing else passes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.ckks import PROFILES
from secagg.ckks.packing import PACKABLE_BITS, pack, packed_bytes, unpack
from secagg.errors import CiphertextError, Code

PRIMES = sorted({prime for preset in PROFILES.values() for prime in preset.key_primes})


def test_every_width_of_which_two_fill_whole_bytes_can_be_packed() -> None:
    """32, 36, …, 60."""
    assert list(PACKABLE_BITS) == [32, 36, 40, 44, 48, 52, 56, 60]


@given(bits=st.sampled_from(PACKABLE_BITS), data=st.data())
def test_packed_bits_are_the_residues_in_little_endian_order(bits: int, data: st.DataObject) -> None:
    """The bytes equal the plain integer Σ r_i·2^(i·bits); unpacking gives the residues back."""
    ceiling = (1 << bits) - 1
    residue = st.one_of(st.integers(0, ceiling - 1), st.sampled_from([0, 1, ceiling - 1, 1 << (bits - 1)]))
    drawn = data.draw(st.lists(st.tuples(residue, residue), min_size=1, max_size=40))
    residues = [residue for two in drawn for residue in two]
    packed = pack(np.array(residues, dtype=np.uint64), bits)
    whole = sum(residue << (bits * index) for index, residue in enumerate(residues))
    assert packed == whole.to_bytes(packed_bytes(len(residues), bits), "little")
    assert unpack(packed, len(residues), ceiling).tolist() == residues


def test_rows_are_packed_one_after_the_other() -> None:
    """Any shape is packed in C order, also where its memory lies otherwise."""
    residues = np.arange(24, dtype=np.uint64).reshape(4, 6)
    assert pack(residues, 36) == pack(residues.reshape(-1), 36)
    assert pack(residues.T, 36) == pack(residues.T.copy(), 36)


@pytest.mark.parametrize("prime", PRIMES)
@pytest.mark.parametrize("beyond", [0, 1])
def test_residue_at_or_above_the_prime_is_refused(prime: int, beyond: int) -> None:
    """The first value that fits the width but not the field is refused, in any position; one less is read."""
    for position in (0, 3, 7):
        residues = np.zeros(8, dtype=np.uint64)
        residues[position] = prime + beyond
        with pytest.raises(CiphertextError, match=f"residue {position} ") as caught:
            unpack(pack(residues, prime.bit_length()), 8, prime)
        assert caught.value.code is Code.CIPHERTEXT_MALFORMED
        residues[position] = prime - 1
        assert np.array_equal(unpack(pack(residues, prime.bit_length()), 8, prime), residues)


@pytest.mark.parametrize("prime", PRIMES)
@pytest.mark.parametrize("change", [-8, -1, 1, 8])
def test_packed_residues_of_another_length_are_refused(prime: int, change: int) -> None:
    """One byte less or more, or a word."""
    with pytest.raises(CiphertextError) as caught:
        unpack(bytes(packed_bytes(8, prime.bit_length()) + change), 8, prime)
    assert caught.value.code is Code.CIPHERTEXT_MALFORMED
