"""One key pair per profile for the whole test run: keys take longest."""

from functools import cache

import pytest

from secagg.ckks import PROFILES, KeyPair, generate


@cache
def _pair(name: str) -> KeyPair:
    return generate(PROFILES[name])


@pytest.fixture(params=sorted(PROFILES))
def pair(request: pytest.FixtureRequest) -> KeyPair:
    """A key pair of every profile in turn."""
    return _pair(request.param)


@pytest.fixture(scope="session")
def robust() -> KeyPair:
    """A key pair of the profile with inner products."""
    return _pair("robust")


@pytest.fixture(scope="session")
def precise() -> KeyPair:
    """A key pair of the sums-only profile."""
    return _pair("precise")
