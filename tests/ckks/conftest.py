"""One key pair per profile for the whole test run."""

import pytest
from sealed_vectors import pair_of

from secagg.ckks import PROFILES, KeyPair


@pytest.fixture(params=sorted(PROFILES))
def pair(request: pytest.FixtureRequest) -> KeyPair:
    """A key pair of every profile in turn."""
    return pair_of(request.param)


@pytest.fixture(scope="session")
def robust() -> KeyPair:
    """A key pair of the profile with inner products."""
    return pair_of("robust")


@pytest.fixture(scope="session")
def precise() -> KeyPair:
    """A key pair of the sums-only profile."""
    return pair_of("precise")


@pytest.fixture(scope="session")
def compact() -> KeyPair:
    """A key pair of a quantising profile."""
    return pair_of("compact")


@pytest.fixture(scope="session")
def nvflare() -> KeyPair:
    """A key pair of the profile of slots."""
    return pair_of("nvflare")
