"""A machine that lacks disk for a while ends no round, and gets no fuller by what is tried."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from served import Serve, flat_of

from defenses import load_rule
from secagg.plan import RoundState


@pytest.mark.parametrize("rule", ["mean", "ddfed"])
async def test_a_stage_repeated_for_want_of_disk_leaves_nothing_behind(serve: Serve, rule: str) -> None:
    """Twice there is no room for statistics or aggregate: both times the scratch folder is empty again, and
    with room the round goes on."""
    async with serve(clients=2, rule=rule, protect="full") as live:
        spool, found = live.server.coordinator.spool, []
        publish, scratch = spool.publish, live.folder / "server/spool/scratch"

        def full_disk(source: Path, target: Path) -> None:
            if target.parent.name not in ("statistics", "aggregates") or len(found) >= 3:
                publish(source, target)
                return
            found.append([path for path in scratch.iterdir() if path != source])
            if len(found) < 3:
                raise OSError(errno.ENOSPC, "no space left")
            publish(source, target)

        spool.publish = full_disk  # type: ignore[method-assign]
        plan = await live.clients[0].plan()
        for seed, client in enumerate(live.clients):
            await client.upload(client.seal(plan, flat_of(plan, seed)))
        if rule == "ddfed":
            await live.clients[0].reach(1, RoundState.SCORED)
            for client in live.clients:
                await client.vote(plan, load_rule(rule))
        answer = await live.clients[0].reach(1, RoundState.AGGREGATED)
        assert answer.state == RoundState.AGGREGATED
        assert len(found) == 3 and len(found[1]) == len(found[2]) == len(found[0])
        assert not list(scratch.iterdir())
