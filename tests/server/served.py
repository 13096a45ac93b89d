"""A federation on disk, its server in this process, raw clients; real certificates, sockets, ciphertexts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from even_rule import rules
from raw_client import RawClient

from secagg.config import FederationConfig
from secagg.custody.dealing import deal
from secagg.custody.enrolment import enroll_local
from secagg.custody.federation import init_federation
from secagg.errors import Code, SecaggError
from secagg.model_file import save_model
from secagg.plan import RoundPlan, RoundState
from secagg.server.app import Running, running
from secagg.server.events import DeadlinePassed
from secagg.server.gate import Limits
from secagg.server.observer import Observer

MODEL = {
    "hidden.weight": (12, 20),
    "hidden.bias": (12,),
    "last.weight": (4, 12),
    "last.bias": (4,),
}


class Recorder(Observer):
    """Keeps the events it would print."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def emit(self, event: str, **fields: object) -> None:
        self.events.append({"event": event, **fields})

    def named(self, event: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["event"] == event]


def make_federation(
    folder: Path, clients: int, shapes: dict[str, tuple[int, ...]] | None = None, **settings: Any
) -> Path:
    """A dealt federation with clients c0, c1, … and a small random model."""
    values: dict[str, Any] = {
        "name": "test",
        "address": "localhost:0",
        "workers": 1,
        "rounds": 1,
        "min_clients": 2,
        "collect_timeout_s": 60.0,
        "ballot_timeout_s": 60.0,
        "confirm_timeout_s": 60.0,
    }
    init_federation(folder, FederationConfig(**(values | settings)))
    rng = np.random.default_rng(7)
    tensors = {
        name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in (shapes or MODEL).items()
    }
    save_model(folder / "initial_model.npz", tensors)
    for index in range(clients):
        enroll_local(folder, f"c{index}")
    deal(folder, rules=rules)
    return folder


class Live:
    """A served federation with a connected client for everyone enrolled."""

    def __init__(self, folder: Path, server: Running, events: Recorder) -> None:
        self.folder = folder
        self.server = server
        self.events = events
        names = sorted(path.name for path in (folder / "clients").iterdir())
        self.clients = [RawClient(folder, name, server.address) for name in names]


Serve = Callable[..., AbstractAsyncContextManager[Live]]


@asynccontextmanager
async def serving(folder: Path, limits: Limits | None = None) -> AsyncIterator[Live]:
    """Serves an existing federation in this process."""
    events = Recorder()
    async with running(folder / "server", rules=rules, observer=events, limits=limits) as server:
        live = Live(folder, server, events)
        try:
            yield live
        finally:
            for client in live.clients:
                await client.close()
        assert not server.coordinator.failed.done()


async def expire(live: Live, number: int, state: RoundState) -> None:
    """A stage's deadline passes now; a short one would race with the test on a busy machine."""
    await live.server.coordinator.apply(number, DeadlinePassed(state=state))


def flat_of(plan: RoundPlan, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 0.1, plan.manifest.size).astype(np.float32)


async def finish_round(live: Live, plan: RoundPlan, names: list[str]) -> None:
    """These clients do what is left to do, and the round closes with all enrolled clients in it."""
    clients = [c for c in live.clients if c.name in names]
    for seed, client in enumerate(clients, start=1):
        await client.upload(client.seal(plan, flat_of(plan, seed)))
    await clients[0].reach(plan.round, RoundState.AGGREGATED)
    for client in live.clients:
        await client.open(plan)
        await client.confirm(plan.round)
    answer = await clients[0].reach(plan.round, RoundState.CLOSED)
    assert answer.state == RoundState.CLOSED
    assert len(live.server.coordinator.round(plan.round).accepted) == len(live.clients)


async def goes_on(live: Live, plan: RoundPlan, error: SecaggError, code: Code) -> None:
    """The refusal has this code and says where; all three clients can still finish the round."""
    assert error.code is code
    refused = live.events.named("refused")[-1]
    assert refused["code"] == code.value
    await finish_round(live, plan, ["c0", "c1", "c2"])
