"""Readers over vectors that a test holds in memory."""

from secagg.ckks import CiphertextReader, Profile
from secagg.ckks.wire import AGGREGATE_HEADER_BYTES, HEADER_BYTES


def sealed_reader(data: bytes, profile: Profile) -> CiphertextReader:
    """Ciphertexts of a sealed vector by index."""
    step = profile.sealed_ciphertext_bytes
    return lambda index: data[HEADER_BYTES + index * step : HEADER_BYTES + (index + 1) * step]


def aggregate_reader(data: bytes, profile: Profile) -> CiphertextReader:
    """Ciphertexts of an aggregate vector by index."""
    step, start = profile.aggregate_ciphertext_bytes, AGGREGATE_HEADER_BYTES
    return lambda index: data[start + index * step : start + (index + 1) * step]
