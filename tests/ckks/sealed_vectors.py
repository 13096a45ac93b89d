"""Keys, and vectors that a test seals, sums and reads in memory."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from secagg.ckks import (
    PROFILES,
    CiphertextReader,
    KeyPair,
    Opener,
    Profile,
    Sealer,
    Steps,
    aggregate_vector,
    generate,
)
from secagg.ckks.parameters import Quantised
from secagg.ckks.wire import AGGREGATE_HEADER_BYTES, HEADER_BYTES

Vector = NDArray[np.float32] | NDArray[np.float64]


@cache
def pair_of(name: str) -> KeyPair:
    """One key pair per profile for the whole run."""
    return generate(PROFILES[name])


def sealed_reader(data: bytes, profile: Profile) -> CiphertextReader:
    """Ciphertexts of a sealed vector by index."""
    step = profile.sealed_ciphertext_bytes
    return lambda index: data[HEADER_BYTES + index * step : HEADER_BYTES + (index + 1) * step]


def aggregate_reader(data: bytes, profile: Profile) -> CiphertextReader:
    """Ciphertexts of an aggregate vector by index."""
    step, start = profile.aggregate_ciphertext_bytes, AGGREGATE_HEADER_BYTES
    return lambda index: data[start + index * step : start + (index + 1) * step]


def step_for(profile: Profile, largest: float) -> float:
    """The step whose multiple by the profile's largest integer is ``largest``; 0 if it does not quantise."""
    return (largest or 1.0) / profile.encoding.largest if isinstance(profile.encoding, Quantised) else 0.0


def steps_for(profile: Profile, values: int, largest: float = 1.0) -> Steps | None:
    """One such step for a whole vector; None if the profile does not quantise."""
    return Steps.uniform(values, step_for(profile, largest)) if profile.quantised else None


def sealed(pair: KeyPair, values: Vector, largest: float = 1.0) -> CiphertextReader:
    """A reader over the freshly sealed vector."""
    profile = pair.secret.profile
    data = Sealer(pair.secret).seal(values, steps=steps_for(profile, values.size, largest))
    return sealed_reader(data, profile)


def mean_of(vectors: Sequence[Vector], weights: Sequence[int]) -> NDArray[np.float64]:
    """The weighted mean in float64."""
    total = sum(w * vector.astype(np.float64) for w, vector in zip(weights, vectors, strict=True))
    return np.asarray(total) / sum(weights)


def opened_mean(
    pair: KeyPair, vectors: Sequence[Vector], weights: Sequence[int], largest: float = 1.0
) -> NDArray[np.float64]:
    """The weighted mean through ciphertexts, for values within ± ``largest``."""
    profile, values = pair.secret.profile, vectors[0].size
    readers = [sealed(pair, vector, largest) for vector in vectors]
    aggregate = b"".join(aggregate_vector(readers, weights, values, profile))
    assert len(aggregate) == profile.aggregate_bytes(values)
    return Opener(pair.secret).open_vector(aggregate, values, steps=steps_for(profile, values, largest))
