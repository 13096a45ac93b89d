"""The fixture that makes and serves a federation in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from served import Live, Serve, make_federation, serving


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """``async with serve(clients=3, rule="mean", …) as live``: makes a federation and serves it."""

    @asynccontextmanager
    async def make(clients: int = 3, **settings: Any) -> AsyncIterator[Live]:
        async with serving(make_federation(tmp_path / "federation", clients, **settings)) as live:
            yield live

    return make


@pytest.fixture
async def live(serve: Serve) -> AsyncIterator[Live]:
    """Three enrolled clients of which c0 is the one that errs; two are enough for a round."""
    async with serve(clients=3, rule="mean", protect="full", rounds=2) as served:
        yield served
