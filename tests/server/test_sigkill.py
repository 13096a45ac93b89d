"""A server killed by SIGKILL anywhere in a round and started again ends it with the same aggregate."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import signal
import socket
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest
from even_rule import rules
from raw_client import RawClient, Sealed
from served import make_federation, serving

from secagg._proto import aggregator_pb2 as pb
from secagg.errors import Code
from secagg.plan import RoundPlan, RoundState
from secagg.rpc_status import from_rpc_error

T = TypeVar("T")

SCRIPT = Path(__file__).with_name("killed_server.py")
POINTS = [
    "ANNOUNCED",
    "COLLECTING",
    "ACCEPTANCE",
    "SEALED",
    "SCORED",
    "BALLOT",
    "DECIDED",
    "AGGREGATED",
    "CONFIRMATION",
    "CLOSED",
]
SCREENED_POINTS = ["SCREENED", "CLEARED", "SCORED", "BALLOT", "DECIDED"]
RULES = {"ddfed": 1, "even:share=0.25": 2}
"""How many ballots each client hands in under a rule; no weight depends on the order of acceptance."""
CLIENTS = ("c0", "c1", "c2")
DEADLINE_S = 60.0


class Reference:
    """One federation, the updates its clients have sealed, and the aggregate of an undisturbed round."""

    def __init__(self, rule: str, folder: Path, sealed: dict[str, Sealed], aggregate: bytes) -> None:
        self.rule = rule
        self.folder = folder
        self.sealed = sealed
        self.aggregate = aggregate


def flat_of(plan: RoundPlan, name: str) -> Any:
    rng = np.random.default_rng(int(name[1:]))
    return rng.normal(0, 0.1, plan.manifest.size).astype(np.float32)


async def persist(call: Callable[[], Awaitable[T]]) -> T:
    """Repeats a call until somebody answers it."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if from_rpc_error(error).code is not Code.SERVER_UNREACHABLE:
                raise
            await asyncio.sleep(0.05)


async def take_part(client: RawClient, rule: str, sealed: Sealed | None = None) -> tuple[Sealed, bytes]:
    """One client's part in round 1, through however many servers it takes; what it sent and was given."""
    plan = await persist(client.plan)
    assert plan.round == 1
    sealed = sealed or client.seal(plan, flat_of(plan, client.name))
    assert sealed.header.payload_bytes == plan.payload_bytes
    await persist(lambda: client.upload(sealed))
    await persist(lambda: client.judge(plan, rules(rule)))
    await persist(lambda: client.reach(1, RoundState.AGGREGATED))
    aggregate = await persist(lambda: client.download(pb.ARTIFACT_KIND_AGGREGATE, 1))
    await persist(lambda: client.confirm(1))
    await persist(lambda: client.reach(1, RoundState.CLOSED))
    return sealed, aggregate


@pytest.fixture(scope="module", params=RULES)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Made once for each rule: the round without any kill."""
    rule = request.param
    folder = make_federation(
        tmp_path_factory.mktemp("reference") / "federation", len(CLIENTS), rule=rule, protect="full"
    )
    untouched = folder.with_name("untouched")
    shutil.copytree(folder, untouched)

    async def hold() -> dict[str, tuple[Sealed, bytes]]:
        async with serving(folder) as live:
            parts = await asyncio.gather(*(take_part(client, rule) for client in live.clients))
            return {client.name: part for client, part in zip(live.clients, parts, strict=True)}

    parts = asyncio.run(hold())
    aggregates = {aggregate for _, aggregate in parts.values()}
    assert len(aggregates) == 1
    return Reference(rule, untouched, {name: sealed for name, (sealed, _) in parts.items()}, aggregates.pop())


def free_port() -> int:
    with closing(socket.socket(socket.AF_INET6)) as probe:
        probe.bind(("::1", 0))
        return int(probe.getsockname()[1])


async def lives(server: Path, port: int, point: str) -> asyncio.subprocess.Process:
    """Two servers that die around the same commit, and one that is left alone."""
    for side in ("before", "after"):
        doomed = await asyncio.create_subprocess_exec(
            sys.executable, str(SCRIPT), str(server), str(port), point, side
        )
        try:
            assert await doomed.wait() == -signal.SIGKILL, f"{side} {point}"
        finally:
            if doomed.returncode is None:
                doomed.kill()
                await doomed.wait()
    return await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), str(server), str(port), "NEVER", "after"
    )


def journalled(server: Path, query: str) -> Any:
    with closing(sqlite3.connect(server / "journal.sqlite")) as db:
        return db.execute(query).fetchone()[0]


@pytest.mark.parametrize(
    ("reference", "point"),
    [*(("ddfed", point) for point in POINTS), *(("even:share=0.25", point) for point in SCREENED_POINTS)],
    indirect=["reference"],
)
async def test_a_killed_server_ends_the_round_with_the_same_aggregate(
    reference: Reference, point: str, tmp_path: Path
) -> None:
    """Killed right before a commit, restarted, killed right after the same commit, restarted.

    The aggregate's bytes equal those of the round nobody disturbed, every update is counted once, and
    whoever downloads statistics before and after gets the same bytes (a ballot names their digest).
    """
    folder = tmp_path / "federation"
    shutil.copytree(reference.folder, folder)
    port = free_port()
    clients = [RawClient(folder, name, f"localhost:{port}") for name in CLIENTS]
    async with asyncio.timeout(DEADLINE_S):
        survivor = asyncio.ensure_future(lives(folder / "server", port, point))
        try:
            parts = await asyncio.gather(
                *(take_part(c, reference.rule, reference.sealed[c.name]) for c in clients)
            )
            process = await survivor
            end = await persist(
                lambda: clients[0].stub.AwaitPlan(pb.AwaitPlanRequest(after_round=1, wait_s=20))
            )
        finally:
            for client in clients:
                await client.close()
            survivor.cancel()
            if survivor.done() and not survivor.cancelled() and not survivor.exception():
                survivor.result().terminate()
                await survivor.result().wait()
    assert process.returncode == 0
    assert {aggregate for _, aggregate in parts} == {reference.aggregate}
    assert end.end.rounds_closed == 1
    server = folder / "server"
    assert journalled(server, "SELECT count(*) FROM acceptances") == len(CLIENTS)
    ballots = len(CLIENTS) * RULES[reference.rule]
    assert journalled(server, "SELECT count(*) FROM ballots") == ballots
    assert journalled(server, "SELECT count(*) FROM rounds") == 1
    digest = journalled(server, "SELECT aggregate_sha256 FROM rounds")
    assert digest == hashlib.sha256(reference.aggregate).digest()
    assert not list((server / "spool/partial").iterdir())
    assert not list((server / "spool/updates").iterdir())
