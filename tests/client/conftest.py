"""Federations for the client's tests; every process and socket is real, and gone afterwards."""

import pytest
from live_federation import LiveFederation


@pytest.fixture
def federation(tmp_path):
    """Makes federations: ``federation(model, clients, **settings)``; the server is not started yet."""
    made = []

    def make(model, clients, **settings):
        made.append(LiveFederation(tmp_path / f"f{len(made)}", model, clients, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()
